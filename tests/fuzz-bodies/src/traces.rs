//! Traces, and strace's output: files that come from other machines.

use crate::{cut, seeds};
use durac_simulate::fit::fit;
use durac_simulate::trace::Collector;
use durac_simulate::{Options, simulate};
use durac_trace::strace::Importer;
use durac_trace::{Event, Header, Reader, Recorded, Source, TraceError, Writer, read_all};

/// Pieces of traces.
pub const WORDS: &[&str] = &[
    "{\"t\":",
    "\"op\":\"open\"",
    "\"op\":\"write\"",
    "\"op\":\"fdatasync\"",
    "\"op\":\"fsync\"",
    "\"op\":\"sync\"",
    "\"op\":\"close\"",
    "\"op\":\"fork\"",
    "\"op\":\"reap\"",
    "\"log\":",
    "\"thread\":",
    "\"took\":",
    "\"cpu\":",
    "\"sync_cpu\":",
    "\"bytes\":",
    "\"verdict\":\"defer\"",
    "\"verdict\":\"pass\"",
    "\"wait\":",
    "\"covers\":",
    "\"background\":true",
    "\"result\":",
    "\"path\":",
    "\"end\":{\"events\":",
    "\"dropped\":",
    "\"cores\":",
    "18446744073709551615",
    "18446744073709551616",
    "4294967295",
    "1048575",
    "0",
    "-1",
    "1e9",
    ",",
    "}",
    "]",
    "\\u0000",
    "\\ud800",
    "\"",
];

/// Pieces of strace's output.
pub const STRACE_WORDS: &[&str] = &[
    "100.000000 ",
    "[pid 7] ",
    "7 ",
    "openat(AT_FDCWD, \"/d/a.aof\", O_WRONLY) = 3 <0.000001>\n",
    "write(3, \"x\", 1) = 1 ",
    "fdatasync(3) = 0 ",
    "fsync(3</d/a.aof>) = -1 EIO (Input/output error) ",
    "close(3) = 0 ",
    "dup2(3, 4) = 4 ",
    "<unfinished ...>\n",
    "<... fdatasync resumed>) = 0 ",
    "clone(",
    "fork() = 9 ",
    "wait4(9, ",
    "+++ exited with 0 +++\n",
    "--- SIGCHLD {si_signo=SIGCHLD} ---\n",
    "<0.000001>\n",
    "18446744073709551615",
    "2147483647",
    "-1",
    "?",
    "\\x00",
    "9999999999.999999 ",
    "= ",
    "(",
    ")",
    "\"",
    "...",
    "\n",
    "AT_FDCWD",
    "O_APPEND|O_CLOEXEC",
];

/// Any bytes as a trace: what reads is written and read again, and is the same.
pub fn trace(bytes: &[u8]) {
    match read_all(cut(bytes)) {
        Ok((header, events, end)) => {
            let again = round(&header, &events, end.dropped);
            assert!(again.is_some_and(|found| found == events), "another trace");
        }
        Err(error) => assert!(!error.message().is_empty() && error.line > 0),
    }
}

/// Writes and reads.
fn round(header: &Header, events: &[Event], dropped: u64) -> Option<Vec<Event>> {
    let mut writer = Writer::new(Vec::new(), header).ok()?;
    for event in events {
        writer.event(event).ok()?;
    }
    let (bytes, _) = writer.finish(dropped).ok()?;
    let read = read_all(bytes.as_slice());
    assert!(read.is_ok(), "what was written does not read: {:?}", read.err());
    read.ok().map(|(_, events, _)| events)
}

/// Any bytes as strace's output: what is imported is a trace.
pub fn strace(bytes: &[u8]) {
    let covers = |path: &std::path::Path| path.extension().is_some_and(|e| e == "aof");
    let events: Result<Vec<Event>, TraceError> =
        Importer::open(cut(bytes), covers).and_then(Iterator::collect);
    match events {
        Ok(events) => {
            let header = Header::new(Recorded { source: Source::Strace, ..Recorded::default() });
            assert!(round(&header, &events, 0).is_some());
        }
        Err(error) => assert!(!error.message().is_empty() && error.line > 0),
    }
}

/// Simulated calls of a trace that are enough to see whether it can be simulated.
const CALLS: u64 = 2000;

/// Any bytes as a trace that `durac simulate` is given.
pub fn replay(bytes: &[u8]) {
    let Ok(mut reader) = Reader::open(cut(bytes)) else { return };
    let mut collector = Collector::new(reader.header().clone());
    for event in reader.by_ref() {
        let Ok(event) = event else { return };
        collector.add(&event);
    }
    let Ok(trace) = collector.finish(reader.end().unwrap_or_default()) else { return };
    let Some(object) = seeds::objects().first() else { return };
    for (recorded, clients) in [(None, None), (Some(object), None), (None, Some(50))] {
        let fitted = fit(&trace, recorded, clients);
        let mut application = fitted.application;
        application.amount = application.amount.min(CALLS);
        let options = Options { seed: 1, crashes: Some(2) };
        // A trace that makes no sense may be refused; it may not do harm.
        let _ = simulate(&application, &fitted.device, object, options, &mut |_| ());
    }
}
