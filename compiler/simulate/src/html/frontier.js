// The frontier: throughput to the right, the worst loss upwards, a point for each policy.

const RATES = {
  commands: { text: "commands", of: (p) => p.commands_per_second },
  calls: { text: "sync calls", of: (p) => p.calls_per_second },
};
const UNITS = {
  syncs: { text: "syncs", title: "acknowledged syncs lost", show: count },
  commands: { text: "commands", title: "acknowledged commands lost", show: count },
  seen: { text: "commands that clients have seen", title: "lost commands whose clients had their replies", show: count },
  bytes: { text: "bytes", title: "acknowledged bytes lost", show: bytes },
  age_ns: { text: "age", title: "age of the oldest loss", show: time },
};
/** Units that need clients whose commands are known. */
const OF_CLIENTS = ["commands", "seen"];
const withCommands = policies.length > 0 && policies.every((p) => p.commands_per_second !== null);
const chosen = { unit: "syncs", rate: withCommands ? "commands" : "calls" };

/** A proved bound as a number; none if it is not known. */
const proved = (policy, unit) => {
  const bound = policy.proved_bounds?.[unit];
  return bound === undefined ? null : bound === "unbounded" ? Infinity : bound.at;
};

/** Whether a simulated crash loses more than was proved. */
const isExceeded = (policy, unit) => {
  const bound = proved(policy, unit);
  return bound !== null && policy.loss.worst[unit] > bound;
};
const WHY_EXCEEDED = "a sync of this device takes longer than the policy assumes";

/** Whether another policy is as good in both, and better in one. */
const beaten = (point, points) =>
  points.some((other) =>
    other.rate >= point.rate && other.loss <= point.loss
      && (other.rate > point.rate || other.loss < point.loss));

/** The vertical axis: a band for zero, powers of ten, a band for what has no bound. */
const lossAxis = (points, top, bottom) => {
  const values = points.flatMap((p) => [p.loss, p.bound]).filter((v) => v !== null);
  const finite = values.filter((v) => v > 0 && v < Infinity);
  const ticks = decades(Math.min(...finite, finite.length ? Infinity : 1), Math.max(...finite, 1));
  const unbounded = values.includes(Infinity);
  const band = 30;
  const [upper, lower] = [top + (unbounded ? band : 0), bottom - band];
  const span = Math.log10(ticks.at(-1) / ticks[0]);
  const y = (value) => {
    if (value === Infinity) return top + band / 2;
    if (value <= 0) return bottom - band / 2;
    return lower - ((lower - upper) * Math.log10(value / ticks[0])) / span;
  };
  return { y, ticks, unbounded, upper, lower, band };
};

const overlap = (a, b) =>
  Math.max(0, Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x))
    * Math.max(0, Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y));

/** Where a label may stand: beside its point, then further and further away. */
const places = (x, y, w, h) => {
  const list = [];
  for (const far of [0, 16, 32, 48, 64]) {
    for (const [side, left] of [[1, x + 10], [-1, x - 10 - w], [0, x - w / 2]]) {
      for (const up of side === 0 ? [-h / 2 - 9 - far, h / 2 + 9 + far] : [-far, far]) {
        list.push({ x: left, y: y + up - h / 2, w, h, far });
      }
    }
  }
  return list;
};

/** Small boxes along a line. */
const along = (from, to) => {
  const [x, y] = [to.x - from.x, to.y - from.y];
  const steps = Math.ceil(Math.hypot(x, y) / 6);
  return Array.from({ length: steps }, (_, at) => (
    { x: from.x + (x * at) / steps - 2, y: from.y + (y * at) / steps - 2, w: 4, h: 4, cost: 2 }
  ));
};

/** Places each label where it covers least; nudged ones get a line to their point. */
const label = (picture, points, marks, area) => {
  const taken = [];
  for (const point of points) {
    const text = svg(picture, "text", { class: "label halo" }, point.policy.label);
    const [w, h] = [text.getComputedTextLength() + 4, 16];
    const cost = (place) =>
      20 * taken.reduce((sum, other) => sum + overlap(place, other), 0)
        + marks.reduce((sum, mark) => sum + mark.cost * overlap(place, mark), 0)
        + 100 * (w * h - overlap(place, area)) + 2 * place.far;
    let best = null;
    for (const place of places(point.x, point.y, w, h)) {
      const costs = cost(place);
      if (best === null || costs < best.costs) best = { place, costs };
    }
    const { place } = best;
    taken.push(place);
    text.setAttribute("x", place.x + 2);
    text.setAttribute("y", place.y + h - 4);
    if (place.far > 0) {
      const x2 = Math.max(place.x, Math.min(point.x, place.x + w));
      const y2 = Math.max(place.y, Math.min(point.y, place.y + h));
      svg(picture, "line", { class: "leader", x1: point.x, y1: point.y, x2, y2 });
    }
  }
};

/** What the box says of a policy. */
const numbersOf = (p) => {
  const lines = [p.label];
  const rate = `${count(p.calls_per_second)} sync calls`;
  const commands = p.commands_per_second;
  lines.push(`${commands === null ? "" : `${count(commands)} commands, `}${rate} a second`);
  const { worst } = p.loss;
  const lost = Object.keys(UNITS)
    .filter((unit) => !OF_CLIENTS.includes(unit) || commands !== null)
    .map((unit) => (unit === "age_ns" ? `${time(worst[unit])} old`
      : unit === "bytes" ? bytes(worst[unit]) : `${count(worst[unit])} ${UNITS[unit].text}`));
  lines.push(`the worst crash loses ${lost.join(", ")}`);
  lines.push(`proved: ${p.proved?.text ?? "not known"}`);
  const over = Object.keys(UNITS).filter((unit) => isExceeded(p, unit)).map((unit) => UNITS[unit].text);
  if (over.length > 0) lines.push(`more than proved in ${over.join(", ")}: ${WHY_EXCEEDED}`);
  lines.push(`a sync call takes ${time(p.latency.p50_ns)}, one in a hundred ${time(p.latency.p99_ns)}`);
  return lines.join("\n");
};

const MARKS = {
  best: (parent, x, y) => svg(parent, "circle", { class: "best", cx: x, cy: y, r: 6 }),
  beaten: (parent, x, y) =>
    svg(parent, "rect", { class: "beaten", x: x - 5, y: y - 5, width: 10, height: 10 }),
  bound: (parent, x, y) =>
    svg(parent, "path", { class: "bound", d: `M${x - 5} ${y}l5 -5l5 5l-5 5z` }),
  exceeded: (parent, x, y) =>
    svg(parent, "path", { class: "bound exceeded", d: `M${x - 5} ${y}l5 -5l5 5l-5 5z` }),
};

const drawFrontier = () => {
  const place = document.getElementById("frontier");
  const width = Math.max(280, place.clientWidth);
  const height = Math.max(340, Math.min(520, width * 0.6));
  const unit = UNITS[chosen.unit];
  const rate = RATES[chosen.rate];
  // The names of the axes stand side by side where there is room, else one above the other.
  const narrow = width < 560;
  const below = narrow ? 62 : 44;
  const area = { x: 78, y: 8, w: width - 78 - 18, h: height - 8 - below };
  const [right, bottom] = [area.x + area.w, area.y + area.h];
  const points = policies.map((policy) => ({
    policy,
    rate: rate.of(policy),
    loss: policy.loss.worst[chosen.unit],
    bound: proved(policy, chosen.unit),
  }));
  const picture = drawing(place, width, height, {
    role: "group",
    "aria-label": `Worst loss in ${unit.text} against throughput; the table below has all numbers`,
  });
  if (points.length === 0) return;

  const axis = lossAxis(points, area.y, bottom);
  const most = Math.max(...points.map((p) => p.rate), 1) * 1.08;
  const x = (value) => area.x + (area.w * value) / most;
  const bands = [[bottom - axis.band, "nothing"]];
  if (axis.unbounded) bands.push([area.y, "unbounded"]);
  for (const [y, text] of bands) {
    svg(picture, "rect", { class: "band", x: area.x, y, width: area.w, height: axis.band });
    svg(picture, "text", { class: "axis", x: area.x - 6, y: y + 19, "text-anchor": "end" }, text);
  }
  for (const tick of axis.ticks) {
    const y = axis.y(tick);
    svg(picture, "line", { class: "grid", x1: area.x, x2: right, y1: y, y2: y });
    const text = { class: "axis", x: area.x - 6, y: y + 4, "text-anchor": "end" };
    svg(picture, "text", text, unit.show(tick));
  }
  for (const tick of rounds(0, most, width / 110)) {
    svg(picture, "line", { class: "grid", x1: x(tick), x2: x(tick), y1: area.y, y2: bottom });
    const text = { class: "axis", x: x(tick), y: bottom + 16, "text-anchor": "middle" };
    svg(picture, "text", text, count(tick));
  }
  const name = { class: "axis", x: right, y: bottom + 36, "text-anchor": "end" };
  svg(picture, "text", name, `${rate.text} per second →`);
  const up = { ...name, x: narrow ? 4 : area.x, y: bottom + below - 8, "text-anchor": "start" };
  svg(picture, "text", up, `↑ ${unit.title}`);

  for (const point of points) {
    point.x = x(point.rate);
    point.y = axis.y(point.loss);
    point.best = !beaten(point, points);
  }
  const line = points.filter((p) => p.best).sort((a, b) => a.rate - b.rate || a.loss - b.loss);
  svg(picture, "polyline", { class: "stairs", points: line.map((p) => `${p.x},${p.y}`).join(" ") });

  const marks = points.map((p) => ({ x: p.x - 8, y: p.y - 8, w: 16, h: 16, cost: 6 }));
  line.slice(1).forEach((end, at) => marks.push(...along(line[at], end)));
  for (const point of points) {
    if (point.bound === null || point.bound === point.loss) continue;
    const top = axis.y(point.bound);
    svg(picture, "line", { class: "whisker", x1: point.x, x2: point.x, y1: point.y, y2: top });
    MARKS[point.bound < point.loss ? "exceeded" : "bound"](picture, point.x, top);
    marks.push({ x: point.x - 2, y: Math.min(top, point.y), w: 4, h: Math.abs(point.y - top), cost: 3 });
    marks.push({ x: point.x - 7, y: top - 7, w: 14, h: 14, cost: 6 });
  }
  for (const point of points) {
    const shows = point.policy.timeline.length > 0;
    const text = numbersOf(point.policy) + (shows ? "\nclick to see its worst crash" : "");
    const dot = svg(picture, "g", {
      class: "point", tabindex: 0, role: shows ? "button" : "img",
      "aria-label": text.replaceAll("\n", "; "),
    });
    MARKS[point.best ? "best" : "beaten"](dot, point.x, point.y);
    svg(dot, "circle", { class: "ring", cx: point.x, cy: point.y, r: 10 });
    explain(dot, () => text);
    if (!shows) continue;
    const choose = () => {
      choosePolicy(policies.indexOf(point.policy));
      document.getElementById("timeline-title").scrollIntoView();
      policySelect.focus({ preventScroll: true });
    };
    dot.addEventListener("click", choose);
    dot.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose();
    });
  }
  label(picture, points, marks, area);
};

const unitChoices = Object.entries(UNITS).filter(([unit]) => !OF_CLIENTS.includes(unit) || withCommands);
const rateChoices = Object.entries(RATES).filter(([rate]) => rate !== "commands" || withCommands);
const texts = (choices) => choices.map(([value, { text }]) => [value, text]);
radios(document.getElementById("unit-choice"), "unit", texts(unitChoices), chosen.unit, (unit) => {
  chosen.unit = unit;
  drawFrontier();
});
radios(document.getElementById("rate-choice"), "rate", texts(rateChoices), chosen.rate, (rate) => {
  chosen.rate = rate;
  drawFrontier();
});

const frontierKey = document.getElementById("frontier-key");
key(frontierKey, "worst simulated crash, no other policy is better in both", (s) => {
  svg(s, "line", { class: "stairs", x1: 0, x2: 26, y1: 7, y2: 7 });
  MARKS.best(s, 13, 7);
});
key(frontierKey, "worst simulated crash, another policy is better", (s) => MARKS.beaten(s, 13, 7));
key(frontierKey, "proved: no crash loses more", (s) => MARKS.bound(s, 13, 7));
if (policies.some((p) => Object.keys(UNITS).some((unit) => isExceeded(p, unit)))) {
  key(frontierKey, `proved, and exceeded: ${WHY_EXCEEDED}`, (s) => MARKS.exceeded(s, 13, 7));
}

drawAtWidth(document.getElementById("frontier"), drawFrontier);
