"use strict";
(() => {
  const config = JSON.parse(document.getElementById("chart-config").textContent);
  const failed = [];
  window.chartsFailed = failed;

  // Panels next to or above each other cannot be fitted by Vega: each is given its width, the labels' added.
  function widened(view, width) {
    if (view.vconcat) return { ...view, vconcat: view.vconcat.map((inner) => widened(inner, width)) };
    return { ...view, width: Math.max(50, width) };
  }

  function sized(spec, width, panel) {
    const legend = { ...config.legend, columns: Math.max(1, Math.floor(width / 170)) };
    const out = { ...spec, config: { ...config, legend } };
    if (spec.hconcat) out.hconcat = spec.hconcat.map((view) => widened(view, panel / spec.hconcat.length));
    else if (spec.vconcat) Object.assign(out, widened(spec, panel));
    else Object.assign(out, { width, autosize: { type: "fit-x", contains: "padding" } });
    return out;
  }

  function embed(plot, spec, controls) {
    controls.textContent = "";
    if (plot.view) plot.view.finalize();
    return window.vegaEmbed(plot, spec, {
      ast: true, renderer: "svg", actions: false, defaultStyle: false, logLevel: 1, bind: controls, tooltip: { disableDefaultStyle: true },
    });
  }

  async function draw(plot) {
    const width = Math.floor(plot.clientWidth);
    if (plot.closest("details:not([open])") || !width || Math.abs(width - (plot.drawn || 0)) < 8) return;
    plot.drawn = width;
    const spec = JSON.parse(document.getElementById(plot.dataset.spec).textContent);
    const controls = document.getElementById(plot.dataset.controls);
    let panel = width - 80 * (spec.hconcat ? spec.hconcat.length : 1);
    plot.view = await embed(plot, sized(spec, width, panel), controls);
    // How wide labels made the panels is known once they are drawn.
    const over = plot.querySelector("svg").width.baseVal.value - width;
    if ((spec.vconcat || spec.hconcat) && Math.abs(over) > 2) {
      panel -= over;
      plot.view = await embed(plot, sized(spec, width, panel), controls);
    }
  }

  // A chart in a closed part is drawn when the part is opened.
  async function drawAll() {
    for (const plot of document.querySelectorAll(".plot")) {
      try { await draw(plot); } catch (error) { failed.push(String(error)); console.error(error); }
    }
    document.documentElement.dataset.drawn = "yes";
  }

  function openTarget() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  }

  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
  window.addEventListener("hashchange", openTarget);
  for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", drawAll);
  openTarget();
  drawAll();
})();
