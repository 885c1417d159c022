"use strict";
(() => {
  const config = JSON.parse(document.getElementById("chart-config").textContent);
  const failed = [];
  window.chartsFailed = failed;

  function sized(spec, width, panel) {
    const legend = { ...config.legend, columns: Math.max(1, Math.floor(width / 170)) };
    const out = { ...spec, config: { ...config, legend } };
    if (spec.vconcat) out.vconcat = spec.vconcat.map((view) => ({ ...view, width: Math.max(100, panel) }));
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
    if (!width || Math.abs(width - (plot.drawn || 0)) < 8) return;
    plot.drawn = width;
    const spec = JSON.parse(document.getElementById(plot.dataset.spec).textContent);
    const controls = document.getElementById(plot.dataset.controls);
    let panel = width - 80;
    plot.view = await embed(plot, sized(spec, width, panel), controls);
    // Panels on top of each other cannot be fitted; how wide labels made them is seen once they are drawn.
    const over = plot.querySelector("svg").width.baseVal.value - width;
    if (spec.vconcat && Math.abs(over) > 2) {
      panel -= over;
      plot.view = await embed(plot, sized(spec, width, panel), controls);
    }
  }

  async function drawAll() {
    for (const plot of document.querySelectorAll(".plot")) {
      try { await draw(plot); } catch (error) { failed.push(String(error)); console.error(error); }
    }
    document.documentElement.dataset.drawn = "yes";
  }

  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
  window.addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details.print")) part.open = true; });
  drawAll();
})();
