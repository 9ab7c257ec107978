//! Held replies of every kind at once, by io-threads, while syncs are held again and again: to commands one by one and in
//! pipelines, of scripts, to blocked clients, to subscribers, keyspace messages, and to a monitor.

use super::{Client, Held, external_synchrony, requests};
use crate::common::{agent, poll};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Pushes, publishes, and replies.
const SCRIPT: &str = "redis.call('rpush','list','x') redis.call('publish','news','y') \
                      return redis.call('incr','n')";
/// How often a sync is held under each load.
const HOLDS: u64 = 4;

/// Reads all that comes until the connection is closed. Returns how many lines that was.
fn drain(client: Client) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let mut stream = client.0.unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(300))).unwrap();
        let (mut bytes, mut lines) = (vec![0; 1 << 20], 0);
        loop {
            match stream.read(&mut bytes).unwrap() {
                0 => return lines,
                read => lines += bytes[..read].iter().filter(|byte| **byte == b'\n').count(),
            }
        }
    })
}

/// How many replies the witness has checked, to a few thousand.
fn checked_until_now(held: &Held) -> u64 {
    let text = held.file("gate");
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().last().and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Holds a sync and looks that its writer gets no reply.
fn hold_one(held: &Held, client: &mut Client) {
    let _ = std::fs::remove_file(held.place.path("held"));
    held.hold();
    client.send("SET held 1");
    held.until_held();
    assert!(client.is_silent());
    held.go_on();
    assert_eq!(client.receive().unwrap(), "+OK\r\n");
}

/// While it lives, clients of a load go on, and syncs may be held.
struct Load<'a> {
    held: &'a Held,
    ended: &'a AtomicBool,
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It is there if the test has failed.
        let _ = std::fs::remove_file(self.held.place.path("hold"));
    }
}

/// Runs the load. With `slow`, a thread syncs, and the event loop goes on.
fn every_kind(pipeline: &str, slow: bool) {
    let options = [
        ["--io-threads", "4"],
        ["--io-threads-do-reads", "yes"],
        ["--notify-keyspace-events", "KEA"],
        ["--client-output-buffer-limit", "pubsub 0 0 0"],
    ]
    .concat();
    let many = requests(5000);
    let number: u64 = many.parse().unwrap();
    let mut server = Held::start(&external_synchrony(), &agent(), &options);
    let held = &server;
    if slow {
        held.place.touch("slow");
    }
    let [mut monitor, mut keyspace, mut news] = [held.client(), held.client(), held.client()];
    assert_eq!(monitor.ask("MONITOR").unwrap(), "+OK\r\n");
    keyspace.ask("PSUBSCRIBE __key*").unwrap();
    news.ask("SUBSCRIBE news").unwrap();
    let listeners = [monitor, keyspace, news].map(drain);
    let ended = AtomicBool::new(false);
    let scripts = (number / 10).to_string();
    let commands =
        [&["-t", "set,get", "-c", "50", "-P", pipeline, "-n", &many][..], &["-r", "100000"]];
    let loads =
        [commands.concat(), vec!["-c", "5", "-P", pipeline, "-n", &scripts, "eval", SCRIPT, "0"]];
    let ended = &ended;
    std::thread::scope(|scope| {
        let load = Load { held, ended };
        let pop = || {
            let (mut client, mut popped) = (held.client(), 0);
            while !ended.load(Ordering::Relaxed) {
                let reply = client.ask("BLPOP list 1").unwrap();
                popped += u64::from(reply == "*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
            }
            popped
        };
        let poppers = [(); 4].map(|()| scope.spawn(pop));
        let loads = loads.each_ref().map(|load| scope.spawn(|| held.benchmark(load)));
        // Some time before the end of the load.
        let step = 2 * number / pipeline.parse::<u64>().unwrap() / (HOLDS + 1);
        let mut client = held.client();
        for hold in 1..=HOLDS {
            poll("load", || {
                let ends = loads.iter().all(|load| load.is_finished());
                (ends || checked_until_now(held) >= hold * step).then_some(())
            });
            hold_one(held, &mut client);
        }
        for load in loads {
            load.join().unwrap();
        }
        drop(load);
        let popped: u64 = poppers.into_iter().map(|popper| popper.join().unwrap()).sum();
        assert!(popped > 0);
    });
    let (checked, waited) = server.checked();
    println!("-P {pipeline}, slow {slow}: {checked} writes checked, {waited} had to wait");
    let lines = listeners.map(|listener| listener.join().unwrap());
    println!("lines of the monitor, of keyspace messages, of news: {lines:?}");
    let writes = 2 * number / pipeline.parse::<u64>().unwrap();
    // Each hold has one that waits; of the others most do where syncs are slow, and on a fast disk few may.
    let least = if slow { writes / 4 } else { HOLDS };
    assert!(checked > writes && waited >= least, "{checked} {waited}");
    assert!(lines.iter().all(|lines| *lines as u64 > number / 10), "{lines:?}");
}

#[test]
fn replies_of_every_kind_wait_for_their_sync() {
    every_kind("1", false);
}

#[test]
fn replies_of_every_kind_wait_for_a_slow_sync() {
    every_kind("1", true);
}

#[test]
fn replies_of_every_kind_wait_in_pipelines() {
    every_kind("16", false);
}

#[test]
fn replies_of_every_kind_wait_in_pipelines_for_a_slow_sync() {
    every_kind("16", true);
}
