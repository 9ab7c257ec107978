// How long sync calls take: a small histogram for each policy, all on one logarithmic axis.

const durations = policies.flatMap((p) => p.latency.histogram.map(([upper]) => upper));
const [least, longest] = [Math.max(1, Math.min(...durations)), Math.max(...durations, 10)];
const LATENCY_TICKS = decades(Number.isFinite(least) ? least * 0.8 : 1, longest);

const drawHistogram = (place, policy) => {
  const width = Math.max(200, place.clientWidth);
  const area = { x: 4, y: 50, w: width - 8, h: 64 };
  const bottom = area.y + area.h;
  const { latency } = policy;
  const total = latency.histogram.reduce((sum, [, calls]) => sum + calls, 0);
  const marks = [["p50", latency.p50_ns], ["p99", latency.p99_ns], ["p99.9", latency.p999_ns]];
  const picture = drawing(place, width, bottom + 20, {
    role: "img",
    class: "histogram",
    "aria-label": `${policy.label}: ${marks.map(([name, ns]) => `${name} ${time(ns)}`).join(", ")}`,
  });
  const [first, last] = [LATENCY_TICKS[0], LATENCY_TICKS.at(-1)];
  const x = (ns) => area.x + (area.w * Math.log10(Math.max(ns, first) / first)) / Math.log10(last / first);

  // On a narrow drawing, only every second name or so has room.
  const every = Math.ceil((LATENCY_TICKS.length * 50) / area.w);
  for (const [at, tick] of LATENCY_TICKS.entries()) {
    svg(picture, "line", { class: "grid", x1: x(tick), x2: x(tick), y1: area.y, y2: bottom });
    if (at % every !== 0) continue;
    const anchor = tick === first ? "start" : tick === last ? "end" : "middle";
    svg(picture, "text", { class: "axis", x: x(tick), y: bottom + 15, "text-anchor": anchor }, time(tick));
  }
  svg(picture, "line", { class: "grid", x1: area.x, x2: area.x + area.w, y1: bottom, y2: bottom });
  const most = Math.max(...latency.histogram.map(([, calls]) => calls), 1);
  for (const [upper, calls] of latency.histogram) {
    // A range is an eighth of its beginning wide.
    const [from, to] = [x((upper * 8) / 9), x(upper)];
    const height = Math.max(1.5, (area.h * calls) / most);
    const bar = svg(picture, "rect", {
      class: "bar", x: from, y: bottom - height, width: Math.max(1, to - from - 0.5), height,
    });
    const share = `${Number(((100 * calls) / total).toPrecision(2))} %`;
    explain(bar, () => `up to ${time(upper)}: ${count(calls)} calls, ${share}`);
  }
  // A mark whose text does not fit beside the others' stands a line higher.
  const ends = [-1, -1, -1];
  const lines = svg(picture, "g");
  for (const [name, ns] of marks) {
    const text = svg(picture, "text", { class: "halo", "text-anchor": "middle" }, `${name} ${time(ns)}`);
    const half = text.getComputedTextLength() / 2 + 3;
    const middle = Math.max(half, Math.min(x(ns), width - half));
    const row = ends.findIndex((end) => end <= middle - half);
    ends[row] = middle + half;
    const y = area.y - 5 - 15 * row;
    text.setAttribute("x", middle);
    text.setAttribute("y", y);
    svg(lines, "line", { class: "mark", x1: x(ns), x2: x(ns), y1: y + 3, y2: bottom });
  }
};

const latencies = document.getElementById("latency");
for (const policy of policies) {
  const figure = html(latencies, "div");
  html(figure, "h3", {}, policy.label);
  const place = html(figure, "div");
  drawAtWidth(place, () => drawHistogram(place, policy));
}
