//! Another program takes over from this one, in the same process: another version of durac.
//!
//! The new program is opened ([`Candidate`]) and tried first: it has to know the format of what is handed over, and to accept the object. Then
//! everything that is acknowledged is synced, no call is received any more, those in hand are answered, and the process
//! becomes the new program (execve(2)). It keeps its number, its parent, and the listener; calls that the command makes
//! meanwhile wait in the kernel. The keeper stays as it is, with a table of descriptors of its own from then on, until
//! the new program has started another: if that program ends before, the keeper takes over.
//!
//! No sync is under way when the process changes: its result would be lost, and with it an error. That is why the locks
//! of all logs are held.

use crate::candidate::{Candidate, keep_over_exec};
use crate::change::{Gate, Locked, PATIENCE, Unchanged};
use crate::clock;
use crate::fault_injection::{Fault, injects};
use crate::filter::{self, Asked};
use crate::handover::{Handover, HandoverError, KnownLog, flag};
use crate::keeper::Keeper;
use crate::logs::may_ask;
use crate::note;
use crate::page::Force;
use crate::process::Process;
use crate::record;
use crate::serve::Supervisor;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a program prints that could take over.
pub const READY: &str = "durac: ready to take over a supervisor";

/// How long a program may take to say so.
const TRIAL: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const NAP: Duration = Duration::from_millis(2);

impl Handover {
    /// Reads what another program hands over, if this one asks about the same calls.
    pub fn accept(from: impl Read) -> Result<Self, HandoverError> {
        let handed = Self::load(from)?;
        let same = handed.filter == filter::mark(handed.asked());
        if same { Ok(handed) } else { Err(HandoverError::Filter) }
    }

    /// What the filter asks about.
    pub fn asked(&self) -> Asked {
        Asked { writes: self.flags & flag::WRITES != 0, opens: self.flags & flag::OPENS != 0 }
    }
}

impl Supervisor {
    /// The program at the path that this one was started by takes over.
    pub fn upgrade_in_place(&'static self, keeper: Option<&Keeper>) {
        let why = match own_path() {
            Ok(path) => self.upgrade(&path, keeper),
            Err(why) => format!("its own program is not found: {why}"),
        };
        note::info(&format!("the supervisor stays as it is: {why}"));
    }

    /// The program at `path` takes over. Returns why it did not; this one goes on then.
    pub fn upgrade(&'static self, path: &Path, keeper: Option<&Keeper>) -> String {
        self.try_to_upgrade(path, keeper).unwrap_or_else(|why| why)
    }

    fn try_to_upgrade(
        &'static self,
        path: &Path,
        keeper: Option<&Keeper>,
    ) -> Result<String, String> {
        let shown = path.display();
        let keeper = keeper.ok_or("there is no keeper to hold the command during the exchange")?;
        if record::asks_about_writes() {
            return Err("its command is recorded (`durac record`)".to_owned());
        }
        let program = Candidate::open(path).map_err(|why| format!("`{shown}`: {why}"))?;
        self.try_out(&program).map_err(|why| format!("`{shown}` cannot take over: {why}"))?;
        let said = |why: Unchanged| why.to_string();
        let until = clock::now().saturating_add(PATIENCE);
        let _gate = Gate::close(self);
        // Before anybody has to wait for it.
        self.in_quiet(until, |_| ()).map_err(said)?;
        let busy = || said(Unchanged::Busy);
        let _stopped = self.crew.stop(until).ok_or_else(busy)?;
        let searching = self.opening.hold_still(until).ok_or_else(busy)?;
        let opens = self.opening.known(&searching);
        let become_it = |logs: &mut Vec<Locked<'_>>| -> Option<Result<String, Unchanged>> {
            if logs.iter().any(|(_, core)| core.engine.is_flying()) {
                return None;
            }
            let failed = logs
                .iter()
                .find_map(|(slot, core)| core.engine.error().filter(|_| slot.is_in_use(core)));
            if let Some(errno) = failed.or_else(|| self.logs.stopped(self)) {
                return Some(Err(Unchanged::Failed(errno)));
            }
            // It may have ended while the program was tried.
            if keeper.has_ended() {
                return Some(Ok(
                    "its keeper has ended, which would hold the command meanwhile".to_owned()
                ));
            }
            logs.retain(|(_, core)| core.engine.error().is_none());
            if injects(Fault::NoKeeperMeanwhile) {
                crate::keeper::dismiss(keeper.pid);
            }
            let handed = Handover {
                opens: opens.clone(),
                program: program.as_raw_fd(),
                ..self.hand_over(logs, keeper.pid)
            };
            Some(Ok(become_program(&program, &handed)))
        };
        loop {
            match self.in_quiet(until, become_it).map_err(said)? {
                Some(result) => return result.map_err(said),
                None if clock::now() > until => return Err(said(Unchanged::Busy)),
                None => std::thread::sleep(NAP),
            }
        }
    }

    /// What a program that takes over has to know of these logs, and of everything else but files that are being
    /// opened.
    fn hand_over(&self, logs: &[Locked<'_>], keeper: u32) -> Handover {
        let policy = self.policy();
        let mut flags = flags_of(self.asked);
        let is_on = |switch: &&(u64, &AtomicBool)| switch.1.load(Ordering::SeqCst);
        for (bit, _) in self.switches().iter().filter(is_on) {
            flags |= if injects(Fault::NoSwitches) { 0 } else { *bit };
        }
        let value = |(index, param): (usize, &durac_abi::object::Param)| {
            self.page.status.param(index).unwrap_or(param.default)
        };
        let place = |index: usize| logs.iter().position(|(slot, _)| slot.index == index);
        Handover {
            listener: self.listener.as_raw_fd(),
            keeper,
            command: self.command.load(Ordering::Relaxed),
            serves: self.page.status.serves(),
            newest: self.shared.newest(),
            filter: filter::mark(self.asked),
            flags,
            failed: self.logs.failed_by().filter(|_| !injects(Fault::NoErrors)).unwrap_or(0),
            program: -1,
            object: policy.bytes.clone(),
            params: policy.meta.params.iter().enumerate().map(value).collect(),
            logs: logs
                .iter()
                .map(|(slot, core)| KnownLog {
                    fd: slot.own.as_raw_fd(),
                    path: slot.path.clone().into_bytes(),
                    looked: core.look.at(),
                    is_unsure: core.engine.is_unsure_of_bytes(),
                })
                .collect(),
            writes: self.unended.known(|slot| Some(place(slot.index)? as u64)),
            opens: Vec::new(),
            devices: self.mounts.known(),
        }
    }

    /// Runs the program until it has said that it could take over.
    fn try_out(&self, program: &Candidate) -> Result<(), String> {
        let shown = |why: io::Error| why.to_string();
        // Of the rest it needs nothing before it takes over.
        let handed = Handover {
            flags: flags_of(self.asked),
            filter: filter::mark(self.asked),
            object: self.policy().bytes.clone(),
            ..Handover::default()
        };
        let mut child = program
            .command()
            .args(["supervise-command", "--try"])
            .stdin(handed.store().map_err(shown)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(shown)?;
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().map_err(shown)? {
                Some(status) => break status,
                None if begun.elapsed() > TRIAL => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err("it does not answer".to_owned());
                }
                None => std::thread::sleep(NAP),
            }
        };
        // What it has printed is in the pipes, or was too much for them.
        let said = child.stdout.take().map(printed).unwrap_or_default();
        if status.success() && said.trim() == READY {
            return Ok(());
        }
        let said = child.stderr.take().map(printed).unwrap_or_default();
        let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
        let line = line.trim().trim_start_matches("durac: ").trim_start_matches("error: ");
        Err(match line {
            "" => "not a durac with supervisor support".to_owned(),
            line => line.chars().take(300).collect(),
        })
    }

    /// Takes what the program before has handed over. No thread answers calls yet.
    pub fn restore(&'static self, handed: &Handover) {
        self.command.store(handed.command, Ordering::Relaxed);
        self.page.status.publish_served(handed.serves.0, handed.serves.1);
        self.shared.begin_after(handed.newest);
        if handed.failed != 0 {
            self.logs.failed(handed.failed);
        }
        drop(taken(handed.program));
        self.mounts.set(&handed.devices);
        for (bit, switch) in self.switches() {
            switch.store(handed.flags & bit != 0, Ordering::SeqCst);
        }
        if self.force() != Force::WHOLE {
            self.publish_force();
        }
        let logs: Vec<_> = handed.logs.iter().map(|known| self.restore_log(known)).collect();
        for write in &handed.writes {
            if let Some(Some(slot)) = usize::try_from(write.log).ok().and_then(|at| logs.get(at)) {
                self.unended.restore(write, slot);
            }
        }
        for open in &handed.opens {
            let folder = open.made.as_ref().and_then(|(fd, _)| taken(*fd));
            self.opening.restore(open, folder);
        }
    }

    fn restore_log(&'static self, known: &KnownLog) -> Option<Arc<crate::log::Slot>> {
        let own = taken(known.fd)?;
        let meta = own.metadata().ok()?;
        let shown = String::from_utf8_lossy(&known.path).into_owned();
        let may_ask = may_ask(&own);
        let slot = self.logs.place(self, (&meta, own), shown, Process::default())?;
        slot.asks.store(may_ask, Ordering::Relaxed);
        let mut core = slot.lock();
        if known.is_unsure {
            core.engine.lose_bytes();
        }
        // Calls that were under way are not known: the next sync calls are the command's own, until one has succeeded.
        core.engine.passed_by();
        slot.begin_to_look(&mut core, known.looked);
        slot.publish(&mut core);
        drop(core);
        Some(slot)
    }
}

fn flags_of(asked: Asked) -> u64 {
    let writes = if asked.writes { flag::WRITES } else { 0 };
    writes | if asked.opens { flag::OPENS } else { 0 }
}

/// Becomes the program. Returns why it did not.
fn become_program(program: &Candidate, handed: &Handover) -> String {
    let shown = program.path().display();
    if !program.is_as_opened() {
        return format!("`{shown}` was written to while it was tried");
    }
    let stored = match handed.store() {
        Ok(stored) => stored,
        Err(why) => return format!("cannot hand over to `{shown}`: {why}"),
    };
    let number = stored.as_raw_fd().to_string();
    let place = CString::new(program.place().into_os_string().into_vec());
    let words = [
        program.path().as_os_str().as_bytes(),
        b"supervise-command",
        b"--continue",
        number.as_bytes(),
    ];
    let words: Result<Vec<CString>, _> = words.into_iter().map(CString::new).collect();
    let (Ok(place), Ok(words)) = (place, words) else {
        return format!("cannot run `{shown}`: it is not a path");
    };
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let folders = handed.opens.iter().filter_map(|open| Some(open.made.as_ref()?.0));
    let logs = handed.logs.iter().map(|log| log.fd);
    let kept: Vec<RawFd> =
        logs.chain(folders).chain([handed.listener, stored.as_raw_fd()]).collect();
    let all = kept.iter().try_for_each(|fd| keep_over_exec(*fd, true));
    let why = match all {
        Ok(()) => {
            // SAFETY: strings that end with zeros, in a list that ends with null. It returns only if it failed.
            unsafe { libc::execv(place.as_ptr(), pointers.as_ptr()) };
            io::Error::last_os_error()
        }
        Err(why) => why,
    };
    for fd in kept {
        let _ = keep_over_exec(fd, false);
    }
    format!("cannot run `{shown}`: {why}")
}

/// A descriptor that the program before has left open.
fn taken(fd: RawFd) -> Option<File> {
    keep_over_exec(fd, false).ok()?;
    // SAFETY: it is open, and belongs to this process, which nobody else tells of it.
    Some(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// What there is in a pipe, whoever else may still write to it.
fn printed(mut pipe: impl Read + AsRawFd) -> String {
    let mut bytes = Vec::new();
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } == 0 {
        // It ends with an error where somebody may write more; what came before is there.
        let _ = pipe.by_ref().take(4096).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The path of this program, where another may be by now.
fn own_path() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}
