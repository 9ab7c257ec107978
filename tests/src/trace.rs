//! Traces that were recorded, and what must be true of each.

use anyhow::{Context, Result, ensure};
use durac_shm::status::{LogNumbers, Status};
use durac_trace::{End, Event, Header, Op, read_all};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// A trace that was read.
#[derive(Debug)]
pub struct Trace {
    /// What stands before the events.
    pub header: Header,
    /// The events.
    pub events: Vec<Event>,
    /// What stands after them.
    pub end: End,
}

impl Trace {
    /// Reads it.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let (header, events, end) = read_all(BufReader::new(file))?;
        Ok(Self { header, events, end })
    }

    /// The events of one kind.
    pub fn of(&self, op: Op) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.op == op)
    }

    /// How many events `which` accepts.
    #[must_use]
    pub fn count(&self, which: impl Fn(&Event) -> bool) -> u64 {
        self.events.iter().filter(|event| which(event)).count() as u64
    }

    /// Bytes that went into a log.
    #[must_use]
    pub fn written(&self, log: u32) -> u64 {
        self.of(Op::Write).filter(|event| event.log == log).map(|event| event.bytes).sum()
    }
}

/// The numbers of all logs together.
#[must_use]
pub fn sums(status: &Status) -> LogNumbers {
    let logs = status.page().snapshot().logs;
    logs.iter().fold(LogNumbers::default(), |sum, log| LogNumbers {
        calls: sum.calls + log.numbers.calls,
        deferred: sum.deferred + log.numbers.deferred,
        syncs: sum.syncs + log.numbers.syncs,
        durable: sum.durable + log.numbers.durable,
        ..sum
    })
}

/// Every sync that a call ran itself lies within that call.
///
/// # Errors
/// If one does not, or there is none.
pub fn check_direct_syncs(trace: &Trace) -> Result<()> {
    let mut direct: HashMap<u32, Event> = HashMap::new();
    let (mut checked, mut last) = (0, 0);
    for event in &trace.events {
        // One that came late stands where the event before it ended, and not where it was.
        let is_late = std::mem::replace(&mut last, event.t) == event.t;
        if event.op == Op::Sync && !event.background {
            direct.insert(event.thread, event.clone());
        } else if event.op.is_sync_call()
            && let Some(sync) = direct.remove(&event.thread)
        {
            let is_within = event.begin() <= sync.begin() && sync.t <= event.t;
            ensure!(is_within || is_late, "{sync:?} in {event:?}");
            ensure!(sync.sync_cpu > 0 && event.sync_cpu >= sync.sync_cpu, "{sync:?} in {event:?}");
            checked += 1;
        }
    }
    ensure!(checked > 0);
    Ok(())
}

/// docs/trace.schema.json.
///
/// # Errors
/// If it is no schema.
pub fn schema() -> Result<jsonschema::Validator> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/trace.schema.json");
    let schema: serde_json::Value = serde_json::from_reader(BufReader::new(File::open(path)?))?;
    Ok(jsonschema::draft202012::new(&schema)?)
}

/// The file is what docs/trace.schema.json says.
///
/// # Errors
/// If it is not.
pub fn check_schema(path: &Path) -> Result<()> {
    let trace: serde_json::Value = serde_json::from_reader(BufReader::new(File::open(path)?))?;
    if let Err(error) = schema()?.validate(&trace) {
        anyhow::bail!("{}: {error} at {}", path.display(), error.instance_path());
    }
    Ok(())
}
