//! A compiled policy as data: the contents of the ELF file, without the ELF.

use crate::bpftime::Argument;
use crate::certificate::Certificate;
use crate::insn::Insn;
use crate::notify::KernelProgram;
use crate::{Callers, Engine, Hook, Layout, Reading, Records, Runtime, words};
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
    /// The kernel's programs: none, or all that [`crate::notify::Counter::is_of`] knows.
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
    /// Index in [`Object::seen_maps`]; in the kernel's programs, in [`crate::notify::Counter::maps`].
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
    /// Its name: [`crate::PARAMS_MAP`], [`crate::STATE_MAP`] or [`crate::session::SESSION_MAP`].
    pub name: String,
    /// Number of entries.
    pub max_entries: u32,
    /// Names of the members, 8 bytes each, in order; at least one.
    pub fields: Vec<String>,
}

/// Tells objects apart, by their bytes as a file holds them: FNV-1a with 64 bits. It says which object a process runs, and
/// nothing about whether to trust it.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
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
    /// The maps that the policy's programs can load: the object's, and behind them those of the kernel's programs if
    /// they are shared.
    pub fn seen_maps(&self) -> impl Iterator<Item = Seen<'_>> {
        let own = self.maps.iter().map(|map| Seen {
            name: &map.name,
            kind: crate::btf::MAP_TYPE_ARRAY,
            value_size: map.value_size(),
            max_entries: map.max_entries,
        });
        let shares = self.counts_own_syncs();
        let kernel = self.meta.runtime.backend().counter().maps().iter().filter(move |_| shares);
        own.chain(kernel.map(|map| Seen {
            name: map.name,
            kind: map.kind,
            value_size: map.value_size(),
            max_entries: map.max_entries,
        }))
    }

    /// Whether its programs start syncs and share a map with the kernel's, which count them.
    #[must_use]
    pub fn counts_own_syncs(&self) -> bool {
        let counter = self.meta.runtime.backend().counter();
        counter.is_shared_with_the_policy() && !self.kernel.is_empty()
    }

    /// Whether a runtime that is told of system calls has to be told of every write: the target says so, or a program
    /// runs for writes, or reads how much was written. Writes that are only found later (`on write: defer`) are not.
    #[must_use]
    pub fn asks_about_writes(&self) -> bool {
        let meta = &self.meta;
        let has_program = self.programs.iter().any(|program| program.hook == Hook::Write);
        meta.watches_writes()
            || has_program && !meta.defers_writes
            || meta.reads.contains(&Reading::PendingBytes)
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
    pub fn entry(&self, hook: Hook) -> Option<&EntryPoint> {
        self.entries.iter().find(|entry| entry.hook == hook)
    }
}

/// What the note section `.note.durac` says, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// [`crate::ABI`].
    pub abi: u32,
    /// What runs it.
    #[serde(default)]
    pub runtime: Runtime,
    /// The functions of the application that programs are attached to, in the order of the programs;
    /// the agent finds those of libc by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntryPoint>,
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
    pub capabilities: Vec<Action>,
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
    /// Whether calls on one log overlap, as the target says.
    #[serde(default, skip_serializing_if = "is_many")]
    pub callers: Callers,
    /// How the log is divided into updates, if the policy reads their number.
    #[serde(default, skip_serializing_if = "is_none")]
    pub records: Records,
    /// Where the log is written.
    #[serde(default, skip_serializing_if = "is_append")]
    pub layout: Layout,
    /// Globs of files that are not written while the log is behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protects: Vec<String>,
    /// `assume sync <= d`, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_sync: Option<u64>,
    /// Every reply is held until what was written before it is durable, on every path of the program.
    #[serde(default, skip_serializing_if = "is_false")]
    pub holds_replies: bool,
    /// Writes that no sync call follows are synced within the deadline (`on write: defer`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub defers_writes: bool,
    /// What is sent to replicas and cluster nodes is not held where replies are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub frees_replicas: bool,
    /// What can be lost, one line per failure.
    pub loss: Vec<Loss>,
    /// What shows the bound of a power loss in sync calls, if anything but the proof at compile time does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_many(callers: &Callers) -> bool {
    *callers == Callers::Many
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_append(layout: &Layout) -> bool {
    *layout == Layout::Append
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(records: &Records) -> bool {
    *records == Records::None
}

impl Meta {
    /// Whether the runtime has to see every write of the application: which files it may write depends on what is
    /// durable, or where the log is written says when a sync cannot be deferred.
    #[must_use]
    pub fn watches_writes(&self) -> bool {
        !self.protects.is_empty() || self.layout == Layout::Ring
    }

    /// Whether the policy stages writes.
    #[must_use]
    pub fn stages(&self) -> bool {
        self.capabilities.contains(&Action::Stage)
    }
}

/// A function of the application that one program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryPoint {
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
    /// Its unit.
    pub unit: ParamUnit,
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

words! {
    /// What a failed background sync stops.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum OnError, text {
        /// Every later call on that log fails.
        Fail => "fail",
        /// Every later call on every log fails.
        Stop => "stop",
    }
}

words! {
    /// What a statement does, as a target grants it and the note lists it; sorted by name.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Action, text {
        /// `await …`
        Await => "await",
        /// `commit`
        Commit => "commit",
        /// `defer`
        Defer => "defer",
        /// `fail …`
        Fail => "fail",
        /// `gather …`
        Gather => "gather",
        /// `hold …`
        Hold => "hold",
        /// `pass`
        Pass => "pass",
        /// `skip`
        Skip => "skip",
        /// `stage`
        Stage => "stage",
    }
}

words! {
    /// The unit of a parameter.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum ParamUnit, text {
        /// Sync calls.
        Syncs => "syncs",
        /// Write calls.
        Writes => "writes",
        /// Records of the log.
        Updates => "updates",
        /// A plain number.
        Count => "count",
        /// Bytes.
        Bytes => "bytes",
        /// Nanoseconds.
        Duration => "duration",
        /// 0 or 1.
        Bool => "bool",
    }
}

words! {
    /// A kind of crash, in the order of the documentation.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Failure, text {
        /// The process dies; the page cache survives, staged bytes do not.
        ProcessCrash => "process_crash",
        /// Only bytes covered by a successful sync survive.
        PowerLoss => "power_loss",
    }
}

/// The loss a failure can cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// The kind of crash.
    pub failure: Failure,
    /// Acknowledged syncs at most, at the default parameters; `null` is unbounded.
    pub syncs: Option<u64>,
    /// Age of the oldest lost sync at most, nanoseconds; `null` is unbounded.
    pub within: Option<u64>,
    /// Updates at most, at the default parameters; left out if they are unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
    /// Bytes at most, at the default parameters; left out if they are unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The same in words: `at most n syncs`.
    pub text: String,
}
