//! `test "…" { … }`: the tests of the repository's policies pass and bite, and what is said of one that fails.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its cases"
)]

use durac_abi::Object;
use durac_abi::insn::{Cond, Insn, op};
use durac_driver::Options;
use durac_driver::test::{self, Tested};
use durac_grammar::render::{Format, render};
use durac_grammar::{Diagnostic, FileId, Sources};
use durac_prove::explore::Most;
use durac_support::Random;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn load(name: &str, text: &str) -> (Sources, FileId) {
    let mut sources = Sources::new();
    let file = sources.add(name, text);
    (sources, file)
}

fn tested(name: &str, text: &str) -> (Sources, Tested) {
    let (mut sources, file) = load(name, text);
    let tested = test::test(&mut sources, file, &Options::new(name), &|_| true).unwrap();
    (sources, tested)
}

fn failures(tested: &Tested) -> Vec<Diagnostic> {
    let failed = tested.report.iter().flat_map(|r| &r.results).filter_map(|r| r.failure.clone());
    tested.diagnostics.iter().cloned().chain(failed).collect()
}

/// Every policy of the repository that has tests: its name and text.
fn policies() -> Vec<(String, String)> {
    let mut folders = vec![
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../stdlib/policies"),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples"),
    ];
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "dur") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    let with_tests = found.into_iter().filter(|(_, text)| text.contains("\ntest \""));
    with_tests
        .map(|(path, text)| (path.file_stem().unwrap().to_string_lossy().into_owned(), text))
        .collect()
}

#[test]
fn tests_of_the_repository_pass_and_leave_nothing_out() {
    let all = policies();
    for (name, text) in &all {
        let (sources, tested) = tested(name, text);
        let found = failures(&tested);
        assert!(
            found.iter().all(|d| d.code.text().starts_with('W')),
            "{}",
            render(&found, &sources, Format::Human, false)
        );
        let coverage = tested.report.unwrap().coverage;
        let (ways, taken) = coverage.ways();
        assert_eq!(ways, taken, "{name}: {coverage:#?}");
        assert!(coverage.hooks.iter().all(|(_, called)| *called), "{name}: {coverage:#?}");
    }
    for ready in durac_stdlib::POLICIES {
        assert!(all.iter().any(|(name, _)| name == ready.name), "{} has no tests", ready.name);
    }
}

/// Copies of an object that decide otherwise: a condition negated, a verdict exchanged, a wait or a request left
/// out.
fn mutants(object: &Object) -> Vec<(String, Object)> {
    let mut mutants = Vec::new();
    for (index, program) in object.programs.iter().enumerate() {
        // Of deferred writes the file is looked at; the program does not run.
        if program.hook == durac_abi::Hook::Write && object.meta.defers_writes {
            continue;
        }
        for (slot, insn) in program.insns.iter().enumerate() {
            let mut put = |what: &str, to: Insn| {
                let mut mutant = object.clone();
                mutant.programs[index].insns[slot] = to;
                mutants.push((format!("{} slot {slot}: {what}", program.hook), mutant));
            };
            let looked_up =
                slot > 0 && program.insns[slot - 1] == Insn::call(durac_abi::Helper::MapLookup);
            let negated = Cond::of_opcode(insn.opcode).and_then(Cond::negate);
            if let (true, false, Some(negated)) = (insn.is_jump(), looked_up, negated) {
                let opcode = insn.opcode & !op::CODE_MASK | negated as u8;
                put("a condition negated", Insn { opcode, ..*insn });
            }
            let ends = program.insns.get(slot + 1) == Some(&Insn::exit());
            if ends
                && insn.dst == 0
                && insn.opcode == Insn::mov_imm(durac_abi::insn::Reg::R0, 0).opcode
                && insn.imm != 0
            {
                put("passes", Insn { imm: 0, ..*insn });
            }
            if *insn == Insn::call(durac_abi::Helper::Await) {
                put("does not wait", Insn::mov_imm(durac_abi::insn::Reg::R0, 0));
            }
        }
    }
    mutants
}

/// Steps are counted, and rounds without any are not made: a test comes to its end.
#[test]
fn repetitions_come_to_an_end() {
    let failed = |body: &str| {
        let text = format!("on fdatasync: defer\ntest \"a\" {{ {body} }}");
        let (_, tested) = tested("repeats", &text);
        failures(&tested).into_iter().map(|found| found.message).collect::<Vec<_>>()
    };
    let empty = "repeat 10000 { repeat 10000 { repeat 10000 { repeat 10000 { } } } }";
    assert_eq!(failed(empty), ["test `a`: more than 100000 steps"]);
    assert_eq!(
        failed("repeat 10000 { repeat 10000 { write } }"),
        ["test `a`: more than 100000 steps"]
    );
    assert!(failed("repeat 10000 { }; repeat 10000 { repeat 0 { write } }").is_empty());
}

#[test]
fn every_mutant_of_a_ready_policy_is_caught() {
    let mut caught = 0;
    for ready in durac_stdlib::POLICIES {
        let (mut sources, file) = load(ready.name, ready.text);
        let options = Options::new(ready.name);
        let compiled = durac_driver::compile(&mut sources, file, &options);
        let policy = compiled.analysis.policy.unwrap();
        let (tests, found) = test::check(&compiled.analysis.tree, &policy, &sources);
        assert!(found.is_empty());
        for (what, mutant) in mutants(&compiled.proved.unwrap().object) {
            let report = test::run(&mutant, &policy, &tests, &sources).unwrap();
            assert!(report.failed() > 0, "{}: no test notices {what}", ready.name);
            caught += 1;
        }
    }
    assert!(caught >= 12, "only {caught} mutants");
}

/// What a crash loses in a test, counted from the bytes, is never more than what was proved of the policy.
#[test]
fn no_test_loses_more_than_was_proved() {
    const STEPS: [&str; 10] = [
        "write 30 updates",
        "write",
        "fdatasync",
        "sync ends",
        "after 1ms",
        "after 7ms",
        "another file is synced",
        "child starts",
        "child ends",
        "write 4KiB",
    ];
    let mut kept = 0;
    for ready in durac_stdlib::POLICIES {
        let policy = ready.text.split("\ntest \"").next().unwrap();
        let options = Options::new(ready.name);
        let (mut sources, file) = load(ready.name, policy);
        let Some(proved) = durac_driver::compile(&mut sources, file, &options).proved else {
            continue;
        };
        let proof = &proved.proof;
        let limit = |most: Most, failure: &str| match most {
            Most::Count(most) => format!("{failure}: loses at most {most} syncs\n"),
            Most::Unbounded => String::new(),
        };
        let limits = limit(proof.syncs_by_default, "power_loss")
            + &limit(proof.process.syncs_by_default, "process_crash")
            + &limit(proof.updates_by_default, "power_loss").replace("syncs", "updates");
        for seed in 0..2 {
            let mut random = Random(seed);
            let mut steps = String::new();
            for _ in 0..40 {
                // Updates are counted where the target says how.
                let counted = !ready.text.contains("target posix.log");
                let next = match random.pick(&STEPS) {
                    "write 30 updates" if !counted => "write 2KiB",
                    next => next,
                };
                let more = format!("{steps}{next}\n{limits}");
                let text = format!("{policy}\ntest \"t\" {{\n{more}}}\n");
                let (mut sources, file) = load(ready.name, &text);
                let analysis = durac_core::analyse(&mut sources, file, &options.analysis());
                let policy = analysis.policy.unwrap();
                let (tests, found) = test::check(&analysis.tree, &policy, &sources);
                assert!(found.is_empty(), "{found:?}");
                let report = test::run(&proved.object, &policy, &tests, &sources).unwrap();
                match &report.results[0].failure {
                    None => {
                        steps = more;
                        kept += 1;
                    }
                    Some(found) => {
                        assert!(
                            !found.message.contains("loses"),
                            "{}: {found:#?}\n{more}",
                            ready.name
                        );
                    }
                }
            }
        }
    }
    assert!(kept > 300, "only {kept} steps");
}

fn snapshot(name: &str, text: &str) {
    let (sources, tested) = tested("t", text);
    let mut out = format!(
        "{text}\n--- found\n{}",
        render(&failures(&tested), &sources, Format::Human, false)
    );
    if let Some(report) = &tested.report {
        writeln!(out, "--- coverage").unwrap();
        for branch in &report.coverage.branches {
            let (line, column) = branch.from;
            write!(out, "{line}:{column}").unwrap();
            for ((line, column), taken) in branch.to.iter().zip(branch.taken) {
                let how = if taken { "taken" } else { "not taken" };
                write!(out, ", to {line}:{column} {how}").unwrap();
            }
            out.push('\n');
        }
    }
    insta::assert_snapshot!(name, out);
}

#[test]
fn what_is_said_of_failing_tests() {
    let policy = "param n: syncs = 2 in 1..=9\nstate slow: bool = false\non fdatasync {\n    slow = sync.latency > 5ms\n    \
                  if slow || child.active skip\n    await pending < n\n    defer\n}\nflush within 40ms\n";
    let case = |name: &str, steps: &str| {
        snapshot(
            name,
            &format!("{policy}test \"{name}\" {{\n    {}\n}}\n", steps.replace("; ", "\n    ")),
        );
    };
    case("other_outcome", "write; fdatasync -> skipped");
    case("waits", "write; fdatasync; write; fdatasync; write; fdatasync -> deferred");
    case("barrier", "fdatasync -> deferred");
    case("no_sync", "write; fdatasync; sync ends; sync ends");
    case(
        "too_early",
        "write; fdatasync; after 20ms; sync ends; write; fdatasync -> skipped; sync runs",
    );
    case("thread", "set n = 1; write; fdatasync; write; fdatasync; write");
    case("loss", "write 100B; fdatasync; after 3ms; power_loss: loses nothing");
    case("condition", "write; fdatasync; pending == 2 && !slow");
    case("error", "set n = 1; write; fdatasync; write; fdatasync; sync fails EIO -> deferred");
    case("never", "write; next sync fails EIO; fdatasync -> deferred");
    case("child", "child ends");
    case("nobody_waits", "write; fdatasync; after 20ms; sync ends -> deferred");
}

#[test]
fn what_is_said_of_impossible_tests() {
    let policy = "param n: syncs = 2 in 1..=9\nstate slow: bool = false\n\
                  on fdatasync { slow = sync.latency > 5ms; if slow skip; await pending < n; defer }\n";
    snapshot(
        "impossible",
        &format!(
            "{policy}test \"impossible\" {{\n    {}\n}}\ntest \"impossible\" {{}}\n",
            [
                "write -> deferred",
                "fdatasync -> staged",
                "reply -> deferred",
                "turn -> held",
                "fdatasync -> gathers",
                "barrier -> passed",
                "turn 0",
                "turn 3B",
                "reply 3",
                "ready == 3",
                "fdatasnyc -> passed",
                "write 0B",
                "write 3",
                "set m = 4",
                "set slow = true",
                "set n = 10",
                "sync fails EOI",
                "after 3",
                "another file is synced -> deferred",
                "power_loss: loses 3",
                "power_loss: loses slow",
                "pending",
                "pendng == 3",
                "wirte",
                "call.len == 3B",
                "now > 3s",
                "pending == 3ms",
            ]
            .join("\n    ")
        ),
    );
}
