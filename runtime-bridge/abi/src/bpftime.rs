//! What BPFtime gives a program: its context, its helpers, the numbers its loader is called with.
//!
//! Read in BPFtime's source (`frida_register_def.hpp`, `bpf_helper.cpp`, `bpftime_shm.hpp`,
//! `syscall_context.cpp`) at commit ec26daec. A program there is a uprobe: r1 points to a
//! `struct pt_regs`, and r0 is ignored.

use crate::backend::{Backend, ContextLayout};
use crate::notify::Counter;
use crate::{Helper, Hook};
use serde::{Deserialize, Serialize};

/// Size of x86-64's `struct pt_regs` (`arch/x86/include/asm/ptrace.h`), bytes.
pub const REGISTERS_SIZE: usize = 168;

/// The registers, in the order of their offsets.
pub const REGISTERS: [&str; REGISTERS_SIZE / 8] = [
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di",
    "orig_ax", "ip", "cs", "flags", "sp", "ss",
];

/// Offsets of the arguments that survive: a call that is not overridden goes on with five.
const ARGUMENTS: [i16; MAX_ARGUMENTS] = [112, 104, 96, 88, 72];

/// Arguments that a hooked function can have.
pub const MAX_ARGUMENTS: usize = 5;

/// A parameter of a hooked function, by its position: `di` is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Argument(pub u8);

impl Argument {
    /// Its offset in the registers; none beyond the fifth.
    #[must_use]
    pub fn offset(self) -> Option<i16> {
        ARGUMENTS.get(usize::from(self.0)).copied()
    }
}

/// `perf_event_attr.type` of a probe that may skip the function it is at
/// (`BPF_TYPE_UPROBE_OVERRIDE`).
pub const PERF_TYPE_OVERRIDE: u32 = 1008;
/// `BPF_PROG_TYPE_KPROBE`: what a uprobe's program is (`include/uapi/linux/bpf.h`).
pub const PROG_TYPE: u32 = 2;
/// `BPF_PERF_EVENT`: how a program is linked to a probe (`include/uapi/linux/bpf.h`).
pub const ATTACH_TYPE: u32 = 41;

/// Greatest errno that a result can stand for (`MAX_ERRNO`, `include/linux/err.h`).
pub const MAX_ERRNO: i32 = 4095;

/// BPFtime as a [`Backend`].
pub(crate) struct Bpftime;

impl Backend for Bpftime {
    /// The prefix by which libbpf knows a uprobe, without a binary: what is attached there is not a plain
    /// probe, so libbpf must not attach it by itself.
    fn section(&self, hook: Hook) -> &'static str {
        match hook {
            Hook::Write => "uprobe/write",
            Hook::Fsync => "uprobe/fsync",
            Hook::Fdatasync => "uprobe/fdatasync",
            Hook::Reply => "uprobe/reply",
            Hook::Turn => "uprobe/turn",
            Hook::Barrier => "uprobe/barrier",
        }
    }

    fn context(&self) -> ContextLayout {
        ContextLayout { name: "pt_regs", fields: &REGISTERS }
    }

    fn helpers(&self) -> &'static [Helper] {
        &[
            Helper::MapLookup,
            Helper::MapUpdate,
            Helper::Clock,
            Helper::Process,
            Helper::Override,
            Helper::RingInit,
            Helper::RingSync,
            Helper::RingWait,
            Helper::RingSubmit,
        ]
    }

    /// A process has one log.
    fn state_entries(&self) -> u32 {
        1
    }

    fn needs_entry(&self) -> bool {
        true
    }

    fn has_session(&self) -> bool {
        true
    }

    fn counter(&self) -> Counter {
        Counter::Process
    }
}
