//! The functions that programs call: those of the runtimes, and those of the kernel.

use crate::words;

words! {
    /// A function of the runtime that a program may call.
    ///
    /// Numbers below 0xd00 are the kernel's (`include/uapi/linux/bpf.h`); ours start there, above the
    /// kernel's (about 210) and BPFtime's own (1006–1010), so that no runtime takes one for another.
    #[repr(u32)]
    pub enum Helper, name {
        /// `void *bpf_map_lookup_elem(map, const u32 *key)`: the value, or null.
        MapLookup = 1 => "bpf_map_lookup_elem",
        /// `long bpf_map_update_elem(map, const u32 *key, const void *value, u64 flags)`. BPFtime's.
        MapUpdate = 2 => "bpf_map_update_elem",
        /// `u64 bpf_ktime_get_ns(void)`: the monotonic clock. BPFtime's.
        Clock = 5 => "bpf_ktime_get_ns",
        /// `u64 bpf_get_current_pid_tgid(void)`: the process in the upper half. BPFtime's.
        Process = 14 => "bpf_get_current_pid_tgid",
        /// `long bpf_override_return(struct pt_regs *, u64 value)`: the hooked function is skipped and
        /// returns `value`. BPFtime's.
        Override = 58 => "bpf_override_return",
        /// `u64 io_uring_init(void)`: makes the ring of this thread; 0 if it could. BPFtime's.
        RingInit = 1006 => "io_uring_init",
        /// `u64 io_uring_submit_fsync(int fd)`: puts an `fdatasync` into the ring; 0 if there was room. BPFtime's.
        RingSync = 1008 => "io_uring_submit_fsync",
        /// `u64 io_uring_wait_and_seen(void)`: waits until the next sync of the ring has ended, in whatever
        /// way; 0, or `-errno` if it did not wait. BPFtime's.
        RingWait = 1009 => "io_uring_wait_and_seen",
        /// `u64 io_uring_submit(void)`: starts what was put into the ring; how many. BPFtime's.
        RingSubmit = 1010 => "io_uring_submit",
        /// `u64 durac_request(void)`: asks for a background sync that covers this call, and returns
        /// at once. In a write it covers the calls before, and what is staged before it. Returns 0. The
        /// agent's.
        Request = 0xd00 => "durac_request",
        /// `u64 durac_await(u64 distance)`: parks until every sync call up to `this − distance` is
        /// durable: 0 this call too (`await all`), 1 all calls before it (`await previous`), n at most
        /// n − 1 of the calls before it are not durable (`await pending < n`). Starts a sync if none
        /// that helps is under way. At once when a sync has failed: the agent then fails the call,
        /// whatever the program's verdict. Returns 0. The agent's.
        Await = 0xd01 => "durac_await",
    }
}

impl Helper {
    /// The number in the call instruction.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as u32 as i32
    }

    /// The helper with that number, of any runtime.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Helper> {
        Helper::ALL.into_iter().find(|h| h.number() == number)
    }

    /// What it takes and returns, as a verifier has to know.
    #[must_use]
    pub const fn signature(self) -> Signature {
        use Parameter::{Context, Key, Map, Number, Value};
        let (parameters, result): (&[Parameter], Returns) = match self {
            Helper::MapLookup => (&[Map, Key], Returns::ValueOrNull),
            Helper::MapUpdate => (&[Map, Key, Value, Number], Returns::Number),
            Helper::Override => (&[Context, Number], Returns::Number),
            Helper::RingSync | Helper::Await => (&[Number], Returns::Number),
            Helper::Clock
            | Helper::Process
            | Helper::RingInit
            | Helper::RingWait
            | Helper::RingSubmit
            | Helper::Request => (&[], Returns::Number),
        };
        Signature { parameters, result }
    }
}

/// What a [`Helper`] takes and returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// From r1 on; at most five.
    pub parameters: &'static [Parameter],
    /// In r0.
    pub result: Returns,
}

/// What a parameter of a [`Helper`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The address of a map.
    Map,
    /// The address of a key of that map.
    Key,
    /// The address of a value of that map.
    Value,
    /// The address that r1 had when the program started.
    Context,
    /// Any number.
    Number,
}

/// What a [`Helper`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// A number.
    Number,
    /// The address of a value of the map, or null.
    ValueOrNull,
}

words! {
    /// A function of the kernel that its programs call ([`crate::notify`]).
    ///
    /// The numbers are those of `include/uapi/linux/bpf.h`.
    #[repr(u32)]
    pub enum KernelHelper, name {
        /// `void *bpf_map_lookup_elem(map, key)`
        MapLookup = 1 => "bpf_map_lookup_elem",
        /// `long bpf_map_update_elem(map, key, value, flags)`
        MapUpdate = 2 => "bpf_map_update_elem",
        /// `long bpf_map_delete_elem(map, key)`
        MapDelete = 3 => "bpf_map_delete_elem",
        /// `u64 bpf_get_current_pid_tgid(void)`: process in the high half, thread in the low one.
        GetCurrentPidTgid = 14 => "bpf_get_current_pid_tgid",
        /// `u64 bpf_get_current_task(void)`
        GetCurrentTask = 35 => "bpf_get_current_task",
        /// `long bpf_probe_read_kernel(to, size, from)`
        ProbeReadKernel = 113 => "bpf_probe_read_kernel",
        /// `struct task_struct *bpf_get_current_task_btf(void)`
        GetCurrentTaskBtf = 158 => "bpf_get_current_task_btf",
        /// `struct pt_regs *bpf_task_pt_regs(task)`
        TaskPtRegs = 175 => "bpf_task_pt_regs",
    }
}

impl KernelHelper {
    /// The number in the call instruction.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as u32 as i32
    }

    /// The helper with that number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<KernelHelper> {
        KernelHelper::ALL.into_iter().find(|h| h.number() == number)
    }
}
