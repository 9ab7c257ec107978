//! Runs programs under the agent.

pub mod objects;

use durac_abi::Object;
use durac_shm::status::{LogNumbers, Status};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The library to preload.
pub fn agent() -> PathBuf {
    durac_tests::agent().unwrap()
}

/// A C text of `tests/c`, compiled once for all tests of this process. Another may run beside it and build the same.
fn compile(source: &str, output: &str, options: &[&str]) -> PathBuf {
    type Built = (String, Arc<OnceLock<PathBuf>>);
    static BUILT: Mutex<BTreeMap<String, Built>> = Mutex::new(BTreeMap::new());
    let of = format!("{source} {options:?}");
    let new = || (of.clone(), Arc::default());
    let (was_of, built) =
        BUILT.lock().unwrap().entry(output.to_owned()).or_insert_with(new).clone();
    assert_eq!(of, was_of, "two programs are called {output}");
    built.get_or_init(|| compile_now(source, output, options)).clone()
}

fn compile_now(source: &str, output: &str, options: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/c").join(source);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let built = dir.path().join(output);
    let status = Command::new("cc")
        .args(["-O1", "-Wall", "-pthread", "-o"])
        .args([&built, &source])
        .args(options)
        .status()
        .unwrap();
    assert!(status.success());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(output);
    std::fs::rename(&built, &target).unwrap();
    target
}

/// The program that does what its arguments say.
pub fn app() -> PathBuf {
    compile("app.c", "app", &["-ldl"])
}

/// A program of a test of its own: `name`.c.
pub fn program(name: &str) -> PathBuf {
    compile(&format!("{name}.c"), name, &["-rdynamic", "-ldl"])
}

/// The library of the workspace's tests that sees a call of the application (`-DOUTER`), or what becomes
/// of it.
pub fn witness(name: &str, options: &[&str]) -> PathBuf {
    let options = [&["-shared", "-fPIC", "-ldl"], options].concat();
    compile("../../../shims/shim.c", name, &options)
}

/// The same of a text of `tests/c`.
pub fn witness_of(source: &str, name: &str, options: &[&str]) -> PathBuf {
    compile(source, name, &[&["-shared", "-fPIC", "-ldl"], options].concat())
}

/// The library that looks at what the agent calls.
pub fn shim() -> PathBuf {
    compile("shim.c", "shim.so", &["-shared", "-fPIC", "-ldl"])
}

/// A directory of a test, with an object in it, and programs to run there.
pub struct Place {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

/// A program that runs; it is killed if the test gives up on it.
pub struct Running(Option<Child>);

impl Running {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a program did.
#[derive(Debug)]
pub struct Done {
    /// Its lines.
    pub out: Vec<String>,
    /// What it and the agent said.
    pub err: String,
    /// What the shim saw.
    pub calls: Vec<String>,
    /// Its exit code, or 1000 + the signal.
    pub code: i32,
}

impl Place {
    /// Runs with this object.
    pub fn new(object: &Object) -> Self {
        Self::with_bytes(&objects::bytes(object))
    }

    /// The same in a directory of another file system.
    pub fn new_in(parent: &Path, object: &Object) -> Self {
        Self::make(parent, &objects::bytes(object))
    }

    /// Runs with an object file of these bytes.
    pub fn with_bytes(bytes: &[u8]) -> Self {
        Self::make(Path::new(env!("CARGO_TARGET_TMPDIR")), bytes)
    }

    fn make(parent: &Path, bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let object = dir.path().join("policy.o");
        std::fs::write(&object, bytes).unwrap();
        std::fs::set_permissions(&object, PermissionsExt::from_mode(0o600)).unwrap();
        let place = Self { dir, env: Vec::new() };
        let (object, log) = (place.path("policy.o"), place.path("calls"));
        place
            .env("DURAC_OBJECT", &object)
            .env("DURAC_LOG", "quiet")
            .env("SHIM_LOG", &log)
            .env("LD_PRELOAD", &format!("{} {}", agent().display(), shim().display()))
    }

    /// Runs under this agent instead.
    pub fn with_agent(self, agent: &Path) -> Self {
        self.env("LD_PRELOAD", &format!("{} {}", agent.display(), shim().display()))
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.into(), value.into()));
        self
    }

    /// Asks for a status file.
    pub fn with_status(self) -> Self {
        let path = self.path("status");
        self.env("DURAC_STATUS", &path)
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().into()
    }

    /// A command of any program.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).envs(self.env.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Starts the program with these operations.
    pub fn start(&self, operations: &str) -> Running {
        self.start_program(&app(), operations)
    }

    /// Starts any program with these arguments.
    pub fn start_program(&self, program: &Path, arguments: &str) -> Running {
        self.start_words(program, &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// The same; an argument may hold spaces and line ends.
    pub fn start_words(&self, program: &Path, arguments: &[&str]) -> Running {
        let child = self
            .command(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(Some(child))
    }

    /// Runs the program with these operations to its end.
    pub fn run(&self, operations: &str) -> Done {
        self.finish(self.start(operations))
    }

    /// Waits for a program that was started.
    pub fn finish(&self, running: Running) -> Done {
        self.finish_within(running, Duration::from_secs(300))
    }

    /// Waits so long for a program that was started; then it hangs.
    pub fn finish_within(&self, mut running: Running, time: Duration) -> Done {
        let mut child = running.0.take().unwrap();
        let end = Instant::now() + time;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                child.kill().unwrap();
                panic!("hangs: {:?}", child.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let output = child.wait_with_output().unwrap();
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Done {
            out: lines(&String::from_utf8(output.stdout).unwrap()),
            err: String::from_utf8(output.stderr).unwrap(),
            calls: self.calls(),
            code: status.code().unwrap_or_else(|| 1000 + status.signal().unwrap()),
        }
    }

    /// Ends a program that was started.
    pub fn kill(&self, mut running: Running) -> Done {
        running.0.as_mut().unwrap().kill().unwrap();
        self.finish(running)
    }

    /// What the shim has seen so far.
    pub fn calls(&self) -> Vec<String> {
        lines(&std::fs::read_to_string(self.path("calls")).unwrap_or_default())
    }

    /// The status page, once it is there.
    pub fn status(&self) -> Status {
        let path = self.path("status");
        poll("the status file", || Status::open_writable(Path::new(&path)).ok())
    }

    /// Makes an empty file that the program waits for.
    pub fn touch(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }
}

/// The numbers of the first log, once they are as asked.
pub fn log_where(status: &Status, what: &str, test: impl Fn(&LogNumbers) -> bool) -> LogNumbers {
    poll(what, || status.page().log(0).filter(&test))
}

/// Asks until there is an answer.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "no {what}");
        std::thread::sleep(Duration::from_micros(300));
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(String::from).collect()
}

/// How many lines start so.
pub fn count(lines: &[String], start: &str) -> usize {
    lines.iter().filter(|l| l.starts_with(start)).count()
}

/// Where the first line is that starts so.
pub fn place(lines: &[String], start: &str) -> usize {
    lines.iter().position(|l| l.starts_with(start)).unwrap_or_else(|| {
        panic!("no `{start}` in {lines:#?}");
    })
}
