//! How many events of a trace are simulated in a second, on one processor.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use durac_abi::Object;
use durac_core::CompileOptions;
use durac_grammar::Sources;
use durac_simulate::application::{Application, ApplicationKind, EventLoop};
use durac_simulate::device::{Device, Measured};
use durac_simulate::{Options, simulate};

fn object(name: &str) -> Object {
    let ready = durac_stdlib::policy(name).unwrap();
    let mut sources = Sources::new();
    let file = sources.add(ready.file, ready.text);
    let policy =
        durac_core::analyse(&mut sources, file, &CompileOptions::new(name)).policy.unwrap();
    durac_core::compile(&policy, &sources, file, &CompileOptions::default()).unwrap()
}

/// Redis and redis-benchmark, about, and a device of 100 to 300 µs.
fn loads(criterion: &mut Criterion) {
    let syncs = (0..2000).map(|i| Measured::plain(100_000 + i * 100, 40_000));
    let device = Device::measured(&syncs.collect::<Vec<_>>(), "");
    for clients in [5, 50] {
        let kind = EventLoop {
            clients,
            command_bytes: 45,
            turn: 4_000,
            command: 3_000,
            reply: 6_000,
            cold: 10_000,
            client: 12_000,
        };
        let app = Application {
            kind: ApplicationKind::EventLoop(kind),
            cores: 2,
            full: false,
            wake_cost: 10_000,
            wake_delay: 35_000,
            children: Vec::new(),
            amount: 100_000,
        };
        let mut group = criterion.benchmark_group(format!("events of {clients} clients"));
        for name in ["always", "delayed_fsync", "window", "adaptive", "everysec"] {
            let object = object(name);
            let run = || simulate(&app, &device, &object, Options::default(), &mut |_| ()).unwrap();
            let report = run();
            // A call, the write before it, and the syncs.
            group.throughput(Throughput::Elements(2 * report.calls + report.syncs));
            group.bench_function(BenchmarkId::from_parameter(name), |bench| bench.iter(run));
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = loads
}
criterion_main!(benches);
