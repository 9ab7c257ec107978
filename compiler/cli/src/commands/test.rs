//! `durac test`: runs the tests that stand beside policies.

use crate::Outcome;
use crate::args::Global;
use crate::named::{Named, Settings};
use crate::{input, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use durac_driver::test::{Branch, Coverage, Report, Tested};
use durac_driver::{Options, test};
use durac_grammar::{Diagnostic, FileId, Severity, Sources};
use serde::Serialize;
use std::fmt::Write;

/// Arguments of `durac test`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  durac test window.dur
  durac test policies/*.dur --only idle --set n=8")]
pub struct Test {
    /// Policy files, names of ready policies, or `-` for standard input, with `:name=value,…` to set parameters before
    /// each test
    #[arg(required = true, value_name = "FILE")]
    files: Vec<Named>,
    /// Run only tests whose name contains this; can be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Parameters of all.
    #[command(flatten)]
    settings: Settings,
    /// Test at this target instead of the one that the policy names
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Print the timeline of every test, not only of those that fail
    #[arg(short, long)]
    verbose: bool,
    /// Exit with 1 if a test has left out a branch
    #[arg(long)]
    full_coverage: bool,
}

/// What `--format json` says of each file.
#[derive(Serialize)]
struct JsonReport<'a> {
    file: String,
    ok: bool,
    policy: Option<&'a str>,
    tests: Vec<JsonTest<'a>>,
    coverage: Option<JsonCoverage<'a>>,
}

#[derive(Serialize)]
struct JsonTest<'a> {
    name: &'a str,
    line: u32,
    ok: bool,
    timeline: &'a str,
}

#[derive(Serialize)]
struct JsonCoverage<'a> {
    hooks: usize,
    hooks_called: usize,
    branches: usize,
    branches_taken: usize,
    not_called: Vec<&'static str>,
    not_taken: Vec<JsonWay<'a>>,
}

/// A way that no test has taken.
#[derive(Serialize)]
struct JsonWay<'a> {
    line: u32,
    column: u32,
    condition: &'a str,
    to_line: u32,
    to_column: u32,
    to: &'a str,
}

/// Runs the tests of every file; all of them, even if one fails.
pub fn run(args: &Test, global: &Global) -> Result<Outcome> {
    let mut fine = true;
    let mut ran = 0;
    let mut files = Vec::new();
    for named in &args.files {
        let (ok, tests) = one(named, args, global, &mut files)?;
        fine &= ok;
        ran += tests;
    }
    global.document.put(&serde_json::json!({ "files": files }))?;
    if fine && ran == 0 && !args.only.is_empty() {
        return Err(output::exit(1, "no test has such a name; without --only, all of them run"));
    }
    Ok(if fine { Outcome::Fine } else { Outcome::Wrong })
}

/// Whether all is well with a file, and how many tests ran. Adds its part of the document.
fn one(
    named: &Named,
    args: &Test,
    global: &Global,
    files: &mut Vec<serde_json::Value>,
) -> Result<(bool, usize)> {
    let Some(mut input) = input::read(named.path(), global) else {
        files.push(serde_json::json!({
            "file": named.to_string(), "ok": false, "policy": null, "tests": [], "coverage": null,
        }));
        return Ok((false, 0));
    };
    let settings = named.settings(&args.settings);
    let options = Options {
        target: args.target.as_deref(),
        settings: &settings,
        ..Options::new(&input.stem)
    };
    let wanted = |name: &str| {
        args.only.is_empty() || args.only.iter().any(|only| name.contains(only.as_str()))
    };
    let tested = test::test(&mut input.sources, input.file, &options, &wanted)
        .context("this is a bug in durac: please report it with the text of the policy")?;
    let failures = tested.report.iter().flat_map(|r| &r.results).filter_map(|r| r.failure.as_ref());
    let found: Vec<Diagnostic> = tested.diagnostics.iter().chain(failures).cloned().collect();
    input::report(&found, &input.sources, global);
    let right = !found.iter().any(|d| d.severity() == Severity::Error);
    let whole = tested.report.as_ref().is_none_or(|r| is_whole(&r.coverage));
    let ok = right && (whole || !args.full_coverage);
    let (sources, file) = (&input.sources, input.file);
    if global.is_json() {
        files.push(serde_json::to_value(json(named, ok, &tested, sources, file))?);
    } else {
        output::print(&summary(named, args, &tested, sources, file))?;
    }
    Ok((ok, tested.report.map_or(0, |r| r.results.len())))
}

fn is_whole(coverage: &Coverage) -> bool {
    let (ways, taken) = coverage.ways();
    ways == taken && coverage.hooks.iter().all(|(_, called)| *called)
}

fn summary(shown: &Named, args: &Test, tested: &Tested, sources: &Sources, file: FileId) -> String {
    let mut out = String::new();
    let Some(policy) = &tested.policy else { return out };
    let Some(report) = &tested.report else {
        // What is wrong has been said.
        if tested.tests == 0 && tested.diagnostics.iter().all(|d| d.severity() != Severity::Error) {
            let _ = writeln!(out, "{shown}: policy {} has no tests", policy.name);
        }
        return out;
    };
    let Report { results, coverage } = report;
    let _ = writeln!(out, "{shown}: policy {} on {}", policy.name, policy.target.name);
    for result in results {
        let how = if result.failure.is_none() { "ok  " } else { "FAIL" };
        let name = durac_grammar::render::printable(&result.name);
        let _ = writeln!(out, "    {how}  {name}");
        if args.verbose {
            for line in result.timeline.lines() {
                let _ = writeln!(out, "          {line}");
            }
        }
    }
    let failed = report.failed();
    let left_out = match tested.tests - results.len() {
        0 => String::new(),
        n => format!(", {n} not run"),
    };
    let _ = writeln!(
        out,
        "    {} of {} passed{left_out}",
        results.len() - failed,
        amount(results.len(), "test")
    );
    let (ways, taken) = coverage.ways();
    let called = coverage.hooks.iter().filter(|(_, called)| *called).count();
    let _ =
        write!(out, "    coverage: {called} of {} called", amount(coverage.hooks.len(), "hook"));
    if ways > 0 {
        let _ = write!(out, ", {taken} of {ways} branches taken");
    }
    out.push('\n');
    for (hook, _) in coverage.hooks.iter().filter(|(_, called)| !called) {
        let line = policy.hooks.iter().find(|h| h.hook == *hook);
        let line = line.map_or(0, |h| sources.position(h.span).line);
        let _ = writeln!(out, "{line:>8} | no test calls `{hook}`");
    }
    let mut told = 0;
    for branch in not_taken(coverage) {
        let (line, column) = branch.from;
        if told != line {
            told = line;
            let text = durac_grammar::render::printable(sources.line(file, line).trim());
            let _ = writeln!(out, "{line:>8} | {text}");
        }
        for to in missing(branch) {
            let condition = statement(branch.from, sources, file);
            let way = way(branch, to, sources, file);
            let _ = writeln!(out, "         |     {line}:{column}: `{condition}` {way}");
        }
    }
    out
}

/// Branches with a way that was not taken, of hooks that were called.
fn not_taken(coverage: &Coverage) -> impl Iterator<Item = &Branch> {
    let called = |branch: &&Branch| coverage.hooks.contains(&(branch.hook, true));
    coverage.branches.iter().filter(called).filter(|b| b.taken != [true; 2])
}

fn missing(branch: &Branch) -> impl Iterator<Item = (u32, u32)> {
    branch.to.iter().zip(branch.taken).filter(|(_, taken)| !taken).map(|(to, _)| *to)
}

fn way(branch: &Branch, to: (u32, u32), sources: &Sources, file: FileId) -> String {
    let (line, column) = to;
    if to == branch.from {
        return "has had only one outcome".to_owned();
    }
    format!("never led to `{}` at {line}:{column}", statement(to, sources, file))
}

/// The text at a place, to the end of its statement.
fn statement((line, column): (u32, u32), sources: &Sources, file: FileId) -> &str {
    let text = sources.line(file, line);
    let start =
        text.char_indices().nth(column.saturating_sub(1) as usize).map_or(text.len(), |(at, _)| at);
    let rest = text.get(start..).unwrap_or_default();
    let end = rest.find([';', '{', '}']).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default().trim()
}

fn json<'a>(
    named: &Named,
    ok: bool,
    tested: &'a Tested,
    sources: &'a Sources,
    file: FileId,
) -> JsonReport<'a> {
    let policy = tested.policy.as_ref();
    let coverage = tested.report.as_ref().map(|r| &r.coverage);
    let results = tested.report.iter().flat_map(|r| &r.results);
    JsonReport {
        file: named.to_string(),
        ok,
        policy: policy.map(|p| p.name.as_str()),
        tests: results
            .map(|r| JsonTest {
                name: &r.name,
                line: sources.position(r.span).line,
                ok: r.failure.is_none(),
                timeline: &r.timeline,
            })
            .collect(),
        coverage: coverage.map(|coverage| {
            let (branches, branches_taken) = coverage.ways();
            let not_called: Vec<&'static str> = (coverage.hooks.iter())
                .filter(|(_, called)| !called)
                .map(|(hook, _)| hook.name())
                .collect();
            let ways = not_taken(coverage).flat_map(|b| missing(b).map(move |to| (b, to)));
            JsonCoverage {
                hooks: coverage.hooks.len(),
                hooks_called: coverage.hooks.len() - not_called.len(),
                branches,
                branches_taken,
                not_called,
                not_taken: ways
                    .map(|(branch, to)| JsonWay {
                        line: branch.from.0,
                        column: branch.from.1,
                        condition: statement(branch.from, sources, file),
                        to_line: to.0,
                        to_column: to.1,
                        to: statement(to, sources, file),
                    })
                    .collect(),
            }
        }),
    }
}

fn amount(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
