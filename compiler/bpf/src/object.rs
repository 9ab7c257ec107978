//! A compiled policy as data: what stands in the ELF file, without the ELF.

use crate::abi::{Engine, Hook, Reading, Runtime};
use crate::bpftime::Argument;
use crate::insn::Insn;
use crate::notify::{self, KernelProgram};
use serde::{Deserialize, Serialize};

/// Slots a program may have at most.
///
/// The time of the verifier grows with the square of it: at this length it is below 2 s, for a
/// policy of usual length (20 slots) about 1 ms.
pub const MAX_SLOTS: usize = 512;

/// A compiled policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// One per hook, in the order of the hooks' numbers.
    pub programs: Vec<Program>,
    /// The maps the programs use.
    pub maps: Vec<Map>,
    /// The kernel's programs: none, or all that [`notify::programs_of`] makes.
    pub kernel: Vec<KernelProgram>,
    /// What the note section says.
    pub meta: Meta,
    /// Name of the source file (last path component) and its text, for debug information.
    pub source: Source,
}

/// The text an object was made from.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Source {
    /// Last path component of the file: objects hold no machine's paths.
    pub name: String,
    /// The whole text; empty when the object was read without debug information.
    pub text: String,
}

/// The code for one hook.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The hook.
    pub hook: Hook,
    /// The instructions. A `lddw` of a map has immediate 0 and an entry in `relocs`.
    pub insns: Vec<Insn>,
    /// Instructions (by index of the slot) that load the address of a map (by index).
    pub relocs: Vec<Reloc>,
    /// Source position from an instruction on, in order of the slots.
    pub lines: Vec<Line>,
}

/// A `lddw` that takes the address of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloc {
    /// Index of the instruction's first slot in [`Program::insns`].
    pub slot: u32,
    /// Index in [`Object::seen_maps`]; in the kernel's programs, in [`notify::maps_of`].
    pub map: u32,
}

/// From `slot` on, the code comes from this place of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Index in [`Program::insns`].
    pub slot: u32,
    /// One-based line; 0 for code with no place.
    pub line: u32,
    /// One-based column.
    pub column: u32,
}

/// A `BPF_MAP_TYPE_ARRAY` with `u32` keys and a struct of `u64` members as value.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Its name: [`crate::abi::PARAMS_MAP`] or [`crate::abi::STATE_MAP`].
    pub name: String,
    /// Number of entries.
    pub max_entries: u32,
    /// Names of the members, 8 bytes each, in order; at least one.
    pub fields: Vec<String>,
}

impl Map {
    /// Size of a value, bytes.
    #[must_use]
    pub fn value_size(&self) -> u32 {
        8 * self.fields.len() as u32
    }
}

/// A map as a policy's program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// `BPF_MAP_TYPE_*` (`include/uapi/linux/bpf.h`).
    pub kind: u32,
    /// Size of a value, bytes.
    pub value_size: u32,
    /// Number of entries.
    pub max_entries: u32,
}

impl Object {
    /// The maps that the policy's programs can load: the object's, and under BPFtime behind them those
    /// of the kernel's programs.
    pub fn seen_maps(&self) -> impl Iterator<Item = Seen<'_>> {
        let own = self.maps.iter().map(|map| Seen {
            name: &map.name,
            kind: crate::btf::MAP_TYPE_ARRAY,
            value_size: map.value_size(),
            max_entries: map.max_entries,
        });
        let shares = self.meta.runtime == Runtime::Bpftime && !self.kernel.is_empty();
        let kernel = notify::maps_of(self.meta.runtime).iter().filter(move |_| shares);
        own.chain(kernel.map(|map| Seen {
            name: map.name,
            kind: map.kind,
            value_size: map.value_size(),
            max_entries: map.max_entries,
        }))
    }

    /// The map that a [`Reloc`] of a policy's program names.
    #[must_use]
    pub fn map(&self, index: u32) -> Option<Seen<'_>> {
        self.seen_maps().nth(index as usize)
    }
}

impl Meta {
    /// The function that the program of `hook` is attached to.
    #[must_use]
    pub fn entry(&self, hook: Hook) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.hook == hook)
    }
}

/// What the note section `.note.durac` says, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// [`crate::abi::ABI`].
    pub abi: u32,
    /// What runs it.
    #[serde(default)]
    pub runtime: Runtime,
    /// The functions of the application that programs are attached to, in the order of the programs;
    /// the agent finds those of libc by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// Name of the policy.
    pub policy: String,
    /// Name of the target.
    pub target: String,
    /// SHA-256 of the source text, hexadecimal.
    pub source_sha256: String,
    /// Globs of the files it covers: on the last path component, or the whole path if they have `/`.
    pub files: Vec<String>,
    /// Globs of files it does not cover after all.
    pub except: Vec<String>,
    /// Actions the policy uses (`await`, `defer`, …), sorted.
    pub capabilities: Vec<String>,
    /// Readings the policy uses, sorted.
    pub reads: Vec<Reading>,
    /// Parameters: member i of the map `params`.
    pub params: Vec<Param>,
    /// State: member i of the map `state`.
    pub state: Vec<State>,
    /// `flush within`, nanoseconds.
    pub flush_within: Option<u64>,
    /// What a failed background sync stops.
    pub on_error: OnError,
    /// What writes staged bytes, if the target says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// What can be lost, one line per failure.
    pub loss: Vec<Loss>,
}

impl Meta {
    /// Whether the policy stages writes.
    #[must_use]
    pub fn stages(&self) -> bool {
        self.capabilities.iter().any(|action| action == "stage")
    }
}

/// A function of the application that one program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The program's hook.
    pub hook: Hook,
    /// Its symbol.
    pub symbol: String,
    /// Its parameter with the bytes of a write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<Argument>,
    /// Its parameter with the descriptor of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<Argument>,
    /// Its parameter with the error of an earlier sync: 0, or `-errno`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Argument>,
}

/// A parameter that can be changed while the policy runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its unit: `syncs`, `writes`, `count`, `bytes`, `duration` (nanoseconds) or `bool`.
    pub unit: String,
    /// The value it starts with.
    pub default: u64,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
}

/// A state variable; each log has its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Its name; starts with `.` when the compiler made it.
    pub name: String,
    /// The value it starts with.
    pub init: u64,
}

/// What a failed background sync stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Every later call on that log fails.
    Fail,
    /// Every later call on every log fails.
    Stop,
}

/// The loss a failure can cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// `power_loss` or `process_crash`.
    pub failure: String,
    /// Acknowledged syncs at most, at the default parameters; `null` is unbounded.
    pub syncs: Option<u64>,
    /// Age of the oldest lost sync at most, nanoseconds; `null` is unbounded.
    pub within: Option<u64>,
    /// The same in words: `at most n syncs`.
    pub text: String,
}
