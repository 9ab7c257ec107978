//! `durac enable` and `durac disable` on Debian's own unit of Redis, with all its restrictions, under a real
//! systemd: as pid 1 of namespaces that nobody else sees.

use anyhow::{Context, Result, bail, ensure};
use durac_tests::server::until;
use durac_tests::{agent, bin_dir, heavy, run, show, tool};
use durac_workload::child::{self, Ended};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// The system; it ends with this.
struct System {
    unshare: Child,
    /// Number of its pid 1, outside.
    init: String,
    /// Its control group.
    cgroup: String,
    /// Its data; gone after it.
    _folder: TempDir,
}

impl System {
    fn boot() -> Result<Self> {
        tool()?;
        agent()?;
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("durac-system.{}.{number}", std::process::id());
        let folder = TempDir::new()?;
        let mut command = Command::new("unshare");
        command
            .args(["--kill-child", "--mount", "--pid", "--fork", "--uts", "--ipc", "--net"])
            .args(["--mount-proc", "bash", SCRIPT, &cgroup])
            .arg(bin_dir()?)
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let unshare = command.spawn().context("cannot run unshare")?;
        let mut system = Self { unshare, init: String::new(), cgroup, _folder: folder };
        let pid = system.unshare.id();
        until("systemd", || {
            if let Some(ended) = system.unshare.try_wait()? {
                bail!("systemd.sh: {ended} (this test needs root)");
            }
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            children.trim().clone_into(&mut system.init);
            let name = std::fs::read_to_string(format!("/proc/{}/comm", system.init));
            Ok(name.is_ok_and(|name| name.trim() == "systemd"))
        })?;
        until("a system", || {
            Ok(system.call("systemctl", &["is-active", "idle.target"])?.status.success())
        })?;
        Ok(system)
    }

    /// Runs a command in it.
    fn call(&self, program: &str, args: &[&str]) -> Result<Ended> {
        let mut command = child::command(&[], Path::new("/usr/bin/nsenter"));
        command.args(["--target", &self.init, "--all", program]).args(args);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("NO_COLOR", "1");
        run(command)
    }

    fn fine(&self, program: &str, args: &[&str]) -> Result<Ended> {
        let ended = self.call(program, args)?;
        ensure!(ended.status.success(), "{program} {args:?}: {}", show(&ended));
        Ok(ended)
    }

    /// Runs a script in it.
    fn sh(&self, script: &str) -> Result<Ended> {
        self.call("bash", &["-c", &format!("set -e; {script}")])
    }

    /// The same of one that succeeds. Returns what it prints.
    fn done(&self, script: &str) -> Result<String> {
        let ended = self.sh(script)?;
        ensure!(ended.status.success(), "{script}: {}", show(&ended));
        Ok(ended.stdout)
    }

    /// A unit `u` with these settings, read by systemd; nothing is left of the one before.
    fn unit(&self, settings: &str) -> Result<()> {
        let path = "/etc/systemd/system";
        self.done(&format!(
            "systemctl stop u 2>/dev/null || true; rm -rf {path}/u.service* /etc/durac /var/lib/u; \
             mkdir -p /var/lib/u; chmod 777 /var/lib/u; printf '%b' '[Service]\\nWorkingDirectory=/var/lib/u\\n\
             ExecStart=/usr/bin/redis-server --port 7001 --appendonly yes --appendfsync always\\n{settings}' \
             >{path}/u.service; systemctl daemon-reload"
        ))
        .map(drop)
    }

    /// Whether `durac enable` of a unit is refused, with these words, and leaves nothing.
    fn refuses(&self, args: &str, says: &str) -> Result<()> {
        let before = self.done(LEFT)?;
        let ended = self.sh(&format!("durac enable {args}"))?;
        ensure!(ended.status.code() == Some(1), "{args}: {}", show(&ended));
        ensure!(ended.stderr.contains(says), "{args}: not `{says}`: {}", show(&ended));
        let after = self.done(LEFT)?;
        ensure!(before == after, "{args}: {before}\n{after}");
        Ok(())
    }

    /// What `durac top` says of the only log.
    fn top(&self) -> Result<Value> {
        let ended = self.fine("durac", &["top", "--interval", "100ms", "--format", "json"])?;
        let table: Value = serde_json::from_str(&ended.stdout)?;
        ensure!(table.pointer("/total/logs").and_then(Value::as_u64) == Some(1), "{table}");
        table.pointer("/logs/0").cloned().context("no log")
    }

    fn write(&self) -> Result<()> {
        let ended = self.fine("redis-cli", &["set", "a", "b"])?;
        ensure!(ended.stdout.trim() == "OK", "{}", show(&ended));
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Its pid 1 goes with it, and all processes with that.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // Its control group can go when nothing is left of it.
        let _ = until("the system's end", || {
            let mut command = Command::new("unshare");
            command.args(["--mount", "bash", SCRIPT, "--remove", &self.cgroup]);
            Ok(command.stdin(Stdio::null()).stderr(Stdio::null()).status()?.success())
        });
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shims/systemd.sh");
const DROP_IN: &str = "/etc/systemd/system/redis-server.service.d/durac.conf";

/// What `durac enable` may leave.
const LEFT: &str = "find /etc/durac /etc/systemd/system/u.service.d /run/systemd/system -type f -printf '%p %s\\n' \
                    2>/dev/null | sort; pgrep -xa redis-server | cut -d' ' -f2- | grep unixsocket || true";

/// A parameter and a policy that are changed under the unit's restrictions, and kept for the next start.
fn live_control(system: &System, unit: &str) -> Result<()> {
    let policy = || -> Result<Option<String>> {
        Ok(system.top()?.get("policy").and_then(Value::as_str).map(str::to_owned))
    };
    let set = system.fine("durac", &["set", "n=3", "--save"])?;
    ensure!(
        set.stdout.contains("kept for the next start: /etc/durac/redis-server.o"),
        "{}",
        show(&set)
    );
    let other = system.fine("durac", &["reload", "delayed_fsync"])?;
    ensure!(other.stdout.contains("policy `window` → policy `delayed_fsync`"), "{}", show(&other));
    system.write()?;
    ensure!(policy()?.as_deref() == Some("delayed_fsync"));
    // That was not kept.
    system.fine("systemctl", &["restart", unit])?;
    system.write()?;
    let seen = system.top()?;
    let value = seen.pointer("/params/0/value").and_then(Value::as_u64);
    ensure!(policy()?.as_deref() == Some("window") && value == Some(3), "{seen}");
    system.fine("durac", &["reload", "delayed_fsync", "--save"])?;
    system.fine("systemctl", &["restart", unit])?;
    system.write()?;
    ensure!(policy()?.as_deref() == Some("delayed_fsync"));
    // And back again, by the port that it listens on.
    system.fine("durac", &["reload", "window", "--set", "n=16", ":6379", "--save"])?;
    system.write()?;
    ensure!(policy()?.as_deref() == Some("window"));
    Ok(())
}

/// The day that docs/day.md tells, as its script makes it.
#[test]
fn an_operators_day() -> Result<()> {
    let _turn = heavy()?;
    let system = System::boot()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = std::fs::read_to_string(folder.join("examples/day.sh"))?;
    let ended = system.fine("bash", &["-c", &script])?;
    // What is told is what is done.
    let told = std::fs::read_to_string(folder.join("docs/day.md"))?;
    let commands = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("$ "));
        lines.map(str::to_owned).collect()
    };
    let (told, done) = (commands(&told), commands(&ended.stdout));
    ensure!(told == done, "docs/day.md tells {told:#?}\nand the script does {done:#?}");
    ensure!(ended.stdout.matches("hello again").count() == 3, "{}", show(&ended));
    Ok(())
}

/// The agent's lines reach the journal, and its syslog, under Debian's unit.
#[test]
fn lines_reach_the_journal() -> Result<()> {
    let _turn = heavy()?;
    let system = System::boot()?;
    let unit = "redis-server";
    system.fine("systemctl", &["start", "systemd-journald.service"])?;
    let conf = "s/^appendonly .*/appendonly yes/; s/^appendfsync .*/appendfsync always/";
    system.fine("sed", &["-i", conf, "/etc/redis/redis.conf"])?;
    system.fine("durac", &["enable", unit, "window"])?;
    for (turn, sink) in ["journal", "syslog"].into_iter().enumerate() {
        let path = "/etc/systemd/system/redis-server.service.d/log.conf";
        let text = format!("printf '[Service]\\nEnvironment=DURAC_LOG={sink}\\n' >{path}");
        system.fine("sh", &["-c", &text])?;
        system.fine("systemctl", &["daemon-reload"])?;
        system.fine("systemctl", &["restart", unit])?;
        system.write()?;
        let mut said = String::new();
        until("the agent's line in the journal", || {
            let args = ["--identifier=durac", "--output=json", "--no-pager", "--quiet"];
            said = system.call("journalctl", &args)?.stdout;
            Ok(said.matches("is in force on").count() > turn)
        })?;
        let line = said.lines().filter(|line| line.contains("is in force on")).nth(turn);
        let entry: Value = serde_json::from_str(line.context("a line")?)?;
        let transport = ["journal", "syslog"][turn];
        // What syslog(3) writes has its facility: daemons.
        let facility = entry["SYSLOG_FACILITY"] == "3" || sink == "journal";
        ensure!(
            entry["_TRANSPORT"] == transport && entry["PRIORITY"] == "5" && facility,
            "{entry:#}"
        );
        let message = entry["MESSAGE"].as_str().unwrap_or_default();
        ensure!(
            message.starts_with("policy `window` for target `redis.aof` is in force"),
            "{entry:#}"
        );
    }
    Ok(())
}

#[test]
fn debians_unit_of_redis() -> Result<()> {
    let _turn = heavy()?;
    let system = System::boot()?;
    let unit = "redis-server";

    // Debian's configuration has no log. This is said, and nothing is changed.
    let dry = system.fine("durac", &["enable", unit, "window", "--dry-run"])?;
    ensure!(dry.stderr.contains("set `appendonly yes`"), "{}", show(&dry));
    ensure!(dry.stderr.contains("set `appendfsync always`"), "{}", show(&dry));
    ensure!(dry.stdout.contains("\nExecPaths=/usr/local/lib/durac\n"), "{}", show(&dry));
    ensure!(!system.call("test", &["-e", DROP_IN])?.status.success());
    let conf = "s/^appendonly .*/appendonly yes/; s/^appendfsync .*/appendfsync always/";
    system.fine("sed", &["-i", conf, "/etc/redis/redis.conf"])?;

    // What a unit does beside its process, the copy that tests it does not: it would do it to the real server.
    let acts = "[Service]\\nExecStartPre=+touch /run/started\\nExecStop=+redis-cli shutdown nosave\\n\
                ExecStopPost=+touch /run/stopped\\nStandardOutput=truncate:/run/output\\n";
    let path = "/etc/systemd/system/redis-server.service.d";
    let add =
        format!("mkdir -p {path} && printf '{acts}' >{path}/acts.conf && systemctl daemon-reload");
    system.fine("sh", &["-c", &add])?;
    system.fine("systemctl", &["start", unit])?;
    system.fine("sh", &["-c", "echo kept >/run/output && rm /run/started"])?;
    let enabled = system.fine("durac", &["enable", unit, "window", "--set", "n=16"])?;
    ensure!(!enabled.stderr.contains("note"), "{}", show(&enabled));
    system.write()?;
    let look = "cat /run/output; ls -d /run/redis /run/started /run/stopped";
    let left = system.call("sh", &["-c", look])?;
    ensure!(left.stdout == "kept\n/run/redis\n", "{}", show(&left));
    // Another one over it, which still may be executed.
    system.fine("durac", &["enable", unit, "window", "--set", "n=16"])?;
    system.fine("sh", &["-c", &format!("rm {path}/acts.conf && systemctl daemon-reload")])?;
    system.fine("systemctl", &["restart", unit])?;

    system.write()?;
    let seen = system.top()?;
    ensure!(seen["policy"] == "window" && seen["params"][0]["value"] == 16, "{seen}");

    live_control(&system, unit)?;

    // A unit whose name has a backslash: its object is found.
    let copy = "cp /lib/systemd/system/redis-server.service '/etc/systemd/system/re\\x2dd.service'";
    system.fine("sh", &["-c", &format!("{copy} && systemctl daemon-reload")])?;
    system.fine("durac", &["enable", r"re\x2dd", "window"])?;
    system.fine("durac", &["disable", r"re\x2dd"])?;

    // What the unit preloads stays; where a later drop-in replaces it all, no policy would be in force.
    let dir = "/etc/systemd/system/redis-server.service.d";
    let malloc = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
    let preload = |name: &str| {
        let set = format!(
            "mkdir -p {dir} && printf '[Service]\\nEnvironment=LD_PRELOAD={malloc}\\n' >{dir}/{name}"
        );
        system.fine("sh", &["-c", &format!("{set} && systemctl daemon-reload")])
    };
    system.fine("durac", &["disable", unit])?;
    preload("a.conf")?;
    for _ in 0..2 {
        system.fine("durac", &["enable", unit, "window"])?;
        let text = system.fine("cat", &[DROP_IN])?.stdout;
        let all = format!("LD_PRELOAD=/usr/local/lib/durac/libdurac_preload.so:{malloc}\n");
        ensure!(text.contains(&all), "{text}");
    }
    preload("z.conf")?;
    let replaced = system.call("durac", &["enable", unit, "window"])?;
    ensure!(replaced.status.code() == Some(1), "{}", show(&replaced));
    ensure!(replaced.stderr.contains("the policy is not in force"), "{}", show(&replaced));
    system.fine("sh", &["-c", &format!("rm {dir}/[az].conf && systemctl daemon-reload")])?;
    system.fine("durac", &["enable", unit, "window"])?;

    // An agent that the unit may not read: the self-test finds it, and all is as it was.
    let before = system.fine("cat", &[DROP_IN])?.stdout;
    system.fine("cp", &["/usr/local/lib/durac/libdurac_preload.so", "/home/agent.so"])?;
    let refused = system.call("durac", &["enable", unit, "always", "--agent", "/home/agent.so"]);
    let refused = refused?;
    system.fine("rm", &["/home/agent.so"])?;
    ensure!(refused.status.code() == Some(1), "{}", show(&refused));
    ensure!(refused.stderr.contains("the policy is not in force"), "{}", show(&refused));
    ensure!(system.fine("cat", &[DROP_IN])?.stdout == before);
    let units =
        system.fine("systemctl", &["list-units", "--all", "durac-selftest*", "--no-legend"])?;
    ensure!(units.stdout.trim().is_empty(), "{}", show(&units));
    system.fine("systemctl", &["restart", unit])?;
    system.write()?;
    ensure!(system.top()?["policy"] == "window");

    // What was written under the policy is there without it.
    system.fine("durac", &["disable", unit, "--now"])?;
    let value = system.fine("redis-cli", &["get", "a"])?;
    ensure!(value.stdout.trim() == "b", "{}", show(&value));
    let top = system.call("durac", &["top", "--count", "1"])?;
    ensure!(top.status.code() == Some(1), "{}", show(&top));
    for path in [DROP_IN, "/etc/durac"] {
        ensure!(!system.call("test", &["-e", path])?.status.success(), "{path}");
    }
    let again = system.fine("durac", &["disable", unit])?;
    ensure!(again.stderr.contains("no policy was enabled"), "{}", show(&again));
    let again = system.fine("durac", &["disable", unit, "--format", "json"])?;
    let document: serde_json::Value = serde_json::from_str(&again.stdout)?;
    ensure!(document["removed"] == false && document["restarted"] == false, "{document}");

    // Another's drop-in of that name is not touched.
    system.fine("mkdir", &["-p", "/etc/systemd/system/redis-server.service.d"])?;
    system.fine("cp", &["/etc/hostname", DROP_IN])?;
    for args in [&["enable", unit, "window"][..], &["disable", unit]] {
        let ended = system.call("durac", args)?;
        ensure!(ended.status.code() == Some(1), "{}", show(&ended));
        ensure!(ended.stderr.contains("was not written by `durac enable`"), "{}", show(&ended));
    }
    for (name, says) in [
        ("nothing", "has no unit"),
        ("redis.socket", "name the service"),
        ("a/b", "is not the name"),
    ] {
        for args in [&["enable", name, "window"][..], &["disable", name]] {
            let ended = system.call("durac", args)?;
            let refused = ended.status.code() == Some(1) && ended.stderr.contains(says);
            ensure!(refused, "{args:?}: {}", show(&ended));
        }
    }
    Ok(())
}

/// A unit's own settings do not act through the copy that is tried, and its own words and names are understood.
#[test]
fn a_copy_is_only_a_copy() -> Result<()> {
    let _turn = heavy()?;
    let system = System::boot()?;
    let conf = "s/^appendonly .*/appendonly yes/; s/^appendfsync .*/appendfsync always/";
    system.fine("sed", &["-i", conf, "/etc/redis/redis.conf"])?;
    let dir = "/etc/systemd/system/redis-server.service.d";
    let pid = || system.done("systemctl show redis-server --value -p MainPID");
    system.done("systemctl start redis-server")?;
    let before = pid()?;
    // A line that ends in an escaped backslash ends; and a copy that nothing would end.
    system.done(&format!(
        "mkdir -p {dir}; printf '[Service]\\nEnvironment=WINPATH=C:\\\\\\\\\\nExecStop=+/usr/bin/redis-cli shutdown \
         nosave\\nKillMode=none\\n' >{dir}/acts.conf; systemctl daemon-reload; grep -q ':\\\\\\\\$' {dir}/acts.conf"
    ))?;
    system.done("durac enable redis-server window")?;
    ensure!(pid()? == before, "the server was restarted");
    let left = system.done("pgrep -xa redis-server | grep selftest || true")?;
    ensure!(left.is_empty(), "{left}");
    system.done(&format!(
        "rm {dir}/acts.conf; systemctl daemon-reload; durac disable redis-server"
    ))?;
    // Debian's unit has an alias: it is the same unit.
    system.done("systemctl enable redis-server 2>/dev/null; durac enable redis window")?;
    ensure!(system.done(&format!("ls {dir}"))? == "durac.conf\n");
    system.done("durac enable redis-server delayed_fsync")?;
    system.done("durac disable redis")?;
    ensure!(!system.call("test", &["-e", DROP_IN])?.status.success());

    // What systemd makes for a unit is not there for the copy, nor is its name.
    for settings in [
        "DynamicUser=yes\\nStateDirectory=ured\\nWorkingDirectory=/var/lib/ured\\n",
        "RuntimeDirectory=u\\nWorkingDirectory=/run/u\\nReadWritePaths=/run/u\\nProtectSystem=strict\\n",
        "RestrictAddressFamilies=AF_INET AF_INET6\\n",
        "# Caf\\xe9\\n",
        "Environment=A=%p\\nUMask=0077\\n",
    ] {
        system.unit(settings)?;
        system.done("durac enable u window").with_context(|| settings.to_owned())?;
        system.done("durac disable u")?;
    }
    Ok(())
}

/// What `durac enable` says is so, and where it refuses, nothing is changed.
#[test]
fn what_enable_says_is_so() -> Result<()> {
    let _turn = heavy()?;
    let system = System::boot()?;
    let dir = "/etc/systemd/system/u.service.d";
    let set = |name: &str, line: &str| {
        format!("mkdir -p {dir}; printf '[Service]\\n{line}\\n' >{dir}/{name}.conf")
    };
    // Another object by a later drop-in, another library, a file that systemd reads at the start.
    system.unit("")?;
    system.done("durac compile delayed_fsync -o /etc/o.o; echo LD_PRELOAD=/x.so >/etc/env")?;
    for (line, says) in [
        ("Environment=DURAC_OBJECT=/etc/o.o", "DURAC_OBJECT is `/etc/o.o`"),
        ("Environment=LD_PRELOAD=/x.so", "z.conf"),
        ("UnsetEnvironment=LD_PRELOAD\\nEnvironment=\\n", "LD_PRELOAD is not set"),
        ("EnvironmentFile=/etc/env", "`/etc/env` sets `LD_PRELOAD=/x.so`"),
    ] {
        system.done(&set("z", line))?;
        system.refuses("u window", says)?;
    }
    // Programs that the agent cannot come into, whatever they are.
    let start = |program: &str| system.unit(&format!("ExecStart=\\nExecStart={program}\\n"));
    for (program, says) in [
        ("/usr/local/bin/nothing", "does not exist"),
        ("/usr/local/bin/durac run window -- redis-server", "starts durac itself"),
    ] {
        start(program)?;
        system.refuses("u window", says)?;
    }
    start("/usr/bin/sleep 1000")?;
    let ended = system.sh("durac enable u window")?;
    ensure!(ended.stderr.contains("no self-test for `sleep`"), "{}", show(&ended));
    system.done(&set("z", "Environment=LD_PRELOAD=/x.so"))?;
    system.refuses("u window", "LD_PRELOAD is `/x.so`")?;
    for (name, says) in [("u@", "is a template"), ("u.socket", "name the service")] {
        system.refuses(&format!("{name} window"), says)?;
    }
    system.done("systemctl mask durac-masked 2>/dev/null")?;
    system.refuses("durac-masked window", "is masked")?;

    // A drop-in that systemd has not read yet; and one that is gone again.
    system.unit("")?;
    let malloc = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
    system.done(&set("a", &format!("Environment=LD_PRELOAD={malloc}")))?;
    system.done("durac enable u window")?;
    let preloads = || system.done(&format!("grep -o 'so:.*' {dir}/durac.conf || true"));
    ensure!(preloads()? == format!("so:{malloc}\n"), "{}", preloads()?);
    system.done(&format!("rm {dir}/a.conf; durac enable u window"))?;
    ensure!(preloads()?.is_empty(), "{}", preloads()?);

    // Interrupted at any moment, nothing new is in force.
    let before = system.done(LEFT)?;
    for milliseconds in (100..1_300).step_by(300) {
        let agent = "/run/agent.so";
        let ended = system.sh(&format!(
            "cp /usr/local/lib/durac/libdurac_preload.so {agent}; chmod 600 {agent}; \
             timeout --foreground -s INT 0.{milliseconds:04} durac enable u always --agent {agent}"
        ))?;
        ensure!(!ended.status.success() || milliseconds > 1_000, "{}", show(&ended));
        let after = system.done(LEFT)?;
        ensure!(before == after || ended.status.success(), "{before}\n{after}\n{}", show(&ended));
    }
    // Two at once wait for each other.
    system.done(
        "durac disable u; durac enable u window & durac enable u delayed_fsync & wait -n; wait",
    )?;

    // The umask of who changes a parameter is not the service's business.
    system.done("durac enable u window --now; for i in {1..100}; do redis-cli -p 7001 set a b && break; sleep 0.1; done")?;
    system.done("umask 077; durac set n=3 --save; durac enable u window:n=4")?;
    system.done("test $(stat -c %a /etc/durac/u.o) = 644; test $(stat -c %a /etc/durac) = 755")?;
    // One that cannot be kept is not changed.
    system.done(&set("z", "Environment=DURAC_OBJECT=/etc/o.o"))?;
    system.done("systemctl daemon-reload")?;
    let kept = system.sh("durac set n=5 --save")?;
    ensure!(kept.status.code() == Some(1), "{}", show(&kept));
    ensure!(system.top()?["params"][0]["value"] == 3, "{}", system.top()?);
    // A process in a control group of the same name is not of that unit.
    system.done("rm -r /etc/systemd/system/u.service.d/z.conf; systemctl daemon-reload; durac enable u window")?;
    let other = system.sh(
        "g=$(sed -n 's/^0:://p' /proc/$(systemctl show u --value -p MainPID)/cgroup); \
         mkdir -p /sys/fs/cgroup/x.scope$g; echo $(systemctl show u --value -p MainPID) \
         >/sys/fs/cgroup/x.scope$g/cgroup.procs; durac set n=2 --save",
    )?;
    ensure!(other.stderr.contains("is not that of u.service"), "{}", show(&other));
    // An object that nothing starts with is taken away, too.
    system.done(&format!(
        "systemctl stop u || true; rm -r {dir}; durac disable u; ! test -e /etc/durac"
    ))?;
    Ok(())
}
