//! Held replies and replicas: who is ahead of the disk, and who is not.

use super::{Client, Held, external_synchrony};
use crate::common::{agent, count, poll};
use durac_abi::Object;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The same policy at a target that does not say `hold replicas`.
pub(super) fn frees_replicas() -> Object {
    let mut object = external_synchrony();
    object.meta.frees_replicas = true;
    object
}

/// A replica without an agent.
struct Replica {
    _dir: tempfile::TempDir,
    server: Child,
    port: u16,
}

impl Replica {
    fn of(master: &Held) -> Self {
        for _ in 0..5 {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let port = super::free_port();
            let mut server = Command::new("redis-server")
                .current_dir(&dir)
                .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
                .args(["--replicaof", "127.0.0.1", &master.port.to_string()])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let up = poll("a replica", || match server.try_wait().unwrap() {
                Some(_) => Some(false),
                None => {
                    let mut client = Client(TcpStream::connect(("127.0.0.1", port)).ok());
                    (client.ask("PING").ok()? == "+PONG\r\n").then_some(true)
                }
            });
            let replica = Self { _dir: dir, server, port };
            if up {
                return replica;
            }
        }
        panic!("a replica does not start");
    }

    fn client(&self) -> Client {
        Client(TcpStream::connect(("127.0.0.1", self.port)).ok())
    }

    /// Waits until it has this value.
    fn has(&self, key: &str, value: &str) {
        let mut client = self.client();
        let wanted = format!("${}\r\n{value}\r\n", value.len());
        poll("a value at the replica", || {
            (client.ask(&format!("GET {key}")).unwrap() == wanted).then_some(())
        });
    }

    fn lacks(&self, key: &str) -> bool {
        self.client().ask(&format!("GET {key}")).unwrap() == "$-1\r\n"
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Waits until so many replicas follow.
pub(super) fn until_online(master: &Held, many: usize) {
    let mut client = master.client();
    poll("replicas", || {
        let info = client.ask("INFO replication").unwrap();
        (info.matches("state=online").count() == many).then_some(())
    });
}

/// On a slow disk a thread syncs, and the event loop goes on.
fn slow_down(master: &Held) {
    master.place.touch("slow");
    let mut client = master.client();
    for n in 0..100 {
        assert_eq!(client.ask(&format!("SET slow {n}")).unwrap(), "+OK\r\n");
    }
}

/// A command of somebody who waits for the sync that is held.
pub(super) fn held_back(master: &Held, command: &str) -> Client {
    let mut writer = master.client();
    assert_eq!(writer.ask("PING").unwrap(), "+PONG\r\n");
    let _ = std::fs::remove_file(master.place.path("held"));
    master.hold();
    writer.send(command);
    master.until_held();
    writer
}

#[test]
fn a_replica_waits_for_the_disk_if_the_target_says_so() {
    let mut master = Held::start(&external_synchrony(), &agent(), &[]);
    let replica = Replica::of(&master);
    until_online(&master, 1);
    slow_down(&master);
    let mut writer = held_back(&master, "SET key value");
    // One that attaches meanwhile gets nothing either: neither the snapshot nor what follows.
    let late = Replica::of(&master);
    assert!(writer.is_silent() && replica.lacks("key") && late.lacks("key"));
    master.go_on();
    assert_eq!(writer.receive().unwrap(), "+OK\r\n");
    replica.has("key", "value");
    late.has("key", "value");
    assert_eq!(master.client().ask("WAIT 2 300000").unwrap(), ":2\r\n");
    assert_eq!(master.file("ahead"), "");
    master.checked();
}

#[test]
fn a_replica_is_ahead_of_the_disk_if_it_does_not() {
    for diskless in ["yes", "no"] {
        let options = ["--repl-diskless-sync", diskless, "--repl-diskless-sync-delay", "0"];
        let mut master = Held::start(&frees_replicas(), &agent(), &options);
        assert_eq!(master.client().ask("SET before 1").unwrap(), "+OK\r\n");
        let replica = Replica::of(&master);
        until_online(&master, 1);
        if diskless == "no" {
            // The link breaks, and is made anew from where it was.
            master.client().ask("CLIENT KILL TYPE replica").unwrap();
            poll("a partial resynchronisation", || {
                let info = master.client().ask("INFO stats").unwrap();
                info.contains("sync_partial_ok:1\r\n").then_some(())
            });
            until_online(&master, 1);
        }
        slow_down(&master);
        let mut second = master.client();
        assert_eq!(second.ask("PING").unwrap(), "+PONG\r\n");
        let mut writer = held_back(&master, "SET key value");
        replica.has("key", "value");
        second.send("SET second value");
        replica.has("second", "value");
        // `WAIT` says so no sooner.
        second.send("WAIT 1 0");
        assert!(writer.is_silent() && second.is_silent());
        master.go_on();
        assert_eq!(writer.receive().unwrap(), "+OK\r\n");
        assert!(second.receive().unwrap().starts_with("+OK\r\n"));
        // Nobody else was sent anything early.
        assert!(count(&super::lines(&master.file("ahead")), "sent with") > 0);
        master.checked();
    }
}

/// A replica that follows, and from now on reads nothing.
fn attached(master: &Held) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", master.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    stream.write_all(b"PSYNC ? -1\r\n").unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while !line.starts_with('$') {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    let length: u64 = line.trim().trim_start_matches('$').parse().unwrap();
    let copied = std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
    assert_eq!(copied, length);
    stream.write_all(b"REPLCONF ACK 0\r\n").unwrap();
    stream
}

/// What such a replica does not read stays in the server's own buffers: nobody waits for it.
#[test]
fn a_replica_that_does_not_read_stops_nobody() {
    for object in [external_synchrony(), frees_replicas()] {
        let options = ["--client-output-buffer-limit", "replica 0 0 0", "--maxmemory", "0"];
        let mut master = Held::start(&object, &agent(), &options);
        let stream = attached(&master);
        until_online(&master, 1);
        let mut client = master.client();
        for n in 0..64 {
            let answer = client.ask(&format!("SETRANGE k{n} 499999 x")).unwrap();
            assert_eq!(answer, ":500000\r\n");
        }
        let mut most = master.client();
        let info = most.ask("CLIENT LIST TYPE replica").unwrap();
        assert!(info.contains("flags=S"), "{info}");
        drop(stream);
        assert_eq!(client.ask("SET last 1").unwrap(), "+OK\r\n");
        master.checked();
    }
}

/// The master hands over, and follows: what it was told as a master is durable, and it goes on to hold replies.
#[test]
fn a_failover_lets_nothing_go_early() {
    for object in [external_synchrony(), frees_replicas()] {
        let mut master = Held::start(&object, &agent(), &[]);
        let replica = Replica::of(&master);
        until_online(&master, 1);
        let mut client = master.client();
        for n in 0..100 {
            assert_eq!(client.ask(&format!("SET k{n} {n}")).unwrap(), "+OK\r\n");
        }
        let to = format!("FAILOVER TO 127.0.0.1 {}", replica.port);
        assert_eq!(client.ask(&to).unwrap(), "+OK\r\n");
        poll("a master that follows", || {
            client.ask("INFO replication").ok()?.contains("master_link_status:up").then_some(())
        });
        let mut now = replica.client();
        assert_eq!(now.ask("SET after 1").unwrap(), "+OK\r\n");
        poll("what the new master writes", || {
            (client.ask("GET after").ok()? == "$1\r\n1\r\n").then_some(())
        });
        master.checked();
    }
}

/// An agent that lets go what the target says is held is found.
#[test]
fn the_witness_finds_an_agent_that_lets_replicas_go() {
    let faulty = durac_tests::faulty_agent().unwrap();
    let mut master = Held::start_with(&external_synchrony(), &faulty, &[], Some("replicas"));
    let replica = Replica::of(&master);
    until_online(&master, 1);
    slow_down(&master);
    let mut writer = held_back(&master, "SET key value");
    replica.has("key", "value");
    assert!(count(&super::lines(&master.file("ahead")), "sent with") > 0);
    master.go_on();
    assert_eq!(writer.receive().unwrap(), "+OK\r\n");
    master.checked();
}
