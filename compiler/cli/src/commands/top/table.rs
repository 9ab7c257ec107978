//! The table of `durac top`: as many columns as the terminal has room for, the most important first.

use super::lines::{Line, Total};
use durac_core::unit::{Unit, show};
use durac_workload::columns::Align::{Left, Right};
use durac_workload::columns::{columns, counted, wrapped};

/// A column: its title, how dispensable it is (0 never goes), whether it is text, and its cells.
type Column = (&'static str, u8, bool, fn(&Line) -> String);

/// In the order in which they are shown.
const COLUMNS: [Column; 15] = [
    ("pid", 4, false, |line| line.pid.to_string()),
    ("where", 2, true, |line| short(&line.place.text(), 28)),
    ("policy", 1, true, policy),
    ("at risk", 0, false, |line| at_risk(line)),
    ("bound", 0, false, bound),
    ("most", 1, false, |line| most(line)),
    ("age ms", 3, false, |line| age(line.age_ms)),
    ("of", 3, false, |line| age(line.bound_ms.filter(|ms| *ms > 0.0))),
    ("late", 5, false, |line| line.late.to_string()),
    ("syncs/s", 4, false, |line| format!("{:.0}", line.syncs)),
    ("sync µs", 7, false, |line| format!("{:.0}", line.sync_us)),
    ("waits/s", 6, false, |line| format!("{:.0}", line.waits)),
    ("waited", 8, false, |line| format!("{:.0} %", line.waited * 100.0)),
    ("calls/s", 9, false, |line| format!("{:.0}", line.calls)),
    ("bytes", 10, false, |line| line.bytes.to_string()),
];

fn policy(line: &Line) -> String {
    if !line.on {
        return format!("{} (off)", line.policy);
    }
    let params: Vec<String> = line.params.iter().map(super::lines::Param::text).collect();
    format!("{} {}", line.policy, params.join(" ")).trim_end().to_owned()
}

/// Whether updates are what the policy bounds.
fn in_updates(line: &Line) -> bool {
    line.bound_syncs.is_none() && line.bound_updates.is_some()
}

/// What is at risk now, marked if it is more than what was proved.
fn at_risk(line: &Line) -> String {
    let (amount, bound) = match in_updates(line) {
        true => (line.updates, line.bound_updates),
        false => (Some(line.at_risk), line.bound_syncs),
    };
    let more = amount.zip(bound).is_some_and(|(amount, bound)| amount > bound);
    format!("{}{}", number(amount), if more { "!" } else { "" })
}

/// The most that ever was; the bound may have been another then.
fn most(line: &Line) -> String {
    number(if in_updates(line) { line.most_updates } else { Some(line.most_at_risk) })
}

fn number(amount: Option<u64>) -> String {
    amount.map_or_else(|| "?".to_owned(), |amount| amount.to_string())
}

fn bound(line: &Line) -> String {
    match (line.bound_syncs, line.bound_updates, line.bound_bytes) {
        (Some(syncs), ..) => format!("{syncs} sync{}", if syncs == 1 { "" } else { "s" }),
        (None, Some(updates), _) => {
            format!("{updates} update{}", if updates == 1 { "" } else { "s" })
        }
        (None, None, Some(bytes)) => show(bytes, Unit::Bytes),
        _ => "none".to_owned(),
    }
}

fn age(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
}

/// The end of a text: the beginning of a path says least.
fn short(text: &str, most: usize) -> String {
    let skipped = text.chars().count().saturating_sub(most);
    match skipped {
        0 => text.to_owned(),
        _ => format!("…{}", text.chars().skip(skipped + 1).collect::<String>()),
    }
}

/// The table and what there is to say below it, in lines of this width.
pub fn table(lines: &[Line], width: usize) -> String {
    let mut most = u8::MAX;
    let mut out = loop {
        let shown: Vec<&Column> = COLUMNS.iter().filter(|column| column.1 <= most).collect();
        let text = rendered(&shown, lines);
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let next = shown.iter().map(|column| column.1).max().unwrap_or(0);
        if widest <= width || next == 0 {
            break text;
        }
        most = next - 1;
    };
    let total = Total::of(lines);
    let mut below = Vec::new();
    if total.logs > 1 {
        let Total { logs, processes, at_risk, late, not_asked, stopped, .. } = total;
        let processes = match processes {
            1 => "1 process".to_owned(),
            more => format!("{more} processes"),
        };
        let syncs = counted(at_risk, "sync");
        below.push(format!(
            "total: {logs} logs, {processes}, {syncs} at risk, {late} late, {not_asked} not asked, {stopped} stopped"
        ));
    }
    below.extend(lines.iter().flat_map(notes));
    for line in below.iter().flat_map(|text| wrapped(text, width.max(20))) {
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn rendered(shown: &[&Column], lines: &[Line]) -> String {
    let aligns: Vec<_> = shown.iter().map(|c| if c.2 { Left } else { Right }).collect();
    let mut rows = vec![shown.iter().map(|c| c.0.to_owned()).collect::<Vec<_>>()];
    rows.extend(lines.iter().map(|line| shown.iter().map(|c| (c.3)(line)).collect()));
    columns(&aligns, &rows)
}

/// What there is to say of a log.
fn notes(line: &Line) -> Vec<String> {
    let pid = line.pid;
    // A process without a log has no name of one.
    let head = [pid.to_string(), line.log.clone()];
    let head = head.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join(": ");
    let mut notes = Vec::new();
    if let (Some(session), Some(standing)) = (&line.bpftime_session, &line.standing) {
        notes.push(format!("{pid}: session {session}: {standing}"));
    }
    let mut say = |text: String| notes.push(format!("{head}{text}"));
    if let Some(error) = &line.error {
        say(format!(" stopped acknowledging: {error}"));
    }
    if !line.on {
        say(": the policy is off: `durac on` brings it back".to_owned());
    }
    if let Some(why) = &line.not_asked {
        say(format!(": {why}"));
    }
    if let Some(storage) = &line.storage {
        say(format!(": {storage}"));
    }
    if let Some(why) = &line.not_staged {
        say(format!(": writes are not staged: {why}"));
    }
    if let Some(why) = &line.not_counted {
        say(format!(": updates are not counted any more: {why}; the policy is told the most"));
    }
    if line.held_bytes > 0 {
        let (bytes, clients) = (line.held_bytes, line.held_connections);
        notes.push(format!(
            "{pid}: replies held: {} for {}",
            counted(bytes, "byte"),
            counted(clients, "client")
        ));
    }
    let mut say = |text: String| notes.push(format!("{head}{text}"));
    if line.is_go {
        say(": the program is written in Go: its own system calls are not seen".to_owned());
    }
    if line.broken_assumptions > 0 {
        let syncs = counted(line.broken_assumptions, "sync");
        say(format!(": {syncs} took longer than the policy assumes"));
    }
    if line.overlaps > 0 {
        say(format!(
            ": {} overlapped another and passed: the target has `callers one`",
            counted(line.overlaps, "call")
        ));
    }
    if line.late > 0 {
        say(format!(
            ": {} became durable after the deadline, the oldest after {:.1} ms",
            counted(line.late, "call"),
            line.most_age_ms.unwrap_or(0.0)
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::lines::Line;
    use super::table;
    use crate::processes::Place;

    const WIDE: usize = 200;

    fn line() -> Line {
        Line {
            pid: 7,
            on: true,
            place: Place { directory: Some("/var/lib/redis".into()), port: Some(6379) },
            policy: "window".to_owned(),
            log: "x.log".to_owned(),
            at_risk: 12,
            most_at_risk: 63,
            bound_syncs: Some(64),
            age_ms: Some(3.25),
            most_age_ms: Some(48.0),
            bound_ms: Some(50.0),
            ..Line::default()
        }
    }

    #[test]
    fn held_replies_have_a_line() {
        assert!(!table(&[line()], WIDE).contains("held"));
        let held = Line { held_bytes: 640, held_connections: 5, ..line() };
        let said = table(&[held], WIDE);
        assert!(said.ends_with("\n7: replies held: 640 bytes for 5 clients\n"), "{said}");
    }

    #[test]
    fn the_bound_stands_beside_what_is_at_risk() {
        let said = table(&[line()], WIDE);
        let rows: Vec<Vec<&str>> =
            said.lines().map(|row| row.split("  ").filter(|c| !c.is_empty()).collect()).collect();
        let cell = |name: &str| {
            let at = rows[0].iter().position(|title| title.trim() == name);
            at.map(|at| rows[1][at].trim().to_owned())
        };
        for (name, expected) in [
            ("pid", "7"),
            ("where", "/var/lib/redis:6379"),
            ("at risk", "12"),
            ("bound", "64 syncs"),
            ("most", "63"),
            ("age ms", "3.2"),
            ("of", "50.0"),
        ] {
            assert_eq!(cell(name).as_deref(), Some(expected), "{said}");
        }
        let more = Line { at_risk: 65, ..line() };
        assert!(table(&[more], WIDE).contains(" 65!  "));
        let updates = Line {
            bound_syncs: None,
            bound_updates: Some(100),
            updates: Some(3),
            most_updates: Some(90),
            ..line()
        };
        let said = table(&[updates], WIDE);
        assert!(said.contains("   3  100 updates    90  "), "{said}");
    }

    #[test]
    fn counts_agree_in_number() {
        let said = table(&[line(), Line { at_risk: 0, ..line() }], WIDE);
        assert!(said.contains("\ntotal: 2 logs, 1 process, 12 syncs at risk,"), "{said}");
        let one = Line { at_risk: 1, broken_assumptions: 1, overlaps: 1, late: 1, ..line() };
        let held = Line { held_bytes: 1, held_connections: 1, ..one };
        let said = table(&[held, Line { pid: 8, at_risk: 0, ..line() }], WIDE);
        for part in [
            "2 processes, 1 sync at risk",
            ": 1 byte for 1 client\n",
            ": 1 sync took longer",
            ": 1 call overlapped",
            ": 1 call became durable",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn it_fits_the_terminal() {
        let lines = [line(), line()];
        let mut before = usize::MAX;
        for width in [WIDE, 100, 80, 60, 40] {
            let said = table(&lines, width);
            let title = said.lines().next().unwrap_or_default();
            assert!(title.contains("at risk") && title.contains("bound"), "{said}");
            assert!(said.lines().all(|line| line.chars().count() <= width), "{width}\n{said}");
            let shown = title.split_whitespace().count();
            assert!(shown <= before, "{said}");
            before = shown;
        }
    }

    #[test]
    fn what_there_is_to_say_has_a_line() {
        let quiet = table(&[line()], WIDE);
        assert_eq!(quiet.lines().count(), 2, "{quiet}");
        type Case = (fn(&mut Line), &'static str);
        let cases: [Case; 7] = [
            (|l| l.broken_assumptions = 3, "3 syncs took longer than the policy assumes"),
            (
                |l| l.not_counted = Some("two writes overlapped".to_owned()),
                "updates are not counted any more: two writes overlapped; the policy is told the most",
            ),
            (
                |l| l.overlaps = 3,
                "3 calls overlapped another and passed: the target has `callers one`",
            ),
            (|l| l.late = 2, "2 calls became durable after the deadline, the oldest after 48.0 ms"),
            (|l| l.not_asked = Some("never".to_owned()), "never"),
            (|l| l.on = false, "the policy is off: `durac on` brings it back"),
            (|l| l.storage = Some("in memory".to_owned()), "in memory"),
        ];
        for (change, expected) in cases {
            let mut line = line();
            change(&mut line);
            let said = table(&[line], WIDE);
            assert!(said.ends_with(&format!("\n7: x.log: {expected}\n")), "{said}");
        }
        let none = Line { log: String::new(), not_asked: Some("no log".to_owned()), ..line() };
        assert!(table(&[none], WIDE).ends_with("\n7: no log\n"));
    }
}
