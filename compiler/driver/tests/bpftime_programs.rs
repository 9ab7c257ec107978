//! Objects for BPFtime: they do what the agent's do, they lose what is proved, and they hold no
//! instruction that BPFtime does not run.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use crate::common::Random;
use durac_abi::Object;
use durac_abi::insn::op;
use durac_abi::{Context, Hook, Runtime};
use durac_core::CompileOptions;
use durac_driver::Options;
use durac_grammar::{Code, Diagnostic, Sources};
use durac_prove::machine::{Backend, Ended, Machine, Memory, World};

/// Functions of its own for every hook.
const TARGET: &str = "target test\ntarget test {\n    files \"*.log\"\n    callers one\n    hook write(log: file, data: borrowed bytes, len: bytes) -> bytes { entry symbol \"w\"; may pass, fail }\n    hook fdatasync(log: file, failed: status) -> status { entry symbol \"d\"\n entry barrier \"b\"; may pass, skip, fail, defer, await }\n}\n";

fn check(text: &str, runtime: Runtime) -> (Option<Object>, Vec<Diagnostic>) {
    let text = format!("{}{text}", TARGET.replace("; may", "\n may"));
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let naming = Options::new("test").with_runtime(runtime);
    let checked = durac_driver::compile(&mut sources, file, &naming);
    (checked.proved.map(|p| p.object), checked.analysis.diagnostics)
}

/// The object, compiled and verified but not explored: a random policy may have very many states.
fn compiled(text: &str, runtime: Runtime) -> Option<Object> {
    let (policy, file, sources) = analysed(text)?;
    let object = durac_core::compile(
        &policy,
        &sources,
        file,
        &CompileOptions::default().with_runtime(runtime),
    )
    .ok()?;
    durac_verify::verify(&object).unwrap_or_else(|why| panic!("{text}\n{why:#?}"));
    Some(object)
}

fn object(text: &str, runtime: Runtime) -> Object {
    let (object, found) = check(text, runtime);
    object.unwrap_or_else(|| panic!("{text}\n{found:#?}"))
}

/// Statements that mean something in both runtimes.
fn statement(random: &mut Random, out: &mut String, depth: u64) {
    match random.below(if depth == 0 { 4 } else { 8 }) {
        0 => {
            out.push_str(random.pick(&["pass\n", "skip\n", "skip\n", "fail EIO\n", "fail EROFS\n"]))
        }
        1 => out.push_str(random.pick(&["k = (k + n) % 3\n", "k = 0\n", "k = k + 1\n"])),
        2 => out.push_str(random.pick(&["a = !a\n", "a = k > 1 || a\n", "a = now > 5s\n"])),
        3 => out.push_str("last = now\n"),
        4 | 5 => {
            let cond = random.pick(&["a", "k >= n", "now - last > 1s", "!a && k < 2", "now > 7s"]);
            out.push_str(&format!("if {cond} {{\n"));
            statement(random, out, depth - 1);
            out.push_str("} else {\n");
            statement(random, out, depth - 1);
            out.push_str("}\n");
        }
        _ => {
            let period = random.pick(&["2 calls", "3 calls", "1s"]);
            out.push_str(&format!("every {period} {{\n"));
            statement(random, out, depth - 1);
            out.push_str("}\n");
        }
    }
}

fn policy(random: &mut Random) -> String {
    let mut text = "param n: count = 2 in 1..=3\nstate a: bool = false\nstate k: count = 0\nstate last: duration = 0s\nstate seen: bytes = 9B\n".to_owned();
    if random.below(2) == 0 {
        text.push_str("on write { seen = call.len; if seen > 4KiB { fail EFBIG } }\n");
    }
    text.push_str("on fdatasync {\n");
    for _ in 0..1 + random.below(4) {
        statement(random, &mut text, 2);
    }
    text.push_str(random.pick(&["skip\n", "pass\n"]));
    text.push_str("}\n");
    text
}

/// There is nothing to wait for.
struct Nothing;

impl World for Nothing {
    fn request(&mut self) {
        panic!("BPFtime has no background sync");
    }

    fn wait(&mut self, _distance: u64, _memory: &Memory) -> bool {
        panic!("BPFtime has no wait");
    }
}

/// Runs a hook and gives the verdict with the policy's own state.
fn run(machine: &mut Machine, hook: Hook, context: Context, states: usize) -> (Ended, Vec<u64>) {
    machine.memory().set_context(context);
    let ended = machine.run(hook, &mut Nothing).unwrap();
    (ended, machine.memory().copy_state()[..states].to_vec())
}

#[test]
fn a_program_does_what_the_agents_does() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut policies, mut skipped) = (0, 0);
    for _ in 0..200 {
        let text = policy(&mut random);
        let (Some(here), Some(there)) =
            (compiled(&text, Runtime::Agent), compiled(&text, Runtime::Bpftime))
        else {
            continue;
        };
        policies += 1;
        let states = here.meta.state.len();
        for backend in [Backend::Interpreter, Backend::Jit] {
            let mut agent = Machine::new(&here, backend).unwrap();
            let mut bpftime = Machine::new(&there, backend).unwrap();
            for _ in 0..12 {
                let hook = if random.below(3) == 0 { Hook::Write } else { Hook::Fdatasync };
                let len = if hook == Hook::Write { 1 + random.below(9000) } else { 0 };
                let now = random.below(10) * 1_000_000_000;
                let context = Context { now, len, ..Context::default() };
                let expected = run(&mut agent, hook, context, states);
                let found = run(&mut bpftime, hook, context, states);
                assert_eq!(found, expected, "{text}\n{hook} {context:?}");
                skipped += u32::from(expected.0 != Ended::Verdict(durac_abi::Verdict::Pass));
            }
        }
    }
    assert!(policies > 150 && skipped > 800, "{policies} policies, {skipped} calls not passed");
}

/// Instructions of version 4, atomics and what else BPFtime takes for another instruction: a
/// program holds none.
#[test]
fn every_instruction_is_of_version_3() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut objects: Vec<Object> = Vec::new();
    for _ in 0..100 {
        let text = policy(&mut random);
        objects.extend(compiled(&text, Runtime::Bpftime));
        objects.extend(compiled(&text, Runtime::Agent));
    }
    for ready in durac_stdlib::POLICIES {
        let mut sources = Sources::new();
        let file = sources.add(ready.file, ready.text);
        for (runtime, target) in [(Runtime::Agent, None), (Runtime::Bpftime, Some("redis.patched"))]
        {
            let naming = Options { target, runtime, ..Options::new(ready.name) };
            let checked = durac_driver::compile(&mut sources, file, &naming);
            objects.extend(checked.proved.map(|p| p.object));
        }
    }
    assert!(objects.len() > 150, "{}", objects.len());
    let (mut bpftime, mut slots) = (0, 0);
    for object in &objects {
        bpftime += usize::from(object.meta.runtime == Runtime::Bpftime);
        for program in &object.programs {
            let mut insns = program.insns.iter();
            while let Some(insn) = insns.next() {
                slots += 1;
                // The second half of a `lddw` is no instruction.
                if insn.is_lddw() {
                    insns.next();
                    continue;
                }
                let mode = insn.opcode & op::MODE_MASK;
                let offset_means_more = insn.offset != 0;
                let fine = match insn.class() {
                    // No atomics, among them XCHG; no sign-extending loads; no stored immediates.
                    op::STX | op::LDX => mode == op::MEM,
                    op::ST => false,
                    op::LD => false,
                    // No signed division, no sign-extending moves, no byte swaps.
                    op::ALU | op::ALU64 => !offset_means_more && insn.opcode & 0xf0 != 0xd0,
                    // No long jumps.
                    op::JMP32 => insn.opcode & 0xf0 != 0,
                    _ => true,
                };
                assert!(fine, "{insn}");
                if insn.opcode == op::JMP | op::CALL {
                    assert!(object.meta.runtime.backend().helper(insn.imm).is_some(), "{insn}");
                }
            }
        }
    }
    assert!(bpftime > 70 && slots > 3000, "{bpftime} objects for BPFtime, {slots} instructions");
}

/// The bound of the text, for BPFtime.
fn loss(text: &str) -> String {
    let object = object(text, Runtime::Bpftime);
    object
        .meta
        .loss
        .into_iter()
        .find(|l| l.failure == durac_abi::object::Failure::PowerLoss)
        .unwrap()
        .text
}

#[test]
fn bounds_are_those_of_its_own_bytecode() {
    assert_eq!(loss("on fdatasync: pass\n"), "nothing");
    assert_eq!(loss("on fdatasync { every 4 calls { pass }; skip }\n"), "at most 3 syncs");
    assert_eq!(loss("on fdatasync: skip\n"), "any number of syncs");
    assert_eq!(
        loss(
            "param n: count = 2 in 1..=3\nstate k: count = 0\non fdatasync {\n    k = k + 1\n    if k > n { k = 0; pass }\n    skip\n}\n"
        ),
        "at most 3 syncs (2 by default)"
    );
    let (object, found) = check(
        "guarantee loss <= 2 syncs on power_loss\non fdatasync { every 4 calls { pass }; skip }\n",
        Runtime::Bpftime,
    );
    assert!(object.is_none());
    assert!(found.iter().any(|d| d.code == Code::LossBoundFails), "{found:#?}");
}

/// A program that was changed so that it acknowledges more is not believed.
#[test]
fn a_changed_program_loses_what_it_loses() {
    let text = "on fdatasync { every 4 calls { pass }; skip }\n";
    let (policy, ..) = analysed(text).unwrap();
    let mut object = object(text, Runtime::Bpftime);
    let program = &mut object.programs[0];
    // The period, where it is compared.
    let insn = program.insns.iter_mut().find(|i| i.is_jump() && i.imm == 4).unwrap();
    insn.imm = 6;
    let proof = durac_prove::proof::prove(&policy, &object, &Default::default()).unwrap();
    assert_eq!(proof.syncs_by_default.count(), Some(5));
}

fn analysed(text: &str) -> Option<(durac_core::hir::Policy, durac_grammar::FileId, Sources)> {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", format!("{}{text}", TARGET.replace("; may", "\n may")));
    let policy = durac_core::analyse(&mut sources, file, &CompileOptions::new("test")).policy?;
    Some((policy, file, sources))
}

/// Codes and messages of what is refused.
fn refused(text: &str) -> Vec<(Code, String)> {
    let (object, found) = check(text, Runtime::Bpftime);
    assert!(object.is_none(), "{text}");
    let errors = found.into_iter().filter(|d| d.severity() == durac_grammar::Severity::Error);
    errors.map(|d| (d.code, d.message)).collect()
}

#[test]
fn what_has_no_safe_form_is_refused() {
    let cases = [
        ("on fdatasync: defer\n", &["`defer`"][..]),
        ("on fdatasync: await previous; pass\n", &["`await`"]),
        ("on fdatasync: pass\nflush within 1s\n", &["`flush within`"]),
        ("on error: stop\non fdatasync: pass\n", &["`on error: stop`"]),
        ("use kernel notify\non fdatasync: pass\n", &["`use kernel notify`"]),
        ("use kernel notify\non fdatasync: if notify.count > 7 skip; defer\n", &["`notify.count`"]),
        ("use kernel notify\non fdatasync: defer\nflush within 1s\n", &["`flush within`"]),
        ("on fdatasync: if pending < 3 skip\n", &["`pending`"]),
        ("on fdatasync: if pending.age > 1s skip\n", &["`pending.age`"]),
        ("on fdatasync: if pending.bytes > 1MiB skip\n", &["`pending.bytes`"]),
        ("on fdatasync: if sync.latency > 1s skip\n", &["`sync.latency`"]),
        ("on fdatasync: if notify.done skip\n", &["`notify.done`"]),
        ("on fdatasync: if notify.count > 7 skip\n", &["`notify.count`"]),
        ("on fdatasync: if child.active skip\n", &["`child.active`"]),
        ("on fdatasync: if staged > 3 skip\n", &["`staged`"]),
        (
            "state k: bytes = 0B\non write { k = call.len }\non fdatasync: if k > 9B skip\n",
            &["hooks that share `k`"],
        ),
        (
            "on fdatasync { if child.active { await all }; defer }\n",
            &["`child.active`", "`await`", "`defer`"],
        ),
    ];
    for (text, expected) in cases {
        let expected: Vec<(Code, String)> = expected
            .iter()
            .map(|what| (Code::NotInBpftime, format!("BPFtime cannot run {what} safely")))
            .collect();
        assert_eq!(refused(text), expected, "{text}");
    }
}

/// What is wrong with a hook of a target, and what `skip` needs of it.
#[test]
fn a_hook_must_be_one_function_of_the_application() {
    let target = |hook: &str| {
        format!(
            "target own\ntarget own {{\n    files \"*.log\"\n    {hook}\n}}\non fdatasync: skip\n"
        )
    };
    let cases = [
        (
            "hook fdatasync(log: file, failed: status) -> status {\n entry libc \"fdatasync\"\n may skip\n }",
            Code::NoBpftimeEntry,
            "every file and by every thread",
        ),
        (
            "hook fdatasync(log: file, failed: status) -> status {\n entry symbol \"a\", \"b\"\n may skip\n }",
            Code::NoBpftimeEntry,
            "this hook has 2",
        ),
        (
            "hook fdatasync(a: file, b: file, c: file, d: file, e: file, failed: status) -> status {\n entry symbol \"a\"\n may skip\n }",
            Code::NoBpftimeEntry,
            "this function has 6",
        ),
        (
            "hook fdatasync(log: file) -> status {\n entry symbol \"a\"\n may skip\n }",
            Code::NotInBpftime,
            "does not learn the result of a call",
        ),
    ];
    for (hook, code, why) in cases {
        let mut sources = Sources::new();
        let file = sources.add("test.dur", target(hook));
        let naming = Options::new("test").with_runtime(Runtime::Bpftime);
        let checked = durac_driver::compile(&mut sources, file, &naming);
        assert!(checked.proved.is_none(), "{hook}");
        let found = checked.analysis.diagnostics;
        let named = |d: &&Diagnostic| d.code == code && d.notes.iter().any(|n| n.contains(why));
        assert_eq!(found.iter().filter(named).count(), 1, "{hook}\n{found:#?}");
    }
}

/// What a target must have so that a policy can start syncs there.
#[test]
fn a_ring_needs_a_barrier() {
    let hook = |params: &str, barrier: &str| {
        format!(
            "target own\nuse kernel notify\ntarget own {{\n    files \"*.log\"\n    hook fdatasync({params}) -> status {{\n        entry symbol \"a\"\n{barrier}        may defer\n    }}\n}}\non fdatasync: defer\n"
        )
    };
    let barrier = "        entry barrier \"b\"\n";
    let cases = [
        (hook("log: file, failed: status", ""), Some("it has 0 barrier functions")),
        (hook("log: file, failed: status", &barrier.repeat(2)), Some("it has 2 barrier functions")),
        (hook("failed: status", barrier), Some("which file to sync")),
        (hook("log: file", barrier), Some("does not learn the result")),
        (hook("log: file, failed: status", barrier), None),
    ];
    for (text, why) in cases {
        let mut sources = Sources::new();
        let file = sources.add("test.dur", text.clone());
        let naming = Options::new("test").with_runtime(Runtime::Bpftime);
        let checked = durac_driver::compile(&mut sources, file, &naming);
        assert_eq!(checked.proved.is_none(), why.is_some(), "{text}");
        let found = checked.analysis.diagnostics;
        if let Some(why) = why {
            let named = |d: &&Diagnostic| {
                d.code == Code::NoBpftimeEntry && d.notes.iter().any(|n| n.contains(why))
            };
            assert_eq!(found.iter().filter(named).count(), 1, "{text}\n{found:#?}");
        }
    }
    // One thread, one ring.
    let both = "target both\nuse kernel notify\ntarget both {\n    files \"*.log\"\n    hook fsync(log: file, failed: status) -> status {\n        entry symbol \"a\"\n        entry barrier \"b\"\n        may defer\n    }\n    hook fdatasync(log: file, failed: status) -> status {\n        entry symbol \"c\"\n        entry barrier \"d\"\n        may defer\n    }\n}\non fsync: defer\non fdatasync: defer\n";
    let mut sources = Sources::new();
    let file = sources.add("test.dur", both);
    let naming = Options::new("test").with_runtime(Runtime::Bpftime);
    let found = durac_driver::compile(&mut sources, file, &naming).analysis.diagnostics;
    let named = |d: &&Diagnostic| d.message.contains("syncs of its own at `fdatasync`");
    assert_eq!(found.iter().filter(named).count(), 1, "{found:#?}");
}
