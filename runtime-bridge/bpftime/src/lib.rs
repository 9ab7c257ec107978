//! Loads policy objects into BPFtime.
//!
//! Stage: an admitted object and a program's file → programs attached to its functions.
//!
//! BPFtime's system-call server is preloaded into the loader and serves its `bpf`, `perf_event_open` and `mmap`
//! calls; the target runs with BPFtime's agent preloaded, and both share memory. The server sees only calls through
//! libc, and clears what it sees closed, by the number of the descriptor: so every call goes that way (`calls`).
//!
//! It runs in two steps, since the first call that the server sees clears the session: [`prepare`] looks at
//! everything and takes the session before the server is there, [`load`] is called in a process with the server.
//! A [`Loaded`] policy is in force as long as its loader vouches for it ([`Loaded::vouch`]); [`Loaded::end`] takes it
//! out of force.
//!
//! Architecture invariant: it must not know how a policy was compiled. Everything is checked before the first call. Half a policy is never
//! attached: a call that fails ends the loader, and its descriptors with it.

mod calls;
mod limits;
mod live;
mod pins;
mod process;
pub mod session;
pub mod target;
mod watch;

pub use calls::intercepted;
pub use live::{End, RingSeen, Seen, VOUCHED};
pub use watch::Standing;

use calls::{Calls, Fd};
use durac_abi::Object;
use durac_abi::elf::KernelTypes;
use durac_abi::link::{self, LinkError, MapRef};
use durac_abi::notify::{Attach, count};
use durac_abi::object::Map;
use durac_abi::session::{self as abi_session, SESSION_MAP};
use durac_abi::uring::Word;
use durac_abi::{Hook, PARAMS_MAP, Runtime, STATE_MAP};
use durac_kernel::count::Attachments;
use live::{Live, Ring};
use pins::Pin;
use session::Session;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use target::{TargetBinary, TargetError};

/// Why an object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was made for another runtime.
    #[error("the object is for the runtime `{0}`: compile it with `--runtime bpftime`")]
    Runtime(&'static str),
    /// The verifier refuses it.
    #[error("the verifier rejects the object: {0}")]
    Verifier(String),
    /// A program's maps cannot be put in.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A function cannot be hooked.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Only the kernel serves the calls.
    #[error(
        "not running under BPFtime's system-call server: start this command with \
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
    /// BPFtime would share maps with the kernel for nothing.
    #[error(
        "this policy needs nothing of the kernel: `unset {}` before this is started (BPFtime would give the kernel \
         our programs, and keep addresses of maps that are wrong in a target that is started again)",
        VARIABLES[0].0
    )]
    SharesForNothing,
    /// Loading into the kernel is not allowed.
    #[error(
        "the kernel is to count the syncs of this policy, which needs root (CAP_SYS_ADMIN): start this and the target \
         as root, or use a policy without `use kernel notify`"
    )]
    Unprivileged,
    /// The kernel's numbers of maps are beyond BPFtime's vector.
    #[error(
        "the kernel numbers its maps from {id} on, and BPFtime has {slots} places: `{help}`, here and for the target \
         (BPFtime would write behind them)"
    )]
    MapNumbers {
        /// The number of the latest map.
        id: u32,
        /// Places in BPFtime's vector.
        slots: u64,
        /// What to type.
        help: String,
    },
    /// The count would end with the loader.
    #[error(
        "`/sys/fs/bpf` is not a BPF file system: `mount -t bpf bpf /sys/fs/bpf`, so that the kernel goes on counting \
         when this process is killed (the target's next sync would count as failed)"
    )]
    NoPins,
    /// The link cannot be pinned.
    #[error("cannot pin the kernel's program in `/sys/fs/bpf`: {0}")]
    Pin(std::io::Error),
    /// The object was made before programs looked whether their loader lives.
    #[error("the object was compiled by an earlier durac: compile it again")]
    Old,
    /// The kernel cannot count.
    #[error("the kernel cannot count the syncs of this policy: {0}")]
    Kernel(String),
    /// A call failed.
    #[error("BPFtime refused {what}: {why}")]
    Call {
        /// What the call was for.
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

/// A policy that is loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The target's file, as BPFtime's agent compares it with what is mapped.
    pub target: PathBuf,
    /// The programs.
    pub attached: Vec<Attached>,
    /// Where the kernel counts the policy's syncs, if it does.
    pub counts: Option<Attach>,
    live: Live,
}

impl Loaded {
    /// Vouches for the policy for [`VOUCHED`]; to be called several times in that while. Gives what the programs have
    /// written; none if another loader has cleared the session.
    pub fn vouch(&self) -> Option<Seen> {
        self.live.vouch().then(|| self.live.seen())
    }

    /// Where the policy is in force, by what [`Self::vouch`] gave and what `/proc` says. It looks at every process.
    pub fn standing(&self, session: &Session, seen: Option<&Seen>) -> Standing {
        let nothing = Seen::default();
        let view = watch::View {
            session: session.name(),
            memory: &session.memory(),
            target: &self.target,
            attached: &self.attached,
            is_ours: seen.is_some(),
            seen: seen.unwrap_or(&nothing),
        };
        view.standing()
    }

    /// Takes the policy out of force, in a running target too, and leaves nothing for a later one.
    pub fn end(self, session: &Session) -> End {
        self.live.end(session, &|| session.is_used_by_others())
    }
}

/// What was checked before anything is called.
struct Plan<'a> {
    object: &'a Object,
    target: PathBuf,
    attached: Vec<Attached>,
    /// Where the kernel could count.
    places: Option<Attachments>,
    id: u64,
}

/// Variables of BPFtime's server, and what has to stand in them: any value in the first.
const VARIABLES: [(&str, &str); 2] =
    [("BPFTIME_RUN_WITH_KERNEL", "1"), ("BPFTIME_NOT_LOAD_PATTERN", "durac_.*")];

/// Looks whether an object can be loaded for the program at `target`, on this machine and in this environment. To be
/// called before BPFtime's server is there.
///
/// # Errors
/// Why not.
pub fn prepare(object: &Object, target: &Path) -> Result<(), LoadError> {
    let plan = plan(&mut object.clone(), target)?.places.is_some();
    let read = |name: &str| std::env::var_os(name);
    if !plan {
        let shares = read(VARIABLES[0].0).is_some();
        return if shares { Err(LoadError::SharesForNothing) } else { Ok(()) };
    }
    shares_with_kernel(read)?;
    if !limits::is_privileged() {
        return Err(LoadError::Unprivileged);
    }
    if !pins::is_mounted() {
        return Err(LoadError::NoPins);
    }
    let slots = limits::slots(read);
    let id = limits::latest_map().map_err(|why| LoadError::Kernel(why.to_string()))?;
    match limits::too_few(id, slots) {
        Some(help) => Err(LoadError::MapNumbers { id, slots, help }),
        None => Ok(()),
    }
}

/// Verifies an object as it will run, finds its functions in the program at `target`, and attaches it. In a process
/// with BPFtime's server.
///
/// # Errors
/// Why not; what had been loaded until then is of no effect, because nobody vouches for it.
pub fn load(
    object: &Object,
    types: &KernelTypes,
    target: &Path,
    session: &Session,
) -> Result<Loaded, LoadError> {
    if !calls::intercepted() {
        return Err(LoadError::NotIntercepted);
    }
    let mut object = object.clone();
    let plan = plan(&mut object, target)?;
    if plan.places.is_some() && !session.is_used_by_others() {
        pins::remove_left(session.name());
    }
    execute(plan, types, session)
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

fn plan<'a>(object: &'a mut Object, target: &Path) -> Result<Plan<'a>, LoadError> {
    let made_for = object.meta.runtime;
    if made_for != Runtime::Bpftime {
        return Err(LoadError::Runtime(made_for.text()));
    }
    let id = number();
    if object.programs.iter_mut().any(|program| abi_session::set_id(program, id) == 0) {
        return Err(LoadError::Old);
    }
    if let Err(rejections) = durac_verify::verify(object) {
        let reasons: Vec<String> = rejections.iter().map(ToString::to_string).collect();
        return Err(LoadError::Verifier(reasons.join("; ")));
    }
    let file = TargetBinary::open(target)?;
    let mut attached = Vec::new();
    for entry in &object.meta.entries {
        let offset = file.function(&entry.symbol)?;
        attached.push(Attached { hook: entry.hook, symbol: entry.symbol.clone(), offset });
    }
    let counted = !object.kernel.is_empty();
    let places = counted.then(Attachments::find).transpose();
    let places = places.map_err(|why| LoadError::Kernel(why.to_string()))?;
    Ok(Plan { object, target: file.path().to_owned(), attached, places, id })
}

/// A number that no other loader has, and that takes as much room in the code as the one it replaces.
fn number() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the buffer is writable. At the start of the machine the call may give less; then the time does.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
    (u64::from_le_bytes(bytes) ^ time) & !(1 << 63) | 1 << 62
}

fn execute(plan: Plan<'_>, types: &KernelTypes, session: &Session) -> Result<Loaded, LoadError> {
    let mut calls = Calls::default();
    let shares = plan.places.is_some();
    let slots = limits::slots(|name| std::env::var_os(name));
    let reserved = |fd: Fd, name: &str| -> Result<Fd, LoadError> {
        if shares {
            let why =
                |why| LoadError::Call { what: format!("the number of the map `{name}`"), why };
            let id = Calls::kernel_id(fd).map_err(why)?;
            if let Some(help) = limits::too_few(id, slots).filter(|_| u64::from(id) >= slots) {
                return Err(LoadError::MapNumbers { id, slots, help });
            }
            session.reserve(id);
        }
        Ok(fd)
    };
    let mut maps = Vec::new();
    let mut words: Vec<(&str, &'static [AtomicU64])> = Vec::new();
    for map in &plan.object.maps {
        let fd = reserved(calls.create_map(map)?, &map.name)?;
        calls.update_map(fd, &map.name, &values(map, &plan))?;
        maps.push(fd);
        if map.name == SESSION_MAP || map.name == STATE_MAP {
            words.push((&map.name, Calls::map(fd, &map.name, map.fields.len())?));
        }
    }
    let syncs = plan.places.as_ref().map(|places| -> Result<_, LoadError> {
        let [map] = &count::MAPS;
        let fd = reserved(calls.create_kernel_map(map)?, map.name)?;
        calls.update_map(fd, map.name, &vec![0; map.fields.len()])?;
        maps.push(fd);
        Ok((places, fd))
    });
    let syncs = syncs.transpose()?;
    let mut programs = Vec::new();
    for program in &plan.object.programs {
        let descriptor =
            |map: u32| maps.get(map as usize).map(|fd| MapRef::Descriptor(fd.number()));
        let insns = link::link(&program.insns, &program.relocs, descriptor)?;
        programs.push(calls.load_program(program.hook, &insns)?);
    }
    let counter = syncs.map(|(places, map)| {
        let counter = durac_kernel::count::attach(plan.object, types, places, map.number());
        counter.map_err(|refused| {
            let reasons = refused.iter().map(|(place, why)| format!("{}: {why}", place.text()));
            LoadError::Kernel(reasons.collect::<Vec<_>>().join("; "))
        })
    });
    let counter = counter.transpose()?;
    let pin = counter.as_ref().map(|counter| Pin::new(session.name(), plan.id, counter.link));
    let pin = pin.transpose().map_err(LoadError::Pin)?;
    let mut attach = || -> Result<(), LoadError> {
        for (attached, program) in plan.attached.iter().zip(&programs) {
            let probe = calls.open_probe(&plan.target, attached.offset, &attached.symbol)?;
            calls.link(*program, probe, &attached.symbol)?;
        }
        Ok(())
    };
    let live = |calls: Calls, pin| -> Result<Live, LoadError> {
        let of =
            |name: &str| words.iter().find(|(found, _)| *found == name).map(|(_, words)| *words);
        let index = plan.object.maps.iter().position(|map| map.name == SESSION_MAP);
        let map = index.and_then(|index| maps.get(index)).copied().ok_or(LoadError::Old)?;
        let first = plan.object.meta.state.iter().position(|s| s.name == Word::Mode.name());
        let ring =
            syncs.and_then(|(_, syncs)| Some(Ring { words: of(STATE_MAP)?.get(first?..)?, syncs }));
        Ok(Live {
            id: plan.id,
            session: (map, of(SESSION_MAP).ok_or(LoadError::Old)?),
            ring,
            hooks: plan.attached.iter().map(|attached| attached.hook).collect(),
            attached: calls.attached().to_vec(),
            pin,
        })
    };
    if let Err(why) = attach() {
        pin.iter().for_each(Pin::remove);
        return Err(why);
    }
    let live = live(calls, pin)?;
    Ok(Loaded {
        target: plan.target,
        attached: plan.attached,
        counts: counter.map(|counter| counter.attach),
        live,
    })
}

/// What a map holds before the first call.
fn values(map: &Map, plan: &Plan<'_>) -> Vec<u64> {
    let meta = &plan.object.meta;
    match map.name.as_str() {
        PARAMS_MAP => meta.params.iter().map(|p| p.default).collect(),
        SESSION_MAP => {
            let mut words = vec![0; abi_session::WORDS];
            words.get_mut(abi_session::WORD_ID).into_iter().for_each(|word| *word = plan.id);
            words
        }
        _ => meta.state.iter().map(|s| s.init).collect(),
    }
}
