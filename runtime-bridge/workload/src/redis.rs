//! A real `redis-server` in a directory of its own.

use crate::child::{self, tail};
use crate::error::{Error, Result, Trying};
use crate::resp::Client;
use crate::sys::Process;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A start or a stop that takes longer has hung; loading a log of a million keys takes seconds.
const START_WITHIN: Duration = Duration::from_secs(120);
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a server that does not answer yet.
const POLL: Duration = Duration::from_millis(10);
/// Another program may take the port between our probe and the server's bind.
const PORT_ATTEMPTS: usize = 5;

/// How a server is started. Everything not said is Redis' default, except that it saves no RDB.
#[derive(Clone, Debug, Default)]
pub struct RedisConfig {
    /// `appendfsync`: `always`, `everysec` or `no`; `None` is `appendonly no`.
    pub appendfsync: Option<String>,
    /// The server's program; `redis-server` on `PATH` if `None`.
    pub program: Option<PathBuf>,
    /// A whole command line instead of the program and its `redis.conf`: a server that speaks the same
    /// protocol. `{port}` and `{dir}` in its words become the port and the directory of its data.
    pub command: Option<Vec<OsString>>,
    /// The words before `redis-server`, such as `durac run window --`.
    pub prefix: Vec<OsString>,
    /// Environment variables besides the inherited ones.
    pub env: Vec<(OsString, OsString)>,
    /// Further lines of `redis.conf`, name and value as they stand there.
    pub lines: Vec<(String, String)>,
    /// Whether the server goes to the background (`daemonize yes` and a pid file).
    pub daemonize: bool,
    /// Whether the words of the prefix stay as the server's parent, as `durac record` does.
    pub has_parent: bool,
    /// Where the server keeps its data; `data` in its own directory if `None`.
    pub data: Option<PathBuf>,
    /// Where its own directory is made; the system's temporary directory if `None`.
    pub parent: Option<PathBuf>,
}

impl RedisConfig {
    /// A server with an append-only file, synced as `appendfsync` says.
    #[must_use]
    pub fn new(appendfsync: &str) -> Self {
        Self { appendfsync: Some(appendfsync.to_owned()), ..Self::default() }
    }

    /// With words before `redis-server`.
    #[must_use]
    pub fn prefix<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.prefix = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// With one more line of `redis.conf`.
    #[must_use]
    pub fn line(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The command `SHUTDOWN`.
    Shutdown,
    /// SIGTERM.
    Term,
    /// SIGKILL: the process dies at once, what it wrote stays in the page cache.
    Kill,
}

/// A server. Dropping it stops it and removes its directory.
#[derive(Debug)]
pub struct Redis {
    /// How it is started the next time.
    pub config: RedisConfig,
    dir: TempDir,
    port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// `None` for a daemon, which is not a child of this process.
    child: Option<Child>,
    pid: u32,
    process: Process,
}

impl Redis {
    /// Starts a server in a new directory and waits until it answers.
    ///
    /// # Errors
    /// If it ends before it answers (with what it wrote), or does not answer in time.
    pub fn start(config: RedisConfig) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("durac-redis-");
        let dir = match &config.parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        }
        .trying(|| "make a directory for redis-server".into())?;
        let mut redis = Self { config, dir, port: 0, running: None };
        redis.launch()?;
        Ok(redis)
    }

    /// Starts the server again on the same data, after it was stopped or has ended.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn launch(&mut self) -> Result<()> {
        self.stop_anyhow();
        let mut attempt = 1;
        loop {
            match self.try_launch() {
                Err(Error::Ended { output, .. })
                    if attempt < PORT_ATTEMPTS && output.contains("Address already in use") => {}
                result => return result,
            }
            attempt += 1;
        }
    }

    /// The port it listens on; another one after each start.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process, under whatever prefix it was started; 0 when it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, |running| running.pid)
    }

    /// The directory with `redis.conf`, `redis.log`, `stdout`, `stderr` and `data`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory it keeps its data in.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.config.data.clone().unwrap_or_else(|| self.dir().join("data"))
    }

    /// The directory of the append-only files.
    #[must_use]
    pub fn aof_dir(&self) -> PathBuf {
        self.data().join("appendonlydir")
    }

    /// A new connection.
    ///
    /// # Errors
    /// If the server does not listen.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.port)
    }

    /// What it has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.read("redis.log")
    }

    /// What it, and the words before it, have written to stderr since its last start.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// Stops the server and waits for its end. `None` for a daemon, whose status is lost.
    ///
    /// # Errors
    /// If it does not run, or does not end in time; it is then killed.
    pub fn stop(&mut self, how: Stop) -> Result<Option<ExitStatus>> {
        match how {
            Stop::Shutdown => {
                let mut client = self.client()?;
                client.queue(&["SHUTDOWN"]);
                client.flush()?;
                // It replies only if it refuses; else the connection just ends.
                if let Ok(reply) = client.receive() {
                    return Err(Error::Refused(format!("{reply:?}")));
                }
            }
            Stop::Term => self.kill(libc::SIGTERM)?,
            Stop::Kill => self.kill(libc::SIGKILL)?,
        }
        self.wait(STOP_WITHIN)
    }

    /// Sends a signal to the server.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, signal: i32) -> Result<()> {
        self.running()?.process.kill(signal).trying(|| "send a signal to redis-server".into())
    }

    /// Waits until the server has ended by itself. `None` for a daemon.
    ///
    /// # Errors
    /// If it does not run, or still runs after `within`; it is then killed.
    pub fn wait(&mut self, within: Duration) -> Result<Option<ExitStatus>> {
        let what = || "wait for redis-server".to_owned();
        self.running()?;
        let Some(mut running) = self.running.take() else {
            return Ok(None);
        };
        let late = || Error::Late { what: "the end of redis-server".into(), within };
        match &mut running.child {
            Some(child) => {
                let status = child::wait(child, within);
                if !matches!(status, Ok(Some(_))) {
                    running.end();
                }
                status?.map(Some).ok_or_else(late)
            }
            None if running.process.wait(within).trying(what)? => Ok(None),
            None => {
                running.end();
                Err(late())
            }
        }
    }

    /// Whether the server runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let ended = |running: &Running| running.process.wait(Duration::ZERO).unwrap_or(true);
        self.running.as_ref().is_some_and(|running| !ended(running))
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().ok_or_else(|| Error::Config("redis-server is not running".into()))
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.dir().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn try_launch(&mut self) -> Result<()> {
        let what = || "start redis-server".to_owned();
        self.port = free_port().trying(what)?;
        for stale in ["redis.log", "redis.pid"] {
            // Usually there is none.
            let _ = fs::remove_file(self.dir().join(stale));
        }
        fs::create_dir_all(self.data()).trying(what)?;
        let conf = self.dir().join("redis.conf");
        fs::write(&conf, self.conf()).trying(what)?;
        let mut prefix = self.config.prefix.clone();
        if self.config.has_parent {
            // The server too must not outlive the process that started it.
            prefix.extend(["setpriv", "--pdeathsig", "KILL"].map(OsString::from));
        }
        let words = self.words(conf)?;
        let (program, rest) =
            words.split_first().ok_or_else(|| Error::Config("no command".into()))?;
        let mut command = child::command(&prefix, Path::new(program));
        if self.config.command.is_none() {
            command.current_dir(self.dir());
        }
        command
            .args(rest)
            .envs(self.config.env.iter().map(|(name, value)| (name, value)))
            .stdout(File::create(self.dir().join("stdout")).trying(what)?)
            .stderr(File::create(self.dir().join("stderr")).trying(what)?);
        let child = command.spawn().trying(what)?;
        let pid = child.id();
        let process = Process::open(pid).trying(what)?;
        self.running = Some(Running { child: Some(child), pid, process });
        let started = if self.config.daemonize {
            self.adopt()
        } else if self.config.has_parent {
            self.find_server()
        } else {
            Ok(())
        };
        let started = started.and_then(|()| self.await_answer());
        if started.is_err() {
            self.stop_anyhow();
        }
        started
    }

    /// The command line.
    fn words(&self, conf: PathBuf) -> Result<Vec<OsString>> {
        let Some(words) = &self.config.command else {
            let program = match &self.config.program {
                Some(program) => program.clone(),
                None => child::which("redis-server")?,
            };
            return Ok(vec![program.into(), conf.into()]);
        };
        let (port, data) = (self.port.to_string(), self.data());
        let filled = |word: &OsString| match word.to_str() {
            Some(text) => {
                text.replace("{port}", &port).replace("{dir}", &data.to_string_lossy()).into()
            }
            None => word.clone(),
        };
        Ok(words.iter().map(filled).collect())
    }

    /// The program's name, for messages.
    fn name(&self) -> String {
        let program = self.config.command.as_ref().and_then(|words| words.first().map(Path::new));
        let program = program.or(self.config.program.as_deref());
        let name = program.and_then(Path::file_name);
        name.map_or("redis-server".into(), |name| name.to_string_lossy().into_owned())
    }

    /// Takes over the daemon after the process that was started has ended.
    fn adopt(&mut self) -> Result<()> {
        let what = || "find the daemon".to_owned();
        let status = self.wait(START_WITHIN)?;
        if !status.is_some_and(|status| status.success()) {
            return Err(self.ended(status.unwrap_or_default()));
        }
        let pid = self.await_pid_file()?;
        let process = Process::open(pid).trying(what)?;
        self.running = Some(Running { child: None, pid, process });
        Ok(())
    }

    /// Finds the server that the process that was started has started.
    fn find_server(&mut self) -> Result<()> {
        let pid = self.await_pid_file()?;
        let process = Process::open(pid).trying(|| "find the server".to_owned())?;
        if let Some(running) = &mut self.running {
            running.pid = pid;
            running.process = process;
        }
        Ok(())
    }

    fn await_pid_file(&mut self) -> Result<u32> {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            if let Ok(pid) = self.read("redis.pid").trim().parse() {
                return Ok(pid);
            }
            if self.running.is_some() && !self.is_running() {
                let status = self.wait(START_WITHIN)?;
                return Err(self.ended(status.unwrap_or_default()));
            }
            self.pause(deadline, "the pid file")?;
        }
    }

    /// Waits until this very server answers and has read its data.
    fn await_answer(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            if !self.is_running() {
                let status = self.wait(START_WITHIN)?;
                return Err(self.ended(status.unwrap_or_default()));
            }
            let ask =
                |field| self.client().and_then(|mut client| client.info(field)).ok().flatten();
            // Another pid is somebody else's server on our port; ours will end and say so.
            if ask("process_id") == Some(self.pid().to_string())
                && ask("loading").as_deref() == Some("0")
            {
                return Ok(());
            }
            self.pause(deadline, &format!("an answer of {}", self.name()))?;
        }
    }

    fn pause(&self, deadline: Instant, what: &str) -> Result<()> {
        if crate::sys::interrupted() {
            return Err(Error::Interrupted);
        }
        if Instant::now() > deadline {
            return Err(Error::Late { what: what.to_owned(), within: START_WITHIN });
        }
        std::thread::sleep(POLL);
        Ok(())
    }

    fn ended(&self, status: ExitStatus) -> Error {
        Error::Ended { program: self.name(), status, output: self.last_words() }
    }

    fn last_words(&self) -> String {
        tail(&self.log()) + &tail(&self.read("stdout")) + &tail(&self.stderr())
    }

    fn conf(&self) -> String {
        let quote = |path: PathBuf| {
            let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{text}\"")
        };
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let mut lines = vec![
            ("bind".to_owned(), "127.0.0.1".to_owned()),
            ("port".to_owned(), self.port.to_string()),
            ("dir".to_owned(), quote(self.data())),
            ("logfile".to_owned(), quote(self.dir().join("redis.log"))),
            ("pidfile".to_owned(), quote(self.dir().join("redis.pid"))),
            ("daemonize".to_owned(), yes_no(self.config.daemonize)),
            ("save".to_owned(), "\"\"".to_owned()),
            ("enable-debug-command".to_owned(), "local".to_owned()),
            ("appendonly".to_owned(), yes_no(self.config.appendfsync.is_some())),
        ];
        if let Some(appendfsync) = &self.config.appendfsync {
            lines.push(("appendfsync".to_owned(), appendfsync.clone()));
        }
        let mut text = String::new();
        for (name, value) in lines.iter().chain(&self.config.lines) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }

    fn stop_anyhow(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.end();
        }
    }
}

impl Running {
    /// Ends it, gently at first: a server with a policy still has acknowledged writes to sync.
    fn end(&mut self) {
        // An error here means that it has ended already.
        let _ = self.process.kill(libc::SIGTERM);
        if !self.process.wait(Duration::from_secs(5)).unwrap_or(false) {
            let _ = self.process.kill(libc::SIGKILL);
            let _ = self.process.wait(STOP_WITHIN);
        }
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop_anyhow();
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_stops_and_reads_its_log_back() {
        let mut redis = Redis::start(RedisConfig::new("always")).unwrap();
        let pid = redis.pid();
        let mut client = redis.client().unwrap();
        assert_eq!(client.text(&["SET", "a", "1"]).unwrap(), "OK");
        assert_eq!(client.info("process_id").unwrap(), Some(pid.to_string()));
        for how in [Stop::Shutdown, Stop::Term, Stop::Kill] {
            let status = redis.stop(how).unwrap().unwrap();
            assert_eq!(status.success(), how != Stop::Kill);
            assert!(!redis.is_running());
            redis.launch().unwrap();
            assert_eq!(redis.client().unwrap().text(&["GET", "a"]).unwrap(), "1");
        }
        let dir = redis.dir().to_owned();
        drop(redis);
        assert!(!dir.exists());
    }

    #[test]
    fn a_daemon_is_found_and_stopped() {
        let config = RedisConfig { daemonize: true, ..RedisConfig::new("everysec") };
        let mut redis = Redis::start(config).unwrap();
        assert!(redis.is_running());
        assert_eq!(redis.stop(Stop::Shutdown).unwrap(), None);
        redis.launch().unwrap();
        let process = Process::open(redis.pid()).unwrap();
        drop(redis);
        assert!(process.wait(Duration::ZERO).unwrap());
    }

    #[test]
    fn a_bad_configuration_shows_what_redis_says() {
        let config = RedisConfig::new("always").line("no-such-directive", "1");
        let error = Redis::start(config).unwrap_err().to_string();
        assert!(error.contains("no-such-directive"), "{error}");
    }

    #[test]
    fn the_words_before_it_may_become_it() {
        let words = ["sh", "-c", "echo before >&2; exec \"$@\"", "sh"];
        let redis = Redis::start(RedisConfig::default().prefix(words)).unwrap();
        assert_eq!(redis.stderr(), "before\n");
    }
}
