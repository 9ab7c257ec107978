//! The table of `durac top`: as many columns as the terminal has room for, the most important first.

use super::lines::{Line, Total};
use crate::processes::off_note;
use durac_core::unit::{Unit, show};
use durac_workload::columns::Align::{Left, Right};
use durac_workload::columns::{columns, counted, wrapped};

/// A column: its title, how dispensable it is (0 never goes), whether it is text, and its cells.
type Column = (&'static str, u8, bool, fn(&Line) -> String);

/// In the order in which they are shown.
const COLUMNS: [Column; 15] = [
    ("pid", 1, false, |line| line.pid.to_string()),
    ("where", 2, true, |line| short(&line.place.text(), 28)),
    ("policy", 3, true, policy),
    ("at risk", 0, false, |line| at_risk(line)),
    ("bound", 0, false, bound),
    ("most", 3, false, |line| most(line)),
    ("age ms", 4, false, |line| age(line.age_ms)),
    ("of", 4, false, |line| age(line.bound_ms.filter(|ms| *ms > 0.0))),
    ("late", 6, false, |line| line.late.to_string()),
    ("syncs/s", 5, false, |line| format!("{:.0}", line.syncs)),
    ("sync µs", 8, false, |line| format!("{:.0}", line.sync_us)),
    ("waits/s", 7, false, |line| format!("{:.0}", line.waits)),
    ("waited", 9, false, |line| format!("{:.0} %", line.waited * 100.0)),
    ("calls/s", 10, false, |line| format!("{:.0}", line.calls)),
    ("bytes", 11, false, |line| line.bytes.to_string()),
];

fn policy(line: &Line) -> String {
    if !line.on {
        return format!("{} (off)", line.policy);
    }
    let params: Vec<String> = line.params.iter().map(super::lines::Param::text).collect();
    format!("{} {}", line.policy, params.join(" ")).trim_end().to_owned()
}

/// What the policy bounds, which all of these columns count.
enum Counted {
    Syncs,
    Updates,
    Bytes,
}

impl Counted {
    fn of(line: &Line) -> Self {
        match (line.bound_syncs, line.bound_updates, line.bound_bytes) {
            (None, Some(_), _) => Self::Updates,
            (None, None, Some(_)) => Self::Bytes,
            _ => Self::Syncs,
        }
    }

    fn number(&self, amount: Option<u64>) -> String {
        match (amount, self) {
            (None, _) => "?".to_owned(),
            (Some(amount), Self::Bytes) => show(amount, Unit::Bytes),
            (Some(amount), _) => amount.to_string(),
        }
    }
}

/// What is at risk now, marked if it is more than what was proved.
fn at_risk(line: &Line) -> String {
    let of = Counted::of(line);
    let (amount, bound) = match of {
        Counted::Syncs => (Some(line.at_risk), line.bound_syncs),
        Counted::Updates => (line.updates, line.bound_updates),
        Counted::Bytes => (Some(line.bytes_at_risk), line.bound_bytes),
    };
    let more = amount.zip(bound).is_some_and(|(amount, bound)| amount > bound);
    format!("{}{}", of.number(amount), if more { "!" } else { "" })
}

/// The most that ever was; the bound may have been another then.
fn most(line: &Line) -> String {
    let of = Counted::of(line);
    let amount = match of {
        Counted::Syncs => Some(line.most_at_risk),
        Counted::Updates => line.most_updates,
        Counted::Bytes => Some(line.most_bytes_at_risk),
    };
    of.number(amount)
}

fn bound(line: &Line) -> String {
    if line.log.is_empty() {
        return "-".to_owned();
    }
    match (line.bound_syncs, line.bound_updates, line.bound_bytes) {
        (Some(syncs), ..) => counted(syncs, "sync"),
        (None, Some(updates), _) => counted(updates, "update"),
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
        let Total { logs, logs_not_shown, processes, at_risk, late, not_asked, stopped, .. } =
            total;
        let logs = match logs_not_shown {
            0 => logs.to_string(),
            more => format!("{logs} of {}", more.saturating_add(logs as u64)),
        };
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
    let mut counted = Vec::new();
    for line in lines.iter().filter(|line| line.logs_not_shown > 0) {
        if !counted.contains(&line.pid) {
            counted.push(line.pid);
            below.push(not_shown(line, lines));
        }
    }
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

/// A process with more logs than its status page has room for.
fn not_shown(line: &Line, lines: &[Line]) -> String {
    let of_it = lines.iter().filter(|other| other.pid == line.pid && !other.log.is_empty());
    let shown = of_it.count() as u64;
    let all = shown.saturating_add(line.logs_not_shown);
    format!("{}: {shown} of {all} logs shown; the others run under the policy, too", line.pid)
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
        say(format!(": {}", off_note(line.stays_off)));
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
        say(format!(": updates are no longer counted: {why}; the policy assumes the maximum"));
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
        let bytes = |bytes_at_risk| Line {
            bound_syncs: None,
            bound_bytes: Some(65_536),
            bytes_at_risk,
            most_bytes_at_risk: 61_440,
            ..line()
        };
        let said = table(&[bytes(4096)], WIDE);
        assert!(said.contains("   4KiB  64KiB  60KiB  "), "{said}");
        let said = table(&[bytes(65_537)], WIDE);
        assert!(said.contains("!  64KiB  60KiB  "), "{said}");
    }

    #[test]
    fn logs_that_are_not_shown_are_counted() {
        let of = |pid| Line { pid, logs_not_shown: 6, ..line() };
        let said = table(&[of(7), of(7), Line { pid: 8, ..line() }], WIDE);
        assert!(said.contains("\ntotal: 3 of 9 logs, 2 processes,"), "{said}");
        assert!(
            said.ends_with("\n7: 2 of 8 logs shown; the others run under the policy, too\n"),
            "{said}"
        );
        assert_eq!(said.matches("logs shown").count(), 1, "{said}");
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
            // What the other commands take a process by stays longest.
            assert!(title.contains("pid") && (width < 80 || title.contains("where")), "{said}");
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
        let cases: [Case; 8] = [
            (|l| l.broken_assumptions = 3, "3 syncs took longer than the policy assumes"),
            (
                |l| l.not_counted = Some("two writes overlapped".to_owned()),
                "updates are no longer counted: two writes overlapped; the policy assumes the maximum",
            ),
            (
                |l| l.overlaps = 3,
                "3 calls overlapped another and passed: the target has `callers one`",
            ),
            (|l| l.late = 2, "2 calls became durable after the deadline, the oldest after 48.0 ms"),
            (|l| l.not_asked = Some("never".to_owned()), "never"),
            (|l| l.on = false, "the policy is off: `durac on` brings it back"),
            (
                |l| (l.on, l.stays_off) = (false, true),
                "the policy is off until the command ends, as the supervisor's log says: `durac on` is refused",
            ),
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
