// What happened around the worst crash of a policy: a lane for the application, one for the engine,
// one for the disk. Times count from the crash.

const LANES = ["application", "engine", "disk"];
const ROW = 20;
const MOST_ROWS = 12;
const NARROWEST_NS = 100;
const shown = { policy: -1, events: [], rows: {}, whole: [0, 1], view: [0, 1], area: { x: 0, w: 1 } };
const timelineAt = document.getElementById("timeline");
const policySelect = document.getElementById("timeline-policy");

/** Gives each event the first row of its lane that is free; the last row takes the rest. */
const stack = (events) => {
  const rows = {};
  for (const lane of LANES) {
    const ends = [];
    for (const event of events.filter((e) => e.lane === lane)) {
      const free = ends.findIndex((end) => end <= event.start);
      event.row = free >= 0 ? free : Math.min(ends.length, MOST_ROWS - 1);
      ends[event.row] = Math.max(event.end, ends[event.row] ?? event.end);
    }
    rows[lane] = Math.max(1, ends.length);
  }
  return rows;
};

const choosePolicy = (at) => {
  const policy = policies[at];
  if (!policy?.timeline.length) return;
  const crash = policy.loss.worst_instant;
  const origin = crash?.t_ns ?? policy.timeline[0].start_ns;
  const lost = new Set(policy.lost);
  const events = policy.timeline.map((event, index) => ({
    ...event, start: event.start_ns - origin, end: event.end_ns - origin, lost: lost.has(index),
  }));
  const from = Math.min(0, ...events.map((e) => e.start));
  const to = Math.max(0, ...events.map((e) => e.end));
  const margin = Math.max(NARROWEST_NS, (to - from) * 0.02);
  const whole = [from - margin, to + margin];
  Object.assign(shown, { policy: at, events, rows: stack(events), whole, view: whole });
  policySelect.value = at;
  document.getElementById("timeline-text").textContent = describe(policy, crash);
  for (const table of document.querySelectorAll(".events")) {
    table.hidden = table.dataset.policy !== String(at);
  }
  hideTip();
  drawTimeline();
};

const describe = (policy, crash) => {
  if (!crash) return "No crash of this policy loses anything. Times count from the first event shown.";
  const { syncs } = policy.loss.worst;
  const hidden = syncs - policy.lost.length;
  const more = hidden > 0 ? `, ${count(hidden)} of them from before what is shown` : "";
  const calls = syncs === 1 ? "call" : "calls";
  return `${time(crash.t_ns)} after the beginning, at event ${count(crash.event)}: ${crash.text}. `
    + `A crash here loses ${count(syncs)} acknowledged sync ${calls}${more}.`;
};

const tell = (event) => {
  const long = event.end - event.start;
  const when = long === 0 ? `at ${signed(event.start)}` : `${signed(event.start)}, for ${time(long)}`;
  return `${event.text}\n${when}${event.lost ? "\nacknowledged, and lost in the crash" : ""}`;
};

/** A bar; what takes no time is a thin one. */
const drawEvent = (picture, event, x, y, area) => {
  const [from, to] = [x(event.start), x(event.end)];
  if (to < area.x || from > area.x + area.w) return;
  // What is no call, and takes no time, is a write: it stands lower than a call.
  const write = event.lane === "application" && event.call === 0;
  const left = Math.max(from, area.x - 4);
  const width = Math.max(write ? 2 : 4, Math.min(to, area.x + area.w + 4) - left);
  const [top, height] = write ? [y + 6, ROW - 12] : [y + 2, ROW - 4];
  const names = `event ${event.lane}${event.lost ? " lost" : ""}`;
  const bar = svg(picture, "rect", { class: names, x: left, y: top, width, height });
  explain(bar, () => tell(event));
  if (width < 60 || event.lost) return;
  const room = Math.min(to, area.x + area.w) - Math.max(from, area.x) - 8;
  const text = svg(picture, "text", { class: "inside", x: Math.max(from, area.x) + 4, y: y + 14 }, event.text);
  if (text.getComputedTextLength() > room) text.remove();
};

const drawTimeline = () => {
  const width = Math.max(280, timelineAt.clientWidth);
  const left = width < 600 ? 4 : 86;
  const area = { x: left, y: 18, w: width - left - 8 };
  shown.area = area;
  const heading = width < 600 ? 18 : 6;
  let bottom = area.y;
  const tops = {};
  for (const lane of LANES) {
    tops[lane] = bottom + heading;
    bottom += heading + shown.rows[lane] * ROW + 6;
  }
  // The element stays, and with it the focus and a drag.
  const picture = timelineAt.querySelector("svg")
    ?? svg(timelineAt, "svg", { tabindex: 0, role: "group", "aria-roledescription": "timeline" });
  picture.replaceChildren();
  const [from, to] = shown.view;
  const policy = policies[shown.policy];
  const view = `${signed(from)} to ${signed(to)}, ${time(to - from)}`;
  for (const [name, value] of Object.entries({
    width, height: bottom + 40, viewBox: `0 0 ${width} ${bottom + 40}`,
    "aria-label": `${policy.label}, ${view}; the table below has the events`,
    "data-from": from, "data-to": to,
  })) picture.setAttribute(name, value);
  document.getElementById("timeline-view").textContent = view;

  const defs = svg(picture, "defs");
  const hatch = { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" };
  const pattern = svg(defs, "pattern", { ...hatch, patternTransform: "rotate(45)" });
  svg(pattern, "rect", { class: "hatch", x: -2, y: -2, width: 5, height: 10 });
  const clip = svg(svg(defs, "clipPath", { id: "lanes" }), "rect");
  for (const [name, value] of Object.entries({ x: area.x, y: 0, width: area.w, height: bottom })) {
    clip.setAttribute(name, value);
  }

  const x = (ns) => area.x + (area.w * (ns - from)) / (to - from);
  const [scale, unit] = TIMES.find(([scale]) => to - from >= 2 * scale) ?? TIMES.at(-1);
  for (const tick of rounds(from / scale, to / scale, width / 100)) {
    const at = x(tick * scale);
    svg(picture, "line", { class: "grid", x1: at, x2: at, y1: area.y, y2: bottom });
    const text = `${Number(tick.toPrecision(12))}`.replace("-", "−");
    const anchor = at > area.x + area.w - 10 ? "end" : "middle";
    svg(picture, "text", { class: "axis", x: at, y: bottom + 15, "text-anchor": anchor }, text);
  }
  const origin = policy.loss.worst_instant ? "the crash" : "the first event";
  const title = { class: "axis", x: area.x + area.w, y: bottom + 33, "text-anchor": "end" };
  svg(picture, "text", title, `${unit} from ${origin} →`);

  const lanes = svg(picture, "g", { "clip-path": "url(#lanes)" });
  for (const lane of LANES) {
    const y = tops[lane] - heading;
    svg(picture, "line", { class: "grid", x1: 0, x2: width, y1: y, y2: y });
    svg(picture, "text", { class: "axis", x: 2, y: y + (width < 600 ? 14 : 20) }, lane);
    for (const event of shown.events.filter((e) => e.lane === lane)) {
      drawEvent(lanes, event, x, tops[lane] + event.row * ROW, area);
    }
  }
  svg(picture, "line", { class: "grid", x1: 0, x2: width, y1: bottom, y2: bottom });
  if (policy.loss.worst_instant && from <= 0 && to >= 0) {
    const at = x(0);
    svg(lanes, "rect", { class: "after", x: at, y: area.y, width: area.x + area.w - at, height: bottom - area.y });
    svg(lanes, "line", { class: "crash", x1: at, x2: at, y1: area.y - 4, y2: bottom });
    const middle = Math.max(area.x + 20, Math.min(at, area.x + area.w - 20));
    svg(picture, "text", { class: "halo", x: middle, y: 12, "text-anchor": "middle" }, "crash");
  }
};

// ---- the view ----

/** Shows `width` nanoseconds from `from` on, as far as there is something. */
const look = (from, width) => {
  const [first, last] = shown.whole;
  const wide = Math.min(last - first, Math.max(NARROWEST_NS, width));
  const start = Math.max(first, Math.min(from, last - wide));
  shown.view = [start, start + wide];
  drawTimeline();
};
/** Zooms so that what is at `share` of the width stays there. */
const zoom = (factor, share) => {
  const [from, to] = shown.view;
  const wide = Math.max(NARROWEST_NS, (to - from) * factor);
  look(from + (to - from - wide) * share, wide);
};
/** The crash stays where it is if it is in view, else the middle does. */
const zoomAtCrash = (factor) => {
  const [from, to] = shown.view;
  zoom(factor, from < 0 && to > 0 ? -from / (to - from) : 0.5);
};
const move = (share) => {
  const [from, to] = shown.view;
  look(from + (to - from) * share, to - from);
};
const showAll = () => look(shown.whole[0], shown.whole[1] - shown.whole[0]);

const KEYS = {
  "+": () => zoomAtCrash(1 / 1.5), "=": () => zoomAtCrash(1 / 1.5), "-": () => zoomAtCrash(1.5),
  "0": showAll, ArrowLeft: () => move(-0.15), ArrowRight: () => move(0.15),
};
timelineAt.addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
timelineAt.addEventListener("wheel", (event) => {
  const [from, to] = shown.view;
  // At the whole there is nothing to zoom out of: the page scrolls.
  if (event.deltaY > 0 && from <= shown.whole[0] && to >= shown.whole[1]) return;
  event.preventDefault();
  const share = (event.clientX - timelineAt.getBoundingClientRect().left - shown.area.x) / shown.area.w;
  const turn = Math.max(-300, Math.min(300, event.deltaY));
  zoom(Math.exp(turn * 0.002), Math.max(0, Math.min(1, share)));
}, { passive: false });

let drag = null;
timelineAt.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  drag = { x: event.clientX, view: shown.view };
});
window.addEventListener("pointermove", (event) => {
  // The button may have been let go outside the window.
  if (event.buttons === 0) drag = null;
  if (!drag) return;
  hideTip();
  timelineAt.querySelector("svg")?.classList.add("held");
  const [from, to] = drag.view;
  look(from - ((event.clientX - drag.x) / shown.area.w) * (to - from), to - from);
});
for (const end of ["pointerup", "pointercancel"]) {
  window.addEventListener(end, () => {
    drag = null;
    timelineAt.querySelector("svg")?.classList.remove("held");
  });
}

document.getElementById("zoom-in").addEventListener("click", KEYS["+"]);
document.getElementById("zoom-out").addEventListener("click", KEYS["-"]);
document.getElementById("zoom-all").addEventListener("click", KEYS["0"]);

const withTimeline = [...policies.keys()].filter((at) => policies[at].timeline.length > 0);
for (const at of withTimeline) html(policySelect, "option", { value: at }, policies[at].label);
policySelect.addEventListener("change", () => choosePolicy(Number(policySelect.value)));

const timelineKey = document.getElementById("timeline-key");
const sample = (names) => (s) => svg(s, "rect", { class: `event ${names}`, x: 1, y: 1, width: 24, height: 12 });
key(timelineKey, "call", sample("application"));
key(timelineKey, "call acknowledged, and lost in the crash", sample("application lost"));
key(timelineKey, "write", (s) =>
  svg(s, "rect", { class: "event application", x: 12, y: 3, width: 2, height: 8 }));
key(timelineKey, "wait", sample("engine"));
key(timelineKey, "sync", sample("disk"));

// The one that loses most of those whose lost calls are all shown, else the first one.
const shows = (at) => policies[at].lost.length;
const complete = withTimeline.filter((at) => shows(at) === policies[at].loss.worst.syncs);
const firstChoice = complete.reduce((a, b) => (shows(b) > shows(a) ? b : a), complete[0] ?? withTimeline[0]);
if (firstChoice === undefined) {
  document.getElementById("timeline-text").textContent = "The report has no timeline.";
} else {
  choosePolicy(firstChoice);
  drawAtWidth(timelineAt, drawTimeline);
}
