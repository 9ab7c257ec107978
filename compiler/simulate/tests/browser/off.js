// Shows the page in a frame whose scripts are off, and counts what can be read there.

const frame = document.createElement("iframe");
frame.setAttribute("sandbox", "allow-same-origin");
frame.width = 1200;
frame.height = 900;
const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
frame.srcdoc = JSON.parse($("#page").textContent);
document.body.append(frame);
await loaded;
const inside = frame.contentDocument;
const visible = (selector) =>
  [...inside.querySelectorAll(selector)].filter((e) => e.getBoundingClientRect().height > 0).length;
return {
  rows: visible("#numbers tbody tr"),
  events: visible("details.events summary"),
  notes: visible("noscript p"),
  drawings: visible(".drawn"),
  buttons: visible("button"),
};
