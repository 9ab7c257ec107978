//! The certificate: every ready policy with a finite bound has one, nothing that is changed is accepted unless its
//! bound still holds, and each fault of the checker is noticed.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common;
use crate::common::generator::{Kind, policy};
use crate::common::{Compiled, Random};
use durac_abi::Object;
use durac_abi::certificate::{Certificate, Form};
use durac_abi::insn::Insn;
use durac_abi::object::{Failure, Loss};
use durac_certify::{Flaw, Refused, bound, cell, check, check_with};
use durac_core::bounds::evaluate;
use durac_core::hir::Bound;
use durac_driver::Options;
use durac_driver::certificate::with_bound;
use durac_grammar::Sources;
use durac_prove::explore::Most;
use durac_prove::proof::{self, Method};
use std::collections::BTreeMap;

/// The windows of the ready policies, smaller: the same policies, explored sooner.
fn smaller(text: &str) -> String {
    let text = text.replace("64 in 1..=4096", "3 in 1..=4").replace("48 in 1..=1024", "3 in 1..=4");
    text.replace("1024", "4").replace("< 16", "< 2")
}

/// The object of a text with its note; none if it is refused or has no object.
fn proved(text: &str) -> Option<Object> {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let checked = durac_driver::compile(&mut sources, file, &Options::new("test"));
    checked.proved.map(|proved| proved.object)
}

/// An object that is compiled and not proved.
fn compiled(text: &str) -> Compiled {
    common::compile(text).unwrap_or_else(|| panic!("does not compile: {text}"))
}

/// The object, with a note that states so many sync calls.
fn stating(mut object: Object, syncs: u64) -> Object {
    let text = String::new();
    let (failure, within) = (Failure::PowerLoss, None);
    object.meta.loss =
        vec![Loss { failure, syncs: Some(syncs), within, updates: None, bytes: None, text }];
    object
}

fn set_syncs(object: &mut Object, syncs: u64) {
    let of_power = object.meta.loss.iter_mut().find(|loss| loss.failure == Failure::PowerLoss);
    of_power.unwrap().syncs = Some(syncs);
}

/// The certificate and what it shows, as a user sees it.
fn shown(object: &Object) -> String {
    let Some(certificate) = &object.meta.certificate else { return "none".to_owned() };
    let certified = check(object).unwrap();
    let cells: Vec<String> = certificate.cells.iter().map(|c| cell(&object.meta, c)).collect();
    assert_eq!(certified.bound, bound(&object.meta, certificate));
    format!("at most {}: {}", certified.bound, cells.join("; or "))
}

#[test]
fn ready_policies_have_certificates() {
    let mut all = String::new();
    for policy in durac_stdlib::POLICIES {
        if let Some(object) = proved(policy.text) {
            all.push_str(&format!("{}: {}\n", policy.name, shown(&object)));
        }
    }
    insta::assert_snapshot!(all, @"
    always: at most 0: lost <= 0
    delayed_fsync: at most 1: lost <= 1
    fast_notify: at most 1: lost <= 1
    window: at most n: lost <= n
    updates: none
    adaptive: at most 1024: lost <= 1024
    batch: at most size - 1: lost + 1 <= size
    batch_process: at most size: lost <= size
    everysec: none
    no: none
    at_least: none
    gathered: at most 0: lost <= 0
    external_synchrony: none
    clean_reads: none
    ");
}

/// Policies that keep a state, in order of what they need.
const STATEFUL: &[&str] = &[
    "on fdatasync: every 4 calls { await all }; skip",
    "state c: count = 0
     on fdatasync {
         if c >= 3 { await all
             c = 0
             skip }
         c = c + 1
         skip
     }",
    "state b: bool = false
     on fdatasync {
         if b { b = false
             await all
             skip }
         b = true
         skip
     }",
    "state fresh: bool = true
     on write { fresh = true
         pass }
     on fdatasync {
         if fresh { fresh = false
             await previous
             defer }
         pass
     }",
    "param n: count = 3 in 2..=4
     state c: count = 0
     on fdatasync {
         if c + 1 >= n { c = 0
             await all
             skip }
         c = c + 1
         skip
     }",
];

#[test]
fn state_is_followed() {
    let mut all = String::new();
    for hooks in STATEFUL {
        let text = on_redis(hooks);
        let object = proved(&text).unwrap_or_else(|| panic!("{:?}", common::found(&text)));
        let stated = object.meta.loss.iter().find(|l| l.failure == Failure::PowerLoss).unwrap();
        all.push_str(&format!("{:?} stated, {}\n", stated.syncs, shown(&object)));
    }
    insta::assert_snapshot!(all, @"
    Some(3) stated, at most 3: lost <= _every0 and _every0 <= 3
    Some(3) stated, at most 3: lost <= 3 and lost <= c
    Some(1) stated, at most 1: lost <= 1 and lost <= b
    Some(1) stated, at most 1: lost <= 1
    Some(2) stated, at most n - 1: lost + 1 <= n and lost <= c and c <= 3
    ");
}

fn on_redis(hooks: &str) -> String {
    format!("policy test\ntarget redis.aof\n{hooks}\nflush within 1s\n")
}

// ---- what is changed ----

/// The ready policies that have a certificate, as they are and smaller.
fn certified() -> Vec<(&'static str, Object)> {
    let mut all = Vec::new();
    for policy in durac_stdlib::POLICIES {
        for text in [policy.text.to_owned(), smaller(policy.text)] {
            let object = proved(&text).filter(|object| object.meta.certificate.is_some());
            all.extend(object.map(|object| (policy.name, object)));
        }
    }
    assert!(all.len() >= 14, "{}", all.len());
    all
}

#[test]
fn another_bound_is_refused() {
    for (name, object) in certified() {
        let stated = check(&object).unwrap().syncs;
        for other in [stated.wrapping_sub(1), stated + 1, 0, u64::MAX] {
            let mut changed = object.clone();
            set_syncs(&mut changed, other);
            if other != stated {
                assert!(matches!(check(&changed), Err(Refused::Bound { .. })), "{name}: {other}");
            }
        }
        // In the note and in the certificate alike: the bound is tight, so one less does not hold.
        let mut changed = object.clone();
        set_syncs(&mut changed, stated.wrapping_sub(1));
        for form in &mut changed.meta.certificate.as_mut().unwrap().bound {
            form.constant -= 1;
        }
        assert!(check(&changed).is_err(), "{name}");
        for cell in &mut changed.meta.certificate.as_mut().unwrap().cells {
            cell.iter_mut().for_each(|form| form.constant -= 1);
        }
        assert!(check(&changed).is_err(), "{name}");
        let mut changed = object.clone();
        changed.meta.loss.clear();
        assert!(check(&changed).is_err(), "{name}");
        changed.meta.certificate = None;
        assert_eq!(check(&changed), Err(Refused::None));
    }
}

/// A counter that counts how often others are full.
#[test]
fn nested_counters_have_one() {
    for hooks in [
        "on fdatasync: every 900 calls { every 800 calls { await all } }; skip",
        "state c: count = 0
         state d: count = 0
         on fdatasync {
             c = c + 1
             if c >= 9 { c = 0
                 d = d + 1
                 if d >= 8 { d = 0
                     await all } }
             skip
         }",
    ] {
        let object = proved(&on_redis(hooks)).unwrap();
        assert!(object.meta.certificate.is_some(), "{hooks}");
    }
}

#[test]
fn another_invariant_is_refused() {
    for (name, object) in certified() {
        let certificate = object.meta.certificate.clone().unwrap();
        for (place, forms) in certificate.cells.iter().enumerate() {
            for index in 0..forms.len() {
                let changes: [fn(&mut Form); 7] = [
                    |form| form.constant += 1,
                    |form| form.constant -= 1,
                    |form| form.lost = 0,
                    |form| form.lost = 1,
                    |form| form.lost -= 1,
                    |form| form.state.push(1),
                    |form| form.params.push(1),
                ];
                for (number, change) in changes.into_iter().enumerate() {
                    let mut changed = object.clone();
                    let cells = &mut changed.meta.certificate.as_mut().unwrap().cells;
                    change(&mut cells[place][index]);
                    // Nothing is lost twice over, too.
                    let same = number == 4 && certificate.bound == [Form::default()];
                    assert_eq!(check(&changed).is_ok(), same, "{name}: change {number}");
                }
            }
        }
        for cells in [vec![], vec![vec![]], vec![vec![Form { constant: -1, ..Form::default() }]]] {
            let mut changed = object.clone();
            changed.meta.certificate.as_mut().unwrap().cells = cells;
            assert!(check(&changed).is_err(), "{name}");
        }
    }
}

#[test]
fn a_wider_range_is_refused_or_bounded() {
    let object = proved(durac_stdlib::policy("batch").unwrap().text).unwrap();
    let mut changed = object.clone();
    // `size - 1` is no bound of a loss then.
    changed.meta.params[0].min = 0;
    assert!(check(&changed).is_err());
    changed.meta.params[0].min = 50;
    assert_eq!(check(&changed), Err(Refused::Malformed));
    // A bound in terms of the parameter holds for every range of it.
    let object = proved(durac_stdlib::policy("window").unwrap().text).unwrap();
    let mut changed = object.clone();
    changed.meta.params[0].max = u64::MAX;
    assert!(check(&changed).is_ok());
    let constant = Certificate {
        bound: vec![Form { constant: 64, ..Form::default() }],
        cells: vec![vec![Form { constant: 64, lost: -1, ..Form::default() }]],
    };
    changed.meta.certificate = Some(constant);
    changed.meta.params[0].max = 64;
    assert!(check(&changed).is_ok());
    changed.meta.params[0].max = 65;
    assert!(check(&changed).is_err());
}

/// Every small change of an instruction.
fn mutants(insn: Insn) -> Vec<Insn> {
    let mut all: Vec<Insn> =
        (0..8).map(|bit| Insn { opcode: insn.opcode ^ 1 << bit, ..insn }).collect();
    all.extend(
        [0x10, 0x20, 0x30, 0x50, 0xa0, 0xb0]
            .map(|code| Insn { opcode: insn.opcode & 0xf | code, ..insn }),
    );
    all.extend((0..10).map(|dst| Insn { dst, ..insn }));
    all.extend((0..10).map(|src| Insn { src, ..insn }));
    all.extend(
        [-8, -4, -1, 1, 2, 8, 16].map(|by| Insn { offset: insn.offset.wrapping_add(by), ..insn }),
    );
    all.extend([-2, -1, 1, 2, 3, 100].map(|by| Insn { imm: insn.imm.wrapping_add(by), ..insn }));
    all.push(Insn { imm: -5, ..insn });
    all.retain(|mutant| *mutant != insn);
    all
}

/// Most sync calls by the certificate, whatever the parameters.
fn greatest(object: &Object) -> u64 {
    let of = |form: &Form| {
        let most = |(factor, param): (&i64, &durac_abi::object::Param)| {
            let end = if *factor > 0 { param.max } else { param.min };
            i128::from(*factor) * i128::from(end)
        };
        let params: i128 = form.params.iter().zip(&object.meta.params).map(most).sum();
        i128::from(form.constant) + params
    };
    let forms = &object.meta.certificate.as_ref().unwrap().bound;
    u64::try_from(forms.iter().map(of).max().unwrap()).unwrap()
}

#[test]
fn a_changed_program_is_refused_or_keeps_the_bound() {
    let mut texts: Vec<String> = durac_stdlib::POLICIES.iter().map(|p| smaller(p.text)).collect();
    texts.extend(STATEFUL.iter().map(|hooks| on_redis(hooks)));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts {
        let Some(object) = proved(&text).filter(|o| o.meta.certificate.is_some()) else { continue };
        let policy = compiled(&text).policy;
        for (place, program) in object.programs.iter().enumerate() {
            for (slot, insn) in program.insns.iter().enumerate() {
                for mutant in mutants(*insn) {
                    let mut changed = object.clone();
                    changed.programs[place].insns[slot] = mutant;
                    *counts.entry("all").or_default() += 1;
                    if check(&changed).is_err() {
                        continue;
                    }
                    *counts.entry("accepted").or_default() += 1;
                    // Every loader refuses it, too.
                    if durac_verify::verify(&changed).is_err() {
                        *counts.entry("never loaded").or_default() += 1;
                        continue;
                    }
                    let Ok(found) = proof::prove(&policy, &changed, &proof::Options::default())
                    else {
                        continue;
                    };
                    // What is derived is derived from the text, and not from this program.
                    if found.method == Method::Derived {
                        continue;
                    }
                    *counts.entry("judged").or_default() += 1;
                    let most = Most::Count(greatest(&changed));
                    assert!(
                        found.syncs <= most,
                        "{text}: slot {slot}: {mutant:?}: {:?}",
                        found.syncs
                    );
                }
            }
        }
    }
    println!("{counts:?}");
    assert!(counts["all"] > 3000 && counts["judged"] > 50, "{counts:?}");
    // What a loader takes is judged.
    assert_eq!(counts["judged"] + counts["never loaded"], counts["accepted"], "{counts:?}");
}

// ---- what does not hold ----

/// The limit of a guarantee in syncs.
fn limit(bound: &Bound) -> Option<u64> {
    match bound {
        Bound::Nothing => Some(0),
        Bound::Syncs(expr) => evaluate(expr, &[]),
        _ => None,
    }
}

#[test]
fn no_false_bound_gets_a_certificate() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let kept = text.contains("// expect: kept");
        if text.contains("// runtime: bpftime") {
            continue;
        }
        let Some(Compiled { policy, object }) = common::compile(&text) else { continue };
        for guarantee in policy.guarantees.iter().filter(|g| g.failure == Failure::PowerLoss) {
            let Some(syncs) = limit(&guarantee.bound) else { continue };
            let form = Form { constant: i64::try_from(syncs).unwrap(), ..Form::default() };
            let found = with_bound(&stating(object.clone(), syncs), &[form]);
            tried += usize::from(!kept);
            assert!(kept || found.is_none(), "{text}{found:?}");
        }
    }
    assert!(tried >= 12, "only {tried}");
}

/// A fact: `constant + lost + state + params >= 0`.
fn fact(constant: i64, lost: i64, state: &[i64], params: &[i64]) -> Form {
    Form { constant, lost, state: state.to_vec(), params: params.to_vec() }
}

/// A certificate of a bound that does not hold, and the fault of the checker that would accept it.
fn wrong(flaw: Flaw) -> Vec<(String, u64, Vec<Vec<Form>>)> {
    let at_most = |most| vec![vec![fact(most, -1, &[], &[])]];
    let simple = |hooks: &str, most: u64| (on_redis(hooks), most, at_most(most as i64));
    match flaw {
        Flaw::None => vec![],
        Flaw::SkipsAPath => vec![
            simple("on fdatasync: if child.active { skip } else { pass }", 0),
            simple("on fdatasync: if child.active { pass } else { skip }", 0),
        ],
        Flaw::WaitPromisesOneMore => vec![simple("on fdatasync: await pending < 3; defer", 2)],
        Flaw::PendingCountsThisCall => {
            vec![simple("on fdatasync: if pending < 3 { skip } else { pass }", 2)]
        }
        Flaw::OwnCallIsDurable => {
            vec![simple("on fdatasync: if pending < 3 { skip } else { pass }", 2)]
        }
        Flaw::ParametersStay => {
            let hooks = "param fast: bool = false
                state was: bool = false
                on fdatasync {
                    if fast { was = true
                        await all
                        skip }
                    if was { skip }
                    await previous
                    defer
                }";
            let fast = vec![fact(-1, 0, &[], &[1]), fact(0, -1, &[], &[])];
            let slow = vec![fact(0, 0, &[], &[-1]), fact(0, 0, &[-1], &[]), fact(1, -1, &[], &[])];
            vec![(on_redis(hooks), 1, vec![fast, slow])]
        }
        Flaw::CallersTakeTurns => {
            let cell = vec![fact(0, -1, &[1], &[]), fact(3, 0, &[-1], &[])];
            let text = on_redis("on fdatasync: every 4 calls { await all }; skip");
            vec![(text.replace("redis.aof", "posix.log"), 3, vec![cell])]
        }
        Flaw::BeginsAnywhere => {
            let hooks = "state c: count = 0
                on fdatasync: if c > 3 { pass } else { skip }";
            vec![(on_redis(hooks), 0, vec![vec![fact(-4, 0, &[1], &[]), fact(0, -1, &[], &[])]])]
        }
        Flaw::StagesAll => {
            let hooks = "on write: if call.len > 100B { pass } else { stage }
                on fdatasync: if staged < 3 { skip } else { pass }";
            vec![simple(hooks, 2)]
        }
        Flaw::ErrorsUndo => {
            let hooks = "state c: count = 0
                on fdatasync {
                    if c >= 3 { c = 0
                        fail EIO }
                    c = c + 1
                    skip
                }";
            vec![(on_redis(hooks), 3, vec![vec![fact(0, -1, &[1], &[]), fact(3, 0, &[-1], &[])]])]
        }
        Flaw::NeverWraps => {
            let hooks = "state c: count = 0
                on fdatasync {
                    c = c + 9223372036854775807 + 1
                    if c > 0 { pass } else { skip }
                }";
            vec![simple(hooks, 0)]
        }
    }
}

#[test]
fn every_fault_of_the_checker_is_noticed() {
    let flaws = [
        Flaw::SkipsAPath,
        Flaw::WaitPromisesOneMore,
        Flaw::PendingCountsThisCall,
        Flaw::OwnCallIsDurable,
        Flaw::ParametersStay,
        Flaw::CallersTakeTurns,
        Flaw::BeginsAnywhere,
        Flaw::StagesAll,
        Flaw::ErrorsUndo,
        Flaw::NeverWraps,
    ];
    for flaw in flaws {
        let mut noticed = false;
        for (text, most, cells) in wrong(flaw) {
            let mut object = stating(compiled(&text).object, most);
            let bound = vec![fact(most as i64, 0, &[], &[])];
            object.meta.certificate = Some(Certificate { bound, cells });
            // State says nothing where calls overlap, so there a certificate must not speak of it.
            let refused = check(&object).unwrap_err();
            let wanted = matches!(refused, Refused::Condition { .. } | Refused::Malformed);
            assert!(wanted, "{flaw:?}: {refused}");
            noticed |= check_with(&object, flaw).is_ok();
        }
        assert!(noticed, "{flaw:?} makes no difference");
    }
}

#[test]
fn random_policies_get_no_bound_below_what_was_reached() {
    let (mut tight, mut shown, mut unbounded) = (0, 0, 0);
    let mut random = Random(0x5eed_0007);
    for _ in 0..150 {
        let mut coin = || random.below(2) == 0;
        let kind = Kind { hooks: coin(), wide: coin(), counters: coin() };
        let body = policy(&mut random, kind);
        let text = format!("target redis.aof\n{body}\n");
        let Some(Compiled { policy, object }) = common::compile(&text) else { continue };
        let options = proof::Options { states: 3000, ..proof::Options::default() };
        let proof = proof::prove(&policy, &object, &options).unwrap();
        let shows = |syncs: u64| {
            let form = Form { constant: i64::try_from(syncs).unwrap(), ..Form::default() };
            with_bound(&stating(object.clone(), syncs), &[form]).is_some()
        };
        match proof.syncs {
            Most::Count(most) if proof.exact => {
                for less in (0..most).rev().take(2) {
                    assert!(!shows(less), "{text}: {less} of {most}");
                }
                tight += 1;
                shown += usize::from(shows(most));
            }
            Most::Unbounded if proof.method != Method::Derived => {
                for some in [0, 1, 3, 8] {
                    assert!(!shows(some), "{text}: {some}, and it is unbounded");
                }
                unbounded += 1;
            }
            _ => {}
        }
    }
    assert!(tight > 25 && unbounded > 25, "{tight}, {unbounded}");
    assert!(3 * shown > tight, "{shown} of {tight}");
}

/// Valkey's log is Redis': every ready policy compiles for it, and the same is proved.
#[test]
fn ready_policies_are_proved_for_valkey_too() {
    let compile = |policy: &durac_stdlib::Text, target: Option<&str>| {
        let mut sources = durac_grammar::Sources::new();
        let file = sources.add(policy.file, policy.text);
        let options = durac_driver::Options { target, ..durac_driver::Options::new(policy.name) };
        let compiled = durac_driver::compile(&mut sources, file, &options);
        compiled
            .proved
            .unwrap_or_else(|| panic!("{}: {:?}", policy.name, compiled.analysis.diagnostics))
            .object
    };
    let of_redis = |policy: &&durac_stdlib::Text| !policy.text.contains("target posix.log");
    for policy in durac_stdlib::POLICIES.iter().filter(of_redis) {
        let (redis, valkey) = (compile(policy, None), compile(policy, Some("valkey.aof")));
        assert_eq!((&*redis.meta.target, &*valkey.meta.target), ("redis.aof", "valkey.aof"));
        assert_eq!(redis.meta.loss, valkey.meta.loss, "{}", policy.name);
        assert_eq!(redis.meta.files, valkey.meta.files, "{}", policy.name);
    }
}
