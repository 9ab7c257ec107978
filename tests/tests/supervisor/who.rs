//! Who is in: commands that trace, filter, change their user, their namespaces or their root are under the policy like any
//! other; where that cannot be, it is told, and their calls run as they make them.

use crate::common::{object, poll, program, seen, window};
use crate::loss::lazy;
use anyhow::{Context, Result, ensure};
use durac_shm::status::Amounts;
use durac_tests::{cc, copy_program, run_durac, show};
use std::fs::{Permissions, set_permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Acknowledged lines that are waited for.
const LINES: usize = 100;
/// Becomes a user that is not root.
const AS_NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// A folder that every user may use, with the programs.
pub struct Place {
    folder: TempDir,
    object: PathBuf,
}

/// What became of a command.
pub struct Outcome {
    /// Of the calls for the acknowledged lines, those that were deferred; none if the policy has seen no log.
    deferred: Option<u64>,
    /// Whether there is a bound, as the supervisor shows it.
    has_bound: bool,
    /// What it and its supervisor have said.
    pub stderr: String,
    /// Who owns the log: whom the program ran as.
    owner: u32,
}

/// The program that acknowledges lines for ever.
pub const APPEND: [&str; 5] = ["./program", "append", "a.log", "1", "1000000"];

impl Outcome {
    /// The policy must have deferred most calls.
    pub fn deferred_most(self) -> Result<Self> {
        let deferred = self.deferred.unwrap_or(0);
        ensure!(deferred as usize > LINES / 2, "{deferred} calls were deferred: {}", self.stderr);
        Ok(self)
    }
}

impl Place {
    pub fn new() -> Result<Self> {
        Self::under(&window(64))
    }

    /// The same for this policy.
    pub fn under(policy: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("durac-who-")?;
        set_permissions(folder.path(), Permissions::from_mode(0o1777))?;
        let object = object(policy, folder.path())?;
        let place = Self { folder, object };
        place.copy(&durac_tests::tool()?, "durac")?;
        place.copy(&program(&["-static"])?, "program")?;
        Ok(place)
    }

    /// A program under a name in the folder, for every user.
    fn copy(&self, program: &Path, name: &str) -> Result<()> {
        copy_program(program, self.path().join(name))?;
        self.mode(name, 0o755)
    }

    fn mode(&self, name: &str, mode: u32) -> Result<()> {
        Ok(set_permissions(self.path().join(name), Permissions::from_mode(mode))?)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The command that puts a command in the folder under the policy.
    pub fn durac(&self) -> Result<[&str; 6]> {
        let object = self.object.to_str().context("a path")?;
        Ok(["./durac", "run", "--engine", "supervisor", object, "--"])
    }

    /// Runs `before… durac run … -- inside… program append LOG` in the folder until it has acknowledged some lines.
    fn run(&self, before: &[&str], inside: &[&str]) -> Result<Outcome> {
        self.run_with(before, inside, &APPEND)
    }

    fn run_with(&self, before: &[&str], inside: &[&str], program: &[&str]) -> Result<Outcome> {
        self.run_words(&[before, &self.durac()?, inside, program].concat())
    }

    /// Runs the command in the folder until it has acknowledged some lines.
    pub fn run_words(&self, words: &[&str]) -> Result<Outcome> {
        let mut words = words.iter();
        let stderr = self.path().join("stderr");
        let said = || std::fs::read_to_string(&stderr).unwrap_or_default();
        let mut command = Command::new(words.next().context("a command")?);
        command.args(words).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(std::fs::File::create(&stderr)?).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let acknowledged = lines.by_ref().take(LINES).collect::<Result<Vec<_>, _>>()?;
        let enough = acknowledged.len() == LINES;
        let supervisor = || supervisor(&self.path().join("durac")).context(said());
        let (mut deferred, mut has_bound) = (None, false);
        if enough {
            let pid = supervisor()?;
            deferred = self::deferred(&pid)?;
            has_bound = seen(pid.parse()?)?.bound.amounts != Amounts::default();
        }
        // The program ends when nobody reads its lines.
        drop(lines);
        poll("the command's end", || child.try_wait().ok().flatten())?;
        ensure!(enough, "{} lines, {}", acknowledged.len(), said());
        let owner = self.path().join("a.log").metadata()?.uid();
        Ok(Outcome { deferred, has_bound, stderr: said(), owner })
    }

    /// The same, and the policy must have deferred most calls.
    fn is_in(&self, before: &[&str], inside: &[&str]) -> Result<Outcome> {
        self.run(before, inside)?.deferred_most()
    }
}

/// The supervisor's process as this namespace numbers it: it runs the place's `durac`.
fn supervisor(durac: &Path) -> Option<String> {
    let named = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let is_it = |process: &PathBuf| {
        let words = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        std::fs::read_link(process.join("exe")).is_ok_and(|exe| exe == durac)
            && words.contains("supervise-command")
            && name.trim() != "durac-keeper"
    };
    let found = named.into_iter().find(is_it)?;
    Some(found.file_name()?.to_str()?.to_owned())
}

/// Calls that were acknowledged early on all logs; none if there is no log.
fn deferred(pid: &str) -> Result<Option<u64>> {
    let ended = run_durac(["metrics", pid])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let of_log = |line: &&str| line.starts_with("durac_acknowledged_early_total{");
    let values = ended.stdout.lines().filter(of_log).filter_map(|line| line.rsplit(' ').next());
    Ok(values
        .map(|value| value.parse::<u64>())
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .reduce(|a, b| a + b))
}

#[test]
fn a_traced_program() -> Result<()> {
    let strace = ["strace", "-f", "-o", "/dev/null"];
    let place = Place::new()?;
    place.is_in(&[], &strace)?;
    // The tracer sees the supervisor and its keeper, too.
    place.is_in(&strace, &[])?;
    Ok(())
}

#[test]
fn a_program_under_a_filter_of_its_own() -> Result<()> {
    let place = Place::new()?;
    place.copy(&cc("filter.c", "filter", &[])?, "filter")?;
    place.is_in(&[], &["./filter", "kcmp"])?;
    place.is_in(&["./filter", "kcmp"], &[])?;
    // What its own filter forbids is forbidden.
    let ended = place.run(&[], &["./filter", "-fdatasync"]);
    ensure!(ended.is_err_and(|why| why.to_string().contains("fdatasync: Operation not permitted")));
    // Some containers have such a filter: nothing could ever be deferred, and the command is not started.
    std::fs::remove_file(place.path().join("a.log"))?;
    let ended = place.run(&["./filter", "-pidfd_getfd"], &[]);
    ensure!(ended.is_err_and(|why| why.to_string().contains("cannot be taken")));
    ensure!(!place.path().join("a.log").exists());
    Ok(())
}

#[test]
fn a_program_under_two_supervisors() -> Result<()> {
    let place = Place::new()?;
    let object = place.object.to_str().context("a path")?;
    let ended = place.run(&[], &["./durac", "run", "--engine", "supervisor", object, "--"]);
    ensure!(ended.is_err_and(|why| why.to_string().contains("already supervises")));
    Ok(())
}

#[test]
fn a_setuid_program() -> Result<()> {
    let place = Place::new()?;
    place.mode("program", 0o4755)?;
    let outcome = place.is_in(&[], &AS_NOBODY)?;
    ensure!(outcome.owner == 0, "it ran as {}", outcome.owner);
    ensure!(!outcome.stderr.contains("no_new_privs"), "{}", outcome.stderr);
    std::fs::remove_file(place.path().join("a.log"))?;
    let outcome = place.is_in(&AS_NOBODY, &[])?;
    ensure!(outcome.owner == 65534, "it ran as {}", outcome.owner);
    ensure!(outcome.stderr.contains("no_new_privs"), "{}", outcome.stderr);
    Ok(())
}

#[test]
fn another_user() -> Result<()> {
    let place = Place::new()?;
    ensure!(place.is_in(&[], &AS_NOBODY)?.owner == 65534);
    place.is_in(&AS_NOBODY, &[])?;
    // Its process cannot be looked at: its file cannot be read by its user.
    place.mode("program", 0o711)?;
    let outcome = place.run(&AS_NOBODY, &[])?;
    ensure!(outcome.deferred.is_none(), "{:?} deferred", outcome.deferred);
    ensure!(outcome.stderr.contains("cannot be taken"), "{}", outcome.stderr);
    Ok(())
}

/// A program that syncs a log four times, has a process that cannot be looked at write at its beginning, and syncs it once.
const HIDDEN: &str = "import ctypes, os, signal, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
def sync(at): os.pwrite(fd, b'x\\n', at), os.fdatasync(fd)
for at in 0, 2, 4, 6: sync(at)
if os.fork() == 0:
    ctypes.CDLL(None).prctl(4, 0)
    os.pwrite(fd, b'y\\n', 0), os.kill(os.getpid(), signal.SIGKILL)
os.wait()
sync(8)
while True: os.write(1, b'x\\n')
";

/// What it writes may be the beginning of any log.
#[test]
fn a_process_that_cannot_be_seen_begins_a_ring_again() -> Result<()> {
    let mut place = Place::new()?;
    place.object = object(&lazy("layout ring"), place.path())?;
    std::fs::write(place.path().join("a.log"), "")?;
    let outcome = place.run_with(&AS_NOBODY, &[], &["python3", "-c", HIDDEN, "a-wal"])?;
    ensure!(outcome.deferred == Some(3), "{:?} deferred: {}", outcome.deferred, outcome.stderr);
    Ok(())
}

/// A process that does not show its open files, as another user's: it writes lines to its log.
const HIDDEN_WRITER: &str = "import ctypes, os
ctypes.CDLL(None).prctl(4, 0)
fd = os.open('a.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
while True: os.write(fd, b'x\\n'), os.write(1, b'x\\n')
";

#[test]
fn writes_of_a_process_that_is_not_seen_have_no_deadline() -> Result<()> {
    let seen = HIDDEN_WRITER.replace("prctl(4, 0)", "prctl(4, 1)");
    for (script, is_seen) in [(HIDDEN_WRITER, false), (&seen, true)] {
        let mut place = Place::new()?;
        // Proved: there is a bound.
        place.object = place.path().join("at_least.o");
        let path = place.object.to_str().context("a path")?;
        let ended = run_durac(["compile", "at_least", "--runtime", "supervisor", "-o", path])?;
        ensure!(ended.status.success(), "{}", show(&ended));
        let outcome = place.run_with(&AS_NOBODY, &[], &["python3", "-c", script])?;
        let said = outcome.stderr;
        ensure!(said.contains("its writes have no deadline") != is_seen, "{said}");
        ensure!(said.contains("(power loss: not known)") != is_seen, "{said}");
        ensure!(outcome.has_bound == is_seen, "{is_seen}: {said}");
        ensure!(outcome.deferred.is_some() == is_seen, "{:?}: {said}", outcome.deferred);
    }
    Ok(())
}

/// A child that does not show its open files changes the log, in one of two ways, after some lines.
const HIDDEN_CHILD: &str = "import ctypes, os, sys
fd = os.open('a.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def line(): os.write(fd, b'x\\n'), os.fdatasync(fd), os.write(1, b'x\\n')
for _ in range(10): line()
if os.fork() == 0:
    ctypes.CDLL(None).prctl(4, 0)
    os.ftruncate(fd, 1 << 20) if sys.argv[1] == 'ftruncate' else os.write(fd, bytes(1 << 20))
    os._exit(0)
os.wait()
while True: line()
";

#[test]
fn bytes_that_a_process_writes_that_is_not_seen_are_not_known() -> Result<()> {
    let policy = "policy p\ntarget posix.log\non fdatasync: if pending.bytes > 64KiB { pass }; defer\nflush within 1000s\n";
    for how in ["write", "ftruncate"] {
        let place = Place::under(policy)?;
        let outcome = place.run_with(&AS_NOBODY, &[], &["python3", "-c", HIDDEN_CHILD, how])?;
        let said = outcome.stderr;
        // Of those before the child.
        ensure!(outcome.deferred.is_some_and(|deferred| deferred < 10), "{how}: {said}");
        ensure!(said.contains("cannot be taken"), "{how}: {said}");
    }
    Ok(())
}

#[test]
fn other_namespaces() -> Result<()> {
    let place = Place::new()?;
    let unshare = ["unshare", "-Urpf", "--mount-proc", "--kill-child"];
    place.is_in(&[], &unshare)?;
    std::fs::remove_file(place.path().join("a.log"))?;
    place.is_in(&AS_NOBODY, &unshare)?;
    // And all of it in a container, which has an init.
    std::fs::remove_file(place.path().join("a.log"))?;
    let init = ["sh", "-c", "\"$@\"; exit", "sh"];
    place.is_in(&[&unshare[..], &init[..]].concat(), &[])?;
    Ok(())
}

/// Durac is the first process of a container: a command that waits for all of its children does not wait for the supervisor.
#[test]
fn a_container_without_an_init() -> Result<()> {
    let place = Place::new()?;
    let object = place.object.to_str().context("a path")?;
    let container = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-pf", "--mount-proc", "--kill-child", "./durac", "run"]);
        command.args(["--engine", "supervisor", "--log", "quiet", object, "--"]).args(words);
        command.current_dir(place.path()).stdin(Stdio::null());
        durac_tests::run(command)
    };
    let ended = container(&["./program", "append", "a.log", "3", "20"])?;
    ensure!(ended.status.success() && ended.stdout.lines().count() == 60, "{}", show(&ended));
    for (script, code) in [("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM 1; sleep 60", 143)] {
        let ended = container(&["sh", "-c", script])?;
        ensure!(ended.status.code() == Some(code), "{script}: {}", show(&ended));
    }
    // Nobody waits for what a process leaves behind.
    let script = "(sleep 0 & :); while [ $(ps -e -o stat= | grep -c Z) != 0 ]; do :; done";
    let ended = container(&["sh", "-c", script])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let ended = container(&["./object-that-is-none"])?;
    ensure!(ended.status.code() != Some(0), "{}", show(&ended));
    Ok(())
}

/// Another durac takes over from the supervisor: as a child of process 1, and one of another user.
#[test]
fn a_supervisor_that_is_exchanged() -> Result<()> {
    let place = Place::new()?;
    // In a folder that others cannot write to.
    let folder = TempDir::with_prefix("durac-newer-")?;
    set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let newer = folder.path().join("newer");
    copy_program(&durac_tests::tool()?, newer.clone())?;
    set_permissions(&newer, Permissions::from_mode(0o755))?;
    let object = place.object.to_str().context("a path")?;
    let append = "./program append a.log 2 20";
    let script = format!("{append} && {} upgrade && {append}", newer.display());
    // Process 1 collects what others leave behind before, meanwhile and afterwards.
    let orphans = format!(
        "(sleep 0.3 & sleep 0 & :); {script}; (sleep 0 & :); for try in $(seq 600); do \
         [ $(ps -e -o stat= | grep -c Z) = 0 ] && exit 0; sleep 0.1; done; exit 9"
    );
    let container = ["unshare", "-pf", "--mount-proc", "--kill-child"];
    // Of a user of its own: `durac upgrade` without a number wants one supervisor, and other tests run as nobody.
    let alone = AS_NOBODY.map(|word| word.replace("65534", "65532"));
    let alone: Vec<&str> = alone.iter().map(String::as_str).collect();
    for (before, script) in [(&container[..], &orphans), (&alone[..], &script)] {
        let durac = ["./durac", "run", "--engine", "supervisor", object, "--", "sh", "-c", script];
        let mut words = before.iter().chain(&durac);
        let mut command = Command::new(words.next().context("a command")?);
        command.args(words).current_dir(place.path()).stdin(Stdio::null());
        let ended = durac_tests::run(command)?;
        let lines = ended.stdout.lines().filter(|line| line.len() < 8).count();
        ensure!(ended.status.success() && lines == 80, "{}", show(&ended));
        ensure!(
            ended.stderr.contains("durac 0") && ended.stdout.contains("/newer`"),
            "{}",
            show(&ended)
        );
        std::fs::remove_file(place.path().join("a.log"))?;
    }
    Ok(())
}

/// Root exchanges the supervisor of another user, for a program that this user can read, and root or it owns.
#[test]
fn a_supervisor_of_another_user() -> Result<()> {
    let place = Place::new()?;
    let folder = TempDir::with_prefix("durac-newer-")?;
    set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let newer = folder.path().join("newer");
    copy_program(durac_tests::tool()?, &newer)?;
    let object = place.object.to_str().context("a path")?;
    let script = "./program append a.log 2 20; read line; ./program append a.log 2 20";
    let mut words = AS_NOBODY.iter().skip(1);
    let mut command = Command::new(AS_NOBODY[0]);
    command.args(words.by_ref()).args(["./durac", "run", "--engine", "supervisor", object, "--"]);
    command.args(["sh", "-c", script]).current_dir(place.path());
    let stderr = std::fs::File::create(place.path().join("stderr"))?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    ensure!(lines.by_ref().take(40).count() == 40);
    let pid = supervisor(&place.path().join("durac")).context("the supervisor")?;
    let upgrade = || {
        let mut command = Command::new(&newer);
        command.args(["upgrade", &pid]).env("NO_COLOR", "1").stdin(Stdio::null());
        durac_tests::run(command)
    };
    for (mode, owner, why) in
        [(0o711, 0, "Permission denied"), (0o755, 1, "owned by user 1, not by root or user 65534")]
    {
        set_permissions(&newer, Permissions::from_mode(mode))?;
        std::os::unix::fs::chown(&newer, Some(owner), None)?;
        let ended = upgrade()?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains(why), "{}", show(&ended));
    }
    for owner in [0, 65534] {
        std::os::unix::fs::chown(&newer, Some(owner), None)?;
        let ended = upgrade()?;
        ensure!(ended.status.success(), "{}", show(&ended));
        // It lets the same see it as before: its user.
        ensure!(std::fs::metadata(format!("/proc/{pid}/fd"))?.uid() == 65534);
    }
    drop(child.stdin.take());
    ensure!(lines.count() == 40 && child.wait()?.success());
    let said = std::fs::read_to_string(place.path().join("stderr"))?;
    ensure!(said.matches("has taken over").count() == 2, "{said}");
    Ok(())
}

#[test]
fn another_root() -> Result<()> {
    let place = Place::new()?;
    let folder = place.path().to_str().context("a path")?;
    let program = ["chroot", folder, "/program", "append", "/a.log", "1", "1000000"];
    let outcome = place.run_with(&[], &[], &program)?;
    ensure!(outcome.deferred.is_some_and(|deferred| deferred > 50), "{}", outcome.stderr);
    Ok(())
}
