// Updates an open page: fetches the page again every few seconds, and replaces the elements with data-live.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.refresh);
  if (!seconds) return;
  const stale = document.getElementById("stale");
  const pause = document.getElementById("pause");
  const clock = () => new Date().toISOString().slice(11, 19);
  let updated = clock();
  let paused = false;

  // Replaces the content of an element by that of the new page. If a link in it has the focus, the new link
  // with the same address gets the focus.
  const replace = (part, fresh) => {
    const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    part.className = fresh.className;
    part.replaceChildren(...fresh.childNodes);
    if (focused === null) return;
    const again = [...part.querySelectorAll("a[href]")].find((link) => link.getAttribute("href") === focused);
    if (again) again.focus({ preventScroll: true });
  };

  // Whether the user has selected text in an element; a replacement would remove the selection.
  const isSelecting = (part) => {
    const selection = getSelection();
    return selection !== null && !selection.isCollapsed && selection.containsNode(part, true);
  };

  const update = async () => {
    if (paused || document.hidden) return;
    let page;
    try {
      const answer = await fetch(location.href, {
        cache: "no-store",
        credentials: "same-origin",
        signal: AbortSignal.timeout(15000),
      });
      if (answer.status === 401) {
        location.reload(); // the session has ended: show how to log in
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      page = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      if (!paused) stale.textContent = `No update since ${updated}: ringfence does not answer.`;
      return;
    }
    if (paused) return; // the user paused while the answer was on its way
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(part.id);
      if (fresh && fresh.innerHTML !== part.innerHTML && !isSelecting(part)) replace(part, fresh);
    }
    updated = clock();
    if (stale.textContent) stale.textContent = "";
  };

  const tick = async () => {
    await update();
    setTimeout(tick, seconds * 1000);
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    stale.textContent = paused ? `Updates are paused since ${clock()}.` : "";
  });
  setTimeout(tick, seconds * 1000);
})();
