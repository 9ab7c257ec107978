//! Checks a policy: declarations, guarantees, hooks. Gives HIR and findings.
//!
//! Architecture invariant: checking never fails; it reports every independent mistake and gives a
//! policy only when none of them is an error.

use crate::Naming;
use crate::body;
use crate::expr::{Scope, constant_value};
use crate::hir::{Bound, Failure, Guarantee, HookBody, Param, Policy, State};
use crate::names;
use crate::target::{self, Target};
use crate::unit::Unit;
use durac_bpf::abi::Hook;
use durac_bpf::object::OnError;
use durac_grammar::ast::{self, BinOp, Ident, Item};
use durac_grammar::{Code, Diagnostic, FileId, Severity, Sources, Span, Spanned};

/// Parameters, and state variables, that one policy may have: members of one map value.
pub const MAX_VARIABLES: usize = 16;

/// What checking gives.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The policy; none if the file holds only targets or has an error.
    pub policy: Option<Policy>,
    /// Whether the file holds definitions of targets and no policy.
    pub only_targets: bool,
    /// What is wrong or doubtful.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks the tree of `file`.
///
/// Targets of the standard library are added to `sources` when they are used.
pub fn check(
    sources: &mut Sources,
    file: FileId,
    tree: &ast::File,
    naming: &Naming<'_>,
) -> Checked {
    let mut diagnostics = Vec::new();
    let local = target::check_definitions(&tree.items, &mut diagnostics);
    let only_targets = !local.is_empty()
        && tree.items.iter().all(|i| matches!(i.node, Item::TargetDef(_) | Item::Error));
    let has_error_item = tree.items.iter().any(|i| matches!(i.node, Item::Error));
    let has_hook = tree.items.iter().any(|i| matches!(i.node, Item::On(_)));
    if !only_targets && !has_hook && !has_error_item {
        diagnostics.push(
            Diagnostic::new(
                Code::EmptyFile,
                "the file has no hook",
                Span::new(file, 0, 0),
                "nothing happens at any call",
            )
            .help(
                "a policy is at least one hook, for example `on fdatasync: await previous; defer`",
            ),
        );
    }
    let policy = if only_targets {
        None
    } else {
        Checker { sources, file, tree, diagnostics: &mut diagnostics }.policy(&local, naming)
    };
    let right = !diagnostics.iter().any(|d| d.severity() == Severity::Error) && !has_error_item;
    Checked { policy: policy.filter(|_| right), only_targets, diagnostics }
}

struct Checker<'a> {
    sources: &'a mut Sources,
    file: FileId,
    tree: &'a ast::File,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Checker<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// The items `pick` picks, each with its span; more than one is reported as `what`.
    fn single<T>(&mut self, what: &str, pick: impl Fn(&Item) -> Option<T>) -> Option<Spanned<T>> {
        let mut first: Option<Spanned<T>> = None;
        let tree = self.tree;
        for item in &tree.items {
            let Some(found) = pick(&item.node) else { continue };
            match &first {
                None => first = Some(Spanned::new(found, item.span)),
                Some(first) => {
                    let first = first.span;
                    self.report(
                        Diagnostic::new(
                            Code::Duplicate,
                            format!("{what} is given twice"),
                            item.span,
                            "given again here",
                        )
                        .also(first, "first given here"),
                    );
                }
            }
        }
        first
    }

    fn policy(mut self, local: &[Target], naming: &Naming<'_>) -> Option<Policy> {
        let name = self.single("the policy's name", |i| match i {
            Item::Policy(name) => Some(name.node.clone()),
            _ => None,
        });
        let name = name.map_or_else(|| identifier(naming.stem), |n| n.node);
        let target = match naming.target {
            Some(name) => self.known_target(name, None, local),
            None => self.target(local),
        };
        let params = self.params();
        let mut states = self.states(&params);
        let flush = self.single("`flush within`", |i| match i {
            Item::Flush(expr) => Some(expr.clone()),
            _ => None,
        });
        let flush_within = flush.and_then(|f| self.flush(&f.node, &params));
        let on_error = self.on_error();
        let uses = self.uses();

        let mut read_params = vec![false; params.len()];
        let mut read_states = vec![false; states.len()];
        let written_states = states.len();
        let guarantees = self.guarantees(&params, &mut read_params);
        let mut hooks: Vec<HookBody> = Vec::new();
        let tree = self.tree;
        for item in &tree.items {
            let Item::On(on) = &item.node else { continue };
            let Some(hook) = self.hook(on, target.as_ref(), &hooks) else { continue };
            let body = body::check(
                &on.body,
                hook,
                target.as_ref(),
                &params,
                &mut states,
                &mut read_params,
                &mut read_states,
                self.diagnostics,
            );
            hooks.push(HookBody { hook, span: item.span, body });
        }
        hooks.sort_by_key(|h| h.hook);
        for (param, _) in params.iter().zip(&read_params).filter(|(_, read)| !**read) {
            self.unused(Code::UnusedParam, "parameter", &param.name);
        }
        let declared = states.iter().take(written_states).zip(&read_states);
        for name in
            declared.filter(|(_, read)| !**read).map(|(s, _)| s.name.clone()).collect::<Vec<_>>()
        {
            self.unused(Code::UnusedState, "state variable", &name);
        }
        Some(Policy {
            name,
            target: target?.hir,
            params,
            states,
            guarantees,
            hooks,
            flush_within,
            on_error,
            uses,
        })
    }

    fn unused(&mut self, code: Code, what: &str, name: &Spanned<String>) {
        let message = format!("nothing reads the {what} `{}`", name.node);
        self.report(Diagnostic::new(code, message, name.span, "never read"));
    }

    fn target(&mut self, local: &[Target]) -> Option<Target> {
        let named = self.single("the target", |i| match i {
            Item::Target(path) => Some(path.clone()),
            _ => None,
        });
        let Some(named) = named else {
            let name = match local {
                [only] => only.hir.name.clone(),
                _ => durac_stdlib::DEFAULT_TARGET.to_owned(),
            };
            return target::find(&name, local, self.sources);
        };
        let span = target::path_span(&named.node).unwrap_or(named.span);
        self.known_target(&named.node.dotted(), Some(span), local)
    }

    /// The target of that name, which is written at `span`, if it is written.
    fn known_target(&mut self, name: &str, span: Option<Span>, local: &[Target]) -> Option<Target> {
        let found = target::find(name, local, self.sources);
        if found.is_none() {
            let known: Vec<&str> = (local.iter().map(|t| t.hir.name.as_str()))
                .chain(durac_stdlib::TARGETS.iter().map(|t| t.name))
                .collect();
            let help = names::suggest(name, &known);
            let nowhere = Span::new(self.file, 0, 0);
            self.report(
                Diagnostic::new(
                    Code::UnknownTarget,
                    format!("there is no target `{name}`"),
                    span.unwrap_or(nowhere),
                    "unknown target",
                )
                .help(help),
            );
        }
        found
    }

    fn hook(&mut self, on: &ast::On, target: Option<&Target>, seen: &[HookBody]) -> Option<Hook> {
        let name = &on.hook;
        let hook = Hook::parse(&name.node).filter(|h| target.is_none_or(|t| t.hook(*h).is_some()));
        let Some(hook) = hook else {
            let known = target.map_or_else(Vec::new, Target::hook_names);
            let mut diagnostic = Diagnostic::new(
                Code::UnknownHook,
                match target {
                    Some(t) => format!("the target `{}` has no hook `{}`", t.hir.name, name.node),
                    None => format!("there is no hook `{}`", name.node),
                },
                name.span,
                "unknown hook",
            );
            if !known.is_empty() {
                diagnostic = diagnostic.help(names::suggest(&name.node, &known));
            }
            if let Some(target) = target {
                diagnostic = diagnostic.also(target.span, "the target is defined here");
            }
            self.report(diagnostic);
            return None;
        };
        if let Some(first) = seen.iter().find(|h| h.hook == hook) {
            self.report(
                Diagnostic::new(
                    Code::DuplicateHook,
                    format!("the hook `{hook}` is written twice"),
                    name.span,
                    "written again here",
                )
                .also(first.span, "first written here")
                .help("put the statements into one body"),
            );
            return None;
        }
        Some(hook)
    }

    fn declared(&mut self, name: &Ident, earlier: &[(String, Span)]) {
        if let Some((_, first)) = earlier.iter().find(|(n, _)| *n == name.node) {
            self.report(
                Diagnostic::new(
                    Code::Duplicate,
                    format!("`{}` is declared twice", name.node),
                    name.span,
                    "declared again here",
                )
                .also(*first, "first declared here"),
            );
        }
        let taken = names::READINGS
            .iter()
            .filter_map(|(n, ..)| n.split('.').next())
            .chain(["previous", "all", "loss"])
            .any(|n| n == name.node);
        if taken {
            self.report(
                Diagnostic::new(
                    Code::ReservedName,
                    format!("`{}` is a name of the language", name.node),
                    name.span,
                    "already means something",
                )
                .help(format!("choose another name, for example `my_{}`", name.node)),
            );
        }
    }

    fn unit(&mut self, ty: &Ident) -> Unit {
        Unit::parse(&ty.node).unwrap_or_else(|| {
            let known: Vec<_> = Unit::NAMED.iter().map(|u| u.text()).collect();
            self.report(
                Diagnostic::new(
                    Code::UnknownType,
                    format!("there is no type `{}`", ty.node),
                    ty.span,
                    "unknown type",
                )
                .help(names::suggest(&ty.node, &known)),
            );
            Unit::Unknown
        })
    }

    fn constant(&mut self, expr: &Spanned<ast::Expr>, unit: Unit, params: &[Param]) -> Option<u64> {
        let mut read = vec![false; params.len()];
        Scope {
            params,
            states: &[],
            read_params: &mut read,
            read_states: &mut [],
            diagnostics: self.diagnostics,
        }
        .constant(expr, unit)
    }

    fn too_many(&mut self, what: &str, item: Span) {
        self.report(Diagnostic::new(
            Code::TooManyVariables,
            format!("more than {MAX_VARIABLES} {what}"),
            item,
            "one too many",
        ));
    }

    fn params(&mut self) -> Vec<Param> {
        let mut params: Vec<Param> = Vec::new();
        let tree = self.tree;
        for item in &tree.items {
            let Item::Param(decl) = &item.node else { continue };
            let earlier: Vec<_> =
                params.iter().map(|p| (p.name.node.clone(), p.name.span)).collect();
            self.declared(&decl.name, &earlier);
            if params.len() == MAX_VARIABLES {
                self.too_many("parameters", item.span);
                break;
            }
            let param = self.param(decl, &params);
            params.push(param);
        }
        params
    }

    fn param(&mut self, decl: &ast::Param, earlier: &[Param]) -> Param {
        let unit = self.unit(&decl.ty);
        let default = self.constant(&decl.default, unit, earlier);
        let bounds = decl.range.as_ref().map(|(low, high)| {
            (self.constant(low, unit, earlier), self.constant(high, unit, earlier))
        });
        let (min, max) = match (bounds, &decl.range) {
            (Some((Some(min), Some(max))), Some((low, high))) => {
                let span = low.span.to(high.span);
                if min > max {
                    self.report(
                        Diagnostic::new(
                            Code::EmptyRange,
                            format!("the range of `{}` is empty", decl.name.node),
                            span,
                            "its low end is above its high end",
                        )
                        .help("write `low..=high`; both ends belong to the range"),
                    );
                } else if let Some(value) = default
                    && !(min..=max).contains(&value)
                {
                    self.report(
                        Diagnostic::new(
                            Code::OutOfRange,
                            format!("the default of `{}` is outside its range", decl.name.node),
                            decl.default.span,
                            "outside the range",
                        )
                        .also(span, "the range"),
                    );
                }
                (min, max)
            }
            _ => {
                if bounds.is_none() && unit != Unit::Bool && unit != Unit::Unknown {
                    self.report(
                        Diagnostic::new(
                            Code::NoRange,
                            format!("the parameter `{}` has no range", decl.name.node),
                            decl.name.span,
                            "may be set to anything",
                        )
                        .help("add `in low..=high`: bounds are shown for every value of the range"),
                    );
                }
                (0, if unit == Unit::Bool { 1 } else { u64::MAX })
            }
        };
        let name = decl.name.clone();
        Param { name, unit, default: default.unwrap_or(min), min, max }
    }

    fn states(&mut self, params: &[Param]) -> Vec<State> {
        let mut states: Vec<State> = Vec::new();
        let tree = self.tree;
        for item in &tree.items {
            let Item::State(decl) = &item.node else { continue };
            let earlier: Vec<_> = (params.iter().map(|p| &p.name))
                .chain(states.iter().map(|s| &s.name))
                .map(|n| (n.node.clone(), n.span))
                .collect();
            self.declared(&decl.name, &earlier);
            if states.len() == MAX_VARIABLES {
                self.too_many("state variables", item.span);
                break;
            }
            let unit = self.unit(&decl.ty);
            let init = self.constant(&decl.init, unit, params).unwrap_or(0);
            states.push(State { name: decl.name.clone(), unit, init });
        }
        states
    }

    fn flush(&mut self, expr: &Spanned<ast::Expr>, params: &[Param]) -> Option<Spanned<u64>> {
        let before = self.diagnostics.len();
        let value = self.constant(expr, Unit::Duration, params);
        if value == Some(0) {
            self.diagnostics.truncate(before);
            self.report(
                Diagnostic::new(
                    Code::BadFlush,
                    "`flush within` needs a duration above zero",
                    expr.span,
                    "no time at all",
                )
                .help("write `flush within 10ms`, or `pass` to sync at each call"),
            );
            return None;
        }
        value.map(|v| Spanned::new(v, expr.span))
    }

    fn on_error(&mut self) -> OnError {
        let mode = self.single("`on error`", |i| match i {
            Item::OnError(mode) => Some(mode.clone()),
            _ => None,
        });
        let Some(mode) = mode else { return OnError::Fail };
        match mode.node.node.as_str() {
            "fail" => OnError::Fail,
            "stop" => OnError::Stop,
            other => {
                let help = names::suggest(other, &["fail", "stop"]);
                self.report(
                    Diagnostic::new(
                        Code::UnknownErrorMode,
                        format!("`on error` cannot `{other}`"),
                        mode.node.span,
                        "unknown mode",
                    )
                    .help(help)
                    .note("an error cannot be dropped, only reported now or for every log"),
                );
                OnError::Fail
            }
        }
    }

    fn uses(&mut self) -> Vec<Spanned<String>> {
        let mut uses = Vec::new();
        let tree = self.tree;
        for item in &tree.items {
            let Item::Use(words) = &item.node else { continue };
            let text = words.iter().map(|w| w.node.as_str()).collect::<Vec<_>>().join(" ");
            if text != "kernel notify" {
                self.report(
                    Diagnostic::new(
                        Code::UnknownUse,
                        format!("there is no feature `{text}`"),
                        item.span,
                        "unknown feature",
                    )
                    .help("known is `use kernel notify`"),
                );
            }
            uses.push(Spanned::new(text, item.span));
        }
        uses
    }

    fn guarantees(&mut self, params: &[Param], read: &mut [bool]) -> Vec<Guarantee> {
        let mut guarantees = Vec::new();
        let tree = self.tree;
        for item in &tree.items {
            let Item::Guarantee(g) = &item.node else { continue };
            let Some(failure) = self.failure(&g.failure) else { continue };
            if let Some(bound) = self.bound(g, params, read) {
                guarantees.push(Guarantee { failure, span: item.span, bound });
            }
        }
        guarantees
    }

    fn failure(&mut self, name: &Ident) -> Option<Failure> {
        let found = Failure::ALL.into_iter().find(|f| f.text() == name.node);
        if found.is_none() {
            let help = names::suggest(&name.node, &["power_loss", "process_crash"]);
            self.report(
                Diagnostic::new(
                    Code::UnknownFailure,
                    format!("there is no failure `{}`", name.node),
                    name.span,
                    "unknown failure",
                )
                .help(help),
            );
        }
        found
    }

    fn bad_guarantee(&mut self, span: Span, label: &str, help: &str) {
        self.report(
            Diagnostic::new(Code::BadGuarantee, "the guarantee is not understood", span, label)
                .help(help),
        );
    }

    fn bound(&mut self, g: &ast::Guarantee, params: &[Param], read: &mut [bool]) -> Option<Bound> {
        if g.subject.node != "loss" {
            self.bad_guarantee(g.subject.span, "not `loss`", "only `loss` can be bounded");
            return None;
        }
        let bound = Scope {
            params,
            states: &[],
            read_params: read,
            read_states: &mut [],
            diagnostics: self.diagnostics,
        }
        .expr(&g.bound);
        let zero = matches!(constant_value(&bound), Ok(0));
        match g.relation.node {
            BinOp::Le => {}
            BinOp::Eq if zero => {}
            BinOp::Eq => {
                let help = "write `loss <= …`, or `loss = 0`";
                self.bad_guarantee(g.relation.span, "only a bound can be kept", help);
                return None;
            }
            _ => {
                let help = "write `loss <= …` or `loss = 0`";
                self.bad_guarantee(g.relation.span, "not a bound from above", help);
                return None;
            }
        }
        match bound.unit {
            Unit::Unknown => None,
            Unit::Plain | Unit::Count if zero => Some(Bound::Nothing),
            _ if zero => Some(Bound::Nothing),
            Unit::Syncs => Some(Bound::Syncs(bound)),
            Unit::Writes => Some(Bound::Writes(bound)),
            Unit::Bytes => Some(Bound::Bytes(bound)),
            Unit::Duration => Some(Bound::Age(bound)),
            Unit::Plain | Unit::Count => {
                self.report(
                    Diagnostic::new(
                        Code::MissingUnit,
                        "a loss needs a unit",
                        g.bound.span,
                        "a plain number",
                    )
                    .help("write for example `2 syncs` or `50ms`"),
                );
                None
            }
            Unit::Bool => {
                self.bad_guarantee(g.bound.span, "a truth value", "write a number of syncs");
                None
            }
        }
    }
}

/// A name made from a file stem: characters that no name can have become `_`.
fn identifier(stem: &str) -> String {
    let mut name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name.truncate(64);
    name
}
