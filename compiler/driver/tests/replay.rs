//! The simulator keeps what the policies promise, whatever the application and the device do.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common;
use crate::common::generator;
use durac_abi::Object;
use durac_core::CompileOptions;
use durac_grammar::Sources;
use durac_prove::explore::Most;
use durac_simulate::application::{Application, ApplicationKind, EventLoop, Threads, Work};
use durac_simulate::device::{Device, Measured, Preset};
use durac_simulate::fit::fit;
use durac_simulate::random::Random;
use durac_simulate::report::{Lane, PolicyReport};
use durac_simulate::trace::Collector;
use durac_simulate::{Options, Simulation, simulate};
use durac_trace::{End, Event, Header, Op, Recorded};

/// Compiles a policy: a ready one by name, or a text.
fn object(policy: &str, sets: &[&str]) -> Object {
    let ready = durac_stdlib::policy(policy);
    let mut sources = Sources::new();
    let file = sources.add("policy.dur", ready.map_or(policy, |ready| ready.text));
    let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new("policy"));
    let mut policy = analysis.policy.unwrap();
    sets.iter().for_each(|set| durac_core::set::set(&mut policy, set).unwrap());
    durac_core::compile(&policy, &sources, file, &CompileOptions::default()).unwrap()
}

fn application(kind: ApplicationKind, amount: u64) -> Application {
    Application {
        kind,
        cores: 2,
        full: false,
        wake_cost: 10_000,
        wake_delay: 35_000,
        children: Vec::new(),
        amount,
    }
}

/// Redis and redis-benchmark, about.
fn event_loop(clients: u32, amount: u64) -> Application {
    let kind = EventLoop {
        clients,
        command_bytes: 45,
        turn: 4_000,
        command: 3_000,
        reply: 6_000,
        cold: 10_000,
        client: 12_000,
    };
    application(ApplicationKind::EventLoop(kind), amount)
}

/// Threads that write logs, two to a log.
fn threads(count: usize, amount: u64) -> Application {
    let work = (0..7).map(|i| Work { cpu: 5_000 * i, pause: 20_000 * (i % 3), bytes: 100 + i });
    let logs = (0..count).map(|thread| thread / 2).collect();
    application(ApplicationKind::Threads(Threads { logs, work: work.collect() }), amount)
}

/// Syncs between 50 µs and 5 ms.
fn device(random: &mut Random) -> Device {
    let syncs = (0..200).map(|_| {
        let octave = 10 + random.below(13);
        let took = 50_000 + random.below(1 << octave);
        Measured { grew: random.below(2) == 0, ..Measured::plain(took, 40_000) }
    });
    Device::measured(&syncs.collect::<Vec<_>>(), "")
}

fn run(app: &Application, device: &Device, object: &Object, seed: u64) -> PolicyReport {
    let options = Options { seed, crashes: None };
    simulate(app, device, object, options, &mut |_| ()).unwrap()
}

/// An application of any kind and size.
fn any(random: &mut Random) -> Application {
    let amount = 300 + random.below(2000);
    let mut app = match random.below(3) {
        0 => threads(1 + random.below(9) as usize, amount),
        _ => event_loop(1 + random.below(60) as u32, amount),
    };
    app.cores = 1 + random.below(4) as u32;
    app.wake_delay = random.below(100_000);
    app.full = random.below(4) == 0;
    app.children = vec![(amount / 3, true), (amount / 2, false)];
    if let ApplicationKind::EventLoop(kind) = &mut app.kind {
        kind.client = 1 + random.below(100_000);
        kind.command = random.below(20_000);
        kind.reply = 1 + random.below(20_000);
    }
    app
}

#[test]
fn held_replies_show_clients_nothing_that_a_crash_takes() {
    let mut random = Random::new(16);
    let held = [
        object("external_synchrony", &[]),
        object("on fdatasync: await pending < 4; defer\non reply: hold until durable\n", &[]),
        object("on write: stage\non fdatasync: defer\non reply: hold until durable\n", &[]),
    ];
    let (window, mut taken, mut seen) = (object("window", &[]), 0, 0);
    for round in 0..40 {
        let mut app = any(&mut random);
        while matches!(app.kind, ApplicationKind::Threads(_)) {
            app = any(&mut random);
        }
        let device = device(&mut random);
        for object in &held {
            let report = run(&app, &device, object, round);
            assert!(report.loss.worst.seen == 0.0, "{}: {app:?}", object.meta.policy);
            taken += u32::from(report.loss.worst.commands > 0.0);
        }
        // Where nothing is held, clients see what is lost.
        seen += u32::from(run(&app, &device, &window, round).loss.worst.seen > 0.0);
    }
    assert!(taken > 60 && seen > 20, "{taken} {seen}");
}

#[test]
fn gathered_turns_share_syncs_and_lose_nothing() {
    let mut app = event_loop(5, 4_000);
    app.wake_delay = 2_000;
    if let ApplicationKind::EventLoop(kind) = &mut app.kind {
        kind.client = 4_000;
    }
    let device = Device::measured(&[Measured::plain(300_000, 40_000); 200], "");
    let gather = |when: &str| {
        let text = format!("on turn {{ {when} {{ gather within 200us }} }}\non fdatasync: pass\n");
        run(&app, &device, &object(&text, &[]), 1)
    };
    let always = run(&app, &device, &object("always", &[]), 1);
    let (all, none) = (gather("if ready < 5"), gather("if ready < 1"));
    assert!(all.syncs < always.syncs, "{} {}", all.syncs, always.syncs);
    assert!(all.loss.worst.syncs == 0.0 && all.loss.worst.seen == 0.0);
    assert_eq!((none.syncs, none.seconds), (always.syncs, always.seconds));
}

#[test]
fn no_simulated_loss_is_above_the_bound() {
    let mut random = Random::new(2026);
    let fixed = [("always", 0), ("delayed_fsync", 1), ("fast_notify", 1), ("adaptive", 1024)];
    for round in 0..60 {
        let (app, device) = (any(&mut random), device(&mut random));
        let n = 1 + random.below(100);
        let mut policies: Vec<(Object, u64)> =
            fixed.iter().map(|(name, bound)| (object(name, &[]), *bound)).collect();
        policies.push((object("window", &[&format!("n={n}")]), n));
        for (object, bound) in policies {
            let report = run(&app, &device, &object, round);
            // Each log has a bound of its own.
            let bound = bound * app.logs() as u64;
            let name = &object.meta.policy;
            assert!(report.loss.worst.syncs <= bound as f64, "{name} n={n}: {app:?}");
            assert_eq!(report.loss.crashes, report.calls + report.syncs, "{name}");
        }
    }
}

#[test]
fn random_policies_lose_no_more_than_was_proved() {
    let mut random = Random::new(0x5eed_0003);
    let mut texts = common::Random(0x5eed_0003);
    let (mut policies, mut bounded, mut reached) = (0, 0, 0);
    while policies < 100 {
        let kind = generator::Kind { wide: policies % 2 == 0, ..generator::Kind::HOOKS };
        let text = generator::policy(&mut texts, kind);
        let Some(compiled) = common::compile(&text) else { continue };
        policies += 1;
        let Most::Count(bound) = common::proof_of(&compiled).syncs else { continue };
        bounded += 1;
        let mut most = 0.0_f64;
        for seed in 0..3 {
            let (mut app, device) = (any(&mut random), device(&mut random));
            if let ApplicationKind::Threads(threads) = &mut app.kind {
                // The proof is of a log that one thread writes (docs/proof.md).
                threads.logs = (0..threads.logs.len()).collect();
            }
            let report = run(&app, &device, &compiled.object, seed);
            let bound = bound * app.logs() as u64;
            assert!(report.loss.worst.syncs <= bound as f64, "{text}\n{app:?}");
            most = most.max(report.loss.worst.syncs / app.logs() as f64);
        }
        reached += u64::from(most == bound as f64);
    }
    // Bounds that no run comes near would make this test worth little.
    assert!(bounded > 20 && reached * 2 > bounded, "{reached} of {bounded} bounds were reached");
}

#[test]
fn a_deadline_bounds_the_age() {
    let mut random = Random::new(7);
    let device = device(&mut random);
    for (policy, within) in [("everysec", 1e9), ("window", 50e6)] {
        let report = run(
            &event_loop(5, 200_000),
            &device,
            &object(policy, &["n=4096"][..usize::from(policy == "window")]),
            1,
        );
        // One sync of 5 ms may be under way, and the syncer has to wake up.
        assert!(report.loss.worst.age_ns <= within + 10e6, "{policy}: {:?}", report.loss.worst);
        assert!(report.loss.worst.age_ns > within / 20.0, "{policy}: {:?}", report.loss.worst);
    }
}

#[test]
fn whatever_was_acknowledged_is_durable_after_a_drain() {
    let mut random = Random::new(11);
    for policy in ["always", "delayed_fsync", "window", "adaptive", "everysec", "no"] {
        let (app, device, object) = (any(&mut random), device(&mut random), object(policy, &[]));
        let mut simulation = Simulation::new(&app, &device, &object, 5, None).unwrap();
        simulation.run(&mut |_| ()).unwrap();
        simulation.drain();
        for place in &simulation.places {
            assert_eq!(place.log.unsynced(), 0, "{policy}");
            assert_eq!(place.log.pending_bytes(), 0, "{policy}");
            assert_eq!(place.log.written(), place.written, "{policy}");
            assert_eq!(place.log.error(), None, "{policy}");
        }
    }
}

#[test]
fn the_seed_decides() {
    let device = device(&mut Random::new(1));
    let (app, object) = (event_loop(5, 5_000), object("window", &["n=4"]));
    let reports = [3, 3, 4].map(|seed| run(&app, &device, &object, seed));
    assert_eq!(reports[0], reports[1]);
    assert_ne!(reports[0].seconds, reports[2].seconds);
}

#[test]
fn crashes_at_random_instants() {
    let device = device(&mut Random::new(1));
    let (app, object) = (event_loop(5, 5_000), object("window", &["n=16"]));
    let options = Options { seed: 3, crashes: Some(500) };
    let random = simulate(&app, &device, &object, options, &mut |_| ()).unwrap();
    let every = run(&app, &device, &object, 3);
    assert_eq!(random.loss.crashes, 500);
    assert_eq!(random.seconds, every.seconds);
    assert!(random.loss.worst.syncs <= every.loss.worst.syncs);
    assert!(random.loss.mean.syncs > 0.0);
}

#[test]
fn the_worst_crash_has_a_timeline() {
    let device = device(&mut Random::new(1));
    let report = run(&event_loop(5, 5_000), &device, &object("window", &["n=16"]), 3);
    let instant = report.loss.worst_instant.unwrap();
    assert_eq!(report.loss.worst.syncs, 16.0);
    assert!(instant.text.starts_with("call "), "{}", instant.text);
    let around = &report.timeline;
    assert!(around.iter().any(|e| e.start_ns <= instant.t_ns));
    assert!(around.iter().any(|e| e.start_ns >= instant.t_ns));
    for lane in [Lane::Application, Lane::Engine, Lane::Disk] {
        assert!(around.iter().any(|event| event.lane == lane), "{lane:?}");
    }
    assert!(around.iter().all(|event| event.start_ns <= event.end_ns));
    assert!(around.is_sorted_by_key(|event| event.start_ns));
}

#[test]
fn a_slower_device_never_makes_a_policy_that_waits_faster() {
    for policy in ["always", "delayed_fsync"] {
        let speed = |preset| {
            let report =
                run(&event_loop(5, 3_000), &Device::preset(preset), &object(policy, &[]), 1);
            report.commands_per_second.unwrap()
        };
        let order = [Preset::Disk, Preset::SataSsd, Preset::Nvme, Preset::NvmePlp].map(speed);
        assert!(order.is_sorted(), "{policy}: {order:?}");
    }
}

#[test]
fn a_program_is_run_again_up_to_its_wait() {
    // Two waits and a state variable between them: the second must see what the first left.
    let text = "policy twice\ntarget redis.aof\nstate seen: count = 0\n\
                on fdatasync { await pending < 8; seen = seen + 1; await pending < 4; defer }\n";
    let device = device(&mut Random::new(1));
    let object = object(text, &[]);
    let mut app = event_loop(5, 2_000);
    for seed in 0..5 {
        app.wake_delay = 1 + seed * 20_000;
        let mut simulation = Simulation::new(&app, &device, &object, seed, None).unwrap();
        simulation.run(&mut |_| ()).unwrap();
        let place = &simulation.places[0];
        assert_eq!(place.state, [place.log.calls()]);
        let report = simulation.seen.report(1, None);
        assert!(report.loss.worst.syncs <= 4.0);
    }
}

#[test]
fn a_policy_that_fails_calls_says_so() {
    let text = "policy refuses\ntarget redis.aof\non fdatasync: fail EIO\n";
    let device = device(&mut Random::new(1));
    let report = run(&event_loop(5, 50), &device, &object(text, &[]), 1);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert_eq!(report.loss.worst.syncs, 0.0);
}

#[test]
fn a_trace_may_say_anything() {
    let mut random = Random::new(99);
    let ops = [Op::Write, Op::Fdatasync, Op::Fsync, Op::Sync, Op::Fork, Op::Reap, Op::Open];
    let (mut ran, mut lost) = (0, 0);
    for round in 0..200 {
        let mut collector = Collector::new(Header::new(Recorded::default()));
        let mut t = 0_u64;
        let wild = |random: &mut Random| random.bits() >> random.below(64);
        for _ in 0..random.below(60) {
            t = t.saturating_add(random.bits() >> (1 + random.below(63)));
            collector.add(&Event {
                t,
                op: ops[random.below(7) as usize],
                log: random.below(3) as u32,
                thread: random.below(3) as u32,
                took: wild(&mut random),
                cpu: wild(&mut random),
                sync_cpu: wild(&mut random),
                bytes: wild(&mut random),
                result: i32::from(random.below(9) == 0),
                ..Event::default()
            });
        }
        let Ok(trace) = collector.finish(End::default()) else { continue };
        let always = object("always", &[]);
        let mut fitted = fit(&trace, Some(&always), (round % 2 == 0).then_some(3));
        fitted.application.amount = fitted.application.amount.min(100);
        for (policy, sets, bound) in
            [("always", &[][..], Some(0)), ("window", &["n=5"], Some(5)), ("everysec", &[], None)]
        {
            let report = run(&fitted.application, &fitted.device, &object(policy, sets), round);
            let worst = report.loss.worst.syncs;
            let most = bound.map(|bound| bound * fitted.application.logs() as u64);
            assert!(most.is_none_or(|most| worst <= most as f64), "{policy} {round}: {worst}");
            lost += u32::from(worst > 0.0);
        }
        ran += 1;
    }
    // Most can be fitted, and some of them defer.
    println!("{ran} ran, {lost} lost something");
    assert!(ran >= 100 && lost >= 20, "{ran} {lost}");
}
