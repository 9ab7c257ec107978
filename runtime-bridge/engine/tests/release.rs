//! The release of held replies against a naive model that keeps, for each reply, all that had been
//! written: every run of a few events over two logs.

#![allow(clippy::indexing_slicing, missing_docs, reason = "a test that fails says so")]

use durac_engine::{Fate, Need, Release};

const LOGS: usize = 2;

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A byte is written to a log.
    Write(usize),
    /// A sync of a log succeeds that covers all but the newest so many bytes.
    Covers(usize, u64),
    /// A log fails.
    Fails(usize),
    /// A log is closed, and its place serves another file.
    Reopens(usize),
    /// A reply is made.
    Reply,
}

fn events() -> Vec<Event> {
    let mut all = vec![Event::Reply];
    for log in 0..LOGS {
        all.extend([Event::Write(log), Event::Covers(log, 0), Event::Covers(log, 1)]);
        all.extend([Event::Fails(log), Event::Reopens(log)]);
    }
    all
}

/// A log while it has one file.
#[derive(Clone, Copy, Default)]
struct File {
    key: u64,
    written: u64,
    covered: u64,
    failed: bool,
    closed: bool,
}

/// What the world is: every file there ever was, which of them each place serves, and for each reply what
/// had been written.
#[derive(Clone, Default)]
struct World {
    files: Vec<File>,
    at: [usize; LOGS],
    replies: Vec<Vec<(usize, u64)>>,
}

impl World {
    fn new() -> Self {
        let file = |key| File { key, ..File::default() };
        Self { files: (0..LOGS as u64).map(file).collect(), at: [0, 1], replies: Vec::new() }
    }

    fn file(&mut self, log: usize) -> &mut File {
        let at = self.at[log];
        &mut self.files[at]
    }

    /// By definition: a reply may be sent when all that was written before it is durable, and must never
    /// be sent when some of it never will be.
    fn fate(&self, reply: usize) -> Fate {
        let open = |&&(file, bytes): &&(usize, u64)| self.files[file].covered < bytes;
        let open: Vec<_> = self.replies[reply].iter().filter(open).collect();
        let lost = |&&(file, _): &&(usize, u64)| self.files[file].failed || self.files[file].closed;
        match (open.iter().any(lost), open.is_empty()) {
            (true, _) => Fate::Lost,
            (false, true) => Fate::Send,
            (false, false) => Fate::Held,
        }
    }
}

/// The rule beside the world, with the ticket of each reply; none for one that is sent at once.
#[derive(Clone, Default)]
struct Run {
    world: World,
    release: Release,
    tickets: Vec<Option<u64>>,
}

impl Run {
    fn step(&mut self, event: Event) {
        match event {
            Event::Write(log) => self.world.file(log).written += 1,
            Event::Covers(log, but) => {
                let file = self.world.file(log);
                if !file.failed {
                    file.covered = file.covered.max(file.written.saturating_sub(but));
                    self.release.covered(file.key, file.covered);
                }
            }
            Event::Fails(log) => {
                let file = self.world.file(log);
                file.failed = true;
                self.release.failed(file.key);
            }
            Event::Reopens(log) => {
                let file = self.world.file(log);
                file.closed = true;
                self.release.failed(file.key);
                let key = self.world.files.len() as u64;
                self.world.at[log] = self.world.files.len();
                self.world.files.push(File { key, ..File::default() });
            }
            Event::Reply => {
                let open = self.world.at.map(|at| (at, self.world.files[at]));
                let written = open.iter().map(|(at, file)| (*at, file.written)).collect();
                self.world.replies.push(written);
                let uncovered = open.iter().filter(|(_, file)| file.covered < file.written);
                let needs: Vec<Need> = uncovered
                    .map(|(_, file)| Need { log: file.key, bytes: file.written })
                    .collect();
                let ticket = (!needs.is_empty()).then(|| self.release.hold(&needs).0);
                self.tickets.push(ticket);
                // A log that has failed keeps its bytes uncovered: whoever drives the rule says so again.
                for (_, file) in open.iter().filter(|(_, file)| file.failed) {
                    self.release.failed(file.key);
                }
            }
        }
    }

    fn check(&self, events: &[Event]) {
        for (reply, ticket) in self.tickets.iter().enumerate() {
            let fate = ticket.map_or(Fate::Send, |ticket| self.release.fate(ticket));
            assert_eq!(fate, self.world.fate(reply), "reply {reply} after {events:?}");
        }
        let held = (0..self.tickets.len()).any(|reply| self.world.fate(reply) == Fate::Held);
        assert_eq!(self.release.is_holding(), held, "{events:?}");
    }
}

fn explore(run: &Run, path: &mut Vec<Event>, depth: usize, count: &mut u64) {
    run.check(path);
    *count += 1;
    if depth == 0 {
        return;
    }
    for event in events() {
        let mut next = run.clone();
        next.step(event);
        path.push(event);
        explore(&next, path, depth - 1, count);
        path.pop();
    }
}

#[test]
fn the_rule_is_the_definition() {
    let mut count = 0;
    let run = Run { world: World::new(), ..Run::default() };
    explore(&run, &mut Vec::new(), 6, &mut count);
    assert_eq!(count, (0..=6).map(|n| 11_u64.pow(n)).sum::<u64>());
}

/// Longer runs, at random: many marks at once, more than are kept apart.
#[test]
fn a_long_run_never_sends_too_early() {
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..20 {
        let mut run = Run { world: World::new(), ..Run::default() };
        for _ in 0..4000 {
            let log = random(LOGS as u64) as usize;
            let event = match random(2000) {
                0 => Event::Fails(log),
                1 => Event::Reopens(log),
                2..=6 => Event::Covers(log, random(3)),
                7..=1000 => Event::Write(log),
                _ => Event::Reply,
            };
            run.step(event);
            if random(50) == 0 {
                for (reply, ticket) in run.tickets.iter().enumerate() {
                    let Some(ticket) = ticket else { continue };
                    match (run.release.fate(*ticket), run.world.fate(reply)) {
                        (Fate::Send, fate) => assert_eq!(fate, Fate::Send, "reply {reply}"),
                        (Fate::Held, fate) => assert_ne!(fate, Fate::Lost, "reply {reply}"),
                        (Fate::Lost, _) => {}
                    }
                }
            }
        }
        for log in 0..LOGS {
            run.step(Event::Covers(log, 0));
        }
        let settled = run.tickets.iter().flatten().all(|t| run.release.fate(*t) != Fate::Held);
        assert!(settled || run.world.files.iter().any(|file| file.failed));
    }
}
