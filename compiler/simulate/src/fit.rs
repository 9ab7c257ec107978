//! From what a trace says to the parameters of the application: measured where the trace shows
//! them, fitted where it shows only what they lead to, and else what was measured once elsewhere.

use super::application::{Application, ApplicationKind, EventLoop, Threads, Work};
use super::device::Device;
use super::drive::Simulation;
use super::report::{ApplicationFacts, Parameter};
use super::trace::{Trace, Turn};
use durac_abi::Object;

/// What it costs to wake a thread whose processor is idle: 10 µs for the waker, and 35 µs until the
/// woken thread runs, on the virtual machine where the agent was developed.
const WAKE_COST: u64 = 10_000;
const WAKE_DELAY: u64 = 35_000;
/// Work of a turn, whatever it holds: `epoll_wait`, `write`. Redis took 17 µs and 24 µs for turns of
/// 1.5 and 2.3 commands without a sync, which leaves 3 to 4 µs for a turn of none.
const TURN: u64 = 3_000;
/// Work of a turn after a sleep beyond that: its caches are cold. With a sync in each, Redis took 43
/// µs and 281 µs for turns of 2.7 and 26 commands, which leaves 16 µs, 10 µs of them a wake-up.
const COLD: u64 = 4_000;
/// Share of the work for a command that comes before its sync; the rest sends the reply. Redis took
/// 2.8 µs and 5.5 µs.
const BEFORE_SYNC: f64 = 0.35;
/// Work of a client for each work of the server, when the trace does not show it: redis-benchmark
/// took 14 µs for a command, alone with Redis, for which Redis took 10 µs.
const CLIENT_SHARE: f64 = 1.45;
/// How much a client that differs from that counts against what the trace shows: this for one that
/// differs much, and half of it for one that differs by a quarter. What a trace under `always`
/// shows of the clients is little: they work while the server syncs.
const CLIENT_WEIGHT: f64 = 0.1;
const CLIENT_FAR: f64 = 0.3;
/// Clients of an event loop, at most.
pub const CLIENTS_MOST: u32 = 100_000;
/// Commands that are simulated, at most: an hour of the fastest loop.
const COMMANDS_MOST: u64 = 1 << 30;
/// Commands that are simulated to try a value.
const TRIED: u64 = 20_000;

/// What was found.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The application.
    pub application: Application,
    /// The device as it was recorded.
    pub device: Device,
    /// The same for the reader.
    pub facts: ApplicationFacts,
    /// What the reader has to know, whole sentences.
    pub notes: Vec<String>,
}

/// Finds the parameters. `recorded` is the policy under which the trace was recorded, if it is
/// known; without it the clients' work is a guess. `clients` overrides their number.
#[must_use]
pub fn fit(trace: &Trace, recorded: Option<&Object>, clients: Option<u32>) -> Fitted {
    let device = Device::measured(&trace.syncs, "the syncs of the trace");
    let server = trace.threads.iter().map(|(_, calls)| *calls).max().unwrap_or(0);
    let alone = server * 100 >= trace.calls * 99;
    let most = trace.turns.iter().map(|turn| turn.bytes).max().unwrap_or(0);
    match (trace.command_bytes, clients) {
        (Some(bytes), _) if alone && (most / bytes > 1 || clients.is_some()) => {
            let seen = u32::try_from(most / bytes).unwrap_or(CLIENTS_MOST);
            let clients = clients.unwrap_or(seen.min(CLIENTS_MOST));
            event_loop(trace, device, recorded, bytes, clients.max(1))
        }
        (None, Some(clients)) if alone => {
            let mut sizes: Vec<u64> = trace.turns.iter().map(|turn| turn.bytes).collect();
            sizes.sort_unstable();
            let small = sizes.get(sizes.len() / 20).copied().unwrap_or(1).max(1);
            event_loop(trace, device, recorded, small, clients.max(1))
        }
        _ => threads(trace, device),
    }
}

fn application(trace: &Trace, kind: ApplicationKind, amount: u64) -> Application {
    let scale =
        |calls: u64| (u128::from(calls) * u128::from(amount) / u128::from(trace.calls)) as u64;
    Application {
        kind,
        cores: if trace.header.recorded.cores > 0 { trace.header.recorded.cores } else { 2 },
        full: trace.full,
        wake_cost: WAKE_COST,
        wake_delay: WAKE_DELAY,
        children: trace.children.iter().map(|(calls, born)| (scale(*calls), *born)).collect(),
        amount,
    }
}

// ---- threads ----

fn threads(trace: &Trace, device: Device) -> Fitted {
    let mut known: Vec<u32> = trace.threads.iter().map(|(log, _)| *log).collect();
    known.sort_unstable();
    known.dedup();
    let place = |log: u32| known.iter().position(|k| *k == log).unwrap_or(0);
    let logs: Vec<usize> = trace.threads.iter().map(|(log, _)| place(*log)).collect();
    let work = |turn: &Turn| Work {
        cpu: turn.cpu,
        pause: turn.time.saturating_sub(turn.cpu),
        bytes: turn.bytes,
    };
    let mean = |of: &dyn Fn(&Turn) -> u64| {
        trace.turns.iter().map(|t| u128::from(of(t))).sum::<u128>() / trace.turns.len() as u128
    };
    let facts = ApplicationFacts {
        kind: "threads".to_owned(),
        clients: logs.len() as u32,
        command_bytes: None,
        parameters: vec![
            parameter("work between sync calls", mean(&|t| t.cpu) as u64, "measured"),
            parameter("pause between sync calls", mean(&|t| t.time - t.cpu) as u64, "measured"),
        ],
    };
    let work = trace.turns.iter().map(work).collect();
    let application =
        application(trace, ApplicationKind::Threads(Threads { logs, work }), trace.calls);
    Fitted { application, device, facts, notes: Vec::new() }
}

// ---- an event loop ----

fn event_loop(
    trace: &Trace,
    device: Device,
    recorded: Option<&Object>,
    bytes: u64,
    clients: u32,
) -> Fitted {
    let work = server_work(&trace.turns, bytes);
    let guess = work.command * CLIENT_SHARE;
    let command = (work.command * BEFORE_SYNC) as u64;
    let kind = EventLoop {
        clients,
        command_bytes: bytes,
        turn: work.turn,
        command,
        reply: (work.command as u64 - command).max(1),
        cold: work.cold,
        client: (guess as u64).max(2),
    };
    let amount = (trace.bytes / bytes).clamp(1, COMMANDS_MOST);
    let mut application = application(trace, ApplicationKind::EventLoop(kind), amount);
    let shown = recorded.is_some_and(|object| {
        fit_client(&mut application, &device, object, &Shown::of(trace, bytes), guess)
    });
    let ApplicationKind::EventLoop(kind) = &application.kind else {
        return threads(trace, device);
    };
    let facts = ApplicationFacts {
        kind: "event loop".to_owned(),
        clients,
        command_bytes: Some(bytes),
        parameters: vec![
            parameter("work of a turn", kind.turn, "preset"),
            parameter("work after a sleep", kind.cold, "preset"),
            parameter("work to take a command", kind.command, "measured"),
            parameter("work to reply", kind.reply, "measured"),
            parameter("work of the clients", kind.client, if shown { "fitted" } else { "preset" }),
            parameter("work to wake a thread", WAKE_COST, "preset"),
            parameter("time until it runs", WAKE_DELAY, "preset"),
        ],
    };
    Fitted { application, device, facts, notes: Vec::new() }
}

fn parameter(name: &str, ns: u64, source: &str) -> Parameter {
    Parameter { name: name.to_owned(), ns, source: source.to_owned() }
}

/// Work of the server, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ServerWork {
    turn: u64,
    cold: u64,
    command: f64,
}

/// What the server works between two syncs is nearly the same for the same commands, so the trace
/// shows one figure: its mean. Less what a turn costs that holds nothing, it is the commands'.
fn server_work(turns: &[Turn], bytes: u64) -> ServerWork {
    let known = turns.iter().any(|turn| turn.cpu > 0);
    // What lies far off had something else in it.
    let mut works: Vec<(u64, u64)> =
        turns.iter().map(|turn| (if known { turn.cpu } else { turn.time }, turn.bytes)).collect();
    works.sort_unstable();
    works.truncate((works.len() * 49 / 50).max(1));
    let count = works.len() as f64;
    let work = works.iter().map(|(work, _)| *work as f64).sum::<f64>() / count;
    let commands = works.iter().map(|(_, b)| *b as f64 / bytes as f64).sum::<f64>() / count;
    // An application that works less than Redis has cheaper turns too.
    let fixed = (TURN + COLD + WAKE_COST) as f64;
    let scale = (work / 2.0 / fixed).min(1.0);
    let part = |of: u64| (of as f64 * scale) as u64;
    let command = (work - fixed * scale) / commands.max(1.0);
    ServerWork { turn: part(TURN), cold: part(COLD), command: command.max(2.0) }
}

/// What the trace shows of the loop as a whole.
#[derive(Clone, Copy, Debug)]
struct Shown {
    calls_per_second: f64,
    commands_per_call: f64,
}

impl Shown {
    fn of(trace: &Trace, bytes: u64) -> Self {
        let calls = trace.calls as f64;
        Self {
            calls_per_second: calls / (trace.busy as f64 / 1e9),
            commands_per_call: trace.bytes as f64 / bytes as f64 / calls,
        }
    }
}

/// Sets the clients' work so that the simulation of the recorded policy does what was recorded.
fn fit_client(
    application: &mut Application,
    device: &Device,
    recorded: &Object,
    shown: &Shown,
    guess: f64,
) -> bool {
    let mut best = (f64::MAX, guess);
    for step in -8..=16 {
        let client = guess * 1.15_f64.powi(step);
        let Some(miss) = miss(application, device, recorded, shown, client) else { return false };
        let far = (client / guess).ln() / CLIENT_FAR;
        let miss = miss + CLIENT_WEIGHT * (1.0 - (-far * far).exp());
        if miss < best.0 {
            best = (miss, client);
        }
    }
    set_client(application, best.1);
    true
}

fn set_client(application: &mut Application, client: f64) {
    if let ApplicationKind::EventLoop(kind) = &mut application.kind {
        kind.client = (client as u64).max(2);
    }
}

fn miss(
    application: &Application,
    device: &Device,
    recorded: &Object,
    shown: &Shown,
    client: f64,
) -> Option<f64> {
    let mut tried = Application { amount: TRIED.min(application.amount), ..application.clone() };
    set_client(&mut tried, client);
    let mut simulation = Simulation::new(&tried, device, recorded, 1, Some(Vec::new())).ok()?;
    let time = simulation.run(&mut |_| ()).ok()?;
    let done = simulation.done as f64;
    let report = simulation.seen.report(time, None);
    let off = |simulated: f64, recorded: f64| (simulated / recorded).ln().powi(2);
    Some(
        off(report.calls_per_second, shown.calls_per_second)
            + off(done / report.calls.max(1) as f64, shown.commands_per_call),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(work: impl Fn(u64) -> u64) -> Vec<Turn> {
        let turn = |k: u64| Turn { bytes: 45 * k, cpu: work(k), ..Turn::default() };
        [2, 3, 2, 3, 5, 1, 4].into_iter().cycle().map(turn).take(700).collect()
    }

    #[test]
    fn the_work_of_a_command_is_what_a_turn_leaves() {
        let found = server_work(&turns(|k| TURN + COLD + WAKE_COST + 9_000 * k), 45);
        assert_eq!((found.turn, found.cold), (TURN, COLD));
        assert!((found.command - 9_000.0).abs() < 1_500.0, "{found:?}");
    }

    #[test]
    fn an_application_that_works_less_has_cheaper_turns() {
        let found = server_work(&turns(|k| 1_000 + 500 * k), 45);
        assert!(found.turn + found.cold < 1_500, "{found:?}");
        assert!(found.command > 100.0 && found.command < 800.0, "{found:?}");
    }
}
