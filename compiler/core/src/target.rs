//! Targets: which files, which hooks, and what a policy may do there.
//!
//! A target is a definition in the language. The compiler knows none by name; it looks the name up
//! among the definitions of the file itself, then among the texts of the standard library.

use crate::hir;
use crate::names;
pub use durac_abi::object::Action;
use durac_abi::{Callers, Engine, Hook, Layout, Records};
use durac_grammar::ast::{HookDef, Ident, Item, Path, TargetDef};
use durac_grammar::{Code, Diagnostic, Sources, Span, Spanned};

/// A checked target.
#[derive(Clone, Debug)]
pub struct CheckedTarget {
    /// What the object needs of it.
    pub hir: hir::Target,
    /// Where its name is defined.
    pub span: Span,
    /// Where it says how the log is divided into updates, if it does.
    pub records_span: Option<Span>,
    /// Its hooks.
    pub hooks: Vec<TargetHook>,
}

/// A hook of a target.
#[derive(Clone, Debug)]
pub struct TargetHook {
    /// The hook.
    pub hook: Hook,
    /// What a policy may do there.
    pub may: Vec<Action>,
    /// Where the target says so.
    pub may_span: Span,
    /// Whether it carries bytes of the application, as a write does.
    pub borrows: bool,
}

impl CheckedTarget {
    /// The hook `hook`, if the target has it.
    #[must_use]
    pub fn hook(&self, hook: Hook) -> Option<&TargetHook> {
        self.hooks.iter().find(|h| h.hook == hook)
    }

    /// The names of its hooks.
    #[must_use]
    pub fn hook_names(&self) -> Vec<&'static str> {
        self.hooks.iter().map(|h| h.hook.name()).collect()
    }
}

/// Checks the definitions of targets among `items`.
pub fn check_definitions(
    items: &[Spanned<Item>],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<CheckedTarget> {
    let mut targets: Vec<CheckedTarget> = Vec::new();
    for item in items {
        let Item::TargetDef(definition) = &item.node else { continue };
        let target = check_definition(definition, item.span, diagnostics);
        if let Some(first) = targets.iter().find(|t| t.hir.name == target.hir.name) {
            let message = format!("the target `{}` is defined twice", target.hir.name);
            diagnostics.push(
                Diagnostic::new(Code::Duplicate, message, target.span, "defined again here")
                    .also(first.span, "first defined here"),
            );
        }
        targets.push(target);
    }
    targets
}

fn check_definition(
    def: &TargetDef,
    span: Span,
    diagnostics: &mut Vec<Diagnostic>,
) -> CheckedTarget {
    let name = def.name.dotted();
    let name_span = path_span(&def.name).unwrap_or(span);
    if def.files.is_empty() || def.hooks.is_empty() {
        let what = if def.files.is_empty() { "files" } else { "hooks" };
        diagnostics.push(
            Diagnostic::new(
                Code::EmptyTarget,
                format!("the target `{name}` has no {what}"),
                name_span,
                format!("add {what} here"),
            )
            .help("a target needs a `files \"…\"` line and at least one `hook`"),
        );
    }
    check_files(&def.files, diagnostics);
    for pattern in def.files.iter().chain(&def.except).chain(&def.protects) {
        check_pattern(pattern, diagnostics);
    }
    let mut hooks: Vec<TargetHook> = Vec::new();
    let mut entries = Vec::new();
    for hook in &def.hooks {
        let Some(checked) = check_hook(&hook.node, diagnostics) else { continue };
        if hooks.iter().any(|h| h.hook == checked.hook) {
            diagnostics.push(Diagnostic::new(
                Code::DuplicateHook,
                format!("the hook `{}` is written twice", checked.hook),
                hook.node.name.span,
                "written again here",
            ));
        } else {
            entries.push(entry(checked.hook, &hook.node));
            hooks.push(checked);
        }
    }
    let engine = check_engine(&def.engines, diagnostics);
    let callers = check_callers(&def.callers, diagnostics);
    let records = check_records(&def.records, diagnostics);
    let layout = check_layout(&def.layouts, diagnostics);
    let holds_replicas = check_holds(&def.holds, diagnostics);
    let texts = |list: &[Spanned<String>]| list.iter().map(|s| s.node.clone()).collect();
    CheckedTarget {
        hir: hir::Target {
            name,
            files: texts(&def.files),
            except: texts(&def.except),
            entries,
            engine,
            callers,
            records,
            layout,
            protects: texts(&def.protects),
            holds_replicas,
        },
        span: name_span,
        records_span: def.records.first().map(|word| word.span),
        hooks,
    }
}

/// Files whose syncs keep other files whole, by the ends of their names: why, and what to use.
const NOT_LOGS: [(&str, &str, &str); 2] = [
    (
        "-journal",
        "a rollback journal of SQLite undoes half-written pages: it must be durable before the first page is written",
        "use `PRAGMA journal_mode = WAL` and the target `sqlite.wal`",
    ),
    (
        ".mdb",
        "a database of LMDB has no log: its meta page names pages that must be durable before it is written",
        "use the option MDB_NOMETASYNC of LMDB",
    ),
];

/// Refuses files of which more than the end can be lost.
fn check_files(files: &[Spanned<String>], diagnostics: &mut Vec<Diagnostic>) {
    for file in files {
        let known = NOT_LOGS.iter().find(|(end, ..)| file.node.ends_with(end));
        let Some((_, why, help)) = known else { continue };
        diagnostics.push(
            Diagnostic::new(
                Code::NotALog,
                format!("`{}` is not a log", file.node),
                file.span,
                "deferred syncs would damage the database",
            )
            .note(*why)
            .help(*help),
        );
    }
}

/// Refuses a pattern that matches no file: it is compared with the last component of a path, or, if it has a `/`, with the
/// whole path from the root.
fn check_pattern(pattern: &Spanned<String>, diagnostics: &mut Vec<Diagnostic>) {
    let text = pattern.node.as_str();
    let parts = || text.split('/');
    let wrong = if text.is_empty() {
        "a file has a name"
    } else if text.ends_with('/') {
        "a path ends with the name of the file"
    } else if text.contains("//") {
        "a path has no `//`"
    } else if parts().any(|part| matches!(part, "." | "..")) {
        "a path from the root has no `.` and no `..`"
    } else if text.contains('/') && !text.starts_with(['/', '*']) {
        "with a `/`, it is compared with the whole path from the root"
    } else {
        return;
    };
    let mut kept = Vec::new();
    for part in parts() {
        match part {
            ".." => _ = kept.pop(),
            "." | "~" | "" => {}
            part => kept.push(part),
        }
    }
    let rest = kept.join("/");
    let help = match (rest.is_empty(), text.starts_with('/')) {
        (true, _) => {
            "name the files: `\"*.log\"`, in any folder, or `\"/var/lib/app/*.log\"`".to_owned()
        }
        (_, true) => format!("write `\"/{rest}\"`"),
        _ if kept.len() == 1 || rest.starts_with('*') => format!("write `\"{rest}\"`"),
        _ => format!("write `\"**/{rest}\"`"),
    };
    diagnostics.push(
        Diagnostic::new(
            Code::BadPattern,
            match text {
                "" => "an empty pattern matches no file".to_owned(),
                text => format!("the pattern `{text}` matches no file"),
            },
            pattern.span,
            wrong,
        )
        .help(help),
    );
}

fn check_hook(def: &HookDef, diagnostics: &mut Vec<Diagnostic>) -> Option<TargetHook> {
    let Some(hook) = Hook::parse(&def.name.node) else {
        let known: Vec<_> = Hook::ALL.iter().map(|h| h.name()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownHook,
                format!("unknown hook `{}`", def.name.node),
                def.name.span,
                "not a hook",
            )
            .help(names::suggest(&def.name.node, &known)),
        );
        return None;
    };
    let may = def.may.iter().filter_map(|word| check_action(word, diagnostics)).collect();
    Some(TargetHook {
        hook,
        may,
        may_span: def.may_span,
        borrows: def.params.iter().any(|p| p.borrowed),
    })
}

fn entry(hook: Hook, def: &HookDef) -> hir::HookEntry {
    let function = |entry: &durac_grammar::ast::Entry| hir::EntryFunction {
        kind: hir::EntryKind::of_word(&entry.kind.node),
        symbol: entry.symbol.clone(),
    };
    hir::HookEntry {
        hook,
        span: def.name.span,
        functions: def.entries.iter().map(function).collect(),
        params: def.params.iter().map(|p| (p.name.node.clone(), p.ty.node.clone())).collect(),
    }
}

/// What writes staged bytes.
fn check_engine(engines: &[Ident], diagnostics: &mut Vec<Diagnostic>) -> Option<Engine> {
    let first = engines.first()?;
    for again in engines.iter().skip(1) {
        diagnostics.push(
            Diagnostic::new(Code::Duplicate, "a second engine", again.span, "named again here")
                .also(first.span, "first named here"),
        );
    }
    let engine = Engine::parse(&first.node);
    if engine.is_none() {
        let known: Vec<_> = Engine::ALL.iter().map(|e| e.name()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownEngine,
                format!("unknown engine `{}`", first.node),
                first.span,
                "not an engine",
            )
            .help(names::suggest(&first.node, &known)),
        );
    }
    engine
}

/// Whether calls overlap: they may, if the target does not say.
fn check_callers(words: &[Ident], diagnostics: &mut Vec<Diagnostic>) -> Callers {
    let Some(first) = words.first() else { return Callers::default() };
    for again in words.iter().skip(1) {
        diagnostics.push(
            Diagnostic::new(Code::Duplicate, "a second `callers`", again.span, "said again here")
                .also(first.span, "first said here"),
        );
    }
    let callers = Callers::parse(&first.node);
    if callers.is_none() {
        let known: Vec<_> = Callers::ALL.iter().map(|c| c.name()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownCallers,
                format!("unknown number of callers `{}`", first.node),
                first.span,
                "not a number of callers",
            )
            .help(names::suggest(&first.node, &known)),
        );
    }
    callers.unwrap_or_default()
}

/// Where the log is written: at its end, if the target does not say.
fn check_layout(words: &[Ident], diagnostics: &mut Vec<Diagnostic>) -> Layout {
    let Some(first) = words.first() else { return Layout::default() };
    for again in words.iter().skip(1) {
        diagnostics.push(
            Diagnostic::new(Code::Duplicate, "a second `layout`", again.span, "said again here")
                .also(first.span, "first said here"),
        );
    }
    let layout = Layout::parse(&first.node);
    if layout.is_none() {
        let known: Vec<_> = Layout::ALL.iter().map(|l| l.name()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownLayout,
                format!("unknown layout `{}`", first.node),
                first.span,
                "not a layout",
            )
            .help(names::suggest(&first.node, &known)),
        );
    }
    layout.unwrap_or_default()
}

/// Whether what is sent to replicas is held: not, if the target does not say.
fn check_holds(words: &[Ident], diagnostics: &mut Vec<Diagnostic>) -> bool {
    const REPLICAS: &str = "replicas";
    let Some(first) = words.first() else { return false };
    for again in words.iter().skip(1) {
        diagnostics.push(
            Diagnostic::new(Code::Duplicate, "a second `hold`", again.span, "said again here")
                .also(first.span, "first said here"),
        );
    }
    if first.node != REPLICAS {
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownLinks,
                format!("`hold {}` is not something a target can say", first.node),
                first.span,
                "not a kind of connection",
            )
            .help(names::suggest(&first.node, &[REPLICAS])),
        );
    }
    first.node == REPLICAS
}

/// How the log is divided into updates: not at all, if the target does not say.
fn check_records(words: &[Ident], diagnostics: &mut Vec<Diagnostic>) -> Records {
    let Some(first) = words.first() else { return Records::default() };
    for again in words.iter().skip(1) {
        diagnostics.push(
            Diagnostic::new(Code::Duplicate, "a second `records`", again.span, "said again here")
                .also(first.span, "first said here"),
        );
    }
    let records = Records::parse(&first.node);
    if records.is_none() {
        let known: Vec<_> = Records::ALL.iter().map(|r| r.name()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownRecords,
                format!("unknown records `{}`", first.node),
                first.span,
                "not a kind of records",
            )
            .help(names::suggest(&first.node, &known)),
        );
    }
    records.unwrap_or_default()
}

fn check_action(word: &Ident, diagnostics: &mut Vec<Diagnostic>) -> Option<Action> {
    let action = Action::parse(&word.node);
    if action.is_none() {
        let known: Vec<_> = Action::ALL.iter().map(|a| a.text()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownCapability,
                format!("unknown action `{}`", word.node),
                word.span,
                "not an action",
            )
            .help(names::suggest(&word.node, &known)),
        );
    }
    action
}

/// The target called `name`: one of `local`, or one of the standard library, whose text is added
/// to the sources so that diagnostics can point into it.
pub fn find(name: &str, local: &[CheckedTarget], sources: &mut Sources) -> Option<CheckedTarget> {
    if let Some(target) = local.iter().find(|t| t.hir.name == name) {
        return Some(target.clone());
    }
    let text = durac_stdlib::target(name)?;
    let loaded = sources.ids().find(|&id| sources.name(id) == text.file);
    let file = match loaded {
        Some(file) => file,
        None => sources.add(text.file, text.text),
    };
    let parsed = durac_grammar::parse(sources, file);
    check_definitions(&parsed.file.items, &mut Vec::new()).into_iter().find(|t| t.hir.name == name)
}

/// The span of a dotted name.
#[must_use]
pub fn path_span(path: &Path) -> Option<Span> {
    Some(path.parts.first()?.span.to(path.parts.last()?.span))
}
