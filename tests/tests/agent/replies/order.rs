//! What is sent in the turn of an event loop in which a command has run, and before its log entry is written.

use super::clean::Speaker;
use super::{Held, external_synchrony};
use crate::common::{agent, poll};
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

/// Reads all that comes until nothing comes for this long, or this is among it.
fn read_until(stream: &mut TcpStream, text: &str, silence: Duration) -> bool {
    stream.set_read_timeout(Some(silence)).unwrap();
    let (mut all, mut bytes) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => panic!("the connection was closed"),
            Ok(read) => all.extend_from_slice(&bytes[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(error) => panic!("{error}"),
        }
        if String::from_utf8_lossy(&all).contains(text) {
            return true;
        }
        // Only the newest bytes can have the beginning of it.
        all.drain(..all.len().saturating_sub(text.len()));
    }
}

/// How much output the server keeps of clients whose last command was this.
fn kept_of(info: &mut Speaker, command: &str) -> u64 {
    let list = info.ask("CLIENT LIST");
    let last = format!(" cmd={command} ");
    let of = |line: &str, name: &str| -> u64 {
        line.split(' ').find_map(|field| field.strip_prefix(name)).unwrap().parse().unwrap()
    };
    let lines = list.lines().filter(|line| line.contains(&last));
    lines.map(|line| of(line, "obl=") + of(line, "omem=")).sum()
}

/// Stops the server, and waits until it has stopped; or lets it go on.
fn signal(held: &Held, signal: i32) {
    let pid = held.server.as_ref().unwrap().id() as i32;
    // SAFETY: the server is a child of this process that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    if signal == libc::SIGSTOP {
        poll("a stopped server", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
        });
    }
}

/// What the kernel keeps for the server's end of a connection.
struct Queues {
    /// Bytes that the client's end has not taken.
    unsent: u64,
    /// Bytes that the server has not read.
    unread: u64,
}

fn queues(held: &Held, client: &TcpStream) -> Queues {
    let ends = [held.port, client.local_addr().unwrap().port()];
    let [server, client] = ends.map(|port| format!("0100007F:{port:04X}"));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields[1] == server && fields[2] == client).unwrap();
    let (unsent, unread) = line[4].split_once(':').unwrap();
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    Queues { unsent: number(unsent), unread: number(unread) }
}

/// A client whose socket was full becomes writable in the turn in which another's write is read, and was ready later. Returns
/// whether it is told of the write while that is not durable.
fn is_told_early(held: &Held, listens: &str, fills: &str, writes: &[&str]) -> bool {
    let [mut writer, mut filler, mut info, mut listener] = [(); 4].map(|()| Speaker::new(held));
    assert_eq!(writer.ask("SET a old"), "+OK");
    listener.send(&[listens]);
    let last = listens.split(' ').next().unwrap().to_lowercase();
    let piece = "z".repeat(4000);
    poll("a full socket", || {
        for _ in 0..50 {
            filler.ask(&format!("{fills} {piece}"));
        }
        (kept_of(&mut info, &last) > 0).then_some(())
    });
    let _ = std::fs::remove_file(held.place.path("held"));
    held.hold();
    // While it is stopped, the write comes first, and then the listener reads what was sent.
    signal(held, libc::SIGSTOP);
    writer.send(writes);
    poll("the write", || (queues(held, writer.0.get_ref()).unread > 0).then_some(()));
    let stream = listener.0.get_mut();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    poll("room in the socket", || {
        let read = stream.read(&mut vec![0; 1 << 20]);
        (read.is_err() && queues(held, stream).unsent == 0).then_some(())
    });
    signal(held, libc::SIGCONT);
    let is_early = read_until(stream, "undurable", Duration::from_secs(2));
    held.until_held();
    held.go_on();
    assert!(is_early || read_until(stream, "undurable", Duration::from_secs(60)), "{listens}");
    is_early
}

/// Clients that are told of what others write, what fills their sockets, and a write of which they are told.
const LISTENERS: [(&str, &str, &[&str]); 2] = [
    ("MONITOR", "ECHO", &["SET a undurable"]),
    ("SUBSCRIBE ch", "PUBLISH ch", &["MULTI", "SET a x", "PUBLISH ch undurable", "EXEC"]),
];

/// Nothing is cut of what clients do not read.
const OPTIONS: [&str; 10] = [
    "--client-output-buffer-limit",
    "normal",
    "0",
    "0",
    "0",
    "--client-output-buffer-limit",
    "pubsub",
    "0",
    "0",
    "0",
];

#[test]
fn what_a_request_pushes_to_a_full_client_waits_for_its_log() {
    for (listens, fills, writes) in LISTENERS {
        let held = Held::start(&external_synchrony(), &agent(), &OPTIONS);
        assert!(!is_told_early(&held, listens, fills, writes), "{listens}");
    }
}

/// The test above sees what it claims to see.
#[test]
fn an_agent_that_leaves_the_order_of_a_turn_is_found() {
    let faulty = durac_tests::faulty_agent().unwrap();
    for (listens, fills, writes) in LISTENERS {
        // The system may report the two the other way round.
        let found = (0..5).any(|_| {
            let held = Held::start_with(&external_synchrony(), &faulty, &OPTIONS, Some("late"));
            is_told_early(&held, listens, fills, writes)
        });
        assert!(found, "{listens}");
    }
}
