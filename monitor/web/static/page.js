// The page works without this. With it, what is new appears by itself: the server says that
// something has changed, and what differs in the middle is put in the place of what was there.
"use strict";
(() => {
	const main = document.getElementById("main");
	const status = document.getElementById("live");
	const pause = document.getElementById("pause");
	if (!main || !pause || !window.EventSource) return;
	const say = (text) => { if (status.textContent !== text) status.textContent = text; };
	const missed = "Something has changed. Reload to see it.";
	let fetching = false, again = false, source, retry;

	// Whoever writes, or has marked something, is left alone.
	const busy = () => {
		const at = document.activeElement, marked = document.getSelection();
		return at && main.contains(at) && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName) ||
			[...main.querySelectorAll("textarea")].some((t) => t.value !== t.defaultValue) ||
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
		let fresh = 0;
		for (const e of main.querySelectorAll("[data-id]")) if (had.size && !had.has(e.dataset.id)) { e.classList.add("fresh"); fresh++; }
		say(fresh ? fresh + " new" : "");
	};

	const refresh = async () => {
		if (fetching) { again = true; return; }
		if (busy()) { say(missed); return; }
		fetching = true;
		try {
			const r = await fetch(location.href, { redirect: "error" });
			if (r.ok) {
				const next = new DOMParser().parseFromString(await r.text(), "text/html").getElementById("main");
				if (busy()) say(missed); else if (next) put(next);
			} else lost();
		} catch { lost(); }
		fetching = false;
		if (again) { again = false; refresh(); }
	};

	// A page that looks alive and is not would be taken for calm.
	const lost = () => {
		say("Not live: the server does not answer, or you are not logged in any more. It is tried again.");
		stop();
		retry = setTimeout(() => { listen(); }, 15000);
	};
	const stop = () => { clearTimeout(retry); source?.close(); source = undefined; };
	const listen = () => {
		stop();
		let broken = false;
		source = new EventSource("/events");
		source.addEventListener("open", () => { if (broken || status.textContent.startsWith("Not live")) { broken = false; say(""); refresh(); } });
		source.addEventListener("change", refresh);
		source.addEventListener("error", () => { broken = true; if (source?.readyState === EventSource.CLOSED) lost(); });
	};
	const paused = () => sessionStorage.getItem("paused") === "yes";
	const show = () => {
		pause.textContent = paused() ? "Resume updates" : "Pause updates";
		if (paused() || document.hidden) stop(); else listen();
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
