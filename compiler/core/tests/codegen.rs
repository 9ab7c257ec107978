//! Codegen snapshots: each shows the source, the graph and the code together.
//!
//! `INSTA_UPDATE=always cargo test -p durac-compiler` blesses them.

use durac_bpf::disasm;
use durac_grammar::Sources;

/// Source, MIR and instructions of a policy.
fn compile(name: &str, text: &str) -> String {
    let mut sources = Sources::new();
    let file = sources.add(format!("{name}.dur"), text);
    let analysis = durac_compiler::analyse(&mut sources, file, name);
    assert!(!analysis.has_errors(), "{name}: {:#?}", analysis.diagnostics);
    let policy = analysis.policy.expect("a policy without errors");
    let loss = analysis.loss.expect("a policy has a loss");
    let mut program = durac_compiler::lower(&policy);
    durac_compiler::optimise(&mut program);
    let object = match durac_compiler::compile(&policy, &sources, file) {
        Ok(object) => disasm::print_object(&object),
        Err(diagnostics) => {
            let lines: Vec<_> = diagnostics.iter().map(|d| d.message.clone()).collect();
            lines.join("\n") + "\n"
        }
    };
    let loss = loss.text(&policy);
    format!(
        "{text}\n---- syncs lost on power loss, as derived\n{loss}\n\n---- mir\n{program}\n---- code\n{object}"
    )
}

#[test]
fn stdlib() {
    for policy in durac_stdlib::POLICIES {
        insta::assert_snapshot!(policy.name, compile(policy.name, policy.text));
    }
}

macro_rules! snapshots {
    ($($name:ident: $text:literal,)*) => {
        $(#[test]
        fn $name() {
            insta::assert_snapshot!(compile(stringify!($name), $text));
        })*
    };
}

snapshots! {
    one_liner: "on fdatasync: await previous; if notify.done skip\n",
    every_calls: "on fdatasync { every 48 calls { await all }; skip }\nflush within 1s\n",
    every_time: "on fdatasync { every 1s { pass }; skip }\nflush within 2s\n",
    two_hooks: "on fsync: pass\non fdatasync: await pending < 4; defer\n",
    arithmetic: "param n: syncs = 8 in 2..=64\nstate last: syncs = 1 syncs\non fdatasync {\n    last = (pending + last * 3) / 4 - 2\n    await pending < n + last / 2\n    defer\n}\n",
    conditions: "state slow: bool = false\non fdatasync {\n    if (sync.latency > 5ms) == slow || !(pending < 3 && child.active) { fail EIO }\n    unless notify.done pass\n    skip\n}\n",
    large_constants: "on write { if call.len > 8GiB { fail EFBIG } }\non fdatasync { if sync.latency > 10s && pending.age > 5s { await all } else { await pending < 100000 }; defer }\n",
    thresholds: "param slow: duration = 5ms in 1ms..=1s\nparam few: syncs = 4 in 1..=16\nparam many: syncs = 64 in 16..=1024\non fdatasync { if sync.latency > slow { await pending < many } else { await pending < few }; defer }\n",
}

/// A lookup behind the last `pass` has an end of its own: jumps go forward.
#[test]
fn a_lookup_after_the_last_pass() {
    let text = "param n: count = 2 in 1..=3\nstate a: bool = false\nstate k: count = 0\non fdatasync {\n    every 2 calls { a = !a }\n    if a { k = 0 } else { if !a && k < 2 { a = k > 1 || a } else { pass } }\n    k = (k + n) % 3\n    skip\n}\n";
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let policy = durac_compiler::analyse(&mut sources, file, "test").policy.unwrap();
    let object = durac_compiler::compile(&policy, &sources, file).unwrap();
    for program in &object.programs {
        for (slot, insn) in (0..).zip(&program.insns).filter(|(_, insn)| insn.is_jump()) {
            assert!(insn.target(slot).is_some_and(|target| target > slot), "{slot}: {insn}");
        }
    }
}
