// The page works without this. With it, what is new appears by itself: the server says that
// something has changed, and what differs in the middle is put in the place of what was there.
"use strict";
(() => {
	const main = document.getElementById("main");
	const status = document.getElementById("live");
	const pause = document.getElementById("pause");
	// What a form has answered is not to be had again, and neither is why there is no page.
	if (!main || "still" in main.dataset || !pause || !window.EventSource) return;
	const say = (text) => { if (status.textContent !== text) status.textContent = text; };
	const missed = "Something has changed. Reload to see it.";
	let fetching, again = false, source, retry;

	const paused = () => sessionStorage.getItem("paused") === "yes";
	const quiet = () => paused() || document.hidden;
	const changed = (e) => e.tagName === "SELECT" ? e.selectedIndex !== Math.max(0, [...e.options].findIndex((o) => o.defaultSelected)) : e.value !== e.defaultValue;

	// Whoever writes, chooses, or has marked something is left alone.
	const busy = () => {
		const at = document.activeElement, marked = document.getSelection();
		return at && main.contains(at) && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName) ||
			[...main.querySelectorAll("textarea, select, input:not([type=hidden])")].some(changed) ||
			marked && !marked.isCollapsed && main.contains(marked.anchorNode);
	};
	const ids = () => new Set([...main.querySelectorAll("[data-id]")].map((e) => e.dataset.id));

	const put = (next) => {
		// What is open stays open, and what is the same stays where it is.
		const open = new Set([...main.querySelectorAll("details[open] > summary")].map((s) => s.textContent));
		for (const s of next.querySelectorAll("details > summary")) if (open.has(s.textContent)) s.parentElement.open = true;
		for (const e of main.querySelectorAll(".fresh")) { e.classList.remove("fresh"); if (!e.className) e.removeAttribute("class"); }
		const had = ids(), at = document.activeElement;
		const was = [...main.children], is = [...next.children];
		if (was.length === is.length) is.forEach((e, i) => { if (!was[i].isEqualNode(e)) was[i].replaceWith(e); });
		else main.replaceChildren(...is);
		if (at && !main.contains(at) && at !== document.body && !document.contains(at)) {
			const like = at.id ? document.getElementById(at.id) : at.getAttribute("href") && [...main.querySelectorAll("a")].find((a) => a.getAttribute("href") === at.getAttribute("href"));
			(like || main).focus({ preventScroll: true });
		}
		if (next.dataset.mark !== undefined) main.dataset.mark = next.dataset.mark;
		let fresh = 0;
		for (const e of main.querySelectorAll("[data-id]")) if (had.size && !had.has(e.dataset.id)) { e.classList.add("fresh"); fresh++; }
		say(fresh ? fresh + " new" : "");
	};

	const refresh = async () => {
		if (quiet()) return;
		if (fetching) { again = true; return; }
		if (busy()) { say(missed); return; }
		const mine = fetching = new AbortController();
		try {
			const r = await fetch(location.href, { redirect: "error", signal: mine.signal });
			const next = r.ok && new DOMParser().parseFromString(await r.text(), "text/html").getElementById("main");
			if (mine.signal.aborted) return;
			if (!next) lost(); else if (busy()) say(missed); else put(next);
		} catch { if (!mine.signal.aborted) lost(); }
		if (fetching === mine) fetching = undefined;
		if (again) { again = false; refresh(); }
	};

	// A page that looks alive and is not would be taken for calm.
	const lost = () => {
		say("Not live: the server does not answer, or you are not logged in any more. It is tried again.");
		stop();
		if (!quiet()) retry = setTimeout(() => { if (!quiet()) listen(); }, 15000);
	};
	const stop = () => { clearTimeout(retry); source?.close(); source = undefined; fetching?.abort(); fetching = undefined; again = false; };
	const listen = () => {
		stop();
		let broken = false;
		source = new EventSource("/events");
		source.addEventListener("open", () => { if (broken || status.textContent.startsWith("Not live")) { broken = false; say(""); refresh(); } });
		source.addEventListener("change", refresh);
		// What has changed since this page was made, and before anybody listened.
		source.addEventListener("mark", (e) => { if (main.dataset.mark !== undefined && JSON.parse(e.data) !== main.dataset.mark) refresh(); });
		source.addEventListener("error", () => { broken = true; if (source?.readyState === EventSource.CLOSED) lost(); });
	};
	const show = () => {
		pause.textContent = paused() ? "Resume updates" : "Pause updates";
		if (quiet()) stop(); else listen();
	};
	pause.hidden = false;
	pause.addEventListener("click", () => {
		sessionStorage.setItem("paused", paused() ? "no" : "yes");
		show();
		if (!paused()) refresh();
	});
	document.addEventListener("visibilitychange", () => { show(); if (!document.hidden && !paused()) refresh(); });
	show();
})();
