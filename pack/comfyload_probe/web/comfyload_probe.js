// The probe's place in ComfyUI's sidebar: registers the tab, and mounts the panel in it while it is open.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { panel } from "./panel.js";
import { watch } from "./watch.js";

const TAB = {
  id: "comfyload.probe",
  icon: "pi pi-wave-pulse",
  title: "Probe",
  tooltip: "comfyload probe: queue, jobs by node, failures and GPU, as this server measures them",
  type: "custom",
};

let mounted = null;

function render(container) {
  // ComfyUI calls this at every redraw of the sidebar, not once.
  if (mounted?.view.root.parentNode === container && !mounted.watching.stopped()) return;
  destroy();
  const view = panel();
  // From one extension's tab to another's, ComfyUI uses the element again and destroys nobody:
  // what the tab before left is cleared away here, and when the next one draws into it, this one goes.
  container.replaceChildren(view.root);
  const company = new MutationObserver(() => {
    if (container.childElementCount > 1 && app.extensionManager.sidebarTab?.activeSidebarTabId !== TAB.id) destroy();
  });
  company.observe(container, { childList: true });
  const watching = watch(view, (options) => api.fetchApi("/comfyload/v1/overview", options));
  mounted = { view, watching, company };
}

function destroy() {
  mounted?.company.disconnect();
  mounted?.watching.stop();
  mounted?.view.root.remove();
  mounted = null;
}

app.registerExtension({
  name: "comfyload.probe",
  async setup() {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("./panel.css", import.meta.url).href;
    document.head.append(style);
    app.extensionManager?.registerSidebarTab?.({ ...TAB, render, destroy });
  },
});
