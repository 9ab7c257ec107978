//! Events made up by a generator with a seed.

use crate::Random;
use durac_trace::{Event, Header, MOST_WRITTEN, Op, Recorded, Source, Verdict};

/// A header that has everything, and characters that have to be escaped.
pub fn header() -> Header {
    Header::new(Recorded {
        tool: "durac 0.1.0".into(),
        started: 1_760_000_000,
        policy: "always".into(),
        target: "redis.aof".into(),
        command: vec!["redis-server".into(), "a \"b\"\\\n\u{1}ü🦀".into()],
        cores: 2,
        kernel: "6.18".into(),
        source: Source::Made,
    })
}

/// Legal events of every kind: logs are opened and closed.
pub fn events(seed: u64, count: usize) -> Vec<Event> {
    let mut random = Random(seed);
    let (mut t, mut open, mut opened) = (0u64, Vec::new(), 0);
    let mut events = Vec::new();
    while events.len() < count {
        t += random.below(100_000);
        let pick = |r: &mut Random, open: &Vec<u32>| {
            open.get(r.below(open.len().max(1) as u64) as usize).copied()
        };
        let mut event = Event {
            t,
            took: random.number().min(t),
            thread: random.below(4) as u32,
            ..Event::default()
        };
        event.cpu = random.number();
        event.result = random.below(4).saturating_sub(2) as i32;
        let log = pick(&mut random, &open);
        event.op = match (random.below(40), log) {
            (0, _) | (_, None) => Op::Open,
            (1, Some(_)) => Op::Close,
            (2, _) => Op::Fork,
            (3, _) => Op::Reap,
            (4..20, _) => Op::Write,
            (20..30, _) => Op::Fdatasync,
            (30..33, _) => Op::Fsync,
            _ => Op::Sync,
        };
        match event.op {
            Op::Open => {
                event.log = opened;
                open.push(opened);
                opened += 1;
                event.path = ["", "/data/a.incr.aof", "ü \"\t"][random.below(3) as usize].into();
            }
            Op::Fork | Op::Reap => {}
            op => {
                event.log = log.unwrap_or(0);
                if op == Op::Close {
                    open.retain(|&l| l != event.log);
                }
            }
        }
        if event.op.is_call() {
            event.verdict = Verdict::ALL[random.below(Verdict::ALL.len() as u64) as usize];
            event.wait = random.number();
        }
        event.bytes = random.number();
        if event.op == Op::Write {
            event.bytes = event.bytes.min(MOST_WRITTEN);
        }
        event.covers = random.number();
        event.sync_cpu = random.number();
        event.background = random.below(2) == 0;
        events.push(event);
    }
    events
}
