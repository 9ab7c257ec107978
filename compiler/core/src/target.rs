//! Targets: which files, which hooks, and what a policy may do there.
//!
//! A target is a definition in the language. The compiler knows none by name; it looks the name up
//! among the definitions of the file itself, then among the texts of the standard library.

use crate::hir;
use crate::names;
use durac_bpf::abi::{Engine, Hook};
use durac_grammar::ast::{HookDef, Ident, Item, Path, TargetDef};
use durac_grammar::{Code, Diagnostic, Sources, Span, Spanned};

/// What a statement does, as a target grants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `await …`
    Await,
    /// `commit`
    Commit,
    /// `defer`
    Defer,
    /// `fail …`
    Fail,
    /// `hold …`
    Hold,
    /// `pass`
    Pass,
    /// `skip`
    Skip,
    /// `stage`
    Stage,
}

impl Action {
    /// Every action, sorted by name.
    pub const ALL: [Action; 8] = [
        Action::Await,
        Action::Commit,
        Action::Defer,
        Action::Fail,
        Action::Hold,
        Action::Pass,
        Action::Skip,
        Action::Stage,
    ];

    /// As written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Action::Await => "await",
            Action::Commit => "commit",
            Action::Defer => "defer",
            Action::Fail => "fail",
            Action::Hold => "hold",
            Action::Pass => "pass",
            Action::Skip => "skip",
            Action::Stage => "stage",
        }
    }
}

/// A checked target.
#[derive(Clone, Debug)]
pub struct Target {
    /// What the object needs of it.
    pub hir: hir::Target,
    /// Where its name is defined.
    pub span: Span,
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

impl Target {
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
) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
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

fn check_definition(def: &TargetDef, span: Span, diagnostics: &mut Vec<Diagnostic>) -> Target {
    let name = def.name.dotted();
    let name_span = path_span(&def.name).unwrap_or(span);
    if def.files.is_empty() || def.hooks.is_empty() {
        let what = if def.files.is_empty() { "files" } else { "hooks" };
        diagnostics.push(
            Diagnostic::new(
                Code::EmptyTarget,
                format!("the target `{name}` has no {what}"),
                name_span,
                format!("covers no {what}"),
            )
            .help("a target needs a `files \"…\"` line and at least one `hook`"),
        );
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
    let texts = |list: &[Spanned<String>]| list.iter().map(|s| s.node.clone()).collect();
    Target {
        hir: hir::Target {
            name,
            files: texts(&def.files),
            except: texts(&def.except),
            entries,
            engine,
        },
        span: name_span,
        hooks,
    }
}

fn check_hook(def: &HookDef, diagnostics: &mut Vec<Diagnostic>) -> Option<TargetHook> {
    let Some(hook) = Hook::parse(&def.name.node) else {
        let known: Vec<_> = Hook::ALL.iter().map(|h| h.name()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownHook,
                format!("there is no hook `{}`", def.name.node),
                def.name.span,
                "unknown hook",
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

fn entry(hook: Hook, def: &HookDef) -> hir::Entry {
    let function = |entry: &durac_grammar::ast::Entry| hir::Function {
        kind: entry.kind.node.clone(),
        symbol: entry.symbol.clone(),
    };
    hir::Entry {
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
            Diagnostic::new(
                Code::Duplicate,
                "a target has one engine",
                again.span,
                "named again here",
            )
            .also(first.span, "first named here"),
        );
    }
    let engine = Engine::parse(&first.node);
    if engine.is_none() {
        let known: Vec<_> = Engine::ALL.iter().map(|e| e.name()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownEngine,
                format!("there is no engine `{}`", first.node),
                first.span,
                "no such engine",
            )
            .help(names::suggest(&first.node, &known)),
        );
    }
    engine
}

fn check_action(word: &Ident, diagnostics: &mut Vec<Diagnostic>) -> Option<Action> {
    let action = Action::ALL.into_iter().find(|a| a.text() == word.node);
    if action.is_none() {
        let known: Vec<_> = Action::ALL.iter().map(|a| a.text()).collect();
        diagnostics.push(
            Diagnostic::new(
                Code::UnknownCapability,
                format!("a target cannot grant `{}`", word.node),
                word.span,
                "no such action",
            )
            .help(names::suggest(&word.node, &known)),
        );
    }
    action
}

/// The target called `name`: one of `local`, or one of the standard library, whose text is added
/// to the sources so that diagnostics can point into it.
pub fn find(name: &str, local: &[Target], sources: &mut Sources) -> Option<Target> {
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
