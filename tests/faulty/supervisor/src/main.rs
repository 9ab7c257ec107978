//! `durac-faulty-supervisor OBJECT LIBRARY COMMAND…` runs a command under the supervisor with the fault that `DURAC_FAULT`
//! names, as `durac run --engine supervisor --preload-after LIBRARY OBJECT -- COMMAND…` does under the right one.
//!
//! The other words are those by which the supervisor's process is started: the same as of `durac`, which can take over
//! from this program.

use durac_faulty_supervisor::{READY, filter::Asked, install, serve, take_over, try_out};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// How the supervisor's process is called.
const SERVE: &str = "supervise-command";

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("durac-faulty-supervisor: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[OsString]) -> Result<(), Box<dyn Error>> {
    match words {
        [serves, what, fd] if serves == SERVE && what == "--continue" => {
            let fd = fd.to_str().ok_or("no number")?.parse()?;
            Ok(take_over(fd)?)
        }
        [serves, what] if serves == SERVE && what == "--try" => {
            try_out(io::stdin())?;
            println!("{READY}");
            Ok(())
        }
        [serves, object] if serves == SERVE => {
            let socket = io::stdin().as_fd().try_clone_to_owned()?;
            let null = File::open("/dev/null")?;
            // The command's end must see when nobody holds the socket.
            // SAFETY: two descriptors of this process.
            if unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), 0) } < 0 {
                return Err(io::Error::last_os_error().into());
            }
            Ok(serve(Path::new(object), socket)?)
        }
        [object, library, name, arguments @ ..] => start(object, library, name, arguments),
        _ => Err("an object, a library and a command are needed".into()),
    }
}

/// Becomes the command, under a supervisor.
fn start(
    object: &OsStr,
    library: &OsStr,
    name: &OsStr,
    arguments: &[OsString],
) -> Result<(), Box<dyn Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut supervisor = Command::new("/proc/self/exe");
    supervisor.arg(SERVE).arg(object).env("LD_PRELOAD", library);
    supervisor.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    // SAFETY: only system calls, and `fork`, which the C library allows in a forked child.
    unsafe {
        // The command is not the supervisor's parent: it may wait for all of its children.
        supervisor.pre_exec(|| match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(()),
            _ => libc::_exit(0),
        });
    }
    supervisor.spawn()?.wait()?;
    drop(supervisor);
    let read = durac_abi::elf::read(&std::fs::read(object)?)?;
    install(ours.into(), Asked::by(&read))?;
    Err(Command::new(name).args(arguments).exec().into())
}
