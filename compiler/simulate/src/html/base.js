// What every drawing uses: the data, figures as figures.rs writes them, SVG elements, axes, and the
// box that shows numbers.

const { report, derived } = JSON.parse(document.getElementById("data").textContent);
const policies = report.policies.map((policy, at) => ({ ...policy, ...derived[at] }));

for (const part of document.querySelectorAll(".drawn")) part.hidden = false;

// ---- figures ----

const count = (value) =>
  Math.abs(value) < 10 && Math.abs(value % 1) >= 0.05
    ? value.toFixed(1)
    : Math.round(value).toLocaleString("en-US");

const scaled = (value, units) => {
  const [scale, name] = units.find(([scale]) => value >= scale * 0.9995) ?? units.at(-1);
  const number = value / scale;
  const decimals = number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;
  return `${Number(number.toFixed(decimals))} ${name}`;
};
const TIMES = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];
const time = (ns) => scaled(ns, TIMES);
const bytes = (value) => scaled(value, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]]);
const signed = (ns) => (ns === 0 ? "0" : (ns < 0 ? "−" : "+") + time(Math.abs(ns)));

// ---- elements ----

const put = (parent, element, attributes, text) => {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
};
const svg = (parent, name, attributes = {}, text) =>
  put(parent, document.createElementNS("http://www.w3.org/2000/svg", name), attributes, text);
const html = (parent, name, attributes = {}, text) =>
  put(parent, document.createElement(name), attributes, text);

/** An empty drawing in place of what `parent` holds. */
const drawing = (parent, width, height, attributes) => {
  parent.replaceChildren();
  return svg(parent, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, ...attributes });
};

/** Calls `draw` now, and again whenever the element gets another width. */
const drawAtWidth = (element, draw) => {
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    draw();
  }).observe(element);
  width = element.clientWidth;
  draw();
};

/** A sample of a mark with what it means, in the line below a drawing. */
const key = (parent, text, mark) => {
  const item = html(parent, "span");
  mark(svg(item, "svg", { width: 26, height: 14, "aria-hidden": "true" }));
  html(item, "span", {}, text);
};

/** Radio buttons; `choose` is called with the value of the one that was chosen. */
const radios = (parent, name, choices, chosen, choose) => {
  for (const [value, text] of choices) {
    const label = html(parent, "label");
    const input = html(label, "input", { type: "radio", name, value });
    input.checked = value === chosen;
    input.addEventListener("change", () => choose(value));
    label.append(` ${text}`);
  }
};

// ---- axes ----

/** Powers of ten from the one at or below `least` to the one at or above `most`. */
const decades = (least, most) => {
  const first = Math.floor(Math.log10(least) + 1e-9);
  const last = Math.max(first + 1, Math.ceil(Math.log10(most) - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, at) => 10 ** (first + at));
};

/** Round numbers between `from` and `to`, about `wanted` of them. */
const rounds = (from, to, wanted) => {
  const rough = (to - from) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.ceil(from / step - 1e-9);
  const last = Math.floor(to / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, at) => (first + at) * step);
};

// ---- the box with numbers ----

const tip = document.getElementById("tip");
const hideTip = () => { tip.hidden = true; };
const showTip = (text, x, y) => {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth - width - 8;
  tip.style.left = `${Math.max(8, Math.min(x + 14, room))}px`;
  tip.style.top = `${y + 18 + height > window.innerHeight ? Math.max(8, y - height - 12) : y + 18}px`;
};
/** Shows `text()` while the pointer is on the element, or while it has the focus. */
const explain = (element, text) => {
  element.addEventListener("pointermove", (event) => showTip(text(), event.clientX, event.clientY));
  element.addEventListener("pointerleave", hideTip);
  element.addEventListener("focus", () => {
    const box = element.getBoundingClientRect();
    showTip(text(), box.right, box.bottom);
  });
  element.addEventListener("blur", hideTip);
};
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
