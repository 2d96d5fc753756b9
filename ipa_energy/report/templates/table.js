"use strict";
const report = (() => {
  function shown(cell) {
    return (cell.querySelector(".value, .name") || cell).textContent.trim();
  }

  function key(cell) {
    if (cell.dataset.key !== undefined) return Number(cell.dataset.key);
    const text = shown(cell).replace("−", "-");
    const value = Number(text);
    return Number.isNaN(value) || text === "" ? text.toLowerCase() : value;
  }

  // Numbers first, then words; what is not known stays last whichever way it is sorted.
  function order(x, y, sign) {
    const absent = (value) => value === "–" || value === "";
    if (absent(x) || absent(y)) return absent(x) - absent(y);
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return sign * (x < y ? -1 : x > y ? 1 : 0);
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    const unsorted = Array.from(body.rows);
    table.tHead.addEventListener("click", (event) => {
      const head = event.target.closest("th");
      if (!head) return;
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", next);
      const rows = unsorted.slice();
      const sign = next === "descending" ? -1 : 1;
      if (next !== "none") rows.sort((a, b) => order(key(a.cells[head.cellIndex]), key(b.cells[head.cellIndex]), sign));
      body.append(...rows);
    });
  }

  function tsv(table) {
    const heads = Array.from(table.tHead.rows[0].cells, (cell) => {
      const unit = cell.querySelector(".unit");
      const title = cell.textContent.trim();
      return unit ? title.slice(0, -unit.textContent.length) + " (" + unit.textContent + ")" : title;
    });
    const plain = (text) => text.replace(/[\t\n\r]+/g, " ").replace(/^−/, "-");
    const rows = Array.from(table.tBodies[0].rows, (row) => Array.from(row.cells, (cell) => plain(shown(cell))));
    return [heads, ...rows].map((line) => line.join("\t")).join("\n") + "\n";
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A file opened from disk may have no clipboard of the newer kind.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  for (const table of document.querySelectorAll("main > section table")) makeSortable(table);

  // Phones hide scroll bars: what lies beyond the edge has to be said.
  const scrolls = document.querySelectorAll(".table .scroll");
  function hint() {
    for (const scroll of scrolls) scroll.classList.toggle("more", scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft > 8);
  }
  for (const scroll of scrolls) scroll.addEventListener("scroll", hint, { passive: true });
  window.addEventListener("resize", hint);
  hint();
  for (const button of document.querySelectorAll(".copy")) {
    const words = button.textContent;
    button.addEventListener("click", async () => {
      await copy(tsv(document.getElementById(button.dataset.table)));
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = words; }, 1500);
    });
  }

  const source = JSON.parse(document.getElementById("data").textContent);
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const listeners = [];

  function show() {
    const colors = source.colors[isDark() ? "dark" : "light"];
    document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
    for (const swatch of document.querySelectorAll(".swatch")) swatch.style.stroke = colors[swatch.dataset.color];
    for (const listener of listeners) listener();
  }
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  prefersDark.addEventListener("change", show);
  show();

  return { source, isDark, onTheme: (listener) => listeners.push(listener) };
})();
