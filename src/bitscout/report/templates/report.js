(() => {
  "use strict";
  const charts = JSON.parse(document.getElementById("bitscout-charts").textContent);
  const narrow = () => window.innerWidth < 736;

  // Colours come as names of CSS variables; see chart_style.py.
  const coloured = (value, style) => {
    if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
    return value;
  };

  // Plotly's own listener misses what changes the page's width but not the window's.
  const resizes = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries)
      if (contentRect.width && Math.abs(contentRect.width - target._fullLayout.width) >= 1)
        Plotly.relayout(target, { autosize: true });
  });

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const family = getComputedStyle(document.body).fontFamily;
    for (const [name, chart] of Object.entries(charts)) {
      const element = document.getElementById(`chart-${name}`);
      // What is folded has no size; it is drawn when it is opened.
      if (!element || element.closest("details:not([open])")) continue;
      const { data, layout } = coloured(chart, style);
      const ink = style.getPropertyValue("--ink").trim();
      const page = style.getPropertyValue("--page").trim();
      Object.assign(layout, {
        paper_bgcolor: page, plot_bgcolor: page, autosize: true,
        font: { family, size: 13, color: ink },
        hoverlabel: { bgcolor: page, bordercolor: ink, font: { family, size: 13, color: ink }, align: "left" },
        // A finger scrolls the page; it must not be caught by the chart.
        dragmode: narrow() ? false : "zoom",
      });
      Plotly.react(element, data, layout, { displaylogo: false, displayModeBar: false });
      resizes.observe(element);
    }
  };
  draw();
  for (const details of document.querySelectorAll("details"))
    details.addEventListener("toggle", () => { if (details.open && details.querySelector(".chart")) draw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
