//! Every policy in the repository is right: the standard library, the examples, the pages of the
//! diagnostics, the documentation of the language.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its cases"
)]

use durac_abi::Runtime;
use durac_driver::Options;
use durac_grammar::{Code, FileId, Severity, Sources};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What checking and compiling a text for the agent finds.
fn codes(name: &str, text: &str) -> Vec<Code> {
    codes_for(Runtime::Agent, name, text)
}

/// What checking and compiling a text finds.
fn codes_for(runtime: Runtime, name: &str, text: &str) -> Vec<Code> {
    let mut sources = Sources::new();
    let file = sources.add(name, text);
    let options = Options::new(name).with_runtime(runtime);
    let compiled = durac_driver::compile(&mut sources, file, &options);
    let analysis = compiled.analysis;
    let mut codes: Vec<Code> = analysis.diagnostics.iter().map(|d| d.code).collect();
    if let (Some(_), None, false) = (&analysis.policy, &compiled.proved, analysis.has_errors()) {
        let options = Options { must_run: true, ..options };
        let found = durac_driver::compile(&mut sources, file, &options).analysis.diagnostics;
        let more: Vec<Code> = found.iter().map(|d| d.code).collect();
        codes.extend(
            more.into_iter().filter(|code| !analysis.diagnostics.iter().any(|d| d.code == *code)),
        );
    }
    if analysis.only_targets && !analysis.has_errors() {
        codes.push(Code::TargetFileAsPolicy);
    }
    if !analysis.has_errors() && runtime == Runtime::Agent {
        codes.extend(test_codes(&mut sources, file, &options));
    }
    codes
}

/// What the tests of a text that is right find.
fn test_codes(sources: &mut Sources, file: FileId, options: &Options<'_>) -> Vec<Code> {
    let tested = durac_driver::test::test(sources, file, options, &|_| true).unwrap();
    let wrong =
        tested.diagnostics.iter().map(|d| d.code).filter(|c| c.severity() == Severity::Error);
    let failed = tested.report.iter().flat_map(|r| &r.results).filter_map(|r| r.failure.as_ref());
    wrong.chain(failed.map(|d| d.code)).collect()
}

fn errors(codes: &[Code]) -> Vec<Code> {
    codes.iter().copied().filter(|c| c.severity() == Severity::Error).collect()
}

#[test]
fn examples_compile() {
    let mut count = 0;
    for folder in fs::read_dir(root().join("examples")).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        assert!(folder.join("README.md").exists(), "{} has no README", folder.display());
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "dur") {
                let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
                let expected: &[Code] = match stem.as_str() {
                    // BPFtime has no timers that could keep a deadline, and `no` wants none.
                    "batch_48" | "no" => &[Code::NoDeadline],
                    _ => &[],
                };
                assert_eq!(codes(&stem, &read(&path)), expected, "{}", path.display());
                count += 1;
            }
        }
    }
    assert!(count >= 5, "only {count} examples");
}

/// The first two fenced blocks of language `dur` of a page.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("```dur\n") {
        let Some((block, tail)) = after.split_once("```") else { break };
        blocks.push(block.to_owned());
        rest = tail;
    }
    blocks
}

/// Codes that no text can bring about: they are about files, the command line, or about mistakes of durac itself.
const NOT_FROM_A_TEXT: &[Code] = &[
    Code::NotUtf8,
    Code::TooLarge,
    Code::Unreadable,
    Code::VerifierRejects,
    Code::BadTrace,
    Code::NotInTrace,
    Code::BadSetting,
];

/// Codes of a runtime that has to be asked for.
fn runtime_of(code: Code) -> Runtime {
    match code {
        Code::NotInBpftime | Code::NoBpftimeEntry => Runtime::Bpftime,
        Code::NotInSupervisor => Runtime::Supervisor,
        _ => Runtime::Agent,
    }
}

#[test]
fn every_code_has_a_page_whose_example_triggers_it() {
    for &code in Code::ALL {
        let path = root().join("docs/errors").join(format!("{code}.md"));
        let page = read(&path);
        assert!(page.starts_with(&format!("# {code}: ")), "{code}: wrong title");
        if NOT_FROM_A_TEXT.contains(&code) {
            continue;
        }
        let blocks = blocks(&page);
        let [bad, good] = blocks.as_slice() else {
            panic!("{code}: a page has one example that is wrong and one that is right")
        };
        let found = codes_for(runtime_of(code), "page", bad);
        assert!(found.contains(&code), "{code}: its example gives {found:?}");
        if code.severity() == Severity::Error && code != Code::TargetFileAsPolicy {
            let others: Vec<_> = errors(&found).into_iter().filter(|c| *c != code).collect();
            assert_eq!(others, [], "{code}: its example has other errors too");
        }
        let mut found = codes_for(runtime_of(code), "page", good);
        if code != Code::TargetFileAsPolicy {
            // An example about targets defines one, and that is all it does.
            found.retain(|c| *c != Code::TargetFileAsPolicy);
        }
        assert_eq!(errors(&found), [], "{code}: the corrected example is wrong");
        assert!(!found.contains(&code), "{code}: the corrected example still gives it");
    }
}

/// What cannot be written as an object is refused before: a name by its length, a text by the size of the object.
#[test]
fn what_passes_can_be_written() {
    let written = |text: &str| {
        let mut sources = Sources::new();
        let file = sources.add("page.dur", text);
        let compiled = durac_driver::compile(&mut sources, file, &Options::new("page"));
        let found: Vec<Code> = compiled.analysis.diagnostics.iter().map(|d| d.code).collect();
        match compiled.proved {
            Some(proved) => durac_bpf::write(&proved.object).map(|_| found).unwrap(),
            None => found,
        }
    };
    let policy = "on fdatasync: await previous; defer\nflush within 1s\n";
    let named = |length: usize| written(&format!("policy {}\n{policy}", "a".repeat(length)));
    assert_eq!(named(100), []);
    assert_eq!(named(101), [Code::LongName]);
    assert_eq!(named(100_000), [Code::LongName]);
    let sized = |length: usize| written(&format!("// {}\n{policy}", "a".repeat(length)));
    assert_eq!(sized(1_000_000), []);
    assert_eq!(sized((1 << 20) - 100), [Code::TooLarge]);
}

#[test]
fn no_page_is_without_a_code() {
    for entry in fs::read_dir(root().join("docs/errors")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(stem == "README" || Code::parse(&stem).is_some(), "{} is no code", path.display());
    }
}

#[test]
fn texts_are_formatted() {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut folders = vec![root().join("stdlib"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "dur") {
                paths.push(path);
            }
        }
    }
    for path in paths {
        let text = read(&path);
        let mut sources = Sources::new();
        let file = sources.add(path.to_string_lossy(), text.as_str());
        let formatted = durac_grammar::format_checked(&sources, file).unwrap();
        assert_eq!(formatted, text, "{}: run `durac fmt`", path.display());
    }
}
