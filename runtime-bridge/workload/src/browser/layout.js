// Shows the page in a frame WIDTH pixels wide, and tells what of it is cut off or written over something else.

const frame = document.createElement("iframe");
Object.assign(frame, { width: WIDTH, height: 900, srcdoc: JSON.parse($("#page").textContent) });
frame.style.border = "0";
const loaded = new Promise((done) => frame.addEventListener("load", done));
document.body.append(frame);
await loaded;
const page = frame.contentDocument;
const inside = (selector, of = page) => [...of.querySelectorAll(selector)];
// What was folded away has to fit, too. Drawings follow their width once it is known.
for (const folded of inside("details")) folded.open = true;
const settled = () => new Promise((done) => setTimeout(done, 100));
await settled();

const found = [];
const shown = (element) => element.getClientRects().length > 0 && !element.hidden;
const name = (element) => {
  const text = element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
  return `${element.localName}${element.id ? `#${element.id}` : ""} "${text}"`;
};
const common = (a, b, from, to) => Math.min(a[to], b[to]) - Math.max(a[from], b[from]);

const look = (when) => {
  const { clientWidth, scrollWidth } = page.documentElement;
  if (scrollWidth > clientWidth) found.push(`${when}: the page is ${scrollWidth} px wide in ${clientWidth}`);
  for (const element of inside("main *, header *").filter(shown)) {
    const clipped = element.closest("thead, .events .wide") && element.localName !== "table";
    if (element.closest("svg svg, defs, clipPath, pattern") || clipped) continue;
    const { right, left, width } = element.getBoundingClientRect();
    if (width > 2 && !element.closest("g[clip-path]") && (right > clientWidth + 1 || left < -1)) {
      found.push(`${when}: ${name(element)} is at ${Math.round(left)}..${Math.round(right)} of ${clientWidth} px`);
    }
  }
  for (const wide of inside(".wide").filter(shown)) {
    if (wide.scrollWidth > wide.clientWidth + 1) {
      found.push(`${when}: ${name(wide)} is cut off: ${wide.scrollWidth} px in ${wide.clientWidth}`);
    }
  }
  for (const svg of inside("svg").filter(shown)) {
    const box = svg.getBoundingClientRect();
    const texts = inside("text.axis", svg).map((text) => ({ text, box: text.getBoundingClientRect() }));
    texts.forEach(({ text, box: a }, at) => {
      if (a.right > box.right + 1 || a.left < box.left - 1) found.push(`${when}: ${name(text)} leaves its drawing`);
      for (const { text: other, box: b } of texts.slice(at + 1)) {
        if (common(a, b, "left", "right") > 1 && common(a, b, "top", "bottom") > 3) {
          found.push(`${when}: ${name(text)} and ${name(other)} overlap`);
        }
      }
    });
  }
};

const units = inside("input[name=unit]");
if (units.length === 0) look("as it opens");
for (const unit of units) {
  unit.click();
  await settled();
  look(unit.value);
}
return { found, tables: inside("table").filter(shown).length, drawings: inside("svg").filter(shown).length };
