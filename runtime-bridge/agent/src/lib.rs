//! The agent: a library that is preloaded into an unmodified application and runs a durability
//! policy on its log files.
//!
//! It stands between the application and the C library ([`hooks`]), knows which descriptors are
//! logs ([`table`]), runs the policy's machine code when one is synced or written ([`call`]), and
//! syncs in the background ([`pool`], [`syncer`]) as the rules of `durac-engine` say ([`log`]). If asked to, it
//! records all of it ([`record`]).
//!
//! Architecture invariants: it links no compiler. Whatever goes wrong in it, the application is as
//! durable as without it. Its environment is described in `durac_bpf::abi`.

#![warn(missing_docs)]

mod call;
mod children;
mod clock;
mod entries;
mod environment;
mod errno;
mod flight;
mod guard;
mod helpers;
pub mod hooks;
mod load;
mod log;
mod maps;
mod note;
mod notify;
mod order;
mod page;
mod policy;
mod pool;
mod readable;
mod real;
mod record;
mod registry;
mod ring;
mod stage;
mod sync;
mod syncer;
mod table;
mod watch;
mod written;
mod wrong;

use durac_bpf::abi::{ENV_OBJECT, ENV_RECORD};
use std::path::Path;

/// The dynamic linker calls it when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = init;

/// `exit` calls it after the functions that the application registered.
#[used]
#[unsafe(link_section = ".fini_array")]
static FINI: extern "C" fn() = fini;

extern "C" fn init() {
    guard::run(start);
}

extern "C" fn fini() {
    hooks::leave();
}

/// Whether this program has rights that whoever started it may not have: setuid, setgid, or with
/// capabilities of its file. The environment is then a stranger's. The dynamic linker does not preload
/// what the environment names either; `/etc/ld.so.preload` it does.
fn is_privileged() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn start() {
    real::find_all();
    if is_privileged() {
        return;
    }
    let Some(path) = std::env::var_os(ENV_OBJECT).filter(|p| !p.is_empty()) else { return };
    // A panic is caught where it could do harm; its text would only confuse.
    std::panic::set_hook(Box::new(|_| ()));
    let loaded = load::load(Path::new(&path)).and_then(|policy| {
        table::empty_in_children().map_err(|e| format!("no memory that forks empty: {e}"))?;
        entries::attach(&policy)?;
        Ok(policy)
    });
    page::remember_path();
    if loaded.is_ok()
        && let Some(ring) = std::env::var_os(ENV_RECORD).filter(|p| !p.is_empty())
        && let Err(error) = record::start(Path::new(&ring))
    {
        note::error(&format!("nothing is recorded: {}: {error}", Path::new(&ring).display()));
    }
    match loaded {
        Ok(policy) => {
            wrong::say();
            if policy.watches {
                notify::start();
            }
            note::info(&policy::set(policy).describe());
        }
        Err(reason) => note::error(&format!("{reason}; the application runs without a policy")),
    }
}
