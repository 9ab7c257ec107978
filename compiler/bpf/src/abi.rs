//! The contract between a compiled policy and the agent: context layout, helpers, verdicts.
//!
//! The compiler emits against these constants, the verifier checks against them, the agent
//! implements them. A change here is a change of [`ABI`]; an object of another ABI is refused.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of this contract. Stands in the object's note.
pub const ABI: u32 = 1;

/// What runs an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Our agent: [`Context`], the engine's helpers, a verdict in r0.
    #[default]
    Agent,
    /// BPFtime: registers, its helpers, a verdict by [`Helper::Override`] ([`crate::bpftime`]).
    Bpftime,
}

impl Runtime {
    /// Both.
    pub const ALL: [Runtime; 2] = [Runtime::Agent, Runtime::Bpftime];

    /// As written on the command line and in the note.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Runtime::Agent => "agent",
            Runtime::Bpftime => "bpftime",
        }
    }

    /// Size of what r1 points to, bytes.
    #[must_use]
    pub fn context_size(self) -> usize {
        match self {
            Runtime::Agent => CONTEXT_SIZE,
            Runtime::Bpftime => crate::bpftime::REGISTERS_SIZE,
        }
    }
}

/// A place where the application calls into us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Hook {
    /// `write`, `writev`, `pwrite`, … on a log.
    Write = 0,
    /// `fsync` on a log.
    Fsync = 1,
    /// `fdatasync` on a log.
    Fdatasync = 2,
    /// A reply to a client. No runtime has it yet.
    Reply = 3,
    /// Before a sync that no other hook is asked about. It is the compiler's own, and no word of the
    /// language ([`crate::ring`]). BPFtime's.
    Barrier = 4,
}

impl Hook {
    /// Every hook of the language, in the order of their numbers.
    pub const ALL: [Hook; 4] = [Hook::Write, Hook::Fsync, Hook::Fdatasync, Hook::Reply];
    /// Every hook that a program can be of.
    pub const PROGRAMS: [Hook; 5] =
        [Hook::Write, Hook::Fsync, Hook::Fdatasync, Hook::Reply, Hook::Barrier];

    /// The hook's name in the language and in section names (`durac/fdatasync`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Hook::Write => "write",
            Hook::Fsync => "fsync",
            Hook::Fdatasync => "fdatasync",
            Hook::Reply => "reply",
            Hook::Barrier => "barrier",
        }
    }

    /// The hook that is called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Hook> {
        Hook::ALL.into_iter().find(|h| h.name() == name)
    }

    /// The ELF section its program stands in.
    ///
    /// BPFtime's have the prefix by which libbpf knows a uprobe, without a binary: what is attached
    /// there is no plain probe, so libbpf must not attach it by itself.
    #[must_use]
    pub fn section(self, runtime: Runtime) -> &'static str {
        match (runtime, self) {
            (Runtime::Agent, Hook::Write) => "durac/write",
            (Runtime::Agent, Hook::Fsync) => "durac/fsync",
            (Runtime::Agent, Hook::Fdatasync) => "durac/fdatasync",
            (Runtime::Agent, Hook::Reply) => "durac/reply",
            (Runtime::Agent, Hook::Barrier) => "durac/barrier",
            (Runtime::Bpftime, Hook::Write) => "uprobe/write",
            (Runtime::Bpftime, Hook::Fsync) => "uprobe/fsync",
            (Runtime::Bpftime, Hook::Fdatasync) => "uprobe/fdatasync",
            (Runtime::Bpftime, Hook::Reply) => "uprobe/reply",
            (Runtime::Bpftime, Hook::Barrier) => "uprobe/barrier",
        }
    }

    /// Whether it is a call that asks for durability.
    #[must_use]
    pub fn is_sync(self) -> bool {
        matches!(self, Hook::Fsync | Hook::Fdatasync)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a program reads: r1 points to this. Every field is a 64-bit little-endian number.
///
/// The agent fills only the fields that the object's note lists under `reads`, and fills them
/// again after every wait. A program may load, not store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Context {
    /// Key of the log in the `state` map.
    pub log: u64,
    /// Bytes of this write; 0 for a sync.
    pub len: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub now: u64,
    /// Syncs acknowledged and not yet durable, this call not counted.
    pub pending: u64,
    /// Bytes written and not yet durable.
    pub pending_bytes: u64,
    /// Age of the oldest acknowledged sync that is not durable, nanoseconds.
    pub pending_age: u64,
    /// Syncs that are staged and not yet durable: in a sync this call counts, in a write those before.
    pub staged: u64,
    /// Duration of the last completed sync, nanoseconds.
    pub sync_latency: u64,
    /// 1 if a sync that began after this call's writes has completed with success, else 0.
    pub notify_done: u64,
    /// Syncs of this log completed with success.
    pub notify_count: u64,
    /// 1 while a forked child of the application runs, else 0.
    pub child_active: u64,
}

/// A field of [`Context`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// [`Context::log`]; not a word of the language.
    Log,
    /// `call.len`
    CallLen,
    /// `now`
    Now,
    /// `pending`
    Pending,
    /// `pending.bytes`
    PendingBytes,
    /// `pending.age`
    PendingAge,
    /// `staged`
    Staged,
    /// `sync.latency`
    SyncLatency,
    /// `notify.done`
    NotifyDone,
    /// `notify.count`
    NotifyCount,
    /// `child.active`
    ChildActive,
}

impl Reading {
    /// Every reading, in the order of their offsets.
    pub const ALL: [Reading; 11] = [
        Reading::Log,
        Reading::CallLen,
        Reading::Now,
        Reading::Pending,
        Reading::PendingBytes,
        Reading::PendingAge,
        Reading::Staged,
        Reading::SyncLatency,
        Reading::NotifyDone,
        Reading::NotifyCount,
        Reading::ChildActive,
    ];

    /// Byte offset in [`Context`].
    #[must_use]
    pub fn offset(self) -> i16 {
        let offset = match self {
            Reading::Log => std::mem::offset_of!(Context, log),
            Reading::CallLen => std::mem::offset_of!(Context, len),
            Reading::Now => std::mem::offset_of!(Context, now),
            Reading::Pending => std::mem::offset_of!(Context, pending),
            Reading::PendingBytes => std::mem::offset_of!(Context, pending_bytes),
            Reading::PendingAge => std::mem::offset_of!(Context, pending_age),
            Reading::Staged => std::mem::offset_of!(Context, staged),
            Reading::SyncLatency => std::mem::offset_of!(Context, sync_latency),
            Reading::NotifyDone => std::mem::offset_of!(Context, notify_done),
            Reading::NotifyCount => std::mem::offset_of!(Context, notify_count),
            Reading::ChildActive => std::mem::offset_of!(Context, child_active),
        };
        offset as i16
    }

    /// Name of the field in [`Context`], as in C and in BTF.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Reading::Log => "log",
            Reading::CallLen => "len",
            Reading::Now => "now",
            Reading::Pending => "pending",
            Reading::PendingBytes => "pending_bytes",
            Reading::PendingAge => "pending_age",
            Reading::Staged => "staged",
            Reading::SyncLatency => "sync_latency",
            Reading::NotifyDone => "notify_done",
            Reading::NotifyCount => "notify_count",
            Reading::ChildActive => "child_active",
        }
    }
}

/// Size of [`Context`], bytes.
pub const CONTEXT_SIZE: usize = std::mem::size_of::<Context>();

/// A function of the runtime that a program may call.
///
/// Numbers below 0xd00 are the kernel's (`include/uapi/linux/bpf.h`); ours start there, above the
/// kernel's (about 210) and BPFtime's own (1006–1010), so that no runtime takes one for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Helper {
    /// `void *bpf_map_lookup_elem(map, const u32 *key)`: the value, or null.
    MapLookup = 1,
    /// `long bpf_map_update_elem(map, const u32 *key, const void *value, u64 flags)`. BPFtime's.
    MapUpdate = 2,
    /// `u64 bpf_ktime_get_ns(void)`: the monotonic clock. BPFtime's.
    Clock = 5,
    /// `u64 bpf_get_current_pid_tgid(void)`: the process in the upper half. BPFtime's.
    Process = 14,
    /// `long bpf_override_return(struct pt_regs *, u64 value)`: the hooked function is skipped and
    /// returns `value`. BPFtime's.
    Override = 58,
    /// `u64 io_uring_init(void)`: makes the ring of this thread; 0 if it could. BPFtime's.
    RingInit = 1006,
    /// `u64 io_uring_submit_fsync(int fd)`: puts an `fdatasync` into the ring; 0 if there was room. BPFtime's.
    RingSync = 1008,
    /// `u64 io_uring_wait_and_seen(void)`: waits until the next sync of the ring has ended, in whatever
    /// way; 0, or `-errno` if it did not wait. BPFtime's.
    RingWait = 1009,
    /// `u64 io_uring_submit(void)`: starts what was put into the ring; how many. BPFtime's.
    RingSubmit = 1010,
    /// `u64 durac_request(void)`: asks for a background sync that covers this call, and returns
    /// at once. In a write it covers the calls before, and what is staged before it. Returns 0. The
    /// agent's.
    Request = 0xd00,
    /// `u64 durac_await(u64 distance)`: parks until every sync call up to `this − distance` is
    /// durable: 0 this call too (`await all`), 1 all calls before it (`await previous`), n at most
    /// n − 1 of the calls before it are not durable (`await pending < n`). Starts a sync if none
    /// that helps is under way. At once when a sync has failed: the agent then fails the call,
    /// whatever the program's verdict. Returns 0. The agent's.
    Await = 0xd01,
}

impl Helper {
    /// Every helper.
    pub const ALL: [Helper; 11] = [
        Helper::MapLookup,
        Helper::MapUpdate,
        Helper::Clock,
        Helper::Process,
        Helper::Override,
        Helper::RingInit,
        Helper::RingSync,
        Helper::RingWait,
        Helper::RingSubmit,
        Helper::Request,
        Helper::Await,
    ];

    /// The number in the call instruction.
    #[must_use]
    pub fn number(self) -> i32 {
        self as u32 as i32
    }

    /// The helper with that number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Helper> {
        Helper::ALL.into_iter().find(|h| h.number() == number)
    }

    /// The helper with that number, if the runtime has it.
    #[must_use]
    pub fn of(runtime: Runtime, number: i32) -> Option<Helper> {
        Helper::from_number(number).filter(|helper| match helper {
            Helper::MapLookup => true,
            Helper::MapUpdate
            | Helper::Clock
            | Helper::Process
            | Helper::Override
            | Helper::RingInit
            | Helper::RingSync
            | Helper::RingWait
            | Helper::RingSubmit => runtime == Runtime::Bpftime,
            Helper::Request | Helper::Await => runtime == Runtime::Agent,
        })
    }

    /// Its C name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Helper::MapLookup => "bpf_map_lookup_elem",
            Helper::MapUpdate => "bpf_map_update_elem",
            Helper::Clock => "bpf_ktime_get_ns",
            Helper::Process => "bpf_get_current_pid_tgid",
            Helper::Override => "bpf_override_return",
            Helper::RingInit => "io_uring_init",
            Helper::RingSync => "io_uring_submit_fsync",
            Helper::RingWait => "io_uring_wait_and_seen",
            Helper::RingSubmit => "io_uring_submit",
            Helper::Request => "durac_request",
            Helper::Await => "durac_await",
        }
    }
}

/// A function of the kernel that its programs call ([`crate::notify`]).
///
/// The numbers are those of `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum KernelHelper {
    /// `void *bpf_map_lookup_elem(map, key)`
    MapLookup = 1,
    /// `long bpf_map_update_elem(map, key, value, flags)`
    MapUpdate = 2,
    /// `long bpf_map_delete_elem(map, key)`
    MapDelete = 3,
    /// `u64 bpf_get_current_pid_tgid(void)`: process in the high half, thread in the low one.
    GetCurrentPidTgid = 14,
    /// `u64 bpf_get_current_task(void)`
    GetCurrentTask = 35,
    /// `long bpf_probe_read_kernel(to, size, from)`
    ProbeReadKernel = 113,
    /// `struct task_struct *bpf_get_current_task_btf(void)`
    GetCurrentTaskBtf = 158,
    /// `struct pt_regs *bpf_task_pt_regs(task)`
    TaskPtRegs = 175,
}

impl KernelHelper {
    /// Every helper.
    pub const ALL: [KernelHelper; 8] = [
        KernelHelper::MapLookup,
        KernelHelper::MapUpdate,
        KernelHelper::MapDelete,
        KernelHelper::GetCurrentPidTgid,
        KernelHelper::GetCurrentTask,
        KernelHelper::ProbeReadKernel,
        KernelHelper::GetCurrentTaskBtf,
        KernelHelper::TaskPtRegs,
    ];

    /// The number in the call instruction.
    #[must_use]
    pub fn number(self) -> i32 {
        self as u32 as i32
    }

    /// The helper with that number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<KernelHelper> {
        KernelHelper::ALL.into_iter().find(|h| h.number() == number)
    }

    /// Its C name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KernelHelper::MapLookup => "bpf_map_lookup_elem",
            KernelHelper::MapUpdate => "bpf_map_update_elem",
            KernelHelper::MapDelete => "bpf_map_delete_elem",
            KernelHelper::GetCurrentPidTgid => "bpf_get_current_pid_tgid",
            KernelHelper::GetCurrentTask => "bpf_get_current_task",
            KernelHelper::ProbeReadKernel => "bpf_probe_read_kernel",
            KernelHelper::GetCurrentTaskBtf => "bpf_get_current_task_btf",
            KernelHelper::TaskPtRegs => "bpf_task_pt_regs",
        }
    }
}

/// What a program returns in r0. A negative 32-bit number is `-errno`: fail the call with it.
/// The agent takes a value that is none of these for [`Verdict::Pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Run the call as the application made it.
    Pass,
    /// Report success and sync in the background.
    Defer,
    /// Report success and do nothing.
    Skip,
    /// Copy the bytes, report success, write later; only of a write.
    Stage,
    /// Hold the reply until its writes are durable. No runtime has it yet.
    Hold,
    /// Fail the call with this errno.
    Fail(i32),
}

impl Verdict {
    /// As returned in r0.
    #[must_use]
    pub fn encode(self) -> i32 {
        match self {
            Verdict::Pass => 0,
            Verdict::Defer => 1,
            Verdict::Skip => 2,
            Verdict::Stage => 3,
            Verdict::Hold => 4,
            Verdict::Fail(errno) => -errno,
        }
    }

    /// What r0 means; [`Verdict::Pass`] for anything unknown.
    #[must_use]
    pub fn decode(r0: u64) -> Verdict {
        match r0 as i64 {
            1 => Verdict::Defer,
            2 => Verdict::Skip,
            3 => Verdict::Stage,
            4 => Verdict::Hold,
            n @ -4095..=-1 => Verdict::Fail(-(n as i32)),
            _ => Verdict::Pass,
        }
    }
}

/// Name of the map that holds the parameters: array, one entry, a `u64` each.
pub const PARAMS_MAP: &str = "params";
/// Name of the map that holds the state: array, one entry per log, a `u64` each.
pub const STATE_MAP: &str = "state";
/// How the state variables begin that BPFtime's programs keep for themselves.
pub const OWNER: &str = "_owner";
/// Logs that can have state; [`Context::log`] is below it. A log beyond them runs unhooked.
pub const MAX_LOGS: u32 = 1024;

/// What writes staged bytes in the background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The syncer thread, with `write` and `fdatasync`.
    #[default]
    Thread,
    /// The syncer thread, with a write and a linked sync through its own io_uring.
    IoUring,
}

impl Engine {
    /// Both.
    pub const ALL: [Engine; 2] = [Engine::Thread, Engine::IoUring];

    /// Its name in the language and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Engine::Thread => "thread",
            Engine::IoUring => "io_uring",
        }
    }

    /// The engine that is called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Engine> {
        Engine::ALL.into_iter().find(|engine| engine.name() == name)
    }
}

/// Bytes of a log that can be staged at once, those included that are being written: 1 MiB. A write
/// that does not fit runs as the application made it.
pub const STAGE_ROOM: u64 = 1 << 20;

/// Environment variable with the path of the object the agent loads.
pub const ENV_OBJECT: &str = "DURAC_OBJECT";
/// Environment variable with the engine that writes what is staged, by its name; it comes before that
/// of the object.
pub const ENV_ENGINE: &str = "DURAC_ENGINE";
/// Environment variable with the path of the status file the agent makes; none if unset.
pub const ENV_STATUS: &str = "DURAC_STATUS";
/// Environment variable with the path of the ring (`durac_trace::ring`) to which the agent records
/// what happens on the logs; nothing is recorded if unset.
pub const ENV_RECORD: &str = "DURAC_RECORD";
/// Environment variable: `quiet` silences the agent's notes on stderr (errors are always shown).
pub const ENV_LOG: &str = "DURAC_LOG";
/// Environment variable with the descriptor of the map of [`crate::notify`], and after a colon those
/// that keep its programs attached, separated by commas: `700:701,702`. All are inherited. `durac run`
/// makes it; for `durac run` itself, [`NOTIFY_OFF`] in it means that no program is loaded.
pub const ENV_NOTIFY: &str = "DURAC_NOTIFY";
/// Value of [`ENV_NOTIFY`] that the administrator may set.
pub const NOTIFY_OFF: &str = "off";
