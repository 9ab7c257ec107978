#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
use durac_grammar::Sources;
use durac_sim::{
    machine::*,
    model::{cells::*, explore::*, step::*},
};
fn go(name: &str, text: &str) {
    let mut sources = Sources::new();
    let file = sources.add(name, text);
    let a = durac_compiler::analyse(&mut sources, file, name);
    let (Some(policy), Some(loss)) = (a.policy, a.loss) else {
        println!("{name}: {:?}", a.diagnostics);
        return;
    };
    let Ok(object) = durac_compiler::compile(&policy, &sources, file) else {
        println!("{name}: no");
        return;
    };
    let t = std::time::Instant::now();
    let mut samples = vec![vec![]];
    for p in &policy.params {
        let mut out = vec![];
        for s in &samples {
            for v in [p.min, p.default, p.max] {
                let mut s: Vec<u64> = s.clone();
                s.push(v);
                out.push(s);
            }
        }
        samples = out;
    }
    let cells = cells(&policy, &samples);
    let mut machine = Machine::new(&object, Backend::Interpreter).unwrap();
    let rules = durac_engine::Rules {
        flush_within: object.meta.flush_within,
        keeps_age: reads(&object) & bit(durac_bpf::abi::Reading::PendingAge) != 0,
    };
    let mut st = Stepper::new(&mut machine, reads(&object), rules, &samples, &cells).unwrap();
    let th = cells.pending.iter().max().copied().unwrap_or(0);
    let limits = vec![Limit { syncs: vec![u64::MAX; samples.len()], broken: None }];
    let e = explore(&mut st, th, limits);
    println!(
        "{name}: {:?} +{:?} by {:?} tail {:?} faults {:?} nodes {} steps {} too large {} {:?} cells {:?} [{}]",
        e.lost,
        e.with_progress,
        e.by_params,
        e.tail,
        e.faults,
        e.nodes.len(),
        e.steps,
        e.too_large,
        t.elapsed(),
        cells,
        loss.text(&policy)
    );
    if let Some(b) = st.broken.take() {
        println!("BROKEN {b}");
    }
    if e.nodes.len() < 3000 {
        let w = e.worst;
        for (d, ev) in e.path(&mut st, w) {
            println!("   {d}: {ev:?}");
        }
    }
}
#[test]
fn scratch() {
    for p in durac_stdlib::POLICIES {
        go(p.name, p.text);
    }
    go("every4", "on fdatasync { every 4 calls { await all }\n skip }");
    go("every1000", "on fdatasync { every 1000 calls { await all }\n skip }");
    go("w4096", "on fdatasync: await pending < 4096; defer");
    go(
        "mix",
        "state k: count = 0\non fdatasync { k = k + 1\n if k >= 3 { k = 0\n pass }\n defer }",
    );
    go("one", "on fdatasync: await previous; if notify.done skip");
    go("pend", "on fdatasync { if pending < 5 { defer } }");
    go("pend4000", "on fdatasync { if pending < 4000 { defer } }");
}
