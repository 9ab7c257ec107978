//! Where a loaded policy is in force, or why nowhere: from what its programs have written, and from what `/proc`
//! says of the target.

use crate::Attached;
use crate::live::Seen;
use crate::process::{Process, Uses};
use crate::session::NAME;
use durac_abi::uring::Mode;
use std::fmt;
use std::path::Path;

/// BPFtime's agent, by a part of its name.
const AGENT: &str = "bpftime-agent";

/// Whether a policy is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing has called yet; and what is known of that.
    Waits(String),
    /// It is in force in this process; and what else has to be known.
    InForce(u32, Option<String>),
    /// It is not, and why.
    Not(String),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits(why) => write!(f, "waiting: {why}"),
            Self::InForce(pid, None) => write!(f, "in force in process {pid}"),
            Self::InForce(pid, Some(more)) => write!(f, "in force in process {pid}; {more}"),
            Self::Not(why) => write!(f, "not in force: {why}"),
        }
    }
}

/// What is looked at.
pub(crate) struct View<'a> {
    pub(crate) session: &'a str,
    pub(crate) memory: &'a str,
    pub(crate) target: &'a Path,
    pub(crate) attached: &'a [Attached],
    /// The maps are still those of this loader.
    pub(crate) is_ours: bool,
    pub(crate) seen: &'a Seen,
}

const RESTART: &str = "stop the target, start this command again, then start the target";

impl View<'_> {
    pub(crate) fn standing(&self) -> Standing {
        if !self.is_ours {
            let name = self.session;
            return Standing::Not(format!(
                "another loader has cleared the session `{name}`: {RESTART}, with a session of its own for each target"
            ));
        }
        // One that uses another session of ours is another loader's.
        let mut running = Process::running(self.target);
        running.retain(|process| !process.uses_another(self.memory));
        match self.seen.owner {
            None => self.before_the_first_call(&running),
            Some((number, _)) => self.after_the_first_call(number, &running),
        }
    }

    fn before_the_first_call(&self, running: &[Process]) -> Standing {
        let mut about = running.iter().map(|process| self.why_silent(*process)).collect::<Vec<_>>();
        // One that is hooked is the one that is meant.
        about.sort_by_key(|standing| matches!(standing, Standing::Not(_)));
        let none = || Standing::Waits(format!("`{}` is not running", self.target.display()));
        about.into_iter().next().unwrap_or_else(none)
    }

    /// Why a process with the target's program has not called.
    fn why_silent(&self, process: Process) -> Standing {
        let (pid, session) = (process.0, self.session);
        // SAFETY: it only returns a number.
        let own = unsafe { libc::geteuid() };
        let library = process.has_library(AGENT);
        match process.uses(self.memory) {
            Uses::Session => self.hooked(process),
            _ if process.user().is_some_and(|user| user != own) => Standing::Not(format!(
                "process {pid} runs as another user, who cannot use this session's memory: start both as the same user"
            )),
            Uses::Earlier => Standing::Not(format!(
                "process {pid} was started under an earlier loader of the session `{session}`: restart it"
            )),
            Uses::Nothing if library => Standing::Not(format!(
                "process {pid} has BPFtime's agent and another session, or was started before this command was ready: \
                 restart it with {NAME}={session}"
            )),
            Uses::Nothing => Standing::Not(format!(
                "process {pid} runs without BPFtime's agent: restart it with LD_PRELOAD=…/libbpftime-agent.so and \
                 {NAME}={session}"
            )),
        }
    }

    /// Of a process with this session: whether its functions are hooked.
    fn hooked(&self, process: Process) -> Standing {
        let pid = process.0;
        match self.bare(process) {
            Some(bare) => Standing::Not(format!(
                "`{}` is not hooked in process {pid}: the reason is in BPFtime's log (BPFTIME_LOG_OUTPUT){}",
                bare.symbol,
                if self.seen.ring.is_some() {
                    "; an agent built without BPFTIME_ENABLE_IOURING_EXT drops this policy's programs"
                } else {
                    ""
                }
            )),
            None => Standing::Waits(format!("process {pid} is hooked, and has not called yet")),
        }
    }

    /// A function that is not patched.
    fn bare(&self, process: Process) -> Option<&Attached> {
        self.attached.iter().find(|a| process.is_patched(self.target, a.offset) == Some(false))
    }

    fn after_the_first_call(&self, number: u64, running: &[Process]) -> Standing {
        // The number is the one that the process has in its own namespace.
        let owner = Process(number as u32);
        let known = running.iter().find(|process| **process == owner).or_else(|| {
            running
                .iter()
                .find(|process| !process.same_namespace() && process.inner_number() == Some(number))
        });
        let Some(process) = known.filter(|process| process.lives()) else {
            let later = running.iter().find(|process| process.lives());
            let later = later.map_or_else(String::new, |Process(pid)| {
                format!(
                    " (process {pid} runs without it: {})",
                    "its state is that of the first process"
                )
            });
            return Standing::Not(format!(
                "process {number}, which it belonged to, has ended{later}: {RESTART}"
            ));
        };
        if let Some((hook, thread)) = self.seen.thread {
            return Standing::Not(format!(
                "thread {thread} of process {} has called `{hook}`, which another thread had called first: BPFtime \
                 keeps the result for the function, not for the thread, so every call runs as the application makes it",
                process.0
            ));
        }
        if let Some(bare) = self.bare(*process) {
            return Standing::Not(format!(
                "`{}` is not hooked in process {} any more: SIGUSR1 detaches BPFtime's agent; restart the target \
                 after this command",
                bare.symbol, process.0
            ));
        }
        if let Some(why) = self.seen.ring.and_then(|ring| self.why_no_ring(ring.mode, *process)) {
            return Standing::Not(why);
        }
        let other = self.seen.other.map(|other| {
            format!("process {other} has called, too, and its calls run as it makes them")
        });
        Standing::InForce(process.0, other)
    }

    /// Why the programs start no syncs.
    fn why_no_ring(&self, mode: Option<Mode>, process: Process) -> Option<String> {
        let pid = process.0;
        Some(match mode? {
            Mode::Working => return None,
            Mode::New => format!("process {pid} has not opened a log since it was started"),
            Mode::Broken => format!(
                "a sync of process {pid} has failed: every call fails until it is restarted"
            ),
            Mode::NoRing if process.is_filtered() => {
                format!(
                    "process {pid} cannot make an io_uring: its system calls are filtered (seccomp)"
                )
            }
            Mode::NoRing => format!(
                "process {pid} cannot make an io_uring: see `sysctl kernel.io_uring_disabled` and its limit of locked memory"
            ),
            Mode::NoTrial | Mode::NotStarted => {
                format!("process {pid} could not start a sync: its io_uring accepts none")
            }
            Mode::NotCounted if !process.same_namespace() => format!(
                "the kernel did not count the trial sync of process {pid}: it is in a PID namespace of its own \
                 (a container)"
            ),
            Mode::NotCounted => format!(
                "the kernel did not count the trial sync of process {pid}: its log is on a file system whose syncs the \
                 kernel's program does not see (tmpfs, or none but ext4 under lockdown)"
            ),
        })
    }
}
