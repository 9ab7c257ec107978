//! `durac record --from-strace`: strace's output as a trace.

use super::{Record, mode, tool};
use crate::Outcome;
use crate::args::Global;
use crate::input;
use crate::output::{self, Pending};
use crate::traces;
use anyhow::{Context, Result};
use durac_core::CompileOptions;
use durac_core::hir::Target;
use durac_grammar::Sources;
use durac_trace::strace::Importer;
use durac_trace::{Header, Recorded, Source, TraceError, Writer};
use durac_workload::columns::counted;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// Imports the file, and says what came of it.
pub fn run(file: &Path, args: &Record, global: &Global) -> Result<Outcome> {
    output::check_unread(&args.output, [file])?;
    let Some(target) = target(&args.target, global) else {
        return Ok(Outcome::Wrong);
    };
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file).map_err(|error| {
            let (shown, why) = (file.display(), output::reason(&error));
            output::exit(1, format!("cannot read `{shown}`: {why}"))
        })?;
        Box::new(BufReader::new(opened))
    };
    let covers = |path: &Path| durac_abi::glob::covers(&target.files, &target.except, path);
    let importer = match Importer::open(input, covers) {
        Ok(importer) => importer,
        Err(error) => return Ok(wrong(file, &error, global)),
    };
    let header = Header::new(Recorded {
        tool: tool(),
        started: importer.started(),
        target: target.name.clone(),
        source: Source::Strace,
        ..Recorded::default()
    });
    if args.output == Path::new("-") {
        if global.is_json() {
            let why = "`--format json` uses standard output: write the trace to a file";
            return Err(output::exit(1, why));
        }
        output::check_stdout()?;
        let written = Writer::new(io::stdout().lock(), &header).and_then(|w| import(importer, w));
        return match written {
            Ok(Ok(events)) => said(events, &target, args, global),
            Ok(Err(error)) => Ok(wrong(file, &error, global)),
            // As any filter whose reader went away.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::Fine),
            Err(error) => Err(error).context("cannot write to standard output"),
        };
    }
    let pending = Pending::new(&args.output, mode(&args.output))?;
    let written = Writer::new(&pending.file, &header).and_then(|w| import(importer, w));
    match written.map_err(|error| pending.failed(&error))? {
        Ok(events) => {
            pending.commit()?;
            said(events, &target, args, global)
        }
        Err(error) => Ok(wrong(file, &error, global)),
    }
}

/// Writes all events and returns their number.
fn import<W: Write>(
    events: impl Iterator<Item = Result<durac_trace::Event, TraceError>>,
    mut writer: Writer<W>,
) -> io::Result<Result<u64, TraceError>> {
    for event in events {
        match event {
            Ok(event) => writer.event(&event)?,
            Err(error) => return Ok(Err(error)),
        }
    }
    writer.finish(0).map(|(_, end)| Ok(end.events))
}

fn wrong(file: &Path, error: &TraceError, global: &Global) -> Outcome {
    traces::report(file, error, global);
    Outcome::Wrong
}

fn said(events: u64, target: &Target, args: &Record, global: &Global) -> Result<Outcome> {
    let output = args.output.display().to_string();
    global.document.put(&serde_json::json!({ "output": output, "events": events }))?;
    output::stderr(&format!("durac: imported {}\n", counted(events, "event")));
    if events == 0 {
        output::stderr(&format!(
            "durac: no call was on a log ({}): trace open, openat and close as well, or run \
             strace with -y\n",
            target.files.join(" ")
        ));
    }
    Ok(Outcome::Fine)
}

/// The target of this name; reports an unknown name and returns `None`.
fn target(name: &str, global: &Global) -> Option<Target> {
    let mut sources = Sources::new();
    let file = sources.add("--target", format!("target {name}\non fdatasync: pass\n"));
    let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new("import"));
    if analysis.has_errors() {
        input::report(&analysis.diagnostics, &sources, global);
        return None;
    }
    Some(analysis.policy?.target)
}
