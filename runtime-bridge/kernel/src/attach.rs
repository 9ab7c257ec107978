//! From an object to programs that run: maps, types, the kernel's verifier, links.

use crate::btf::{BtfKind, Kernel};
use crate::map::Slots;
use crate::{sys, trial};
use durac_abi::Object;
use durac_abi::elf::{KernelTypes, ProgramTypes};
use durac_abi::insn::Insn;
use durac_abi::link::{self, LinkError, MapRef};
use durac_abi::notify::{Attach, FIRST_NAMESPACE, KernelProgram, MAPS};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The text in the object's section `license`.
pub(crate) const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";

/// Why the programs do not run, or not at one place.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The object has none.
    #[error("the policy does not say `use kernel notify`")]
    NotWanted,
    /// Processes have other numbers here than in the kernel.
    #[error("this process runs in a PID namespace of its own (a container)")]
    Namespace,
    /// The map, or the types, are refused.
    #[error("the kernel refuses {what}: {}", reason(why))]
    Setup {
        /// What it refuses.
        what: &'static str,
        /// What it said.
        why: io::Error,
    },
    /// The kernel has no such tracepoint or function.
    #[error("this kernel has no {what}")]
    Absent {
        /// What it does not have.
        what: String,
    },
    /// The kernel's verifier refuses a program, or loading is not allowed.
    #[error("{section} cannot be loaded: {}", with(&reason(why), said))]
    Load {
        /// The program.
        section: &'static str,
        /// What the system call said.
        why: io::Error,
        /// The last thing the verifier said.
        said: String,
    },
    /// A program cannot be attached.
    #[error("{section} cannot be attached: {}", reason(why))]
    Attach {
        /// The program.
        section: &'static str,
        /// What the system call said.
        why: io::Error,
    },
    /// A program's maps cannot be put in.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It was attached, and did not count a sync.
    #[error("a trial sync was not counted")]
    Blind,
}

/// The system's reason, without the number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(reason, _)| reason.to_lowercase())
}

/// A reason, and what was said about it.
fn with(reason: &str, said: &str) -> String {
    if said.is_empty() { reason.to_owned() } else { format!("{reason}: {said}") }
}

/// The programs, running.
pub struct Notify {
    /// Where they are attached.
    pub attach: Attach,
    /// Why they are at no better place.
    pub refused: Vec<(Attach, Failure)>,
    map: OwnedFd,
    links: Vec<OwnedFd>,
    slots: Slots,
}

impl Notify {
    /// The map of the slots, for the application's process.
    #[must_use]
    pub fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// What keeps the programs attached: as long as these are open anywhere.
    pub fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(AsFd::as_fd)
    }

    /// The slots.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        &self.slots
    }
}

/// Loads and attaches the object's kernel programs at the best place that works.
///
/// # Errors
/// Why none works: one failure for each place, best place first.
pub fn load(object: &Object, types: &KernelTypes) -> Result<Notify, Vec<(Attach, Failure)>> {
    let mut refused = Vec::new();
    for attach in Attach::ALL {
        match load_at(object, types, attach) {
            Ok(notify) => return Ok(Notify { refused, ..notify }),
            Err(failure) => refused.push((attach, failure)),
        }
    }
    Err(refused)
}

/// Loads and attaches the programs for one place.
///
/// # Errors
/// Why they do not run there.
pub fn load_at(object: &Object, types: &KernelTypes, attach: Attach) -> Result<Notify, Failure> {
    if object.kernel.is_empty() {
        return Err(Failure::NotWanted);
    }
    in_first_namespace()?;
    let setup = |what| move |why| Failure::Setup { what, why };
    let maps = MAPS.iter().map(sys::map_create).collect::<io::Result<Vec<OwnedFd>>>();
    let maps = maps.map_err(setup("the map"))?;
    let btf = sys::btf_load(&types.btf).map_err(setup("the types"))?;
    let mut links = Vec::new();
    for section in attach.sections() {
        let found = object.kernel.iter().zip(&types.programs).find(|(p, _)| p.section == section);
        let Some((program, types)) = found else { return Err(Failure::NotWanted) };
        links.push(link(program, types, &maps, &btf)?);
    }
    let map = maps.into_iter().next().ok_or(Failure::NotWanted)?;
    let slots = Slots::map(map.as_fd()).map_err(setup("to show the map"))?;
    if trial::counts(&slots, attach).map_err(setup("a trial"))? == Some(false) {
        return Err(Failure::Blind);
    }
    slots.sign();
    Ok(Notify { attach, refused: Vec::new(), map, links, slots })
}

/// The programs see the numbers that processes have in the first namespace.
pub(crate) fn in_first_namespace() -> Result<(), Failure> {
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    let first = namespace.is_ok_and(|link| link.as_os_str() == FIRST_NAMESPACE);
    if first { Ok(()) } else { Err(Failure::Namespace) }
}

pub(crate) fn absent(what: String) -> Failure {
    Failure::Absent { what }
}

/// Loads one program and attaches it.
fn link(
    program: &KernelProgram,
    types: &ProgramTypes,
    maps: &[OwnedFd],
    btf: &OwnedFd,
) -> Result<OwnedFd, Failure> {
    let section = program.section;
    let (kind, place) = section.split_once('/').unwrap_or((section, ""));
    let of_kernel = |kind: BtfKind, name: &str, what: &str| {
        let types = Kernel::read().map_err(|_| absent("types (/sys/kernel/btf/vmlinux)".into()))?;
        types.find(kind, name).ok_or_else(|| absent(format!("{what} {place}")))
    };
    let (kind, attach_type, attach_id) = match kind {
        "tp_btf" => {
            let id = of_kernel(BtfKind::Typedef, &format!("btf_trace_{place}"), "tracepoint")?;
            (sys::TRACING, sys::TRACE_RAW_TP, id)
        }
        "fentry" | "fexit" => {
            let id = of_kernel(BtfKind::Function, place, "function")?;
            let when = if kind == "fentry" { sys::TRACE_FENTRY } else { sys::TRACE_FEXIT };
            (sys::TRACING, when, id)
        }
        _ => (sys::RAW_TRACEPOINT, 0, 0),
    };
    let maps: Vec<RawFd> = maps.iter().map(AsRawFd::as_raw_fd).collect();
    let code = code(program, &maps)?;
    let loaded = sys::prog_load(&sys::Program {
        kind,
        attach_type,
        attach_id,
        code: &code,
        name: "durac_notify",
        btf,
        function: &types.function,
        fields: &types.fields,
        license: LICENSE,
    });
    let loaded = loaded.map_err(|(why, said)| Failure::Load { section, why, said })?;
    let name = if kind == sys::RAW_TRACEPOINT { CString::new(place).ok() } else { None };
    sys::attach(name.as_deref(), &loaded).map_err(|why| Failure::Attach { section, why })
}

/// The instructions, with the descriptors of the maps.
pub(crate) fn code(program: &KernelProgram, maps: &[RawFd]) -> Result<Vec<u8>, LinkError> {
    let descriptor = |map: u32| maps.get(map as usize).copied().map(MapRef::Descriptor);
    let insns = link::link(&program.insns, &program.relocs, descriptor)?;
    Ok(insns.into_iter().flat_map(Insn::to_bytes).collect())
}
