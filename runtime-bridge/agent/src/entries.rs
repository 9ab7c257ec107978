//! Functions of the application's own, which it calls for its log and whose result it uses
//! (`entry symbol "…"` in a target).
//!
//! The application has a variable for each, `durac_on_<hook>`, and calls what is in it. The result is
//! the result, or `-errno`; it then runs no call of its own. While a hook has such a function, the
//! policy runs there and nowhere else: what the application syncs or writes besides is done, and
//! counted, as the application does it.

use crate::errno;
use crate::hooks;
use crate::local::zeroed_thread_local;
use crate::policy::Policy;
use durac_abi::Hook;
use libc::{c_int, c_long, c_void, size_t};
use std::cell::Cell;
use std::ffi::CStr;

zeroed_thread_local! {
    static ASKED: Cell<bool>;
}

/// Whether this thread is in a function of the application's own.
pub fn asked() -> bool {
    ASKED.get()
}

/// The application was not built for the policy's target.
#[derive(Debug, thiserror::Error)]
#[error("this application is not made for the target `{target}`: it has no variable `{}`", name.to_string_lossy())]
pub struct MissingVariable {
    target: String,
    name: &'static CStr,
}

/// Stores the agent's functions in the application's variables: all of them or none.
///
/// # Errors
/// A variable is missing.
pub fn attach(policy: &Policy) -> Result<(), MissingVariable> {
    let mut variables = Vec::new();
    for entry in &policy.meta.entries {
        let (name, function): (&'static CStr, *const c_void) = match entry.hook {
            Hook::Write => (c"durac_on_write", on_write as *const c_void),
            Hook::Fsync => (c"durac_on_fsync", on_fsync as *const c_void),
            Hook::Fdatasync => (c"durac_on_fdatasync", on_fdatasync as *const c_void),
            Hook::Reply | Hook::Barrier | Hook::Turn => continue,
        };
        // SAFETY: the name ends with a zero.
        let variable = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        if variable.is_null() {
            return Err(MissingVariable { target: policy.meta.target.clone(), name });
        }
        variables.push((variable.cast::<*const c_void>(), function));
    }
    for (variable, function) in variables {
        // SAFETY: by that name the application exports a pointer to such a function. No other thread
        // runs yet: this is the constructor of a preloaded library.
        unsafe { variable.write(function) };
    }
    Ok(())
}

/// Runs a call that the policy decides. Returns its result, or `-errno`.
fn ask(call: impl FnOnce() -> isize) -> c_long {
    let before = ASKED.replace(true);
    let result = call();
    ASKED.set(before);
    match result {
        -1 => -c_long::from(errno::get()),
        result => result as c_long,
    }
}

/// Writes everything, as the application does: it takes a short write for an error.
unsafe extern "C" fn on_write(fd: c_long, data: *const c_void, len: size_t) -> c_long {
    let mut done = 0;
    while done < len {
        // SAFETY: the application's buffer has `len` bytes, of which `done` are written.
        let written = ask(|| unsafe { hooks::write(fd as c_int, data.byte_add(done), len - done) });
        match written {
            error if error == -c_long::from(libc::EINTR) => {}
            error if error < 0 && done == 0 => return error,
            written if written <= 0 => break,
            written => done += written as usize,
        }
    }
    done as c_long
}

unsafe extern "C" fn on_fsync(fd: c_long, _failed: c_long) -> c_long {
    // SAFETY: as the real function, which takes any number.
    ask(|| unsafe { hooks::fsync(fd as c_int) } as isize)
}

unsafe extern "C" fn on_fdatasync(fd: c_long, _failed: c_long) -> c_long {
    // SAFETY: as the real function, which takes any number.
    ask(|| unsafe { hooks::fdatasync(fd as c_int) } as isize)
}
