//! The agent's threads under an explorer: loom runs every interleaving of their locks, conditions and
//! syncs, up to a number of preemptions.
//!
//! The modules below are the agent's own texts, compiled with [`sync`] on loom's primitives; what
//! stands around them (system calls, clock, policy) is in [`world`], small and
//! deterministic. A thread that waits for ever is a deadlock to loom, and fails the test.
//!
//! Each property is also tried where it does not hold (a condition that wakes nobody, a disk that
//! lies): there the explorer has to find that.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::undocumented_unsafe_blocks,
    missing_docs,
    reason = "a test that fails says so, and uses a part of the agent"
)]

#[path = "../../src/call.rs"]
mod call;
#[path = "../../src/change.rs"]
mod change;
mod changes;
#[path = "../../src/children.rs"]
mod children;
#[path = "../../src/replies/choice.rs"]
mod choice;
#[path = "../../src/completion.rs"]
mod completion;
#[path = "../../src/deadline.rs"]
mod deadline;
#[path = "../../src/errno.rs"]
mod errno;
#[path = "../../src/fault_injection.rs"]
mod fault_injection;
#[path = "../../src/flight.rs"]
mod flight;
mod front;
#[path = "../../src/guard.rs"]
mod guard;
#[path = "../../src/held.rs"]
mod held;
#[path = "../../src/keys.rs"]
mod keys;
#[path = "../../src/lock.rs"]
mod lock;
#[path = "../../src/log.rs"]
mod log;
#[path = "../../src/look.rs"]
mod look;
#[path = "../../src/maps.rs"]
mod maps;
#[path = "../../src/order.rs"]
mod order;
#[path = "../../src/pool.rs"]
mod pool;
mod processes;
#[path = "../../src/readable.rs"]
mod readable;
#[path = "../../src/records.rs"]
mod records;
#[path = "../../src/registry.rs"]
mod registry;
#[path = "../../src/ring.rs"]
mod ring;
#[path = "../../src/shared.rs"]
mod shared;
#[path = "../../src/stage.rs"]
mod stage;
#[path = "../../src/stamp.rs"]
mod stamp;
mod sync;
#[path = "../../src/syncer.rs"]
mod syncer;
#[path = "../../src/sys.rs"]
mod sys;
#[path = "../../src/table.rs"]
mod table;
mod tests;
#[path = "../../src/waits.rs"]
mod waits;
#[path = "../../src/watch.rs"]
mod watch;
mod world;
#[path = "../../src/written.rs"]
mod written;

use world::{
    clock, crowd, failures, family, hooks, note, owned, page, policy, proof, real, record, replies,
    signals,
};
