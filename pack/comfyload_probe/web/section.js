// What every part of the panel looks like: a name, a remark, and what is measured.

import { h } from "./dom.js";

/** A part of the panel: its name, a remark at the right, what is measured as a tooltip. */
export function section(name, measured, ...children) {
  const remark = h("span", { class: "clp-remark" });
  const heading = h("h3", { title: measured }, h("span", {}, name), remark);
  return { root: h("section", { class: "clp-section" }, heading, ...children), remark };
}
