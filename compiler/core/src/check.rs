//! Checks a policy: declarations, guarantees, hooks. Gives HIR and findings.
//!
//! Architecture invariant: checking never fails; it reports every independent mistake and gives a
//! policy only when none of them is an error.

use crate::CompileOptions;
use crate::body::{self, Tables};
use crate::bounds::Loss;
use crate::expr::{Scope, constant_value};
use crate::hir::{
    Bound, Expr, ExprKind, Failure, Guarantee, HookBody, Node, Param, Policy, State, visit,
};
use crate::names;
use crate::target::{self, CheckedTarget};
use crate::unit::{Unit, show};
use durac_abi::elf::MAX_POLICY_NAME;
use durac_abi::object::OnError;
use durac_abi::{Hook, LOOK_LEAST, Reading, Records};
use durac_grammar::ast::{self, BinOp, Ident, Item};
use durac_grammar::{Code, Diagnostic, FileId, Severity, Sources, Span, Spanned};

/// Parameters, and state variables, that one policy may have: members of one map value.
pub const MAX_VARIABLES: usize = 16;

/// Guarantees that one policy may have: each that is broken is looked into.
const MOST_GUARANTEES: usize = 64;

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
    options: &CompileOptions<'_>,
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
                "no statements for any call",
            )
            .help("add a hook, for example `on fdatasync: await previous; defer`"),
        );
    }
    let policy = if only_targets {
        None
    } else {
        Checker { sources, file, tree, diagnostics: &mut diagnostics }.policy(&local, options)
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

    fn policy(mut self, local: &[CheckedTarget], options: &CompileOptions<'_>) -> Option<Policy> {
        let name = self.single("the policy's name", |i| match i {
            Item::Policy(name) => Some(name.clone()),
            _ => None,
        });
        let name = match name {
            Some(name) => self.policy_name(name.node),
            None => name_of_stem(options.stem),
        };
        let target = match options.target {
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
        let assume = self.single("`assume`", |i| match i {
            Item::Assume(assume) => Some(assume.clone()),
            _ => None,
        });
        let assume_sync = assume.and_then(|a| self.assume(&a.node, &params));
        self.tight_flush(flush_within.as_ref(), assume_sync.as_ref(), 0);
        let on_error = self.on_error();
        let kernel_notify = self.kernel_notify();

        let mut read_params = vec![false; params.len()];
        let mut read_states = vec![false; states.len()];
        let written_states = states.len();
        let guarantees = self.guarantees(&params, &mut read_params);
        let mut hooks: Vec<HookBody> = Vec::new();
        let tree = self.tree;
        for item in &tree.items {
            let Item::On(on) = &item.node else { continue };
            let Some(hook) = self.hook(on, target.as_ref(), &hooks) else { continue };
            let tables = Tables {
                target: target.as_ref(),
                params: &params,
                states: &mut states,
                read_params: &mut read_params,
                read_states: &mut read_states,
                diagnostics: self.diagnostics,
            };
            let body = body::check(&on.body, hook, tables);
            hooks.push(HookBody { hook, span: item.span, body });
        }
        hooks.sort_by_key(|h| h.hook);
        if hooks.iter().any(HookBody::defers_writes) {
            self.tight_flush(flush_within.as_ref(), assume_sync.as_ref(), LOOK_LEAST);
        }
        if let Some(target) = &target {
            self.counted_records(target, &hooks, &guarantees);
            self.read_requests(target, &hooks);
        }
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
            assume_sync,
            on_error,
            kernel_notify,
            loss: Loss::default(),
        })
    }

    /// Updates are counted only where the target says how its log is divided into them.
    fn counted_records(
        &mut self,
        target: &CheckedTarget,
        hooks: &[HookBody],
        guarantees: &[Guarantee],
    ) {
        if target.hir.records != Records::None {
            return;
        }
        let mut uses: Vec<Span> = guarantees
            .iter()
            .filter(|g| matches!(g.bound, Bound::Updates(_)))
            .map(|g| g.span)
            .collect();
        let mut note = |node: Node<'_>| {
            if let Node::Expr(expr) = node
                && let ExprKind::Read(Reading::PendingUpdates | Reading::CallUpdates) = expr.kind
            {
                uses.push(expr.span);
            }
        };
        hooks.iter().for_each(|hook| visit(&hook.body, &mut note));
        for span in uses {
            let found = Diagnostic::new(
                Code::NoRecords,
                format!("the target `{}` does not count updates", target.hir.name),
                span,
                "in updates",
            );
            let found = match target.records_span {
                Some(at) => found.also(at, "the target says so here"),
                None => found.also(target.span, "the target does not say how its log is divided"),
            };
            self.report(found.help(
                "use bytes (`pending.bytes`) or syncs, or a target of your own with `records resp` or \
                 `records line`",
            ));
        }
    }

    /// Which keys a reply depends on is known only of a server whose log and whose clients speak Redis' protocol.
    fn read_requests(&mut self, target: &CheckedTarget, hooks: &[HookBody]) {
        if target.hir.records == Records::Resp {
            return;
        }
        let mut uses: Vec<Span> = Vec::new();
        let mut note = |node: Node<'_>| {
            if let Node::Expr(Expr { kind: ExprKind::Read(Reading::ReplyClean), span, .. }) = node {
                uses.push(*span);
            }
        };
        hooks.iter().for_each(|hook| visit(&hook.body, &mut note));
        for span in uses {
            let message = format!("what a reply depends on is not known of `{}`", target.hir.name);
            let found = Diagnostic::new(Code::NoRecords, message, span, "never known");
            let found = match target.records_span {
                Some(at) => found.also(at, "the target says that its records are others"),
                None => found.also(target.span, "the target does not say how its log is divided"),
            };
            self.report(found.help(
                "it is known of targets with `records resp`, whose server has Redis' commands; \
                 `hold until durable` alone holds every reply",
            ));
        }
    }

    /// The name that the policy gives itself, which has to fit into an object.
    fn policy_name(&mut self, name: Ident) -> String {
        if name.node.len() > MAX_POLICY_NAME {
            let message = format!(
                "the policy's name has {} characters; at most {MAX_POLICY_NAME} are allowed",
                name.node.len()
            );
            let found = Diagnostic::new(Code::LongName, message, name.span, "too long");
            self.report(found.help("choose a shorter name"));
        }
        name.node
    }

    fn unused(&mut self, code: Code, what: &str, name: &Spanned<String>) {
        let message = format!("unused {what} `{}`", name.node);
        self.report(Diagnostic::new(code, message, name.span, "never read"));
    }

    fn target(&mut self, local: &[CheckedTarget]) -> Option<CheckedTarget> {
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
    fn known_target(
        &mut self,
        name: &str,
        span: Option<Span>,
        local: &[CheckedTarget],
    ) -> Option<CheckedTarget> {
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
                    format!("unknown target `{name}`"),
                    span.unwrap_or(nowhere),
                    "not found",
                )
                .help(help),
            );
        }
        found
    }

    fn hook(
        &mut self,
        on: &ast::On,
        target: Option<&CheckedTarget>,
        seen: &[HookBody],
    ) -> Option<Hook> {
        let name = &on.hook;
        let hook = Hook::parse(&name.node).filter(|h| target.is_none_or(|t| t.hook(*h).is_some()));
        let Some(hook) = hook else {
            let known = target.map_or_else(Vec::new, CheckedTarget::hook_names);
            let mut diagnostic = Diagnostic::new(
                Code::UnknownHook,
                match target {
                    Some(t) => format!("the target `{}` has no hook `{}`", t.hir.name, name.node),
                    None => format!("unknown hook `{}`", name.node),
                },
                name.span,
                "not a hook of the target",
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
                .help("put all statements into one body"),
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
                    format!("`{}` is reserved by the language", name.node),
                    name.span,
                    "a reserved name",
                )
                .help(format!("choose another name, for example `my_{}`", name.node)),
            );
        }
    }

    fn unit(&mut self, ty: &Ident) -> Unit {
        if ty.node.is_empty() {
            // It is missing, and that has been reported.
            return Unit::Unknown;
        }
        Unit::parse(&ty.node).unwrap_or_else(|| {
            let known: Vec<_> = Unit::NAMED.iter().map(|u| u.text()).collect();
            let found = Diagnostic::new(
                Code::UnknownType,
                format!("unknown type `{}`", ty.node),
                ty.span,
                "not a type",
            );
            self.report(match names::type_meant(&ty.node) {
                Some((unit, help)) => found.help(help).perhaps(ty.span, unit),
                None => found.help(names::suggest(&ty.node, &known)),
            });
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
                            "the low end is above the high end",
                        )
                        .help("write `low..=high`; a range includes both ends"),
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
                            "can be set to any value",
                        )
                        .help("add `in low..=high`: guarantees are proved for every value in the range"),
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
                    "not a duration above zero",
                )
                .help("write `flush within 10ms`, or `pass` to sync at each call"),
            );
            return None;
        }
        value.map(|v| Spanned::new(v, expr.span))
    }

    fn assume(&mut self, assume: &ast::Assume, params: &[Param]) -> Option<Spanned<u64>> {
        let mut bad = |span, label: &str| {
            self.report(
                Diagnostic::new(Code::BadAssume, "invalid assumption", span, label)
                    .help("write `assume sync <= 10ms`"),
            );
        };
        if assume.subject.node != "sync" {
            bad(assume.subject.span, "not `sync`");
            return None;
        }
        if assume.relation.node != BinOp::Le {
            bad(assume.relation.span, "not `<=`");
            return None;
        }
        let before = self.diagnostics.len();
        let value = self.constant(&assume.bound, Unit::Duration, params);
        if value == Some(0) {
            self.diagnostics.truncate(before);
            self.report(
                Diagnostic::new(
                    Code::BadAssume,
                    "a sync takes longer than 0",
                    assume.bound.span,
                    "not a duration above zero",
                )
                .help("write `assume sync <= 10ms`"),
            );
            return None;
        }
        value.map(|v| Spanned::new(v, assume.bound.span))
    }

    /// A sync that is under way and the next one have to fit into the deadline.
    fn tight_flush(
        &mut self,
        flush: Option<&Spanned<u64>>,
        assume: Option<&Spanned<u64>>,
        more: u64,
    ) {
        let (Some(flush), Some(assume)) = (flush, assume) else { return };
        let two = assume.node.saturating_mul(2);
        // What is too tight already was told.
        let told = more > 0 && flush.node < two;
        let two = two.saturating_add(more);
        if flush.node < two && !told {
            let show = |time| show(time, Unit::Duration);
            self.report(
                Diagnostic::new(
                    Code::TightFlush,
                    format!(
                        "two syncs of {} do not fit into {}",
                        show(assume.node),
                        show(flush.node)
                    ),
                    flush.span,
                    "the deadline is shorter",
                )
                .also(assume.span, "the longest sync")
                .note("a sync may be under way that does not cover the oldest write, and the next takes as long")
                .help(format!("write `flush within {}` or more, or assume less", show(two))),
            );
        }
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
                        format!("unknown mode `{other}` of `on error`"),
                        mode.node.span,
                        "not a mode",
                    )
                    .help(help)
                    .note("an error is never dropped: `fail` reports it for its log, `stop` for every log"),
                );
                OnError::Fail
            }
        }
    }

    fn kernel_notify(&mut self) -> Option<Span> {
        let mut found = None;
        let tree = self.tree;
        for item in &tree.items {
            let Item::Use(words) = &item.node else { continue };
            let text = words.iter().map(|w| w.node.as_str()).collect::<Vec<_>>().join(" ");
            if text == "kernel notify" {
                found = found.or(Some(item.span));
                continue;
            }
            self.report(
                Diagnostic::new(
                    Code::UnknownUse,
                    format!("unknown feature `{text}`"),
                    item.span,
                    "not a feature",
                )
                .help("the only feature is `use kernel notify`"),
            );
        }
        found
    }

    fn guarantees(&mut self, params: &[Param], read: &mut [bool]) -> Vec<Guarantee> {
        let mut guarantees = Vec::new();
        let tree = self.tree;
        for item in &tree.items {
            let Item::Guarantee(g) = &item.node else { continue };
            if guarantees.len() >= MOST_GUARANTEES {
                self.report(Diagnostic::new(
                    Code::TooLarge,
                    format!("a policy has at most {MOST_GUARANTEES} guarantees"),
                    item.span,
                    "one too many",
                ));
                break;
            }
            let Some(failure) = self.failure(&g.failure) else { continue };
            let Some(to_clients) = self.audience(g) else { continue };
            if let Some(bound) = self.bound(g, params, read) {
                guarantees.push(Guarantee { failure, to_clients, span: item.span, bound });
            }
        }
        guarantees
    }

    fn failure(&mut self, name: &Ident) -> Option<Failure> {
        let found = Failure::parse(&name.node);
        if found.is_none() {
            let help = names::suggest(&name.node, &["power_loss", "process_crash"]);
            self.report(
                Diagnostic::new(
                    Code::UnknownFailure,
                    format!("unknown failure `{}`", name.node),
                    name.span,
                    "not a failure",
                )
                .help(help),
            );
        }
        found
    }

    /// Whether it is about what clients see; none if it cannot be told.
    fn audience(&mut self, g: &ast::Guarantee) -> Option<bool> {
        let Some((to, who)) = &g.audience else { return Some(false) };
        let bad = [(to, "to"), (who, "clients")].into_iter().find(|(word, is)| word.node != *is);
        let Some((word, is)) = bad else { return Some(true) };
        let (label, help) =
            (format!("expected `{is}`"), "write `loss = 0 to clients on power_loss`");
        self.bad_guarantee(word.span, &label, help);
        None
    }

    fn bad_guarantee(&mut self, span: Span, label: &str, help: &str) {
        self.report(
            Diagnostic::new(Code::BadGuarantee, "invalid guarantee", span, label).help(help),
        );
    }

    fn bound(&mut self, g: &ast::Guarantee, params: &[Param], read: &mut [bool]) -> Option<Bound> {
        if g.subject.node != "loss" {
            let help = "only `loss` can be bounded: write `guarantee loss <= … on power_loss`";
            self.bad_guarantee(g.subject.span, "expected `loss`", help);
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
                self.bad_guarantee(g.relation.span, "expected an upper bound", help);
                return None;
            }
            BinOp::Lt => {
                let help = "write `loss <= …` with the largest loss that is allowed";
                self.bad_guarantee(g.relation.span, "a bound is written with `<=`", help);
                return None;
            }
            _ => {
                let help = "write `loss <= …` or `loss = 0`";
                self.bad_guarantee(g.relation.span, "not an upper bound", help);
                return None;
            }
        }
        match bound.unit {
            Unit::Unknown => None,
            Unit::Plain | Unit::Count | Unit::Duration if zero => Some(Bound::Nothing),
            _ if zero && g.relation.node == BinOp::Eq => Some(Bound::Nothing),
            Unit::Syncs => Some(Bound::Syncs(bound)),
            Unit::Writes => Some(Bound::Writes(bound)),
            Unit::Updates => Some(Bound::Updates(bound)),
            Unit::Bytes => Some(Bound::Bytes(bound)),
            Unit::Duration => Some(Bound::Age(bound)),
            Unit::Plain | Unit::Count => {
                self.report(
                    Diagnostic::new(
                        Code::MissingUnit,
                        "the bound needs a unit",
                        g.bound.span,
                        "a plain number",
                    )
                    .help(match bound.kind {
                        ExprKind::Const(n) => {
                            format!("for example, `{n} syncs`, `{n} updates` or `{n}ms`")
                        }
                        _ => "for example, `2 syncs` or `50ms`".to_owned(),
                    }),
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
fn name_of_stem(stem: &str) -> String {
    let mut name = durac_abi::btf::identifier(stem);
    name.truncate(64);
    name
}
