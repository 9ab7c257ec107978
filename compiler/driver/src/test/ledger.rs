//! What the application was told, and what of it has reached the file and the disk: what a crash loses.
//!
//! It does not read the engine's account of what is pending: it follows the bytes. So a test also checks that.

use durac_engine::Time;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
struct Write {
    bytes: u64,
    updates: u64,
    /// The next sync call when it was made.
    before: u64,
    at: Time,
}

/// What a crash loses, in every unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub syncs: u64,
    pub writes: u64,
    pub bytes: u64,
    pub updates: u64,
    /// Since when the oldest of it has been acknowledged.
    pub since: Option<Time>,
}

/// Writes and acknowledged sync calls of one log.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    writes: Vec<Write>,
    /// Bytes and updates of them.
    total: (u64, u64),
    /// How many are in the file, that is in the page cache; those after them were copied.
    in_file: usize,
    /// Of how many a sync that began after them has succeeded.
    on_disk: usize,
    /// Sync calls that were acknowledged, and when.
    acknowledged: Vec<(u64, Time)>,
    /// The syncs that are out: their number, and how many writes they cover.
    out: VecDeque<(u64, usize)>,
    /// Those that have succeeded while another was out.
    doubtful: Vec<(u64, usize)>,
}

impl Ledger {
    /// A write has returned with success. `before`: the number of the next sync call.
    pub fn wrote(&mut self, (bytes, updates): (u64, u64), before: u64, at: Time, staged: bool) {
        self.writes.push(Write { bytes, updates, before, at });
        self.total = (self.total.0 + bytes, self.total.1 + updates);
        if !staged {
            self.write_out();
        }
    }

    /// Bytes that are staged.
    pub fn staged(&self) -> u64 {
        self.copied().map(|w| w.bytes).sum()
    }

    /// Bytes that were written, those that are staged included.
    pub fn written(&self) -> u64 {
        self.total.0
    }

    /// Updates that were written.
    pub fn updates(&self) -> u64 {
        self.total.1
    }

    /// What is staged is written to the file.
    pub fn write_out(&mut self) {
        self.in_file = self.writes.len();
    }

    fn copied(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().skip(self.in_file)
    }

    /// A sync call has returned with success.
    pub fn acknowledged(&mut self, call: u64, at: Time) {
        self.acknowledged.push((call, at));
    }

    /// A sync starts, after it has written what is staged.
    pub fn sync_starts(&mut self, id: u64) {
        self.out.push_back((id, self.writes.len()));
    }

    /// A sync has ended. One that succeeds beside another that is out may have missed the other's error, so it
    /// counts when that has succeeded, too.
    pub fn sync_ended(&mut self, id: u64, succeeded: bool) {
        let Some(index) = self.out.iter().position(|(out, _)| *out == id) else { return };
        let Some((id, covers)) = self.out.remove(index) else { return };
        if !succeeded {
            self.doubtful.clear();
            return;
        }
        self.in_file = self.in_file.max(covers);
        self.doubtful.push((id, covers));
        if self.out.is_empty() {
            for (_, covers) in std::mem::take(&mut self.doubtful) {
                self.on_disk = self.on_disk.max(covers);
            }
        }
    }

    /// What is lost when the power fails: what acknowledged syncs cover and no successful sync does.
    pub fn power_loss(&self) -> Lost {
        let last = self.acknowledged.iter().map(|(call, _)| *call).max().unwrap_or(0);
        let gone = self.writes.iter().skip(self.on_disk).filter(|w| w.before <= last);
        self.lost(gone, None)
    }

    /// What is lost when the process dies: what is in no file.
    pub fn process_crash(&self) -> Lost {
        let since = self.copied().next().map(|w| w.at);
        self.lost(self.copied(), since)
    }

    fn lost<'a>(&self, gone: impl Iterator<Item = &'a Write>, since: Option<Time>) -> Lost {
        let mut lost = Lost { since, ..Lost::default() };
        let mut first = None;
        for write in gone {
            lost.writes += 1;
            lost.bytes += write.bytes;
            lost.updates += write.updates;
            first.get_or_insert(write.before);
        }
        // A call is lost with the first byte that it covers, and what survives is a prefix.
        let Some(first) = first else { return Lost::default() };
        let calls = self.acknowledged.iter().filter(|(call, _)| *call >= first);
        for (_, at) in calls {
            lost.syncs += 1;
            lost.since = Some(lost.since.map_or(*at, |since| since.min(*at)));
        }
        lost
    }
}
