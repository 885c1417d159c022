// Before the first paint: the theme that the reader chose; without a choice the system's.
(() => {
  try {
    const chosen = localStorage.getItem("comfyload-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // A browser that keeps nothing for us: the system's theme.
  }
})();
