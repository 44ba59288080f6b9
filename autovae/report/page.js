"use strict";
// Tables sort by a click on a heading; the leaderboard filters by text and by choice. The page reads well without this.
(() => {
  const keyOf = (cell, numeric) => {
    if (!numeric) return cell.textContent.trim().toLowerCase();
    return cell.dataset.value === undefined ? Infinity : Number(cell.dataset.value);
  };
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        const numeric = head.classList.contains("number");
        const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[column], numeric), row]);
        rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1));
        table.tBodies[0].append(...rows.map(([, row]) => row));
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
      });
    });
  }
  for (const tools of document.querySelectorAll(".tools[data-table]")) {
    tools.hidden = false;
    const table = document.getElementById(tools.dataset.table);
    const fields = [...tools.querySelectorAll("input, select")];
    const shown = tools.querySelector("output");
    const update = () => {
      let count = 0;
      for (const row of table.tBodies[0].rows) {
        const fits = fields.every((field) => {
          const wanted = field.value.trim().toLowerCase();
          if (!wanted) return true;
          if (field.tagName === "SELECT") {
            return row.cells[Number(field.dataset.column)].textContent.trim().toLowerCase() === wanted;
          }
          return wanted.split(/\s+/).every((word) => row.textContent.toLowerCase().includes(word));
        });
        row.hidden = !fits;
        count += fits;
      }
      shown.textContent = `${count} of ${table.tBodies[0].rows.length} trials shown`;
    };
    fields.forEach((field) => field.addEventListener("input", update));
    update();
  }
})();
