"use strict";
(() => {
  const source = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 640px)");

  function theme(printing) {
    const style = getComputedStyle(document.documentElement);
    const named = source.colors[dark.matches && !printing ? "dark" : "light"];
    const own = (name) => style.getPropertyValue("--" + name).trim();
    if (printing) {
      return { ...named, page: "#fff", text: "#000", muted: "#555", faint: "rgba(0,0,0,0.12)", line: "#ccc" };
    }
    return { ...named, page: own("page"), text: own("text"), muted: own("muted"), faint: own("faint"), line: own("line") };
  }

  // Colours are written "@name" in the data; only keys of colours are looked at, never a user's text.
  function colored(node, colors, key) {
    if (Array.isArray(node)) return key === "colors" ? node.map((item) => colored(item, colors, "color")) : node.map((item) => (typeof item === "object" && item !== null ? colored(item, colors) : item));
    if (node !== null && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, colored(value, colors, name)]));
    }
    if (typeof node === "string" && node[0] === "@" && /color$/.test(key || "")) return colors[node.slice(1)] || node;
    return node;
  }

  function escaped(text) {
    return text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
  }

  // The configuration in force at each point of a run's line, for its hover.
  function texts(trace) {
    const run = source.steps[trace.meta.run];
    let index = 0;
    return trace.x.map((time) => {
      while (index + 1 < run.starts.length && run.starts[index + 1] <= time) index += 1;
      const label = run.labels.length ? escaped(run.labels[index]).replace(/ \| /g, "<br>") : "";
      return label + "<br><i>" + escaped(run.origin) + "</i>";
    });
  }
  for (const figure of source.figures) {
    for (const trace of figure.data) if (trace.meta && !trace.text) trace.text = texts(trace);
  }

  function layout(figure, colors) {
    const axis = {
      gridcolor: colors.line, linecolor: colors.line, zeroline: false, ticks: "", automargin: true,
      titlefont: { size: 12 }, tickfont: { size: 12 },
    };
    const result = {
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colors.text },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: narrow.matches ? { l: 44, r: 6, t: 8, b: 40 } : { l: 58, r: 12, t: 8, b: 44 },
      hovermode: "closest", dragmode: narrow.matches ? false : "zoom",
      hoverlabel: { bgcolor: colors.page, bordercolor: colors.line, font: { color: colors.text, size: 12 }, align: "left", namelength: -1 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colors.muted, activecolor: colors.text },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
      ...colored(figure.layout, colors),
    };
    for (const name of ["xaxis", "yaxis", "yaxis2", "yaxis3"]) {
      if (figure.layout[name]) {
        const given = colored(figure.layout[name], colors);
        result[name] = { ...axis, ...given };
        if (given.title) result[name].title = { font: { size: 12, color: colors.muted }, standoff: 8, ...given.title };
        delete result[name].titlefont;
      }
    }
    return result;
  }

  function draw(printing) {
    const colors = theme(printing === true);
    for (const dot of document.querySelectorAll(".dot")) dot.style.background = colors[dot.dataset.color];
    for (const figure of source.figures) {
      const place = document.getElementById("plot-" + figure.key);
      Plotly.react(place, colored(figure.data, colors), layout(figure, colors), {
        responsive: true, displaylogo: false, displayModeBar: narrow.matches ? false : "hover",
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
        toImageButtonOptions: { format: "svg", filename: figure.key },
      });
    }
  }
  draw();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", draw);

  const table = document.getElementById("metrics");
  const body = table.tBodies[0];
  const unsorted = Array.from(body.rows);
  const shown = (cell) => (cell.querySelector(".value, .name") || cell).textContent.trim();
  const key = (cell) => {
    const text = shown(cell).replace("−", "-");
    const value = Number(text);
    return Number.isNaN(value) || text === "" ? text.toLowerCase() : value;
  };
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", next);
    const sign = next === "descending" ? -1 : 1;
    const rows = unsorted.slice();
    if (next !== "none") {
      rows.sort((a, b) => {
        const [x, y] = [key(a.cells[head.cellIndex]), key(b.cells[head.cellIndex])];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      });
    }
    body.append(...rows);
  });

  const copy = document.getElementById("copy");
  copy.addEventListener("click", async () => {
    const heads = Array.from(table.tHead.rows[0].cells, (cell) => {
      const unit = cell.querySelector(".unit");
      const title = cell.textContent.trim();
      return unit ? title.slice(0, -unit.textContent.length) + " (" + unit.textContent + ")" : title;
    });
    const lines = [heads, ...Array.from(body.rows, (row) => Array.from(row.cells, (cell) => shown(cell).replace(/[\t\n]+/g, " ")))];
    const text = lines.map((line) => line.join("\t")).join("\n") + "\n";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy as TSV"; }, 1500);
  });
})();
