//! The drawings of a bench, as SVG.

use durac_simulate::html::{escaped, grouped};
use durac_workload::report::Row;
use std::fmt::Write as _;

/// How large a drawing is: its width, and where its loss axis and its names of modes end.
#[derive(Clone, Copy)]
pub struct Size {
    width: f64,
    left: f64,
    names: f64,
    /// The names of the axes stand one above the other.
    stacked: bool,
}

impl Size {
    /// For a screen.
    pub const BROAD: Self = Self { width: 900.0, left: 90.0, names: 170.0, stacked: false };
    /// For a telephone.
    pub const NARROW: Self = Self { width: 380.0, left: 74.0, names: 132.0, stacked: true };

    fn right(self) -> f64 {
        self.width - 20.0
    }

    /// About so many ticks fit below.
    fn ticks(self) -> f64 {
        self.width / 110.0
    }
}

const HEIGHT: f64 = 430.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 45.0;
/// Height of the stripes for what loses nothing and for what has no bound.
const BAND: f64 = 30.0;
/// Width of a letter and height of a line of a label, about.
const LETTER: f64 = 6.6;
const LINE: f64 = 14.0;

/// The case study's figures, requests per second: OSDI '25, "Extending Applications Safely and
/// Efficiently", Redis with `redis-benchmark -t set -n 1000000 -r 100000000 -c 5`.
const PAPER: [(&str, f64); 10] = [
    ("no log", 87_436.0),
    ("everysec", 71_669.0),
    ("always", PAPER_ALWAYS),
    ("batch size=1", 19_032.0),
    ("batch size=3", 43_200.0),
    ("batch size=12", 48_082.0),
    ("batch size=24", 50_309.0),
    ("batch size=48", 52_562.0),
    ("delayed_fsync", 39_678.0),
    ("fast_notify", 64_725.0),
];
const PAPER_ALWAYS: f64 = 12_584.0;

/// The loss axis: a stripe for nothing, powers of ten, a stripe for what has no bound.
struct LossAxis {
    decades: i32,
    unbounded: bool,
}

impl LossAxis {
    fn new(rows: &[Row]) -> Self {
        let of = |row: &Row| [row.bound, row.max_pending, row.bound_to_clients];
        let most = rows.iter().flat_map(of).flatten().max();
        let decades = (most.unwrap_or(0).max(1) as f64).log10().ceil().max(1.0) as i32;
        Self { decades, unbounded: rows.iter().any(|row| row.bound.is_none()) }
    }

    /// Where the powers of ten begin and end, downwards.
    fn span(&self) -> (f64, f64) {
        (if self.unbounded { TOP + BAND } else { TOP }, BOTTOM - BAND)
    }

    fn y(&self, loss: Option<u64>) -> f64 {
        let (upper, lower) = self.span();
        match loss {
            None => TOP + BAND / 2.0,
            Some(0) => BOTTOM - BAND / 2.0,
            Some(loss) => lower - (lower - upper) * (loss as f64).log10() / f64::from(self.decades),
        }
    }
}

/// Round steps from 0, about `count` of them.
fn ticks(most: f64, count: f64) -> Vec<f64> {
    let raw = (most / count).max(1e-9);
    let exponent = raw.log10().floor() as i32;
    // A division by a power of ten is as exact as can be, so that a tick is written as 1.2; six steps of 0.2 are not.
    let tick = |steps: f64| match exponent < 0 {
        true => steps / 10_f64.powi(-exponent),
        false => steps * 10_f64.powi(exponent),
    };
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| tick(*step) >= raw).unwrap_or(10.0);
    (0..=(most / tick(step)) as u32).map(|at| tick(f64::from(at) * step)).collect()
}

/// Whether clients see less than all that a power loss takes.
pub fn is_seen_less(row: &Row) -> bool {
    row.bound_to_clients != row.bound
}

/// Worst loss, as proved and as seen, and loss to clients, against throughput.
pub fn frontier(rows: &[Row], size: Size) -> String {
    let (left, right) = (size.left, size.right());
    let axis = LossAxis::new(rows);
    let most = rows.iter().map(|row| row.rps.max).fold(1.0, f64::max) * 1.05;
    let x = |rps: f64| left + (right - left) * rps / most;
    let height = if size.stacked { HEIGHT + 18.0 } else { HEIGHT };
    let mut out = open(size, height, "Proved worst loss against throughput");
    stripe(&mut out, size, BOTTOM - BAND, "nothing");
    if axis.unbounded {
        stripe(&mut out, size, TOP, "no bound");
    }
    for decade in 0..=axis.decades {
        let loss = 10_u64.saturating_pow(decade.unsigned_abs());
        let y = axis.y(Some(loss));
        line(&mut out, "grid", (left, y), (right, y));
        text(&mut out, "axis", "end", left - 6.0, y + 4.0, &grouped(loss as f64));
    }
    for tick in ticks(most, size.ticks()) {
        line(&mut out, "grid", (x(tick), TOP), (x(tick), BOTTOM));
        below_tick(&mut out, size, (x(tick), BOTTOM + 16.0), &grouped(tick));
    }
    let (from, below) = if size.stacked { (4.0, 54.0) } else { (left, 36.0) };
    text(&mut out, "axis", "start", from, BOTTOM + below, "↑ acknowledged syncs lost");
    text(&mut out, "axis", "end", right, BOTTOM + 36.0, "requests per second →");
    let mut taken = Vec::new();
    for row in rows {
        let (cx, cy) = (x(row.rps.median), axis.y(row.bound));
        taken.push(Area { x: cx - 8.0, y: cy - 8.0, w: 16.0, h: 16.0 });
        let (from, to) = (x(row.rps.min), x(row.rps.max));
        taken.push(Area { x: from, y: cy - 1.0, w: to - from, h: 2.0 });
        if is_seen_less(row) {
            let y = axis.y(row.bound_to_clients);
            taken.push(Area { x: cx - 8.0, y: y - 8.0, w: 16.0, h: 16.0 });
        }
    }
    for row in rows {
        let (cx, cy) = (x(row.rps.median), axis.y(row.bound));
        let _ = write!(out, "<g class=\"point\"><title>{}</title>", escaped(&said(row)));
        line(&mut out, "range", (x(row.rps.min), cy), (x(row.rps.max), cy));
        if let Some(seen) = row.max_pending {
            let y = axis.y(Some(seen));
            line(&mut out, "whisker", (cx, cy), (cx, y));
            let _ = write!(out, "<circle class=\"seen\" cx=\"{cx:.1}\" cy=\"{y:.1}\" r=\"8\"/>");
        }
        if is_seen_less(row) {
            let y = axis.y(row.bound_to_clients);
            line(&mut out, "to-clients", (cx, cy), (cx, y));
            let _ = write!(
                out,
                "<path class=\"clients\" d=\"M{cx:.1} {:.1}l7 7l-7 7l-7 -7z\"/>",
                y - 7.0
            );
        }
        let _ = write!(out, "<circle class=\"best\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"5.5\"/></g>");
        label(&mut out, size, &row.mode, (cx, cy), &mut taken);
    }
    out.push_str("</svg>");
    out
}

fn said(row: &Row) -> String {
    let seen = row.max_pending.map(|seen| format!("; most syncs seen at risk: {seen}"));
    let clients = row
        .bound_to_clients
        .filter(|_| is_seen_less(row))
        .map(|syncs| format!("; most syncs lost of which a client has seen something: {syncs}"));
    format!(
        "{}: {} requests per second; a power loss takes {}{}{}",
        row.mode,
        grouped(row.rps.median),
        row.stated_loss,
        clients.unwrap_or_default(),
        seen.unwrap_or_default()
    )
}

/// Throughput as a multiple of `always`; `paper`: with the case study's figures.
pub fn bars(rows: &[Row], paper: bool, size: Size) -> String {
    let published = |row: &Row| -> Option<f64> {
        let known = |(name, rps): &(&str, f64)| (*name == row.mode).then_some(rps / PAPER_ALWAYS);
        PAPER.iter().find_map(known).filter(|_| paper)
    };
    let ours = |row: &Row| row.to_always.map(|spread| spread.median);
    let most = rows.iter().flat_map(|row| [ours(row), published(row)]).flatten();
    let most = most.fold(1.0, f64::max) * 1.05;
    let (left, step) = (size.names, 26.0);
    let bottom = TOP + step * rows.len() as f64;
    let x = |ratio: f64| left + (size.right() - left) * ratio / most;
    let mut out = open(size, bottom + 30.0, "Throughput as a multiple of always");
    for tick in ticks(most, size.ticks()) {
        line(&mut out, "grid", (x(tick), TOP), (x(tick), bottom));
        below_tick(&mut out, size, (x(tick), bottom + 16.0), &format!("{tick}"));
    }
    for (at, row) in rows.iter().enumerate() {
        let y = TOP + step * at as f64;
        text(&mut out, "label", "end", left - 8.0, y + 17.0, &row.mode);
        for (class, ratio, y, height) in
            [("ours", ours(row), y + 3.0, 11.0), ("paper", published(row), y + 15.0, 6.0)]
        {
            let Some(ratio) = ratio else { continue };
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{left}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\">\
                 <title>{}: {ratio:.2} times always</title></rect>",
                x(ratio) - left,
                escaped(&row.mode),
            );
        }
    }
    out.push_str("</svg>");
    out
}

fn open(size: Size, height: f64, what: &str) -> String {
    let width = size.width;
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\" aria-label=\"{what}; the \
         table below has all numbers\">"
    )
}

fn stripe(out: &mut String, size: Size, y: f64, what: &str) {
    let (left, width) = (size.left, size.right() - size.left);
    let _ = write!(
        out,
        "<rect class=\"band\" x=\"{left}\" y=\"{y}\" width=\"{width}\" height=\"{BAND}\"/>"
    );
    text(out, "axis", "end", left - 6.0, y + 19.0, what);
}

fn line(out: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = write!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn text(out: &mut String, class: &str, anchor: &str, x: f64, y: f64, what: &str) {
    let _ = write!(
        out,
        "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
        escaped(what)
    );
}

/// The number below a tick: in its middle, unless it would leave the drawing.
fn below_tick(out: &mut String, size: Size, (x, y): (f64, f64), what: &str) {
    let half = what.chars().count() as f64 * (LETTER + 1.0) / 2.0;
    match x + half > size.width {
        true => text(out, "axis", "end", size.width, y, what),
        false => text(out, "axis", "middle", x, y, what),
    }
}

/// An occupied rectangle.
#[derive(Clone, Copy)]
struct Area {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

impl Area {
    fn meets(&self, other: &Area) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }

    fn is_inside(&self, size: Size) -> bool {
        self.x >= size.left
            && self.x + self.w <= size.right()
            && self.y >= TOP
            && self.y + self.h <= BOTTOM
    }
}

/// Writes the label of a point at the nearest free place.
fn label(out: &mut String, size: Size, what: &str, (cx, cy): (f64, f64), taken: &mut Vec<Area>) {
    let w = what.chars().count() as f64 * LETTER;
    let place = |x, y| Area { x, y: y - LINE / 2.0, w, h: LINE };
    let mut places = (0..40).flat_map(|far| {
        let far = f64::from(far) * 7.0;
        [cy - far, cy + far].into_iter().flat_map(move |y| {
            [place(cx + 11.0, y), place(cx - 11.0 - w, y), place(cx - w / 2.0, y - 14.0)]
        })
    });
    let free = |area: &Area| area.is_inside(size) && !taken.iter().any(|other| other.meets(area));
    let beside = (cx + 11.0).min(size.right() - w);
    let area = places.find(free).unwrap_or(place(beside, cy));
    taken.push(area);
    if (area.y + LINE / 2.0 - cy).abs() > 18.0 {
        line(out, "leader", (cx, cy), (area.x + w / 2.0, area.y + LINE / 2.0));
    }
    text(out, "label halo", "start", area.x, area.y + 11.0, what);
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn ticks_are_written_as_round_numbers() {
        for most in 1..=400 {
            for most in [f64::from(most) / 40.0, f64::from(most) * 997.0] {
                for count in [3.5, 8.2] {
                    let ticks = ticks(most, count);
                    let few =
                        (2..=20).contains(&ticks.len()) && ticks.iter().all(|tick| *tick <= most);
                    assert!(few, "{most}, {count}: {ticks:?}");
                    assert!(
                        ticks.iter().all(|tick| format!("{tick}").len() <= 6),
                        "{most}: {ticks:?}"
                    );
                }
            }
        }
        assert_eq!(ticks(1.5, 8.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]);
    }
}
