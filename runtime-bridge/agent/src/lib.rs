//! The agent: a library that is preloaded into an unmodified application and runs a durability
//! policy on its log files.
//!
//! It sits between the application and the C library ([`hooks`]), knows which descriptors are
//! logs (`table`), runs the policy's machine code when one is synced or written (`call`), and
//! syncs in the background (`pool`, `syncer`) as the rules of `durac-engine` say (`log`). If asked to, it
//! records all of it (`record`).
//!
//! Architecture invariants: it links no compiler. Whatever goes wrong in it, the application is as
//! durable as without it. Its environment is described in `durac_abi::abi`.

#![warn(missing_docs)]

mod adopt;
mod attention;
mod call;
mod change;
mod children;
mod clock;
mod completion;
mod control;
mod crowd;
mod deadline;
mod entries;
pub mod environment;
mod errno;
mod failures;
mod family;
mod fault_injection;
mod flight;
mod futex;
mod guard;
mod held;
mod helpers;
pub mod hooks;
mod keys;
mod load;
mod local;
mod lock;
mod log;
mod look;
pub mod maps;
mod mark;
mod note;
mod notify;
mod off;
mod order;
mod owned;
mod page;
mod past;
mod policy;
mod pool;
mod proof;
mod readable;
mod real;
mod record;
mod records;
mod registry;
mod replies;
mod ring;
mod shared;
mod signals;
mod sole;
mod staffing;
mod stage;
mod stamp;
mod sync;
mod syncer;
pub mod sys;
mod table;
mod vdso;
mod waits;
mod watch;
#[cfg(test)]
mod watch_tests;
mod written;

use durac_abi::{ENV_OBJECT, ENV_RECORD};
use libc::{c_int, c_void};
use std::path::{Path, PathBuf};

unsafe extern "C" {
    fn __cxa_at_quick_exit(function: extern "C" fn(*mut c_void), library: *const c_void) -> c_int;
}

/// `quick_exit` runs it last: it was registered first.
extern "C" fn at_quick_exit(_: *mut c_void) {
    end();
}

/// Starts the agent in this process: the library's constructor.
pub fn start() {
    let _kept = errno::Kept::now();
    guard::run(load_policy);
    if policy::get().is_some() {
        signals::adopt();
        hooks::watch_main_thread();
        // SAFETY: all are functions without arguments that live as long as the process.
        unsafe {
            libc::pthread_atfork(Some(hooks::before_fork), None, Some(owned::close_in_child));
            libc::pthread_atfork(None, None, Some(page::close_in_child));
            libc::pthread_atfork(None, None, Some(hooks::watch_main_thread));
        }
    }
    // SAFETY: the function lives as long as the process; a null library is never unloaded. Without memory
    // for it there is no hook of `quick_exit`, and nobody to tell.
    unsafe { __cxa_at_quick_exit(at_quick_exit, std::ptr::null()) };
}

/// Makes durable what is acknowledged, before the process ends: the library's destructor.
pub fn end() {
    hooks::leave();
}

/// Whether this program has rights that whoever started it may not have: setuid, setgid, or with
/// capabilities of its file. The environment is then a stranger's. The dynamic linker does not preload
/// what the environment names either; `/etc/ld.so.preload` it does.
fn is_privileged() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn load_policy() {
    real::find_all();
    vdso::find();
    if is_privileged() {
        return;
    }
    let Some(path) = std::env::var_os(ENV_OBJECT).filter(|p| !p.is_empty()) else { return };
    note::begin();
    // A panic is caught where it could do harm; its text would only confuse.
    std::panic::set_hook(Box::new(|_| ()));
    let loaded = prepare(Path::new(&path));
    page::remember_path();
    if loaded.is_ok()
        && let Some(ring) = std::env::var_os(ENV_RECORD).filter(|p| !p.is_empty())
        && let Err(error) = record::start(Path::new(&ring))
    {
        note::error(&format!("cannot record: {}: {error}", Path::new(&ring).display()));
    }
    match loaded {
        Ok(policy) => {
            fault_injection::warn();
            if policy.watches {
                notify::start();
            }
            table::is_ours();
            let policy = policy::set(policy);
            note::remember_stderr();
            mark::set();
            past::tell(policy);
            attention::begin();
            adopt::at_start(policy);
        }
        Err(reason) => note::error(&format!("{reason}; the application runs without a policy")),
    }
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{}: {why}", path.display())]
    Object { path: PathBuf, why: load::LoadError },
    #[error("no memory that is cleared on fork: {0}")]
    Memory(std::io::Error),
    #[error(transparent)]
    Application(#[from] entries::MissingVariable),
}

/// Loads the object at `path` and attaches it to the application.
fn prepare(path: &Path) -> Result<policy::Policy, StartError> {
    let policy =
        load::load(path).map_err(|why| StartError::Object { path: path.to_owned(), why })?;
    table::empty_in_children().map_err(StartError::Memory)?;
    entries::attach(&policy)?;
    Ok(policy)
}
