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

/// A client whose socket was full becomes writable in the turn in which another's write is read, and was ready later. Returns
/// whether it is told of the write while that is not durable.
fn is_told_early(held: &Held, listens: &str, fills: &str, writes: &[&str]) -> bool {
    let [mut writer, mut sleeper, mut filler, mut info, mut listener] =
        [(); 5].map(|()| Speaker::new(held));
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
    // While it sleeps, the write comes first, and then the listener reads what was sent.
    sleeper.send(&["DEBUG SLEEP 1"]);
    std::thread::sleep(Duration::from_millis(300));
    writer.send(writes);
    std::thread::sleep(Duration::from_millis(300));
    let stream = listener.0.get_mut();
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

/// Nothing is cut of what clients do not read, and the server can be made to sleep.
const OPTIONS: [&str; 12] = [
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
    "--enable-debug-command",
    "yes",
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
