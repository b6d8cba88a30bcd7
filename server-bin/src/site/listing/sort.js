"use strict";
const table = document.querySelector("table");
const rows = table.tBodies[table.tBodies.length - 1];
const heads = [...table.tHead.rows[0].cells];
const names = new Intl.Collator(undefined, { numeric: true });
const key = (row, column) => Number(row.cells[column].dataset.key);
const by = [
  (a, b) => (key(a, 1) < 0 ? 0 : 1) - (key(b, 1) < 0 ? 0 : 1)
    || names.compare(a.cells[0].textContent, b.cells[0].textContent),
  (a, b) => key(a, 1) - key(b, 1),
  (a, b) => key(a, 2) - key(b, 2),
];
heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const isAscending = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
    const sign = isAscending ? 1 : -1;
    rows.append(...[...rows.rows].sort((a, b) => sign * by[column](a, b)));
  });
});
