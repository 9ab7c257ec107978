//! The ring between threads, and what comes out of the sorter.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use durac_shm::Taker;
use durac_shm::ring::{Drain, Ring};
use durac_support::events::{events, header};
use durac_trace::{Event, Op, Sorter, Writer, read_all};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

const BEGAN: u64 = 1000;

fn ring(places: u64) -> (tempfile::TempDir, Ring, Drain) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    let drain = Drain::new(Ring::create(&path, places, BEGAN).unwrap());
    let ring = Ring::open(&path).unwrap();
    (dir, ring, drain)
}

#[test]
fn every_field_goes_through() {
    let (_dir, ring, mut drain) = ring(4096);
    let events = events(11, 500);
    for event in &events {
        ring.push(&Event { t: event.t + BEGAN, ..event.clone() });
    }
    for event in events {
        let covers = if event.op == Op::Open { 0 } else { event.covers };
        assert_eq!(drain.pop().unwrap(), Event { covers, ..event });
    }
    assert_eq!((drain.pop(), drain.dropped()), (None, 0));
}

#[test]
fn a_long_path_goes_through() {
    let (_dir, ring, mut drain) = ring(128);
    for length in [0, 1, 55, 56, 57, 4095] {
        let path = "/ü".repeat(length).chars().take(length).collect::<String>();
        let event = Event { t: BEGAN, op: Op::Open, path: path.clone(), ..Event::default() };
        ring.push(&event);
        assert_eq!(drain.pop().unwrap().path, path);
    }
}

#[test]
fn a_full_ring_drops_and_goes_on() {
    let (_dir, ring, mut drain) = ring(8);
    for t in 0..11 {
        ring.push(&Event { t: BEGAN + t, ..Event::default() });
    }
    let seen: Vec<u64> = std::iter::from_fn(|| drain.pop()).map(|e| e.t).collect();
    assert_eq!((seen, drain.dropped()), ((0..8).collect(), 3));
    ring.push(&Event { t: BEGAN + 20, ..Event::default() });
    assert_eq!(drain.pop().unwrap().t, 20);
}

/// A path of which a piece was dropped is not half a path.
#[test]
fn a_path_without_room_is_unknown() {
    let (_dir, ring, mut drain) = ring(2);
    let open = Event { t: BEGAN, op: Op::Open, path: "/a".repeat(60), ..Event::default() };
    ring.push(&open);
    assert_eq!((drain.pop(), drain.dropped()), (None, 2));
    ring.push(&Event { path: "/b".into(), ..open });
    // What came of the first path is in front of the second.
    assert_eq!(drain.pop().unwrap().path, "");
}

#[test]
fn threads_lose_nothing() {
    const EACH: u64 = 20_000;
    let (_dir, ring, mut drain) = ring(1 << 17);
    let running = AtomicUsize::new(4);
    let mut next = [0u64; 4];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (ring, running) = (&ring, &running);
            scope.spawn(move || {
                for n in 0..EACH {
                    ring.push(&Event { t: BEGAN + n, thread, bytes: n * 3, ..Event::default() });
                }
                running.fetch_sub(1, Ordering::Release);
            });
        }
        loop {
            let last = running.load(Ordering::Acquire) == 0;
            while let Some(event) = drain.pop() {
                let expected = &mut next[event.thread as usize];
                assert_eq!((event.t, event.bytes), (*expected, *expected * 3));
                *expected += 1;
            }
            if last {
                break;
            }
            std::thread::yield_now();
        }
    });
    assert_eq!((next, drain.dropped()), ([EACH; 4], 0));
}

#[test]
fn other_files_are_no_rings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    assert!(Ring::open(&path).is_err());
    std::fs::write(&path, vec![0; 4096 + 80 * 8]).unwrap();
    assert!(Ring::open(&path).is_err());
    assert!(Ring::create(&path, 8, 0).is_err(), "it is there already");
    assert!(Ring::create(&dir.path().join("odd"), 7, 0).is_err());
}

/// A writer of a ring may write anything there: neither its reader nor a producer hangs, and
/// what is taken out of it is a trace.
#[test]
fn a_spoilt_ring_ends() {
    // Words of the head by their byte, of the first place by their number.
    let (head, dropped, first) = (64, 128, |word: u64| 4096 + 8 * word);
    let numbers = |log: u64| log << 32;
    let kinds = |op: Op, result: u64| op as u64 | result << 32;
    let event = |log, result| {
        vec![(first(0), 1), (first(8), numbers(log)), (first(9), kinds(Op::Fdatasync, result))]
    };
    for (spoilt, missing) in [
        // Places that were never reserved are not given up one after the other.
        (vec![(head, u64::MAX)], 1),
        (vec![(dropped, u64::MAX)], u64::MAX),
        // The producer's own event finds a place that is filled and was never reserved, and is dropped.
        // No trace has a log of such a number, or such a result.
        (event(1 << 20, 0), 2),
        (event(0, 1 << 31), 2),
        (event(0, 5), 1),
        // An event of the future would be held back forever.
        ([event(0, 0), vec![(first(1), u64::MAX)]].concat(), 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let ring = Ring::create(&path, 8, BEGAN).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for (at, value) in &spoilt {
            file.write_all_at(&value.to_le_bytes(), *at).unwrap();
        }
        ring.push(&Event { t: BEGAN, ..Event::default() });
        let mut taker = Taker::new(ring);
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        let mut write = |event: &Event| writer.event(event).unwrap();
        for second in 1..5 {
            taker.take(BEGAN + second * 2_000_000_000, &mut write);
        }
        let end = taker.end(BEGAN + 10_000_000_000, &mut write);
        assert_eq!(end.dropped, missing, "{spoilt:?}");
        let (bytes, _) = writer.finish(end.dropped).unwrap();
        let (_, events, _) = read_all(bytes.as_slice()).unwrap();
        assert!(events.iter().all(|event| event.t < 10_000_000_000), "{events:?}");
    }
}

/// Pieces of paths that never end take no more memory than paths that do.
#[test]
fn paths_without_end() {
    let (_dir, ring, mut drain) = ring(1 << 13);
    let path = "/a".repeat(60_000);
    ring.push(&Event { t: BEGAN, op: Op::Open, path: path.clone(), ..Event::default() });
    assert_eq!(drain.pop().unwrap().path, "", "too long for a path");
    let open =
        Event { t: BEGAN, op: Op::Open, path: "/d/x.aof".into(), log: 1, ..Event::default() };
    ring.push(&open);
    assert_eq!(drain.pop().unwrap().path, open.path);
}

/// Whatever was lost or came late, a trace comes out that the reader accepts.
#[test]
fn sorted_events_make_a_trace() {
    for seed in 0..200 {
        let mut random = durac_support::Random(seed);
        let mut events = events(seed, 300);
        events.retain(|_| random.below(10) > 0);
        for _ in 0..30 {
            let at = random.below(events.len() as u64 - 5) as usize;
            events.swap(at, at + random.below(5) as usize);
        }
        let mut sorter = Sorter::default();
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        for (at, event) in events.iter().enumerate() {
            sorter.add(event.clone());
            let until = if at % 3 == 0 { event.t.saturating_sub(random.below(200_000)) } else { 0 };
            while let Some(event) = sorter.next(until) {
                writer.event(&event).unwrap();
            }
        }
        while let Some(event) = sorter.next(u64::MAX) {
            writer.event(&event).unwrap();
        }
        let (bytes, end) = writer.finish(0).unwrap();
        read_all(bytes.as_slice()).unwrap_or_else(|e| unreachable!("seed {seed}: {e}"));
        assert!(end.events + sorter.stray() >= events.len() as u64);
    }
}

#[test]
fn what_is_held_back_comes_out_sorted() {
    let mut sorter = Sorter::default();
    for t in [30, 10, 20, 40] {
        sorter.add(Event { t, op: Op::Fork, ..Event::default() });
    }
    let mut times =
        |until| -> Vec<u64> { std::iter::from_fn(|| sorter.next(until)).map(|e| e.t).collect() };
    assert_eq!(times(25), [10, 20]);
    assert_eq!(times(u64::MAX), [30, 40]);
    sorter.add(Event { t: 5, op: Op::Fork, ..Event::default() });
    assert_eq!((sorter.next(u64::MAX).unwrap().t, sorter.late()), (40, 1));
}

/// Who can write to the file could shorten it under the application.
#[test]
fn a_ring_that_others_could_change_is_refused() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    let _ring = Ring::create(&path, 8, BEGAN).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let refused = || Ring::open(&path).unwrap_err().kind() == std::io::ErrorKind::PermissionDenied;
    for mode in [0o620, 0o602, 0o666] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert!(refused(), "{mode:o}");
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(Ring::open(&link).is_err());
    assert!(Ring::open(&path).is_ok());
    // Only root can give a file away.
    if chown(&path, Some(12345), None).is_ok() {
        assert!(refused());
    }
}

/// An event that ends while the consumer is at work keeps its time: the sync in a call stays within it.
#[test]
fn an_event_that_ends_meanwhile_keeps_its_time() {
    let (_dir, ring, _) = ring(8);
    let sync = Event { t: BEGAN + 5_000, took: 3_000, op: Op::Sync, ..Event::default() };
    let call = Event { t: BEGAN + 6_000, took: 4_000, op: Op::Fdatasync, ..Event::default() };
    ring.push(&sync);
    ring.push(&call);
    let mut taker = Taker::new(ring);
    let mut times = Vec::new();
    taker.take(BEGAN + 4_000, |_| panic!("it may be overtaken"));
    taker.end(BEGAN + 4_000, |event| times.push((event.begin(), event.t)));
    assert_eq!(times, [(2_000, 2_000), (2_000, 5_000), (2_000, 6_000)]);
}
