//! A report as `durac simulate` makes it, of a made-up recording: for the tests of the page, and to
//! look at.

use durac_abi::object::Loss;
use durac_core::CompileOptions;
use durac_grammar::Sources;
use durac_simulate::application::{Application, ApplicationKind, EventLoop};
use durac_simulate::device::{Device, Measured};
use durac_simulate::report::{
    ApplicationFacts, CrashChoice, DeviceFacts, LeftOut, Parameter, PolicyReport, Report,
    TraceFacts, VERSION,
};
use durac_simulate::{Options, simulate};

/// A ready policy, and what `durac check` says of a power loss: its proof takes longer than the
/// simulation.
struct Sample {
    name: &'static str,
    set: &'static str,
    syncs: Option<u64>,
    within: Option<u64>,
    text: &'static str,
}

const fn sample(
    name: &'static str,
    set: &'static str,
    syncs: Option<u64>,
    within: Option<u64>,
    text: &'static str,
) -> Sample {
    Sample { name, set, syncs, within, text }
}

const MS: u64 = 1_000_000;
const POLICIES: [Sample; 9] = [
    sample("always", "", Some(0), Some(0), "nothing"),
    sample("delayed_fsync", "", Some(1), None, "at most 1 sync"),
    sample("fast_notify", "", Some(1), None, "at most 1 sync"),
    sample("window", "n=4", Some(4), Some(50 * MS), "at most n syncs (4 by default) and 50ms"),
    sample("window", "n=16", Some(16), Some(50 * MS), "at most n syncs (16 by default) and 50ms"),
    sample("window", "n=64", Some(64), Some(50 * MS), "at most n syncs (64 by default) and 50ms"),
    sample("adaptive", "", Some(1024), None, "at most 1024 syncs"),
    sample("everysec", "", None, Some(1000 * MS), "any number of syncs of the last 1s"),
    sample("no", "", None, None, "any number of syncs"),
];

const CLIENTS: u32 = 5;
const COMMAND_BYTES: u64 = 118;

/// The report: 9 policies, at least 30,000 commands of 5 clients under each.
pub fn report() -> Report {
    let device = device();
    Report {
        version: VERSION,
        trace: TraceFacts {
            file: "redis-set.json".to_owned(),
            events: 61_240,
            dropped: 0,
            started: 1_795_525_751,
            seconds: 3.4,
            calls: 17_320,
            policy: "always".to_owned(),
            target: "redis.aof".to_owned(),
            command: ["redis-server", "--appendonly", "yes", "--appendfsync", "always"]
                .map(str::to_owned)
                .to_vec(),
            cores: 2,
            calls_per_second: 4_688.0,
            commands_per_second: Some(11_480.0),
        },
        application: ApplicationFacts {
            kind: "event loop".to_owned(),
            clients: CLIENTS,
            command_bytes: Some(COMMAND_BYTES),
            parameters: [
                ("work of a turn", 6_100, "fitted"),
                ("work of a command", 2_400, "fitted"),
            ]
            .map(|(name, ns, source)| Parameter {
                name: name.to_owned(),
                ns,
                source: source.to_owned(),
            })
            .to_vec(),
        },
        device: DeviceFacts::of(&device),
        seed: 1,
        crashes: CrashChoice::EveryEvent,
        policies: POLICIES.map(|sample| policy(&sample, &device)).to_vec(),
        left_out: vec![LeftOut {
            name: "external_synchrony".to_owned(),
            why: "`hold` is not compiled by this version".to_owned(),
        }],
        notes: Vec::new(),
    }
}

/// A sync takes 150 µs, one in a hundred ten times as long.
fn device() -> Device {
    let durations = (0..2000).map(|i| if i % 100 == 99 { 1_500_000 + i } else { 130_000 + 20 * i });
    let syncs: Vec<Measured> = durations.map(|took| Measured::plain(took, 45_000)).collect();
    Device::measured(&syncs, "17,320 syncs in the recording")
}

fn policy(sample: &Sample, device: &Device) -> PolicyReport {
    let Sample { name, set, syncs, within, text } = *sample;
    let proved = Loss {
        failure: durac_abi::object::Failure::PowerLoss,
        syncs,
        within,
        updates: None,
        bytes: None,
        text: text.to_owned(),
    };
    let ready = durac_stdlib::policy(name).expect("a ready policy");
    let mut sources = Sources::new();
    let file = sources.add(ready.file, ready.text);
    let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new(ready.name));
    let mut policy = analysis.policy.expect("a policy without errors");
    if !set.is_empty() {
        durac_core::set::set(&mut policy, set).expect("a parameter");
    }
    let object = durac_core::compile(&policy, &sources, file, &CompileOptions::default())
        .expect("an object");
    let work = EventLoop {
        clients: CLIENTS,
        command_bytes: COMMAND_BYTES,
        turn: 6_100,
        command: 2_400,
        reply: 1_900,
        cold: 9_000,
        client: 7_000,
    };
    let application = Application {
        kind: ApplicationKind::EventLoop(work),
        cores: 2,
        full: false,
        wake_cost: 3_000,
        wake_delay: 12_000,
        children: Vec::new(),
        // Long enough for a policy that syncs once a second.
        amount: if matches!(name, "everysec" | "no") { 250_000 } else { 30_000 },
    };
    let options = Options { seed: 1, crashes: None };
    let simulated = simulate(&application, device, &object, options, &mut |_| ());
    PolicyReport {
        name: format!("{name} {set}").trim_end().to_owned(),
        params: set.split_once('=').iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        proved: Some(proved),
        ..simulated.expect("a simulation")
    }
}
