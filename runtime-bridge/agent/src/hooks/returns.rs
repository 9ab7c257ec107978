//! What a call raises in the registry until it returns (`fork`, `exec`), and handlers of signals that it never returns from.
//!
//! A handler takes over what the call it interrupts has raised, and gives it back when it returns. One that leaves by a jump
//! never does: the next hook of its thread outside of handlers lets it go.

use crate::errno::Kept;
use crate::guard;
use crate::local::{Zero, zeroed_thread_local};
use crate::signals;
use crate::stage::StageOff;
use crate::table;
use libc::pid_t;
use std::cell::Cell;

/// What calls of this thread have raised and not let go.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Raised {
    /// The process that has; 0 if nothing is.
    process: pid_t,
    /// It may end, or become another program.
    leaves: u32,
    /// Hooks of `fork`.
    forks: u32,
    /// Of these, those that are counted as under way.
    counted: u32,
    /// They may have made a child that nobody counts.
    clones: bool,
}

// SAFETY: numbers, and `false`.
unsafe impl Zero for Cell<Raised> {}

zeroed_thread_local! {
    // By the calls that run now.
    static RAISED: Cell<Raised>;
    // By those that handlers have interrupted.
    static INTERRUPTED: Cell<Raised>;
}

impl Raised {
    const NOTHING: Self = Self { process: 0, leaves: 0, forks: 0, counted: 0, clones: false };

    /// Both; what another process has raised, whose child this one is, counts no longer.
    fn and(self, other: Self) -> Self {
        if other.process == 0 {
            return self;
        }
        if self.process != other.process {
            return other;
        }
        Self {
            process: self.process,
            leaves: self.leaves + other.leaves,
            forks: self.forks + other.forks,
            counted: self.counted + other.counted,
            clones: self.clones || other.clones,
        }
    }

    /// What is not in the other.
    fn without(self, other: Self) -> Self {
        if self.process != other.process {
            return self;
        }
        let left = Self {
            process: self.process,
            leaves: self.leaves.saturating_sub(other.leaves),
            forks: self.forks.saturating_sub(other.forks),
            counted: self.counted.saturating_sub(other.counted),
            clones: self.clones,
        };
        if left.leaves + left.forks + left.counted == 0 { Self::NOTHING } else { left }
    }
}

/// A call that may raise something: what it has raised is let go with it, also if its thread is cancelled.
pub struct Call {
    before: Raised,
}

impl Drop for Call {
    fn drop(&mut self) {
        let raised = RAISED.replace(self.before);
        if raised != self.before {
            let_go(raised.without(self.before));
        }
    }
}

/// A call begins.
pub fn begins() -> Call {
    look();
    Call { before: RAISED.get() }
}

fn raise(change: impl FnOnce(&mut Raised)) {
    let process = table::owner();
    let mut raised = RAISED.get();
    if raised.process != process {
        raised = Raised { process, ..Raised::NOTHING };
    }
    change(&mut raised);
    RAISED.set(raised);
}

/// Whether a call of this thread has said that the process may end.
pub fn has_left() -> bool {
    let raised = RAISED.get();
    raised.leaves > 0 && raised.process == table::owner()
}

/// The call is about to say so.
pub fn leaves() {
    raise(|raised| raised.leaves += 1);
}

/// The call is the hook of `fork`.
pub fn forks() {
    raise(|raised| raised.forks += 1);
}

/// Whether a hook of `fork` runs.
pub fn is_forking() -> bool {
    RAISED.get().forks > 0
}

/// It is counted as under way, or is no longer.
pub fn counts_fork(is_counted: bool) {
    raise(|raised| match is_counted {
        true => raised.counted += 1,
        false => raised.counted = raised.counted.saturating_sub(1),
    });
}

/// From here on there may be a child.
pub fn clones() {
    raise(|raised| raised.clones = true);
}

/// A handler runs: calls of its own have raised nothing.
pub struct Interrupts {
    raised: Raised,
    before: Raised,
}

/// A handler begins.
pub fn interrupts() -> Interrupts {
    let (raised, before) = (RAISED.get(), INTERRUPTED.get());
    if raised.process != 0 {
        RAISED.set(Raised::NOTHING);
        INTERRUPTED.set(before.and(raised));
    }
    Interrupts { raised, before }
}

/// It has returned: the call that it has interrupted goes on.
impl Drop for Interrupts {
    fn drop(&mut self) {
        let (now, taken) = (INTERRUPTED.get(), self.before.and(self.raised));
        // Handlers inside it have left by a jump, to it.
        let_go(now.without(taken));
        // If the thread was thought to have left this one, all was let go.
        let is_there = taken.without(now) == Raised::NOTHING;
        INTERRUPTED.set(if is_there { self.before } else { Raised::NOTHING });
        RAISED.set(if is_there { self.raised } else { Raised::NOTHING });
    }
}

/// In a hook: lets go what handlers have taken that have left by a jump. One load if there was none.
#[inline]
pub fn look() {
    if INTERRUPTED.with(Cell::get).process != 0
        && !signals::may_be_in_handler()
        // A child of `vfork` has its parent's.
        && table::is_ours()
    {
        let_go(INTERRUPTED.replace(Raised::NOTHING));
    }
}

#[cold]
fn let_go(raised: Raised) {
    if raised.leaves + raised.counted == 0 {
        return;
    }
    // A child of `vfork` has the thread's memory, and what was forked meanwhile another registry.
    if !table::is_ours() || raised.process != table::owner() {
        return;
    }
    let Some(registry) = table::registry() else { return };
    let kept = Kept::now();
    guard::run(|| {
        if raised.counted > 0 && raised.clones {
            crate::registry::revoke_all(StageOff::Forked);
        }
        (0..raised.counted).for_each(|_| registry.children.forked());
        (0..raised.leaves).for_each(|_| registry.stays());
    });
    drop(kept);
}
