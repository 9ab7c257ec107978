//! Code generation: every `.dur` file under `tests/codegen`, and every ready policy, with a snapshot
//! beside it that shows the source, the graph and the code together.
//!
//! A file whose first line is `// runtime: bpftime` is compiled for BPFtime, any other for the agent.
//! Bless with `INSTA_UPDATE=always cargo test -p durac-core --test codegen`.

#![expect(clippy::disallowed_methods, reason = "a test reads its cases")]

use durac_abi::{Object, Runtime, disasm};
use durac_core::CompileOptions;
use durac_grammar::Sources;
use std::path::Path;

/// A policy's MIR, and its object or why there is none.
struct Compiled {
    text: String,
    loss: String,
    mir: String,
    object: Result<Object, String>,
}

fn compile(name: &str, text: &str) -> Compiled {
    let directive = text.lines().next().and_then(|line| line.strip_prefix("// runtime: "));
    let runtime = directive.map(|name| Runtime::parse(name).expect("a runtime"));
    let options = CompileOptions::new(name).with_runtime(runtime.unwrap_or_default());
    let mut sources = Sources::new();
    let file = sources.add(format!("{name}.dur"), text);
    let analysis = durac_core::analyse(&mut sources, file, &options);
    assert!(!analysis.has_errors(), "{name}: {:#?}", analysis.diagnostics);
    let policy = analysis.policy.expect("a policy without errors");
    let mut program = durac_core::lower(&policy);
    durac_core::optimise(&mut program);
    let object = durac_core::compile(&policy, &sources, file, &options);
    let object = object.map_err(|diagnostics| {
        let lines: Vec<_> = diagnostics.iter().map(|d| d.message.clone()).collect();
        lines.join("\n") + "\n"
    });
    let (loss, mir) = (policy.loss.text(&policy), program.to_string());
    Compiled { text: text.to_owned(), loss, mir, object }
}

fn show(compiled: &Compiled) -> String {
    let Compiled { text, loss, mir, object } = compiled;
    let code = match object {
        Ok(object) => disasm::print_object(object),
        Err(why) => why.clone(),
    };
    format!(
        "{text}\n---- syncs lost on power loss, as derived\n{loss}\n\n---- mir\n{mir}\n---- code\n{code}"
    )
}

fn case(path: &Path) -> Compiled {
    let name = path.file_stem().expect("a name").to_string_lossy();
    compile(&name, &std::fs::read_to_string(path).expect("a readable file"))
}

#[test]
fn stdlib() {
    for policy in durac_stdlib::POLICIES {
        insta::assert_snapshot!(policy.name, show(&compile(policy.name, policy.text)));
    }
}

#[test]
fn cases() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("codegen");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        insta::glob!("codegen/*.dur", |path| insta::assert_snapshot!("code", show(&case(path))));
    });
}

/// The verifier accepts no jump backwards; a lookup behind the last `pass` (in `on reply`: `hold`) needs an end of its own.
#[test]
fn jumps_go_forward() {
    insta::glob!("codegen/*.dur", |path| {
        let Ok(object) = case(path).object else { return };
        for program in &object.programs {
            for (slot, insn) in (0..).zip(&program.insns).filter(|(_, insn)| insn.is_jump()) {
                let forward = insn.target(slot).is_some_and(|target| target > slot);
                assert!(forward, "{}: {slot}: {insn}", path.display());
            }
        }
    });
}
