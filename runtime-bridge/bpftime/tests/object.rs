//! The object as BPFtime runs it: read from its file, its maps reached by numbers, its helpers with
//! BPFtime's behaviour, the hooked function behind it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use durac_bpf::abi::Runtime;
use durac_bpf::{Object, elf};
use durac_grammar::Sources;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What the hooked function answers when it is run: below every errno.
const NOT_HANDLED: i64 = i64::MIN;

/// A process of a session: what BPFtime's helpers see. Maps are shared, everything else is its own.
#[derive(Default)]
struct World {
    process: u64,
    clock: u64,
    /// For each map, its one entry; a lookup in a map that is not there gives null.
    maps: BTreeMap<u64, Vec<u64>>,
    overridden: Option<u64>,
    called: Vec<u32>,
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
    world(|w| w.process << 32 | (w.process + 7))
}

fn override_return(_registers: u64, value: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|w| w.overridden = Some(value));
    0
}

/// io_uring's helpers answer 0 whatever became of the sync.
fn io_uring(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|w| w.called.push(1006));
    0
}

/// Helpers that BPFtime has, and a program may not need.
const OTHERS: [u32; 9] = [2, 3, 7, 8, 1006, 1007, 1008, 1009, 1010];

/// An object that is loaded, as the loader loads it.
struct Loaded {
    object: Object,
    code: Vec<Vec<u8>>,
}

impl Loaded {
    fn new(text: &str) -> Self {
        let mut sources = Sources::new();
        let file = sources.add("test.dur", text);
        let policy = durac_compiler::analyse(&mut sources, file, "test").policy.expect(text);
        let made = durac_compiler::compile_for(Runtime::Bpftime, &policy, &sources, file);
        let object = elf::read(&elf::write(&made.expect(text)).unwrap()).unwrap();
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
            w.process = 100;
            w.called.clear();
            w.maps = (1..).zip(object.maps.iter().map(|map| initial(&object, &map.name))).collect();
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
        for other in OTHERS {
            vm.register_helper(other, io_uring).unwrap();
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

    fn write(&self, len: i64) -> i64 {
        self.call("durac_aof_write", &[9, 0x1000, len])
    }
}

fn initial(object: &Object, name: &str) -> Vec<u64> {
    match name {
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
    // A forked child, or a second server of the session.
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
