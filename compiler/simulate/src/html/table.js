// The table of numbers: a click on a title sorts by it, another one turns the order round.

const numbers = document.getElementById("numbers");
const titles = [...numbers.tHead.rows[1].cells];

const compare = (a, b) => {
  const [x, y] = [a, b].map((cell) => cell.dataset.value);
  return isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
};

titles.forEach((title, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...title.childNodes);
  title.append(button);
  button.addEventListener("click", () => {
    const down = title.getAttribute("aria-sort") === "ascending";
    for (const other of titles) other.removeAttribute("aria-sort");
    title.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = numbers.tBodies[0];
    const rows = [...body.rows];
    rows.sort((a, b) => (down ? -1 : 1) * compare(a.cells[column], b.cells[column]));
    body.append(...rows);
  });
});
