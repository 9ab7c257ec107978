//! What happened in a test, one line for each event, to be shown beside what failed.

use super::says;
use durac_engine::Time;

/// Lines that are shown; earlier ones are left out.
const SHOWN: usize = 40;
/// Width of the column with what the application does.
const DOES: usize = 26;

/// The events of one test, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    lines: Vec<String>,
}

impl Story {
    /// The application or the test does something, and this came of it.
    pub fn step(&mut self, time: Time, what: &str, result: &str) {
        let at = says::time(time);
        let line = format!("{at:>8}  {what:<DOES$}  {result}");
        self.lines.push(line.trim_end().to_owned());
    }

    /// The engine does something.
    pub fn engine(&mut self, time: Time, what: &str) {
        self.step(time, "", what);
    }

    /// All of it, drawn.
    pub fn text(&self) -> String {
        let left_out = self.lines.len().saturating_sub(SHOWN);
        let mut out = format!("{:>8}  {:<DOES$}  engine\n", "time", "application");
        if left_out > 0 {
            out.push_str(&format!("{:>8}  … {left_out} more\n", ""));
        }
        for line in self.lines.iter().skip(left_out) {
            out.push_str(line);
            out.push('\n');
        }
        out
    }
}
