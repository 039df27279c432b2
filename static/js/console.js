// Optional comfort. Every page works with this file missing.
"use strict";
{
  const root = document.documentElement;
  const modes = matchMedia("(prefers-color-scheme: dark)").matches ? ["auto", "light", "dark"] : ["auto", "dark", "light"];

  // Same attribute and storage key as the Django admin, so both follow one switch.
  const setTheme = (mode) => {
    root.dataset.theme = mode;
    localStorage.setItem("theme", mode);
    document.cookie = `theme=${mode}; path=/; max-age=31536000; samesite=lax`;
  };
  const stored = localStorage.getItem("theme");
  if (modes.includes(stored)) root.dataset.theme = stored;

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-theme-toggle], [data-copy], [aria-disabled='true']");
    if (!target) return;
    if (target.matches("[aria-disabled='true']")) event.preventDefault();
    else if (target.matches("[data-theme-toggle]")) { event.preventDefault(); setTheme(modes[(modes.indexOf(root.dataset.theme || "auto") + 1) % 3]); }
    else { event.preventDefault(); navigator.clipboard.writeText(target.dataset.copy).then(() => announce("Copied")); }
  });

  const announce = (words) => { const region = document.getElementById("announce"); if (region) region.textContent = words; };

  // After a page load or a swap: a refusal or an error summary takes the focus; nothing else may.
  const trouble = ".errors, [data-refusal]";
  document.querySelector(trouble)?.focus();
  document.addEventListener("htmx:afterSettle", ({ detail: { elt } }) => (elt.matches(trouble) ? elt : elt.querySelector(trouble))?.focus());
  // An error page has nothing of what it was asked for: the page stays as it is, with what was typed, and says so.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { requestConfig, xhr } = event.detail;
    const wanted = requestConfig.elt.closest("[hx-select]")?.getAttribute("hx-select")?.slice(1);
    if (xhr.status < 400 || (wanted && xhr.responseText.includes(`id="${wanted}"`))) return;
    event.detail.shouldSwap = false;
    root.toggleAttribute("data-offline", true);
  });
  document.addEventListener("htmx:sendError", () => root.toggleAttribute("data-offline", true));
  document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) root.removeAttribute("data-offline"); });

  document.addEventListener("keydown", (event) => {
    const find = document.getElementById("find");
    if ((event.ctrlKey || event.metaKey) && event.key === "k" && find?.checkVisibility()) { event.preventDefault(); find.focus(); }
  });

  // Remaining time is rendered by the server; this only keeps the words true between polls.
  const tick = () => document.querySelectorAll("[data-until]").forEach((node) => {
    const minutes = Math.max(0, Math.floor((Date.parse(node.dataset.until) - Date.now()) / 60000));
    node.textContent = minutes >= 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min left` : minutes ? `${minutes} min left` : "less than a minute left";
  });
  setInterval(tick, 30000);
}
