// Keeps an open page up to date: the server sends the parts of it that changed. Without this the page is whole, but as of
// when it was loaded.
"use strict";

(() => {
  const main = document.querySelector("[data-live]");
  const status = document.getElementById("live");
  if (!main || !window.EventSource) return;

  let stream = null;
  const say = (words) => { if (status && status.textContent !== words) status.textContent = words; };

  // What was focused, scrolled or opened stays so.
  const replace = (id, html) => {
    const part = document.getElementById(id);
    if (!part) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = Array.from(part.querySelectorAll(".scroll"), (box) => box.scrollLeft);
    part.innerHTML = html;
    part.querySelectorAll(".scroll").forEach((box, at) => { box.scrollLeft = scrolled[at] || 0; });
    const again = focused && document.getElementById(focused);
    if (again) again.focus({ preventScroll: true });
  };

  const stop = () => { if (stream) stream.close(); stream = null; };

  const start = () => {
    stop();
    stream = new EventSource(main.dataset.live);
    stream.addEventListener("open", () => say("Live"));
    stream.addEventListener("error", () => {
      const over = !stream || stream.readyState === EventSource.CLOSED;
      say(over ? "Not live: load the page again" : "Not live: no connection; trying again");
    });
    stream.addEventListener("change", (event) => {
      for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html);
    });
    stream.addEventListener("end", () => { stop(); say("Not live: load the page again"); });
  };

  // A browser has few connections to one server: a page that nobody sees keeps none.
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else start(); });
  window.addEventListener("pagehide", stop);
  if (!document.hidden) start();
})();
