// The page works without this. With it, what is new appears by itself: the server says that
// something has changed, and the part in the middle is fetched again.
"use strict";
(() => {
	const main = document.getElementById("main");
	const status = document.getElementById("live");
	if (!main || !window.EventSource) return;
	let fetching = false, again = false;
	const busy = () => {
		const at = document.activeElement;
		return at && main.contains(at) && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName) || [...main.querySelectorAll("textarea")].some((t) => t.value !== t.defaultValue);
	};
	const refresh = async () => {
		if (fetching) { again = true; return; }
		if (busy()) { status.textContent = "Something has changed. Reload to see it."; return; }
		fetching = true;
		try {
			const r = await fetch(location.href, { headers: { "Sec-Sigwarden-Part": "main" }, redirect: "error" });
			if (r.ok && !busy()) {
				const next = new DOMParser().parseFromString(await r.text(), "text/html").getElementById("main");
				if (next) {
					const had = new Set([...main.querySelectorAll("[data-id]")].map((e) => e.dataset.id));
					const focused = document.activeElement && document.activeElement.id;
					main.replaceChildren(...next.childNodes);
					let fresh = 0;
					for (const e of main.querySelectorAll("[data-id]")) if (had.size && !had.has(e.dataset.id)) { e.classList.add("fresh"); fresh++; }
					if (focused) document.getElementById(focused)?.focus();
					if (fresh) status.textContent = fresh + " new";
				}
			}
		} catch { /* the next event tries again */ }
		fetching = false;
		if (again) { again = false; refresh(); }
	};
	let source;
	const listen = () => {
		source = new EventSource("/events");
		source.addEventListener("change", refresh);
	};
	document.addEventListener("visibilitychange", () => {
		if (document.hidden) source?.close(); else { listen(); refresh(); }
	});
	if (!document.hidden) listen();
})();
