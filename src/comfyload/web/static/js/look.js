// Dark or light: the reader's choice, or else the system's.
import { computed, signal } from "./ui.js";

const system = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(system.matches);
const chosen = signal(document.documentElement.dataset.theme ?? "");
system.addEventListener("change", () => {
  systemDark.value = system.matches;
});

export const dark = computed(() => (chosen.value ? chosen.value === "dark" : systemDark.value));

export function turnTheme() {
  chosen.value = dark.value ? "light" : "dark";
  document.documentElement.dataset.theme = chosen.value;
  try {
    localStorage.setItem("comfyload-theme", chosen.value);
  } catch {
    // Kept for this page only.
  }
}
