//! Which held replies may be sent.
//!
//! A reply is held under a ticket. The ticket names what has to be durable first: for each log with
//! bytes that no sync has covered, how many bytes had been written when the reply was made. Tickets are
//! numbered in the order of the replies, and a later one never needs less than an earlier one that is still
//! held, so they are released in order and one number says how far.
//!
//! A need that can no longer be met (its log has failed, or was closed with bytes uncovered) makes
//! its ticket lost, and nothing that was held under it is ever sent.

use std::collections::VecDeque;

/// A log while it has one file. A place that serves another file is another log.
pub type LogKey = u64;

/// A number that a held reply is released by; from 1.
pub type Ticket = u64;

/// Marks that are kept apart; later replies share the last one's ticket, and need at least what it needs.
const MOST_MARKS: usize = 1024;
/// Ranges of lost tickets that are kept apart.
const MOST_RANGES: usize = 16;

/// What has to be durable of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The log.
    pub log: LogKey,
    /// So many of its bytes.
    pub bytes: u64,
}

/// What becomes of a held reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits.
    Held,
    /// All that it needs is durable.
    Send,
    /// What it needs never will be: its connection is closed, and it is not sent.
    Lost,
}

/// The tickets of all replies.
#[derive(Clone, Debug, Default)]
pub struct Release {
    /// The last ticket that was given.
    last: Ticket,
    /// Tickets up to this one are over: released or lost.
    over: Ticket,
    /// Those that are not over, in order.
    marks: VecDeque<Mark>,
    /// First and last of ranges of lost tickets.
    lost: Vec<(Ticket, Ticket)>,
}

#[derive(Clone, Debug)]
struct Mark {
    ticket: Ticket,
    needs: Vec<Need>,
}

impl Release {
    /// A reply is held that needs these, at least one, each of another log. Returns its ticket, and whether
    /// it is a new one.
    pub fn hold(&mut self, needs: &[Need]) -> (Ticket, bool) {
        let full = self.marks.len() >= MOST_MARKS;
        if let Some(newest) = self.marks.back_mut() {
            let includes = |need: &Need| {
                newest.needs.iter().any(|n| n.log == need.log && n.bytes >= need.bytes)
            };
            if needs.iter().all(includes) {
                return (newest.ticket, false);
            }
            if full {
                for need in needs {
                    match newest.needs.iter_mut().find(|n| n.log == need.log) {
                        Some(known) => known.bytes = known.bytes.max(need.bytes),
                        None => newest.needs.push(*need),
                    }
                }
                return (newest.ticket, true);
            }
        }
        self.last += 1;
        self.marks.push_back(Mark { ticket: self.last, needs: needs.to_vec() });
        (self.last, true)
    }

    /// So many bytes of a log are durable.
    pub fn covered(&mut self, log: LogKey, bytes: u64) {
        for mark in &mut self.marks {
            mark.needs.retain(|need| need.log != log || need.bytes > bytes);
        }
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.needs.is_empty()) {
            self.over = mark.ticket;
        }
        if self.marks.is_empty() {
            self.over = self.last;
        }
    }

    /// What is not covered of a log will never be durable.
    pub fn failed(&mut self, log: LogKey) {
        let needs = |mark: &Mark| mark.needs.iter().any(|need| need.log == log);
        let Some(first) = self.marks.iter().position(needs) else { return };
        let Some(from) = self.marks.get(first).map(|mark| mark.ticket) else { return };
        // Every reply since then was made when this log had as much uncovered.
        self.marks.truncate(first);
        self.lost.push((from, self.last));
        if self.lost.len() > MOST_RANGES {
            // What lies between two ranges is over: nobody waits for it but a connection that has not been
            // looked at yet, which then is closed for nothing.
            let second = self.lost.remove(1);
            if let Some(oldest) = self.lost.first_mut() {
                *oldest = (oldest.0.min(second.0), oldest.1.max(second.1));
            }
        }
        if self.marks.is_empty() {
            self.over = self.last;
        }
    }

    /// What becomes of a reply that is held under this ticket.
    #[must_use]
    pub fn fate(&self, ticket: Ticket) -> Fate {
        if self.lost.iter().any(|&(first, last)| (first..=last).contains(&ticket)) {
            Fate::Lost
        } else if ticket <= self.over {
            Fate::Send
        } else {
            Fate::Held
        }
    }

    /// Whether some ticket is not over.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.marks.is_empty()
    }
}
