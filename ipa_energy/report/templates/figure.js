"use strict";
(() => {
  const source = report.source;
  const narrow = window.matchMedia("(max-width: 640px)");
  // The browser lays a page out for paper only after it has announced it: A4 and Letter hold this.
  const PAPER_PX = 680;
  const byKey = Object.fromEntries(source.figures.map((figure) => [figure.key, figure]));
  const place = (key) => document.getElementById("plot-" + key);

  function palette(printing) {
    const style = getComputedStyle(document.documentElement);
    const named = source.colors[report.isDark() && !printing ? "dark" : "light"];
    const own = (name) => style.getPropertyValue("--" + name).trim();
    if (printing) {
      return { ...named, page: "#fff", text: "#000", muted: "#555", faint: "rgba(0,0,0,0.12)", line: "#ccc" };
    }
    return { ...named, page: own("page"), text: own("text"), muted: own("muted"), faint: own("faint"), line: own("line") };
  }

  // Colours are written "@name"; only keys of colours are looked at, never a user's text.
  function colored(node, colors, key) {
    if (Array.isArray(node)) return key === "color" || typeof node[0] === "object" ? node.map((item) => colored(item, colors, key)) : node;
    if (node !== null && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, colored(value, colors, name)]));
    }
    if (typeof node === "string" && node[0] === "@" && /color$/.test(key || "")) {
      const [name, pale] = node.slice(1).split("-");
      return colors[name] ? colors[name] + (pale ? "73" : "") : node;
    }
    return node;
  }

  function escaped(text) {
    return text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
  }

  // The configuration in force at each point of a run's line, for its hover.
  function texts(trace) {
    const run = source.configurations[trace.meta.run];
    let index = 0;
    return trace.x.map((time) => {
      while (index + 1 < run.starts.length && run.starts[index + 1] <= time) index += 1;
      const label = run.labels.length ? escaped(run.labels[index]).replace(/ \| /g, "<br>") : "";
      return label + "<br><i>" + escaped(run.origin) + "</i>";
    });
  }
  for (const figure of source.figures) {
    for (const trace of figure.data) if (trace.meta && trace.meta.run !== undefined && !trace.text) trace.text = texts(trace);
  }

  function plain(text) {
    const area = document.createElement("textarea");
    area.innerHTML = text.replace(/<br>/g, " ");
    return area.value;
  }

  const measure = document.createElement("canvas").getContext("2d");
  function legendRows(figure, width) {
    measure.font = "12.5px " + getComputedStyle(document.body).fontFamily;
    const shown = figure.data.filter((trace) => trace.showlegend !== false);
    if (figure.data.length < 2) return 0;
    const widest = Math.max(0, ...shown.map((trace) => measure.measureText(plain(trace.name)).width)) + 46;
    const room = width - 75 - (figure.layout.coloraxis ? 75 : 0);
    return Math.ceil(shown.length / Math.max(1, Math.floor(room / widest)));
  }

  function axis(given, colors) {
    return {
      gridcolor: colors.line, linecolor: colors.line, zeroline: false, ticks: "", automargin: true, tickfont: { size: 12 },
      ...given, title: { font: { size: 12, color: colors.muted }, standoff: 8, ...given.title },
    };
  }

  function layout(figure, colors, height) {
    const small = narrow.matches;
    const result = {
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colors.text },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height,
      margin: small ? { l: 44, r: 8, t: 8, b: 40 } : { l: 58, r: 14, t: 8, b: 44 },
      hovermode: "closest", dragmode: small ? false : "zoom",
      hoverlabel: { bgcolor: colors.page, bordercolor: colors.line, font: { color: colors.text, size: 12 }, align: "left", namelength: -1 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colors.muted, activecolor: colors.text },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", traceorder: "normal", font: { size: small ? 11 : 12 } },
      ...colored(figure.layout, colors),
    };
    for (const [name, given] of Object.entries(result)) if (/^[xy]axis\d*$/.test(name)) result[name] = axis(given, colors);
    if (result.coloraxis) {
      const own = Array.isArray(result.coloraxis.colorscale);
      const steps = Object.keys(colors).filter((name) => /^value\d+$/.test(name)).length - 1;
      if (!own) result.coloraxis.colorscale = Array.from({ length: steps + 1 }, (_, step) => [step / steps, colors["value" + step]]);
      const bar = result.coloraxis.colorbar;
      result.coloraxis = {
        ...result.coloraxis,
        colorbar: { ...bar, title: { ...bar.title, side: "right", font: { size: 12, color: colors.muted } }, thickness: small ? 8 : 11, len: result.scene ? 0.6 : 1, outlinewidth: 0, tickfont: { size: 11 }, ...(small ? { title: { ...bar.title, side: "right", font: { size: 11, color: colors.muted } } } : {}) },
      };
    }
    if (result.scene) {
      const scene = { ...result.scene, dragmode: "orbit" };
      for (const name of ["xaxis", "yaxis", "zaxis"]) {
        scene[name] = { gridcolor: colors.line, zerolinecolor: colors.line, showbackground: false, tickfont: { size: 11, color: colors.muted }, showspikes: false, nticks: 5, ...scene[name], title: { font: { size: 12, color: colors.text }, ...scene[name].title } };
      }
      // A narrow page needs more distance for the axes' titles to stay inside.
      if (small) scene.camera = { ...scene.camera, eye: Object.fromEntries(Object.entries(scene.camera.eye).map(([name, value]) => [name, 1.55 * value])) };
      result.scene = scene;
      result.margin = { l: 0, r: 0, t: 0, b: 0 };
    }
    return result;
  }

  function drawOne(figure, printing) {
    const at = place(figure.key);
    const is3d = figure.layout.scene !== undefined;
    const onScreen = at.parentElement.clientWidth;
    const width = printing && !is3d ? PAPER_PX : onScreen || 600;
    // The third dimension takes a new size with the next frame, which paper does not wait for.
    at.style.zoom = printing && is3d ? Math.min(1, PAPER_PX / width) : "";
    at.style.width = printing ? width + "px" : "";
    const colors = palette(printing);
    const beyond = Math.max(0, legendRows(figure, width) - 1);
    const wanted = Number(at.dataset.height);
    const height = (is3d ? Math.min(wanted, 1.1 * width) : printing ? 0.8 * wanted : wanted) + 20 * beyond;
    at.style.height = height + "px";
    const given = { ...layout(figure, colors, height), width: printing ? width : undefined, autosize: !printing };
    // What a reader turned or hid stays so when the theme changes.
    const was = at._fullLayout;
    if (was && was.scene && given.scene) given.scene.camera = was.scene.camera;
    const data = colored(figure.data, colors);
    data.forEach((trace, index) => { if (at.data && at.data[index]) trace.visible = at.data[index].visible; });
    const done = Plotly.react(at, data, given, {
      responsive: true, displaylogo: false, displayModeBar: narrow.matches ? false : "hover",
      modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "resetCameraLastSave3d", "tableRotation", "hoverClosest3d"],
    });
    if (printing) at._fullLayout.scene?._scene?.glplot.redraw();
    return done;
  }

  let drawn = 0;
  function drawAll(printing) {
    for (const figure of source.figures) drawOne(figure, printing === true);
    drawn = source.figures.length;
    document.documentElement.dataset.drawn = drawn;
  }

  // One figure at a time, so that the page scrolls and answers from the first one on.
  async function drawFirst() {
    for (const figure of source.figures) {
      if (drawn === source.figures.length) return;
      await drawOne(figure, false);
      drawn += 1;
      document.documentElement.dataset.drawn = drawn;
      performance.mark("figure-" + drawn);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }

  function along(trace, path) {
    return path.split(".").reduce((node, name) => (node === undefined ? undefined : node[name]), trace);
  }

  function rowsOf(figure) {
    const titles = [...new Set(figure.columns.flat().map(([title]) => title))];
    const rows = [];
    figure.data.forEach((trace, index) => {
      const columns = new Map(figure.columns[index].map(([title, path]) => [title, along(trace, path)]));
      // What is one text for the whole mark stands in each of its rows.
      const lists = Array.from(columns.values()).filter(Array.isArray);
      const count = Math.max(0, ...lists.map((values) => values.length));
      for (let row = 0; row < count; row += 1) {
        const cells = titles.map((title) => {
          const column = columns.get(title);
          const value = Array.isArray(column) ? column[row] : column;
          return value === null || value === undefined ? "" : typeof value === "string" ? plain(value) : value;
        });
        // A mark that only explains the legend has no numbers.
        if (cells.some((cell, at) => cell !== "" && titles[at] !== "joules")) rows.push([plain(trace.name), ...cells]);
      }
    });
    return { titles: ["series", ...titles], rows };
  }

  function csv(figure) {
    const { titles, rows } = rowsOf(figure);
    const quoted = (value) => (/[",\n\r]/.test(String(value)) ? '"' + String(value).replace(/"/g, '""') + '"' : String(value));
    return [titles, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  }

  function download(text, name, kind) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function save(button) {
    const figure = byKey[button.dataset.figure];
    const format = button.dataset.format;
    if (format === "csv") return download(csv(figure), figure.key + ".csv", "text/csv");
    // Files are for paper: white behind, dark text, whatever the page looks like.
    const at = place(figure.key);
    const colors = palette(true);
    const shown = { ...layout(figure, colors, undefined), paper_bgcolor: "#fff", width: at.clientWidth };
    if (at._fullLayout && at._fullLayout.scene) shown.scene.camera = at._fullLayout.scene.camera;
    shown.title = { text: escaped(button.closest("figure").querySelector("h3").textContent), x: 0.01, xanchor: "left", y: 0.99, yanchor: "top", yref: "container", font: { size: 14 } };
    shown.margin = { ...shown.margin, t: 44, b: (shown.margin.b || 0) + 16 };
    shown.annotations = [{ text: figure.footnote, showarrow: false, x: 0, y: 0, xref: "paper", yref: "paper", xanchor: "left", yanchor: "top", yshift: shown.scene ? 4 : -46, font: { size: 10, color: colors.muted } }];
    // What the page tells in a table stands in the legend of a file.
    const data = colored(figure.data, colors).map((trace) => (trace.meta && trace.meta.told ? { ...trace, showlegend: true } : trace));
    const beyond = legendRows({ ...figure, data }, at.clientWidth) - legendRows(figure, at.clientWidth);
    return Plotly.downloadImage({ data, layout: shown }, { format, filename: figure.key, width: at.clientWidth, height: at.clientHeight + 52 + 20 * beyond, scale: format === "png" ? 2 : 1 });
  }
  for (const button of document.querySelectorAll(".save")) button.addEventListener("click", () => save(button));

  function fill(details) {
    const { titles, rows } = rowsOf(byKey[details.dataset.figure]);
    const cell = (kind, text) => {
      const made = document.createElement(kind);
      made.textContent = text;
      if (kind === "th") made.scope = "col";
      return made;
    };
    const line = (kind, values) => {
      const made = document.createElement("tr");
      made.append(...values.map((value) => cell(kind, value)));
      return made;
    };
    const table = document.createElement("table");
    table.createTHead().append(line("th", titles));
    table.createTBody().append(...rows.map((row) => line("td", row)));
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    scroll.append(table);
    details.append(scroll);
  }
  for (const details of document.querySelectorAll(".numbers")) details.addEventListener("toggle", () => fill(details), { once: true });

  async function start() {
    // Words and tables first; a tab in the background has no frames to wait for.
    await new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve, 0)); setTimeout(resolve, 200); });
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    report.onTheme(() => drawAll());
    narrow.addEventListener("change", () => drawAll());
    window.addEventListener("beforeprint", () => drawAll(true));
    window.addEventListener("afterprint", () => drawAll());
    await drawFirst();
  }
  start().catch((error) => {
    console.error(error);
    for (const at of document.querySelectorAll(".plot")) at.textContent = "This browser cannot draw the figures (" + error + "); their numbers are below.";
  });
})();
