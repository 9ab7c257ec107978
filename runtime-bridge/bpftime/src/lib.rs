//! Loads policy objects into BPFtime.
//!
//! BPFtime's system-call server is preloaded into the loader and answers its `bpf` and
//! `perf_event_open` calls; the target runs with BPFtime's agent preloaded, and both share memory.
//! The server sees only calls through libc's `syscall`, and what it made is gone when a descriptor
//! is closed: so every call goes that way ([`calls`]), and nothing is closed before the loader ends.
//!
//! Architecture invariant: everything is checked before the first call. Half a policy is never
//! attached: a call that fails ends the loader, and its descriptors with it.

mod calls;
pub mod target;

use calls::{Calls, Fd};
use durac_bpf::Object;
use durac_bpf::abi::{Hook, PARAMS_MAP, Runtime};
use durac_bpf::insn::Insn;
use durac_bpf::notify::{Attach, count};
use durac_bpf::object::{Map, Meta, Program};
use durac_kernel::count::Places;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use target::{Target, TargetError};

/// Why an object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was made for another runtime.
    #[error("the object is made for {0}, not for BPFtime: compile it with `--runtime bpftime`")]
    Runtime(&'static str),
    /// The verifier refuses it.
    #[error("the verifier refuses the object: {0}")]
    Verifier(String),
    /// A function cannot be hooked.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Nobody answers but the kernel.
    #[error(
        "this does not run under BPFtime's system-call server: start it with \
         LD_PRELOAD=…/libbpftime-syscall-server.so"
    )]
    NotIntercepted,
    /// BPFtime would not share the count of the syncs with the kernel, or would give it our programs.
    #[error(
        "the kernel is to count the syncs of this policy: `export {name}='{value}'` before this is \
         started (BPFtime then shares its maps with the kernel, and keeps our programs to itself)"
    )]
    Variable {
        /// The variable.
        name: &'static str,
        /// What has to stand in it.
        value: &'static str,
    },
    /// The kernel cannot count.
    #[error("the kernel cannot count the syncs of this policy: {0}")]
    Kernel(String),
    /// A call failed.
    #[error("BPFtime refused {what}: {why}")]
    Call {
        /// What was asked for.
        what: String,
        /// Its errno, in words.
        why: std::io::Error,
    },
}

/// A program that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its hook.
    pub hook: Hook,
    /// The function it is attached to.
    pub symbol: String,
    /// Offset of that function in the target's file.
    pub offset: u64,
}

/// What is in force as long as this process lives.
#[derive(Debug)]
pub struct Loaded {
    /// The target's file, as BPFtime's agent compares it with what is mapped.
    pub target: PathBuf,
    /// The programs.
    pub attached: Vec<Attached>,
    /// Where the kernel counts the policy's syncs, if it does.
    pub counts: Option<Attach>,
    /// Never closed: BPFtime forgets what a closed descriptor stood for.
    _fds: Vec<Fd>,
}

/// What was checked before anything is called.
struct Plan<'a> {
    object: &'a Object,
    target: PathBuf,
    attached: Vec<Attached>,
    /// Where the kernel could count.
    places: Option<Places>,
}

/// Variables of BPFtime's server, and what has to stand in them: any value in the first.
const VARIABLES: [(&str, &str); 2] =
    [("BPFTIME_RUN_WITH_KERNEL", "1"), ("BPFTIME_NOT_LOAD_PATTERN", "durac_.*")];

/// Verifies an object, finds its functions in the program at `target`, and attaches it.
///
/// # Errors
/// Why not; what had been loaded until then is of no effect once this process ends.
pub fn load(object: &Object, target: &Path) -> Result<Loaded, LoadError> {
    let plan = plan(object, target)?;
    if !calls::intercepted() {
        return Err(LoadError::NotIntercepted);
    }
    if plan.places.is_some() {
        shares_with_kernel(|name| std::env::var_os(name))?;
    }
    execute(plan)
}

/// Whether BPFtime's server is told to share its maps with the kernel.
fn shares_with_kernel(read: impl Fn(&str) -> Option<OsString>) -> Result<(), LoadError> {
    for (name, value) in VARIABLES {
        let fine = match read(name) {
            Some(found) => name == "BPFTIME_RUN_WITH_KERNEL" || found == value,
            None => false,
        };
        if !fine {
            return Err(LoadError::Variable { name, value });
        }
    }
    Ok(())
}

fn plan<'a>(object: &'a Object, target: &Path) -> Result<Plan<'a>, LoadError> {
    if object.meta.runtime != Runtime::Bpftime {
        return Err(LoadError::Runtime(object.meta.runtime.text()));
    }
    if let Err(rejections) = durac_verify::verify(object) {
        let reasons: Vec<String> = rejections.iter().map(ToString::to_string).collect();
        return Err(LoadError::Verifier(reasons.join("; ")));
    }
    let file = Target::open(target)?;
    let mut attached = Vec::new();
    for entry in &object.meta.entries {
        let offset = file.function(&entry.symbol)?;
        attached.push(Attached { hook: entry.hook, symbol: entry.symbol.clone(), offset });
    }
    let counted = !object.kernel.is_empty();
    let places = counted.then(Places::find).transpose();
    let places = places.map_err(|why| LoadError::Kernel(why.to_string()))?;
    Ok(Plan { object, target: file.path().to_owned(), attached, places })
}

fn execute(plan: Plan<'_>) -> Result<Loaded, LoadError> {
    let mut calls = Calls::default();
    let mut maps = Vec::new();
    for map in &plan.object.maps {
        let fd = calls.create_map(map)?;
        calls.update_map(fd, &map.name, &values(map, &plan.object.meta))?;
        maps.push(fd);
    }
    let syncs = plan.places.as_ref().map(|places| -> Result<_, LoadError> {
        let [map] = &count::MAPS;
        let fd = calls.create_kernel_map(map)?;
        calls.update_map(fd, map.name, &vec![0; map.fields.len()])?;
        maps.push(fd);
        Ok((places, fd))
    });
    let syncs = syncs.transpose()?;
    let mut programs = Vec::new();
    for program in &plan.object.programs {
        programs.push(calls.load_program(program.hook, &linked(program, &maps))?);
    }
    let counter = syncs.map(|(places, map)| {
        let counter = durac_kernel::count::attach(plan.object, places, map.number());
        counter.map_err(|refused| {
            let reasons = refused.iter().map(|(place, why)| format!("{}: {why}", place.text()));
            LoadError::Kernel(reasons.collect::<Vec<_>>().join("; "))
        })
    });
    let counts = counter.transpose()?.map(|counter| counter.attach);
    for (attached, program) in plan.attached.iter().zip(&programs) {
        let probe = calls.open_probe(&plan.target, attached.offset, &attached.symbol)?;
        calls.link(*program, probe, &attached.symbol)?;
    }
    Ok(Loaded { target: plan.target, attached: plan.attached, counts, _fds: calls.into_fds() })
}

/// What a map holds before the first call.
fn values(map: &Map, meta: &Meta) -> Vec<u64> {
    match map.name.as_str() {
        PARAMS_MAP => meta.params.iter().map(|p| p.default).collect(),
        _ => meta.state.iter().map(|s| s.init).collect(),
    }
}

/// The instructions with the descriptors of the maps in them.
fn linked(program: &Program, maps: &[Fd]) -> Vec<Insn> {
    /// `BPF_PSEUDO_MAP_FD` (`include/uapi/linux/bpf.h`).
    const PSEUDO_MAP_FD: u8 = 1;
    let mut insns = program.insns.clone();
    for reloc in &program.relocs {
        let place = insns.get_mut(reloc.slot as usize);
        if let (Some(insn), Some(fd)) = (place, maps.get(reloc.map as usize)) {
            insn.src = PSEUDO_MAP_FD;
            insn.imm = fd.number();
        }
    }
    insns
}
