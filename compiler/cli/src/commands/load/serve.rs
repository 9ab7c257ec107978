//! The second run of `durac load`, under BPFtime's server: loads the object, starts the target, vouches for the policy
//! and says where it is in force, and ends it.
//!
//! Whatever is closed here, BPFtime's server takes for a number of its own. Those are never free again, because what
//! was made is not closed, and the kernel's numbers of maps are reserved (`Session::reserve`).

use super::{ENV_AGENT, ENV_LOCK, ENV_PRELOAD, Load, read, refused};
use crate::args::Global;
use crate::launch::{cannot_start, find_program, preload};
use crate::signals::{Blocked, Signal};
use crate::{Outcome, output};
use anyhow::{Context, Result};
use durac_abi::Object;
use durac_bpftime::session::{self, Session};
use durac_bpftime::{End, Loaded, Seen, Standing};
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How often it vouches and looks.
const LOOK: Duration = Duration::from_millis(200);
/// How often it looks at every process.
const SCAN: Duration = Duration::from_millis(800);
const STOPS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
/// Signals for the target.
const FORWARDED: [libc::c_int; 7] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCHLD,
];

/// Loads, and stays.
pub fn run(args: &Load, lock: &OsStr, global: &Global) -> Result<Outcome> {
    if !durac_bpftime::intercepted() {
        return Err(output::exit(
            2,
            "BPFtime's server is not preloaded: the dynamic linker has left it out",
        ));
    }
    let name = session::name().map_err(|why| output::exit(1, why.to_string()))?;
    let lock = lock.to_str().and_then(|lock| lock.parse().ok());
    let session = lock.and_then(|lock| Session::inherit(name, lock));
    let session =
        session.with_context(|| format!("{ENV_LOCK} is not the lock of the session: unset it"))?;
    session.keep();
    let signals = match args.command.is_empty() {
        true => Blocked::new(&STOPS),
        false => Blocked::new(&FORWARDED),
    };
    let signals = signals.context("cannot wait for signals")?;
    let Some((object, types)) = read(args, global)? else { return Ok(Outcome::Wrong) };
    let loaded = durac_bpftime::load(&object, &types, &args.target, &session).map_err(|why| {
        session.remove_memory();
        refused(&why)
    })?;
    let mut teller = Teller {
        args,
        global,
        session: &session,
        object: &object,
        last: None,
        seen: None,
        looked: Instant::now(),
        said: Vec::new(),
    };
    // From now on a call is not only passed.
    teller.looks(&loaded);
    let ended = teller.serve(&loaded, &signals);
    let end = loaded.end(&session);
    if let Some(ready) = &args.ready_file {
        let _ = fs::remove_file(ready);
    }
    session.say(&[]);
    if let End::Pinned(path) = end {
        output::error(&format!(
            "the target has syncs in flight and does not call: the kernel goes on counting them; remove `{}` when the \
             target has ended",
            path.display()
        ));
    }
    ended
}

/// What is said to whom.
struct Teller<'a> {
    args: &'a Load,
    global: &'a Global,
    session: &'a Session,
    object: &'a Object,
    last: Option<Standing>,
    /// What the last was said of, and when.
    seen: Option<Seen>,
    looked: Instant,
    said: Vec<(&'static str, String)>,
}

impl Teller<'_> {
    fn serve(&mut self, loaded: &Loaded, signals: &Blocked) -> Result<Outcome> {
        let starts = !self.args.command.is_empty();
        let summary = self.summary(loaded);
        match starts {
            // The command's output is its own.
            true => output::stderr(&output::for_people(&summary)),
            // Said now: it stays for as long as it is not stopped.
            false if self.global.is_json() => {
                let meta = &self.object.meta;
                let target = loaded.target.display().to_string();
                let document = &self.global.document;
                document.put(&serde_json::json!({ "policy": meta.policy, "target": target }))?;
                document.print(Some("load"), 0, None)?;
            }
            false => output::print(&summary)?,
        }
        if let Some(ready) = &self.args.ready_file {
            let text = format!("{}\n", std::process::id());
            output::write_atomically(ready, text.as_bytes(), 0o644)?;
        }
        let mut child = if starts { Some(self.start(signals)?) } else { None };
        if !starts {
            notify("READY=1");
        }
        loop {
            let signal = signals.wait_for(LOOK);
            if let Some(child) = &mut child {
                if let Some(status) = child.try_wait().context("cannot wait for the target")? {
                    return Ok(outcome(status));
                }
                pass_on(signal, child);
            } else if signal.is_some() {
                return Ok(Outcome::Fine);
            }
            self.looks(loaded);
        }
    }

    /// Vouches, and says what has changed.
    fn looks(&mut self, loaded: &Loaded) {
        let seen = loaded.vouch();
        let quiet = seen.as_ref().map(Seen::quiet);
        // What the programs write is looked at each time, processes less often.
        let standing = match &self.last {
            Some(last) if quiet == self.seen && self.looked.elapsed() < SCAN => last.clone(),
            _ => {
                (self.seen, self.looked) = (quiet, Instant::now());
                loaded.standing(self.session, seen.as_ref())
            }
        };
        let seen = seen.unwrap_or_default();
        let said = self.lines(loaded, &standing, &seen);
        if said != self.said {
            self.session.say(&said);
            self.said = said;
        }
        // That nobody calls yet is no news at the beginning.
        let is_news = match (&self.last, &standing) {
            (None, Standing::Waits(_)) => false,
            (Some(last), now) => last != now,
            (None, _) => true,
        };
        if is_news {
            output::error(&standing.to_string());
            notify(&format!("STATUS={standing}"));
        }
        self.last = Some(standing);
    }

    fn lines(
        &self,
        loaded: &Loaded,
        standing: &Standing,
        seen: &Seen,
    ) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("loader", std::process::id().to_string()),
            ("policy", self.object.meta.policy.clone()),
            ("target", loaded.target.display().to_string()),
            ("standing", standing.to_string()),
            ("calls", seen.calls.to_string()),
        ];
        if let Standing::InForce(pid, _) = standing {
            lines.push(("in_force", pid.to_string()));
        }
        if let Some(ring) = seen.ring {
            lines.push(("syncs", ring.started.to_string()));
            lines.push(("pending", ring.pending.to_string()));
        }
        lines
    }

    /// Starts the target with BPFtime's agent.
    fn start(&self, signals: &Blocked) -> Result<Child> {
        let [name, arguments @ ..] = self.args.command.as_slice() else {
            return Err(output::exit(1, "no command to start"));
        };
        let program = find_program(name)?;
        let mut command = Command::new(&program);
        command.arg0(name).args(arguments);
        for variable in [ENV_LOCK, ENV_AGENT, ENV_PRELOAD] {
            command.env_remove(variable);
        }
        command.env("LD_PRELOAD", preload(&agent(), std::env::var_os(ENV_PRELOAD).as_deref())?);
        signals.spare(&mut command);
        crate::inherited::hand_on(&mut command);
        command.spawn().map_err(|why| cannot_start(&program, &why))
    }

    fn summary(&self, loaded: &Loaded) -> String {
        let mut out = String::new();
        let (policy, target) = (&self.object.meta.policy, loaded.target.display());
        let _ = writeln!(out, "policy {policy} is loaded for {target}");
        for program in &loaded.attached {
            let (hook, symbol, offset) = (program.hook, &program.symbol, program.offset);
            let _ = writeln!(out, "    {hook}: at {symbol}, {offset:#x} of the file");
        }
        if let Some(place) = loaded.counts {
            let _ = writeln!(out, "    the kernel counts its syncs: {}", place.text());
        }
        if self.args.command.is_empty() {
            let (session, agent) = (self.session.name(), agent());
            let _ = writeln!(
                out,
                "ready: start the target now, and keep this process running while it runs:\n    \
                 {}={session} LD_PRELOAD={} {target} …",
                session::NAME,
                agent.display()
            );
        }
        out
    }
}

fn agent() -> PathBuf {
    std::env::var_os(ENV_AGENT).map_or_else(PathBuf::new, PathBuf::from)
}

/// Passes a signal on, unless the terminal has sent it: that sends it to both.
fn pass_on(signal: Option<Signal>, child: &Child) {
    if let Some(signal) =
        signal.filter(|signal| signal.number != libc::SIGCHLD && !signal.of_kernel)
    {
        // SAFETY: the process was not waited for, so the number is still its own.
        unsafe { libc::kill(child.id() as libc::pid_t, signal.number) };
    }
}

/// As shells say it.
fn outcome(status: ExitStatus) -> Outcome {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    match code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX) {
        0 => Outcome::Fine,
        code => Outcome::Ended(code),
    }
}

/// `sd_notify(3)`: tells the service manager, if there is one.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(&path)),
    };
    let send = || UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address?);
    // Nobody waits for it if it cannot be told.
    let _ = send();
}
