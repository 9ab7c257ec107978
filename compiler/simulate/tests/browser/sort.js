// Sorts the table, up and down.

const titles = [...$("#numbers").tHead.rows[1].cells];
const column = titles.findIndex((t) => t.textContent === "syncs");
const order = () => [...$("#numbers").tBodies[0].rows].map((row) => row.cells[column].dataset.value);
const click = () => { titles[column].querySelector("button").click(); return order(); };
return { up: click(), sorted: titles[column].getAttribute("aria-sort"), down: click() };
