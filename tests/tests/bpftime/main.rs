//! The object as BPFtime runs it: read from its file, its maps reached by numbers, its helpers with
//! BPFtime's behaviour, the hooked function behind it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use durac_abi::Hook;
use durac_abi::Object;
use durac_abi::Runtime;
use durac_abi::elf;
use durac_abi::session::{self, OfHook, SESSION_MAP};
use durac_core::CompileOptions;
use durac_grammar::Sources;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What the hooked function answers when it is run: below every errno.
const NOT_HANDLED: i64 = i64::MIN;

/// A process of a session: what BPFtime's helpers see. Maps are shared, everything else is its own.
#[derive(Default)]
struct World {
    process: u64,
    /// Beside the first thread of the process.
    thread: u64,
    /// A value that somebody writes into the first parameter while a call waits.
    written: Option<u64>,
    clock: u64,
    /// For each map, its one entry; a lookup in a map that is not there gives null.
    maps: BTreeMap<u64, Vec<u64>>,
    overridden: Option<u64>,
    called: Vec<u32>,
    ring: Ring,
}

/// io_uring, behind BPFtime's helpers, and what the kernel's program makes of it.
#[derive(Default)]
struct Ring {
    made: bool,
    /// Syncs that were put into it and not started.
    put: Vec<u64>,
    /// Of those that were started and not reaped, whether each will succeed.
    out: std::collections::VecDeque<bool>,
    /// Most that were out at once.
    most: usize,
    /// The next syncs fail, so many.
    failing: usize,
    /// The next waits are interrupted, so many.
    interrupted: usize,
    /// Starting answers with an error.
    refuses: bool,
    /// The kernel sees none of it: no program, another namespace, another file system.
    unseen: bool,
    started: usize,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn world<T>(f: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(f)
}

/// `map_ptr_by_fd`: what the code holds for a map is its number, shifted.
fn look_up(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: the key is on the program's stack.
    let key = unsafe { (key as *const u32).read_unaligned() };
    world(|w| {
        w.called.push(1);
        match w.maps.get_mut(&(map >> 32)).filter(|_| key == 0) {
            Some(values) => values.as_mut_ptr() as u64,
            None => 0,
        }
    })
}

fn clock(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|w| w.clock)
}

fn process(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // The thread is another than the process.
    world(|w| w.process << 32 | (w.process + 7 + w.thread))
}

fn override_return(_registers: u64, value: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|w| w.overridden = Some(value));
    0
}

/// The map of the syncs, of which only the process's own count is kept.
const PROCESS: usize = 0;
const COMPLETED: usize = 1;

fn update(map: u64, _key: u64, value: u64, _: u64, _: u64) -> u64 {
    world(|w| {
        let Some(values) = w.maps.get_mut(&(map >> 32)) else { return u64::MAX };
        for (place, at) in values.iter_mut().zip((value..).step_by(8)) {
            // SAFETY: the value is on the program's stack.
            *place = unsafe { (at as *const u64).read_unaligned() };
        }
        0
    })
}

fn ring_init(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|w| {
        w.called.push(1006);
        assert!(!std::mem::replace(&mut w.ring.made, true), "a second ring");
        0
    })
}

fn ring_sync(fd: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|w| {
        assert!(w.ring.made, "no ring");
        w.ring.put.push(fd);
        0
    })
}

/// Syncs end as soon as they start, and the kernel counts those that succeed; the helper that waits
/// answers 0 whatever became of them.
fn ring_submit(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|w| {
        if w.ring.refuses {
            return -11_i64 as u64;
        }
        let put = std::mem::take(&mut w.ring.put);
        for fd in &put {
            assert_eq!(*fd, 9, "another file");
            let succeeds = w.ring.failing == 0;
            w.ring.failing -= usize::from(!succeeds);
            w.ring.out.push_back(succeeds);
            w.ring.started += 1;
            let map = w.maps.len() as u64;
            let syncs = w.maps.get_mut(&map).unwrap();
            if succeeds && !w.ring.unseen && syncs[PROCESS] == w.process {
                syncs[COMPLETED] += 1;
            }
        }
        w.ring.most = w.ring.most.max(w.ring.out.len());
        put.len() as u64
    })
}

fn ring_wait(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|w| {
        w.called.push(1009);
        if w.ring.interrupted > 0 {
            w.ring.interrupted -= 1;
            return -4_i64 as u64;
        }
        w.ring.out.pop_front().expect("a wait for nothing");
        if let Some(value) = w.written {
            w.maps.get_mut(&1).unwrap()[0] = value;
        }
        0
    })
}

/// Helpers that BPFtime has, and a program may not need.
fn other(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    panic!("called");
}

const OTHERS: [u32; 4] = [3, 7, 8, 1007];

/// An object that is loaded, as the loader loads it.
struct Loaded {
    object: Object,
    code: Vec<Vec<u8>>,
}

impl Loaded {
    fn new(text: &str) -> Self {
        let mut sources = Sources::new();
        let file = sources.add("test.dur", text);
        let policy = durac_core::analyse(&mut sources, file, &CompileOptions::new("test"))
            .policy
            .expect(text);
        let made = durac_core::compile(
            &policy,
            &sources,
            file,
            &CompileOptions::default().with_runtime(Runtime::Bpftime),
        );
        let object = elf::read(&durac_bpf::write(&made.expect(text)).unwrap()).unwrap();
        durac_verify::verify(&object).unwrap();
        let code = object.programs.iter().map(|program| {
            let mut insns = program.insns.clone();
            for reloc in &program.relocs {
                // As BPFtime's machine resolves `lddw` of a map.
                insns[reloc.slot as usize + 1].imm = reloc.map as i32 + 1;
            }
            insns.iter().flat_map(|insn| insn.to_bytes()).collect()
        });
        let code = code.collect();
        world(|w| {
            (w.process, w.thread, w.written) = (100, 0, None);
            w.called.clear();
            w.ring = Ring::default();
            w.maps = (1..).zip(object.seen_maps().map(|map| initial(&object, map.name))).collect();
        });
        Self { object, code }
    }

    /// The override handler: the program runs, and the function unless it was overridden.
    fn call(&self, symbol: &str, arguments: &[i64]) -> i64 {
        let index = self.object.meta.entries.iter().position(|e| e.symbol == symbol).unwrap();
        let mut registers = [0xdead_beef_u64; 21];
        for (argument, offset) in arguments.iter().zip([112, 104, 96, 88, 72]) {
            registers[offset / 8] = *argument as u64;
        }
        let bytes = &self.code[index];
        let mut vm = rbpf::EbpfVmMbuff::new(Some(bytes)).unwrap();
        vm.register_helper(1, look_up).unwrap();
        vm.register_helper(5, clock).unwrap();
        vm.register_helper(14, process).unwrap();
        vm.register_helper(58, override_return).unwrap();
        vm.register_helper(2, update).unwrap();
        vm.register_helper(1006, ring_init).unwrap();
        vm.register_helper(1008, ring_sync).unwrap();
        vm.register_helper(1009, ring_wait).unwrap();
        vm.register_helper(1010, ring_submit).unwrap();
        for number in OTHERS {
            vm.register_helper(number, other).unwrap();
        }
        world(|w| {
            w.overridden = None;
            for values in w.maps.values() {
                let start = values.as_ptr() as u64;
                vm.register_allowed_memory(start..start + 8 * values.len() as u64);
            }
        });
        let context: Vec<u8> = registers.iter().flat_map(|r| r.to_le_bytes()).collect();
        vm.execute_program(&[], &context).unwrap();
        world(|w| w.overridden).map_or(NOT_HANDLED, |value| value as i64)
    }

    fn fdatasync(&self, failed: i64) -> i64 {
        self.call("durac_aof_fdatasync", &[9, failed])
    }

    fn barrier_if_any(&self) -> i64 {
        let has = self.object.meta.entry(Hook::Barrier).is_some();
        if has { self.barrier(0) } else { NOT_HANDLED }
    }

    fn barrier(&self, failed: i64) -> i64 {
        self.call("durac_aof_barrier", &[9, failed])
    }

    /// Writes a word of the session, as its loader does.
    fn set(&self, word: usize, value: u64) {
        let maps = self.object.seen_maps().map(|map| map.name);
        let at = maps.zip(1..).find(|(name, _)| *name == SESSION_MAP).unwrap().1;
        world(|w| w.maps.get_mut(&at).unwrap()[word] = value);
    }

    fn session(&self) -> Vec<u64> {
        let maps = self.object.seen_maps().map(|map| map.name);
        let at = maps.zip(1..).find(|(name, _)| *name == SESSION_MAP).unwrap().1;
        world(|w| w.maps[&at].clone())
    }

    fn write(&self, len: i64) -> i64 {
        self.call("durac_aof_write", &[9, 0x1000, len])
    }
}

fn initial(object: &Object, name: &str) -> Vec<u64> {
    match name {
        "syncs" => vec![0; 2],
        SESSION_MAP => {
            let mut words = vec![0; session::WORDS];
            (words[session::WORD_ID], words[session::WORD_UNTIL]) = (session::ID, u64::MAX);
            words
        }
        "params" => object.meta.params.iter().map(|p| p.default).collect(),
        _ => object.meta.state.iter().map(|s| s.init).collect(),
    }
}

const EVERY_4: &str = "target redis.patched\non fdatasync { every 4 calls { pass }; skip }\n";

#[test]
fn three_are_skipped_and_the_fourth_runs() {
    let loaded = Loaded::new(EVERY_4);
    // The first call runs: it syncs what a policy before this one has skipped.
    assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    let answers: Vec<i64> = (0..9).map(|_| loaded.fdatasync(0)).collect();
    let expected = [0, 0, 0, NOT_HANDLED, 0, 0, 0, NOT_HANDLED, 0];
    assert_eq!(answers, expected);
    assert!(!world(|w| w.called.contains(&1006)), "a sync was started that nobody waits for");
}

/// Without state, too: a policy that skips every sync.
#[test]
fn a_policy_ends_with_its_loader() {
    let loaded = Loaded::new("target redis.patched\non fdatasync: skip\n");
    let at = |clock: u64| {
        world(|w| w.clock = clock);
        loaded.fdatasync(0)
    };
    loaded.set(session::WORD_UNTIL, 100);
    assert_eq!([at(5), at(6), at(99)], [NOT_HANDLED, 0, 0]);
    // It renews its word late, or not at all.
    assert_eq!([at(100), at(101)], [NOT_HANDLED, NOT_HANDLED]);
    loaded.set(session::WORD_UNTIL, 200);
    assert_eq!([at(102), at(199), at(200)], [0, 0, NOT_HANDLED]);
    // It ends.
    loaded.set(session::WORD_UNTIL, 0);
    assert_eq!([at(103), at(0)], [NOT_HANDLED, NOT_HANDLED]);
    // Nobody called while it lived: nobody is the owner.
    let loaded = Loaded::new("target redis.patched\non fdatasync: skip\n");
    loaded.set(session::WORD_UNTIL, 0);
    assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    assert_eq!(loaded.session()[session::word(Hook::Fdatasync, OfHook::Owner)], 0);
}

/// Other maps stand where the program looks for its own.
#[test]
fn another_loaders_maps_are_not_touched() {
    for text in [EVERY_4, DELAYED] {
        let loaded = Loaded::new(text);
        let _ = (loaded.barrier_if_any(), loaded.fdatasync(0), loaded.fdatasync(0));
        loaded.set(session::WORD_ID, session::ID + 1);
        let before = world(|w| w.maps.clone());
        for _ in 0..9 {
            assert_eq!(loaded.fdatasync(0), NOT_HANDLED, "{text}");
            assert_eq!(loaded.barrier_if_any(), NOT_HANDLED, "{text}");
        }
        assert_eq!(world(|w| w.maps.clone()), before, "{text}");
    }
}

#[test]
fn one_thread_calls() {
    let loaded = Loaded::new(EVERY_4);
    let answers: Vec<i64> = (0..3).map(|_| loaded.fdatasync(0)).collect();
    assert_eq!(answers, [NOT_HANDLED, 0, 0]);
    world(|w| w.thread = 1);
    assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    world(|w| w.thread = 0);
    for _ in 0..9 {
        assert_eq!(loaded.fdatasync(0), NOT_HANDLED, "it can get what the other was told");
    }
    assert_eq!(loaded.session()[session::word(Hook::Fdatasync, OfHook::Calls)], 2);
    // A ring belongs to the thread that has made it, and is waited for by that one.
    let loaded = opened(DELAYED);
    assert_eq!(loaded.fdatasync(0), 0);
    world(|w| w.thread = 1);
    assert_eq!((loaded.fdatasync(0), loaded.barrier(0)), (NOT_HANDLED, NOT_HANDLED));
    assert_eq!(ring(|r| (r.started, r.out.len())), (2, 1));
    world(|w| w.thread = 0);
    assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    assert_eq!(ring(|r| (r.started, r.out.len())), (2, 0));
}

/// What is in flight when the loader ends is waited for, and a failure of it is found.
#[test]
fn a_ring_ends_with_its_loader() {
    for failing in [0, 1] {
        let loaded = opened(DELAYED);
        assert_eq!(loaded.fdatasync(0), 0);
        ring(|r| r.failing = failing);
        assert_eq!(loaded.fdatasync(0), 0);
        loaded.set(session::WORD_UNTIL, 0);
        let result = if failing == 0 { NOT_HANDLED } else { -5 };
        for _ in 0..4 {
            assert_eq!(loaded.fdatasync(0), result);
            assert_eq!(ring(|r| (r.started, r.out.len())), (3, 0));
        }
    }
    // The log is opened when nobody vouches any more.
    let loaded = Loaded::new(DELAYED);
    loaded.set(session::WORD_UNTIL, 0);
    assert_eq!((loaded.barrier(0), loaded.fdatasync(0)), (NOT_HANDLED, NOT_HANDLED));
    assert!(!ring(|r| r.made));
}

#[test]
fn a_call_sees_one_value_of_a_parameter() {
    let text = "target redis.patched\nparam n: syncs = 1 in 1..=3\nuse kernel notify\n\
                on fdatasync { await pending < n; if n > 2 { fail EDQUOT }; defer }\n";
    let loaded = opened(text);
    assert_eq!(loaded.fdatasync(0), 0);
    world(|w| w.written = Some(3));
    assert_eq!(loaded.fdatasync(0), 0, "the parameter was read after the wait");
    assert_eq!(loaded.fdatasync(0), -122);
}

#[test]
fn a_parameter_stays_in_its_range() {
    let text = "target redis.patched\nparam n: count = 3 in 2..=9\nstate k: count = 0\n\
                on fdatasync { k = k + 1; if k > n { k = 0; pass }; skip }\n";
    for (written, skipped) in [(0, 2), (2, 2), (5, 5), (9, 9), (10, 9), (u64::MAX, 9), (1 << 63, 9)]
    {
        let loaded = Loaded::new(text);
        world(|w| w.maps.get_mut(&1).unwrap()[0] = written);
        let answers: Vec<i64> = (0..2 * skipped + 3).map(|_| loaded.fdatasync(0)).collect();
        let runs = answers.iter().enumerate().filter(|(_, answer)| **answer == NOT_HANDLED);
        let at: Vec<usize> = runs.map(|(call, _)| call).collect();
        assert_eq!(at, [0, skipped + 1, 2 * skipped + 2], "{written}");
    }
}

#[test]
fn an_error_stays() {
    let loaded = Loaded::new(EVERY_4);
    assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    for failed in [-5, -28, -1, -4095] {
        for _ in 0..9 {
            assert_eq!(loaded.fdatasync(failed), failed);
        }
    }
    // What is no errno is an error all the same, and never success or no answer.
    for failed in [5, 1, -4096, i64::MIN, i64::MAX, 0x1_0000_0000] {
        assert_eq!(loaded.fdatasync(failed), -5, "{failed:#x}");
    }
    let always = Loaded::new("target redis.patched\non fdatasync: pass\n");
    assert_eq!(always.fdatasync(-5), -5);
    assert_eq!(always.fdatasync(0), NOT_HANDLED);
}

#[test]
fn state_belongs_to_one_process() {
    let loaded = Loaded::new(EVERY_4);
    let first: Vec<i64> = (0..2).map(|_| loaded.fdatasync(0)).collect();
    assert_eq!(first, [NOT_HANDLED, 0]);
    // A second server of the session. (A forked child has its parent's number: BPFtime keeps it.)
    for _ in 0..5 {
        world(|w| w.process = 101);
        assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
        // It is told of its own errors.
        assert_eq!(loaded.fdatasync(-5), -5);
    }
    world(|w| w.process = 100);
    let answers: Vec<i64> = (0..4).map(|_| loaded.fdatasync(0)).collect();
    assert_eq!(answers, [0, 0, NOT_HANDLED, 0], "the child has changed the state");
}

#[test]
fn without_its_maps_every_call_runs() {
    let text = "target redis.patched\nparam n: count = 3 in 1..=9\nstate k: count = 0\n\
                on fdatasync { k = k + 1; if k > n { k = 0; pass }; skip }\n";
    let loaded = Loaded::new(text);
    let first: Vec<i64> = (0..2).map(|_| loaded.fdatasync(0)).collect();
    assert_eq!(first, [NOT_HANDLED, 0]);
    let maps = world(|w| std::mem::take(&mut w.maps));
    assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    for missing in [1, 2] {
        let mut rest = maps.clone();
        rest.remove(&missing);
        world(|w| w.maps = rest);
        assert_eq!(loaded.fdatasync(0), NOT_HANDLED, "without map {missing}");
    }
}

#[test]
fn arguments_and_clock_are_read() {
    let text = "target redis.patched\nparam most: bytes = 1MiB in 1KiB..=1GiB\n\
                on write { if call.len > most { fail EFBIG } }\n\
                on fdatasync { every 1s { pass }; skip }\n";
    let loaded = Loaded::new(text);
    assert_eq!(loaded.write(100), NOT_HANDLED);
    assert_eq!(loaded.write(1 << 20), NOT_HANDLED);
    assert_eq!(loaded.write((1 << 20) + 1), -27);
    let at = |clock: u64| {
        world(|w| w.clock = clock);
        loaded.fdatasync(0)
    };
    assert_eq!(at(5_000_000_000), NOT_HANDLED);
    assert_eq!(at(5_000_000_000), NOT_HANDLED);
    assert_eq!(at(5_999_999_999), 0);
    assert_eq!(at(6_000_000_000), NOT_HANDLED);
    assert_eq!(at(6_000_000_001), 0);
}

const DELAYED: &str =
    "target redis.patched\nuse kernel notify\non fdatasync: await previous; defer\n";

/// A policy whose log was opened: its ring works.
fn opened(text: &str) -> Loaded {
    let loaded = Loaded::new(text);
    assert_eq!(loaded.barrier(0), NOT_HANDLED);
    loaded
}

fn ring<T>(f: impl FnOnce(&mut Ring) -> T) -> T {
    world(|w| f(&mut w.ring))
}

#[test]
fn a_sync_is_deferred_and_waited_for() {
    let loaded = opened(DELAYED);
    // The one that was tried.
    assert_eq!(ring(|r| (r.started, r.out.len())), (1, 0));
    for call in 2..100 {
        assert_eq!(loaded.fdatasync(0), 0);
        assert_eq!(ring(|r| (r.started, r.out.len(), r.most)), (call, 1, 1));
    }
    // Before a sync of the application's own nothing is out any more.
    assert_eq!(loaded.barrier(0), NOT_HANDLED);
    assert_eq!(ring(|r| r.out.len()), 0);
    assert_eq!(loaded.fdatasync(0), 0);
}

/// The helper that waits answers 0; the count is short.
#[test]
fn a_failure_is_found_and_stays() {
    let loaded = opened(DELAYED);
    assert_eq!(loaded.fdatasync(0), 0);
    ring(|r| r.failing = 1);
    assert_eq!(loaded.fdatasync(0), 0);
    for _ in 0..5 {
        assert_eq!(loaded.fdatasync(0), -5);
        assert_eq!(loaded.barrier(0), -5);
    }
    // Nothing was started after it.
    assert_eq!(ring(|r| (r.started, r.out.len())), (3, 0));

    let loaded = opened(DELAYED);
    ring(|r| r.failing = 1);
    assert_eq!(loaded.fdatasync(0), 0);
    assert_eq!(loaded.barrier(0), -5, "the application would sync, and be told of nothing");
    assert_eq!(loaded.fdatasync(0), -5);
    // What the application itself was told comes first.
    assert_eq!((loaded.fdatasync(-28), loaded.barrier(-28)), (-28, -28));
}

/// A signal ends a wait early: it is tried again, and in the end not believed.
#[test]
fn waits_are_interrupted() {
    let loaded = opened(DELAYED);
    assert_eq!(loaded.fdatasync(0), 0);
    ring(|r| r.interrupted = 10);
    assert_eq!(loaded.fdatasync(0), 0);
    ring(|r| r.interrupted = 1000);
    assert_eq!(loaded.fdatasync(0), -5);
    assert_eq!(loaded.barrier(0), -5);
}

/// What cannot be relied on is left to the application, for ever.
#[test]
fn without_a_count_every_call_runs() {
    // The log was never opened under the policy.
    let loaded = Loaded::new(DELAYED);
    for _ in 0..3 {
        assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    }
    assert!(!ring(|r| r.made));
    // The kernel sees nothing.
    let loaded = Loaded::new(DELAYED);
    ring(|r| r.unseen = true);
    assert_eq!(loaded.barrier(0), NOT_HANDLED);
    ring(|r| r.unseen = false);
    for _ in 0..3 {
        assert_eq!((loaded.fdatasync(0), loaded.barrier(0)), (NOT_HANDLED, NOT_HANDLED));
    }
    assert_eq!(ring(|r| (r.started, r.out.len())), (1, 0));
    // The ring takes nothing any more: what is out is waited for first.
    let loaded = opened(DELAYED);
    assert_eq!(loaded.fdatasync(0), 0);
    ring(|r| r.refuses = true);
    assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    ring(|r| r.refuses = false);
    for _ in 0..3 {
        assert_eq!(loaded.fdatasync(0), NOT_HANDLED);
    }
    assert_eq!(ring(|r| (r.started, r.out.len())), (2, 0));
}

#[test]
fn another_process_touches_nothing() {
    let loaded = opened(DELAYED);
    assert_eq!(loaded.fdatasync(0), 0);
    let before = world(|w| w.maps.clone());
    world(|w| w.process = 101);
    for _ in 0..3 {
        assert_eq!((loaded.fdatasync(0), loaded.barrier(0)), (NOT_HANDLED, NOT_HANDLED));
    }
    // Its descriptor of the hash is none of a map; what an array's address is there, nobody knows.
    world(|w| w.maps.remove(&2));
    assert_eq!((loaded.fdatasync(0), loaded.barrier(0)), (NOT_HANDLED, NOT_HANDLED));
    assert!(world(|w| w.called.iter().rev().take_while(|h| **h == 1).count()) >= 2);
    world(|w| w.maps = before);
    world(|w| w.process = 100);
    assert_eq!(loaded.fdatasync(0), 0);
    assert_eq!(ring(|r| (r.started, r.out.len())), (3, 1));
}

/// What nobody waits for does not fill the ring: every fifth call runs, and waits for the rest.
#[test]
fn no_more_are_out_than_may_be() {
    let text = "target redis.patched\nuse kernel notify\non fdatasync: defer\n";
    let loaded = opened(text);
    let answers: Vec<i64> = (0..10).map(|_| loaded.fdatasync(0)).collect();
    let expected = [0, 0, 0, 0, NOT_HANDLED, 0, 0, 0, 0, NOT_HANDLED];
    assert_eq!((answers.as_slice(), ring(|r| r.most)), (expected.as_slice(), 4));
    // A failure among them is found by the one that runs.
    for failing in 1..=4 {
        let loaded = opened(text);
        for call in 1..=4 {
            ring(|r| r.failing = usize::from(call == failing));
            assert_eq!(loaded.fdatasync(0), 0);
        }
        assert_eq!(loaded.fdatasync(0), -5, "{failing}");
    }
}
