// Tables sort by the column whose heading is pressed: upwards, downwards, then as they came.
// Where scripts do not run, the page is whole without it.
for (const table of document.querySelectorAll(".table table")) {
  const headings = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  if (rows.length < 2) continue;
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = {null: "ascending", ascending: "descending", descending: null};
      const order = next[heading.getAttribute("aria-sort")];
      headings.forEach(other => other.removeAttribute("aria-sort"));
      if (order) heading.setAttribute("aria-sort", order);
      table.tBodies[0].append(...(order ? sorted(rows, column, order) : rows));
    });
  });
}

// Numbers by value, other cells by their text, and what has no number last in both directions.
function sorted(rows, column, order) {
  const sign = order === "ascending" ? 1 : -1;
  const numeric = rows.some(row => row.cells[column].dataset.value);
  const value = row => numeric ? parseFloat(row.cells[column].dataset.value)
    : row.cells[column].textContent.trim();
  return [...rows].sort((first, second) => {
    const [a, b] = [value(first), value(second)];
    if (!numeric) return sign * a.localeCompare(b, "en", {numeric: true});
    if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
    return sign * (a - b);
  });
}
