//! The path to a loss, drawn for a person: time down the page, the application, the engine and the
//! disk side by side, and the crash.

use crate::step::Event;
use durac_engine::Errno;
use std::fmt::Write as _;

/// How a timeline ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The power fails; so many acknowledged syncs are lost.
    PowerLoss(u64),
    /// The power fails; of the last call so much is lost, in this unit.
    Amount(u64, &'static str),
    /// The power fails, and what led here can go on for ever; so many acknowledged syncs are lost.
    Repeats(u64),
    /// The application makes no further call, and nothing ever syncs these.
    Idle(u64),
    /// The process dies; so many acknowledged syncs are lost. Whether it can go on without end.
    ProcessCrash(u64, bool),
    /// The process dies; so many writes are lost.
    LostWrites(u64, bool),
    /// The application makes no further call, and nothing ever writes these.
    IdleStaged(u64),
}

/// One line: what the application, the engine and the disk do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    columns: [String; 3],
    /// The sync call that begins here.
    begins: Option<u64>,
    /// The same without numbers: rows of the same kind are drawn once.
    kind: String,
}

impl Row {
    fn is_write(&self) -> bool {
        self.kind.starts_with("write")
    }
}

const APPLICATION: usize = 0;
const ENGINE: usize = 1;
const DISK: usize = 2;
/// So many calls that do the same are drawn one by one.
const DRAWN: usize = 4;

/// Draws the steps of a path, each with what was durable before it.
#[must_use]
pub fn draw(path: &[(u64, Vec<Event>)], ending: Ending) -> String {
    let mut rows = rows(path);
    let last = rows.iter().filter_map(|r| r.begins).max().unwrap_or(0);
    fold(&mut rows);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.columns.get(column));
        cells.map(|c| c.chars().count()).max().unwrap_or(0).max(12)
    };
    let (first, second) = (width(APPLICATION), width(ENGINE));
    let mut out = String::new();
    let mut line = |cells: [&str; 3]| {
        let [a, b, c] = cells;
        let text = format!("{a:first$}  {b:second$}  {c}");
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(["application", "engine", "disk"]);
    line([&"─".repeat(first), &"─".repeat(second), &"─".repeat(12)]);
    for row in &rows {
        let [a, b, c] = &row.columns;
        line([a, b, c]);
    }
    let count = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let syncs = |n: u64| count(n, "sync");
    let writes = |n: u64| count(n, "write");
    let end = |repeats: bool| if repeats { "; this can go on without end" } else { "" };
    let _ = match ending {
        Ending::PowerLoss(n) => writeln!(
            out,
            "power loss: {} acknowledged and not on the disk, the last is #{last}",
            syncs(n)
        ),
        Ending::Amount(u64::MAX, what) => writeln!(
            out,
            "power loss: any number of {what}s acknowledged with #{last} and not on the disk"
        ),
        Ending::Amount(n, what) => writeln!(
            out,
            "power loss: up to {} acknowledged with #{last} and not on the disk",
            count(n, what)
        ),
        Ending::Repeats(n) => writeln!(
            out,
            "power loss: {} acknowledged and not on the disk; this can go on without end",
            syncs(n)
        ),
        Ending::Idle(n) => writeln!(
            out,
            "the application is idle: {} acknowledged, and nothing will ever sync {}",
            syncs(n),
            if n == 1 { "it" } else { "them" }
        ),
        Ending::ProcessCrash(n, repeats) => writeln!(
            out,
            "process crash: {} acknowledged, whose writes are not in the file{}",
            syncs(n),
            end(repeats)
        ),
        Ending::LostWrites(n, repeats) => writeln!(
            out,
            "process crash: {} acknowledged and not in the file{}",
            writes(n),
            end(repeats)
        ),
        Ending::IdleStaged(n) => writeln!(
            out,
            "the application is idle: {} acknowledged, and nothing will ever write {}",
            writes(n),
            if n == 1 { "it" } else { "them" }
        ),
    };
    out
}

fn rows(path: &[(u64, Vec<Event>)]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (durable, events) in path {
        for event in events {
            let number = |n: u64| n + durable;
            let (column, text, begins) = match event {
                Event::Wrote => (APPLICATION, "write".to_owned(), None),
                Event::Staged => (APPLICATION, "write, kept".to_owned(), None),
                Event::Calls(hook, n) => {
                    (APPLICATION, format!("{hook} #{}", number(*n)), Some(number(*n)))
                }
                Event::Direct => (ENGINE, "the policy is not asked".to_owned(), None),
                Event::Asked => (ENGINE, "a sync is to start".to_owned(), None),
                Event::Waits(n) => (ENGINE, format!("wait until #{} is durable", number(*n)), None),
                Event::GoesOn => (ENGINE, "go on".to_owned(), None),
                Event::Acknowledged(n) => {
                    (APPLICATION, format!("  #{} reported as done", number(*n)), None)
                }
                Event::Refused(0, errno) => (APPLICATION, format!("  {}", failed(*errno)), None),
                Event::Refused(n, errno) => {
                    (APPLICATION, format!("  #{} {}", number(*n), failed(*errno)), None)
                }
                Event::Drains => {
                    let text = "another file is synced, this one before it";
                    (APPLICATION, text.to_owned(), None)
                }
                Event::PassesBy => {
                    let text = "another thread writes, the policy is not asked";
                    (APPLICATION, text.to_owned(), None)
                }
                Event::Again(calls) => {
                    let text = format!("  … {calls} more like this …");
                    (APPLICATION, text, None)
                }
                Event::NothingWritten => {
                    (APPLICATION, "write fails, or writes nothing".to_owned(), None)
                }
                Event::Starts => (DISK, "sync starts, for the call".to_owned(), None),
                Event::Ends(result) => (DISK, format!("sync ends{}", why(result)), None),
                Event::Lands(covers, result) => {
                    let covers = number(*covers);
                    // It started after that call had begun, before the next.
                    let at = rows.iter().position(|r| r.begins == Some(covers + 1));
                    let mut at = at.unwrap_or(rows.len());
                    // The write before a call belongs to it.
                    if at < rows.len()
                        && at.checked_sub(1).and_then(|i| rows.get(i)).is_some_and(Row::is_write)
                    {
                        at -= 1;
                    }
                    rows.insert(at, row(DISK, format!("sync starts, up to #{covers}"), None));
                    (DISK, format!("sync ends{}: durable up to #{covers}", why(result)), None)
                }
            };
            let text = match event {
                Event::Lands(_, Err(errno)) => format!("sync fails: {}", name(*errno)),
                _ => text,
            };
            rows.push(row(column, text, begins));
        }
    }
    rows
}

fn row(column: usize, text: String, begins: Option<u64>) -> Row {
    let kind = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    let mut columns = [String::new(), String::new(), String::new()];
    if let Some(place) = columns.get_mut(column) {
        *place = text;
    }
    Row { columns, begins, kind }
}

fn failed(errno: Errno) -> String {
    format!("fails: {}", name(errno))
}

fn why(result: &Result<(), Errno>) -> String {
    result.err().map_or_else(String::new, |errno| format!(", {}", name(errno)))
}

fn name(errno: Errno) -> String {
    let known = durac_core::names::ERRNOS.iter().find(|(_, number)| *number == errno);
    known.map_or_else(|| format!("error {errno}"), |(name, _)| (*name).to_owned())
}

/// Draws a long run of calls that do the same as its first, its last, and how many are between.
fn fold(rows: &mut Vec<Row>) {
    // A block is a call with the write before it and what happens until the next.
    let mut starts: Vec<usize> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let writes = row.is_write();
        let after_write = index.checked_sub(1).and_then(|i| rows.get(i)).is_some_and(Row::is_write);
        if writes || (row.begins.is_some() && !after_write) {
            starts.push(index);
        }
    }
    starts.push(rows.len());
    let blocks: Vec<(usize, usize)> =
        starts.windows(2).filter_map(|w| Some((*w.first()?, *w.last()?))).collect();
    let kinds = |&(from, to): &(usize, usize)| -> Vec<&str> {
        rows.get(from..to).unwrap_or_default().iter().map(|r| r.kind.as_str()).collect()
    };
    let mut cuts: Vec<(usize, usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(block) = blocks.get(at) {
        let same = blocks.iter().skip(at).take_while(|b| kinds(b) == kinds(block)).count();
        if same > DRAWN
            && let (Some(second), Some(last)) = (blocks.get(at + 1), blocks.get(at + same - 1))
        {
            cuts.push((second.0, last.0, same - 2));
        }
        at += same.max(1);
    }
    for (from, to, count) in cuts.into_iter().rev() {
        let text = format!("  … {count} more like this …");
        rows.splice(from..to, [row(APPLICATION, text, None)]);
    }
}
