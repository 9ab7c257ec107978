//! A real Redis, unmodified, under load.

use crate::common::{Place, agent, count, objects, poll};
use durac_abi::Object;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A Redis server with `appendfsync always`, in the directory of a [`Place`].
struct Redis {
    place: Place,
    port: u16,
    server: Option<Child>,
}

/// Every object that the load tests run.
fn policies() -> Vec<Object> {
    vec![
        objects::pass(),
        objects::window(1),
        objects::window(16),
        objects::window_param(64),
        objects::defer(),
        objects::skip(Some(50_000_000)),
    ]
}

impl Redis {
    fn start(object: &Object, options: &[&str]) -> Self {
        let place = Place::new(object).with_status();
        Self::start_in(place, options)
    }

    fn start_in(place: Place, options: &[&str]) -> Self {
        let mut redis = Self { place, port: 0, server: None };
        redis.serve(true, options);
        redis
    }

    /// Starts a server on the directory, under the agent or plain.
    fn serve(&mut self, hooked: bool, options: &[&str]) {
        // A free port; somebody else may take it before the server does, so try again then.
        let mut tries = 0;
        loop {
            self.port =
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = self.place.command("redis-server");
            if !hooked {
                command.env_remove("LD_PRELOAD");
            }
            let mut server = command
                .args(["--port", &self.port.to_string(), "--save", "", "--logfile", "redis.out"])
                .args(["--appendonly", "yes", "--appendfsync", "always"])
                .args(["--auto-aof-rewrite-percentage", "0"])
                .args(options)
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(self.place.path("stderr")).unwrap())
                .spawn()
                .unwrap();
            let up = poll("an answer", || {
                if server.try_wait().unwrap().is_some_and(|_| !options.contains(&"--daemonize")) {
                    return Some(false);
                }
                (self.ask("PING").ok()? == "+PONG").then_some(true)
            });
            self.server = Some(server);
            tries += 1;
            if up {
                return;
            }
            assert!(
                tries < 5,
                "{}",
                std::fs::read_to_string(self.place.path("redis.out")).unwrap()
            );
        }
    }

    /// Sends a command, returns the first line of the answer, or the whole of a bulk.
    fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(length) = line.strip_prefix('$') {
            let mut bulk = vec![0; length.trim().parse::<usize>().unwrap_or(0)];
            reader.read_exact(&mut bulk)?;
            return Ok(String::from_utf8_lossy(&bulk).into_owned());
        }
        Ok(line.trim_end().into())
    }

    fn info(&self, field: &str) -> String {
        let info = self.ask("INFO").unwrap();
        let value = info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {field}")).into()
    }

    /// Starts redis-benchmark: so many SETs of new keys.
    fn load(&self, clients: u32, pipeline: u32, requests: u32) -> Child {
        Command::new("redis-benchmark")
            .args(["-p", &self.port.to_string(), "-t", "set", "-q", "-r", "100000000"])
            .args(["-c", &clients.to_string(), "-P", &pipeline.to_string()])
            .args(["-n", &requests.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Waits until the server has ended.
    fn ended(&mut self) -> i32 {
        let mut server = self.server.take().unwrap();
        use std::os::unix::process::ExitStatusExt;
        let status = poll("end of the server", || server.try_wait().unwrap());
        status.code().unwrap_or_else(|| 1000 + status.signal().unwrap())
    }

    fn keys(&self) -> u64 {
        let answer = self.ask("DBSIZE").unwrap();
        answer.strip_prefix(':').unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
    }

    /// A plain server reads everything back.
    fn reads_back(&mut self, keys: u64) {
        self.serve(false, &[]);
        assert_eq!(self.keys(), keys);
        assert_eq!(self.ask("GET marker").unwrap(), "here");
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.place.path("stderr")).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The test has failed, or is done with it.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn plain(object: &Object) -> Place {
    Place::new(object).with_status().env("LD_PRELOAD", agent().to_str().unwrap())
}

#[test]
fn under_load_the_bound_holds_and_everything_is_read_back() {
    for (object, bound) in [
        (objects::window(1), 1),
        (objects::window(2), 2),
        (objects::window(8), 8),
        (objects::window(64), 64),
    ] {
        for (clients, pipeline, requests) in [(5, 1, 4000), (50, 1, 8000), (50, 16, 60_000)] {
            let mut redis = Redis::start_in(plain(&object), &[]);
            let status = redis.place.status();
            let mut load = redis.load(clients, pipeline, requests);
            let mut samples = 0;
            while load.try_wait().unwrap().is_none() {
                let Some(numbers) = status.page().log(0) else { continue };
                assert!(numbers.pending() <= bound, "window {bound}: {numbers:?}");
                samples += 1;
            }
            let numbers = status.page().log(0).unwrap();
            assert!(numbers.max_pending <= bound && samples > 0, "{numbers:?}");
            redis.ask("SET marker here").unwrap();
            let keys = redis.keys();
            // As after a crash of the machine, but for the page cache: no exit, no drain.
            redis.server.as_mut().unwrap().kill().unwrap();
            redis.ended();
            redis.reads_back(keys);
        }
    }
}

#[test]
fn every_way_to_end_keeps_everything() {
    for object in policies() {
        for end in ["SHUTDOWN", "SHUTDOWN NOSAVE", "terminate", "CONFIG SET appendonly no"] {
            let mut redis = Redis::start(&object, &[]);
            assert!(redis.load(20, 1, 2000).wait().unwrap().success());
            redis.ask("SET marker here").unwrap();
            let keys = redis.keys();
            match end {
                "terminate" => {
                    let pid = redis.server.as_ref().unwrap().id();
                    // SAFETY: the child has not been waited for, so the number is still its.
                    assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGTERM) }, 0);
                    assert_eq!(redis.ended(), 0);
                }
                "CONFIG SET appendonly no" => {
                    redis.ask(end).unwrap();
                    redis.server.as_mut().unwrap().kill().unwrap();
                    redis.ended();
                }
                command => {
                    let _ = redis.ask(command);
                    assert_eq!(redis.ended(), 0);
                }
            }
            // The log's last sync ended after its last start, before the server did.
            let calls = redis.place.calls();
            let started = calls.iter().rposition(|l| l.starts_with('+') && l.contains(".incr."));
            let ended = calls.iter().rposition(|l| l.starts_with('-') && l.contains(".incr."));
            assert!(ended > started, "{end}: {:?}", &calls[calls.len() - 4..]);
            redis.reads_back(keys);
        }
    }
}

#[test]
fn rewrites_and_snapshots_under_load() {
    for object in policies() {
        let mut redis = Redis::start(&object, &[]);
        let mut load = redis.load(20, 2, 100_000_000);
        for round in 0..3 {
            let answer = redis.ask("BGREWRITEAOF").unwrap();
            assert!(answer.starts_with("+Background"), "{answer}");
            poll("end of the rewrite", || {
                (redis.info("aof_rewrite_in_progress") == "0").then_some(())
            });
            assert_eq!(redis.info("aof_last_bgrewrite_status"), "ok", "round {round}");
            assert!(redis.ask("BGSAVE").unwrap().starts_with("+Background"));
            poll("end of the save", || (redis.info("rdb_bgsave_in_progress") == "0").then_some(()));
            assert_eq!(redis.info("rdb_last_bgsave_status"), "ok");
        }
        load.kill().unwrap();
        load.wait().unwrap();
        redis.ask("SET marker here").unwrap();
        let keys = redis.keys();
        redis.server.as_mut().unwrap().kill().unwrap();
        redis.ended();
        order_of_a_rewrite(&redis.place.calls());
        redis.reads_back(keys);
    }
}

/// When a manifest is put in place, no log has a sync that has not ended.
fn order_of_a_rewrite(calls: &[String]) {
    let mut under_way = 0i64;
    let mut manifests = 0;
    for call in calls {
        under_way += i64::from(call.starts_with("+fdatasync") && call.contains(".aof.1.incr"));
        under_way -= i64::from(call.starts_with("-fdatasync") && call.contains(".aof.1.incr"));
        if call.starts_with("rename") && call.contains("manifest") {
            manifests += 1;
        }
    }
    assert_eq!(under_way, 0);
    assert!(manifests >= 3, "{manifests}");
}

#[test]
fn debug_reload_and_appendonly_off_and_on() {
    for object in policies() {
        let mut redis = Redis::start(&object, &["--enable-debug-command", "yes"]);
        assert!(redis.load(20, 1, 1000).wait().unwrap().success());
        redis.ask("SET marker here").unwrap();
        let keys = redis.keys();
        for command in ["DEBUG RELOAD", "DEBUG LOADAOF", "CONFIG SET appendonly no"] {
            assert_eq!(redis.ask(command).unwrap(), "+OK", "{command}");
            assert_eq!(redis.keys(), keys);
        }
        assert_eq!(redis.ask("CONFIG SET appendonly yes").unwrap(), "+OK");
        poll("the new log", || {
            (redis.info("aof_rewrite_in_progress") == "0"
                && redis.info("aof_rewrite_scheduled") == "0")
                .then_some(())
        });
        assert!(redis.load(20, 1, 1000).wait().unwrap().success());
        let keys = redis.keys();
        let _ = redis.ask("SHUTDOWN");
        assert_eq!(redis.ended(), 0);
        redis.reads_back(keys);
    }
}

#[test]
fn other_settings_of_appendfsync() {
    let mut redis = Redis::start(&objects::window(16), &[]);
    for setting in ["everysec", "no", "always"] {
        assert_eq!(redis.ask(&format!("CONFIG SET appendfsync {setting}")).unwrap(), "+OK");
        assert!(redis.load(20, 1, 1000).wait().unwrap().success());
    }
    redis.ask("SET marker here").unwrap();
    let keys = redis.keys();
    let _ = redis.ask("SHUTDOWN");
    assert_eq!(redis.ended(), 0);
    redis.reads_back(keys);
}

#[test]
fn in_the_background() {
    let pidfile = ["--daemonize", "yes", "--pidfile", "redis.pid"];
    let mut redis = Redis::start(&objects::window(16), &pidfile);
    assert!(redis.load(20, 1, 1000).wait().unwrap().success());
    redis.ask("SET marker here").unwrap();
    let numbers = redis.place.status().page().log(0).unwrap();
    assert!(numbers.deferred > 0, "the policy is at work: {numbers:?}");
    let keys = redis.keys();
    let pid: i32 = redis.info("process_id").parse().unwrap();
    let _ = redis.ask("SHUTDOWN");
    // SAFETY: signal 0 only asks.
    poll("end of the server", || (unsafe { libc::kill(pid, 0) } != 0).then_some(()));
    redis.ended();
    redis.reads_back(keys);
}

#[test]
fn a_failed_sync_ends_redis_as_it_does_without_us() {
    for errno in [libc::EIO, libc::ENOSPC] {
        for object in [objects::window(1), objects::window(64), objects::defer()] {
            let place = Place::new(&object).with_status().env("SHIM_FAIL", &format!("20:{errno}"));
            let mut redis = Redis::start_in(place, &[]);
            let mut load = redis.load(5, 1, 100_000_000);
            let code = redis.ended();
            let _ = load.kill();
            load.wait().unwrap();
            assert_eq!(code, 1);
            let said = std::fs::read_to_string(redis.place.path("redis.out")).unwrap();
            assert!(
                said.contains("Can't persist AOF for fsync error")
                    || said.contains("Can't recover from AOF write error"),
                "{said}"
            );
            let calls = redis.place.calls();
            let first = calls.iter().position(|l| l.ends_with(" -1")).unwrap();
            let later = calls[first..].iter().filter(|l| l.starts_with("-fdatasync"));
            assert!(later.filter(|l| l.ends_with(" 0")).count() == 0, "no success after it");
            assert_eq!(count(&[redis.stderr()], "panicked"), 0);
        }
    }
}
