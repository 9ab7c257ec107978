//! Checks the tests of a file: names, units, and what cannot happen on this target.

use durac_abi::{Hook, Reading, Records};
use durac_core::expr::{Scope, constant_value};
use durac_core::hir::{Expr, ExprKind, Failure, Node, Policy, visit_expr};
use durac_core::names;
use durac_core::unit::{Unit, show};
use durac_engine::Errno;
use durac_grammar::ast::{self, Ident, Item};
use durac_grammar::{Code, Diagnostic, Sources, Span, Spanned};
use std::collections::BTreeMap;

/// A checked test.
#[derive(Clone, Debug)]
pub struct Test {
    /// Its name.
    pub name: Spanned<String>,
    /// Its steps.
    pub steps: Vec<Spanned<Step>>,
}

/// What a call is expected to do, with its place.
pub type Expected = Option<Spanned<Does>>;

/// A checked step.
#[derive(Clone, Debug)]
pub enum Step {
    /// The application writes.
    Write {
        /// How many bytes, which are one update; or how many updates.
        amount: Expr,
        /// What it is expected to do.
        expected: Expected,
    },
    /// The application syncs.
    Sync {
        /// `fsync` or `fdatasync`.
        hook: Hook,
        /// What it is expected to do.
        expected: Expected,
    },
    /// The application writes to a connection that it accepted.
    Reply {
        /// How many bytes.
        bytes: Expr,
        /// What it depends on is durable.
        clean: bool,
        /// What it is expected to do.
        expected: Expected,
    },
    /// An event loop has waited.
    Turn {
        /// How many descriptors are ready.
        ready: Expr,
        /// What it is expected to do.
        expected: Expected,
    },
    /// The background sync ends, perhaps with an error.
    Ends {
        /// The error.
        error: Option<Errno>,
        /// What the call that waits is expected to do then.
        expected: Expected,
    },
    /// The next sync that a call makes itself fails.
    NextFails(Errno),
    /// Time passes.
    After(Expr),
    /// A parameter is changed.
    Set(usize, Expr),
    /// A child starts or ends.
    Child(bool),
    /// Another file of the application is synced.
    Another {
        /// What that call is expected to do.
        expected: Expected,
    },
    /// What a crash would lose now.
    Crash {
        /// Of what kind.
        failure: Failure,
        /// Whether less is right, too.
        at_most: bool,
        /// How much, in its unit; none for nothing.
        loses: Option<Expr>,
    },
    /// Whether a background sync is under way.
    Runs(bool),
    /// A condition.
    Expect(Expr),
    /// Steps that are made so often.
    Repeat(u64, Vec<Spanned<Step>>),
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// It runs as the application made it, and succeeds.
    Passes,
    /// It reports success, and a sync in the background was requested.
    Defers,
    /// It reports success.
    Skips,
    /// Its bytes are copied.
    Stages,
    /// A reply: its bytes are copied, and sent later.
    Holds,
    /// A turn: it looks for more.
    Gathers,
    /// It has not returned yet.
    Waits,
    /// It fails.
    Fails(Errno),
}

/// The name of an error; its number if it has none here.
pub(super) fn errno_name(errno: Errno) -> String {
    let known = names::ERRNOS.iter().find(|(_, number)| *number == errno);
    known.map_or_else(|| format!("error {errno}"), |(name, _)| (*name).to_owned())
}

/// Bytes of a write that says nothing, and of an update.
pub(super) const USUAL_WRITE: u64 = 64;

/// How often steps can be repeated.
const MOST_TIMES: u64 = 10_000;

/// Checks the tests of a file. A test with an error is left out.
#[must_use]
pub fn check(file: &ast::File, policy: &Policy, sources: &Sources) -> (Vec<Test>, Vec<Diagnostic>) {
    let mut tests: Vec<Test> = Vec::new();
    let mut names: BTreeMap<&str, Span> = BTreeMap::new();
    let mut diagnostics = Vec::new();
    for item in &file.items {
        let Item::Test(test) = &item.node else { continue };
        let first = *names.entry(&test.name.node).or_insert(test.name.span);
        if first != test.name.span {
            diagnostics.push(
                Diagnostic::new(
                    Code::Duplicate,
                    format!("the test `{}` is written twice", short(&test.name.node)),
                    test.name.span,
                    "written again here",
                )
                .also(first, "first written here"),
            );
        }
        let mut checker = Checker { policy, sources, diagnostics: Vec::new() };
        let steps = checker.steps(&test.body);
        tests.push(Test { name: test.name.clone(), steps });
        diagnostics.extend(checker.diagnostics);
    }
    (tests, diagnostics)
}

/// A name of a test in a message.
pub(super) fn short(name: &str) -> String {
    const LONGEST: usize = 40;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or(name)),
        None => name.to_owned(),
    }
}

struct Checker<'a> {
    policy: &'a Policy,
    sources: &'a Sources,
    diagnostics: Vec<Diagnostic>,
}

impl Checker<'_> {
    fn report(
        &mut self,
        code: Code,
        message: impl Into<String>,
        span: Span,
        label: &str,
        help: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::new(code, message, span, label).help(help));
    }

    fn steps(&mut self, body: &ast::Steps) -> Vec<Spanned<Step>> {
        let steps = body.steps.iter().filter_map(|step| {
            let checked = self.step(&step.node, step.span)?;
            Some(Spanned::new(checked, step.span))
        });
        steps.collect()
    }

    fn step(&mut self, step: &ast::Step, span: Span) -> Option<Step> {
        Some(match step {
            ast::Step::Call { hook, clean, len, returns } => {
                return self.call(hook, *clean, len.as_ref(), returns.as_ref());
            }
            ast::Step::Sync { error, returns } => {
                let error = match error {
                    Some(error) => Some(self.errno(error)?),
                    None => None,
                };
                Step::Ends { error, expected: self.expected(returns.as_ref())? }
            }
            ast::Step::NextFails(errno) => Step::NextFails(self.errno(errno)?),
            ast::Step::After(time) => Step::After(self.value(time, Unit::Duration)?),
            ast::Step::Set(name, value) => return self.set(name, value),
            ast::Step::Child { starts } => Step::Child(*starts),
            ast::Step::Another { returns } => {
                let expected = self.expected(returns.as_ref())?;
                if let Some(Spanned { node, span }) = expected
                    && !matches!(node, Does::Passes | Does::Waits | Does::Fails(_))
                {
                    self.report(
                        Code::BadStep,
                        "no policy decides about a call on another file",
                        span,
                        "cannot happen",
                        "it `passed`, `waits` or `fails EIO`",
                    );
                    return None;
                }
                Step::Another { expected }
            }
            ast::Step::Crash { failure, at_most, loses } => {
                let failure = Failure::parse(&failure.node)?;
                let loses = match loses {
                    Some(amount) => Some(self.amount(amount, failure)?),
                    None => None,
                };
                Step::Crash { failure, at_most: *at_most, loses }
            }
            ast::Step::Runs(runs) => Step::Runs(*runs),
            ast::Step::Expect(condition) => return self.expect(condition, span),
            ast::Step::Repeat { times, body } => {
                let span = times.span;
                let times = self.scoped(|scope| scope.constant(times, Unit::Count));
                let steps = self.steps(body);
                let times = times?;
                if times > MOST_TIMES {
                    let message = format!("more than {MOST_TIMES} times");
                    self.report(Code::BadStep, message, span, "too often", "repeat it less often");
                    return None;
                }
                Step::Repeat(times, steps)
            }
            ast::Step::Error => return None,
        })
    }

    fn call(
        &mut self,
        name: &Ident,
        clean: bool,
        len: Option<&Spanned<ast::Expr>>,
        returns: Option<&Spanned<ast::Outcome>>,
    ) -> Option<Step> {
        let target = &self.policy.target;
        let hook = Hook::parse(&name.node);
        // A write happens on every log.
        let known = hook.filter(|h| *h == Hook::Write || target.entry(*h).is_some());
        let Some(hook) = known else {
            let others = target.entries.iter().map(|e| e.hook).filter(|h| *h != Hook::Write);
            let calls: Vec<&str> =
                std::iter::once(Hook::Write).chain(others).map(Hook::name).collect();
            let help = names::suggest(&name.node, &calls);
            if hook.is_some() {
                let message = format!("a test on `{}` cannot call `{}`", target.name, name.node);
                self.report(Code::BadStep, message, name.span, "not a call of a test here", help);
            } else {
                let message = format!("unknown step `{}`", short(&name.node));
                self.report(Code::UnknownStep, message, name.span, "not a call", help);
            }
            return None;
        };
        let amount = match len {
            Some(len) if hook == Hook::Turn => self.value(len, Unit::Count)?,
            Some(len) if hook == Hook::Reply => self.value(len, Unit::Bytes)?,
            Some(len) => self.written(len)?,
            None if hook == Hook::Turn => {
                Expr { kind: ExprKind::Const(1), unit: Unit::Count, span: name.span }
            }
            None => Expr { kind: ExprKind::Const(USUAL_WRITE), unit: Unit::Bytes, span: name.span },
        };
        if let Ok(0) = constant_value(&amount) {
            let (message, label, help) = match hook {
                Hook::Turn => {
                    ("a turn with nothing ready", "nothing", "it looks for more only then")
                }
                Hook::Reply => ("a reply of nothing", "no bytes", "write at least one byte"),
                _ => ("a write of nothing", "no bytes", "write at least one byte"),
            };
            self.report(Code::BadStep, message, amount.span, label, help);
            return None;
        }
        let expected = self.expected(returns)?;
        if let Some(Spanned { node, span }) = &expected {
            let what = match node {
                Does::Passes => None,
                Does::Holds if hook == Hook::Reply => None,
                Does::Gathers if hook == Hook::Turn => None,
                _ if hook == Hook::Reply => {
                    Some(("a reply is sent at once or held", "`passed` or `held`"))
                }
                _ if hook == Hook::Turn => {
                    Some(("a turn goes on at once or gathers", "`passed` or `gathers`"))
                }
                Does::Holds | Does::Gathers => {
                    Some(("only replies are held, and only turns gather", "what a call does"))
                }
                Does::Stages if hook.is_sync() => {
                    Some(("a sync has no bytes to copy", "`deferred` or `skipped`"))
                }
                Does::Defers | Does::Skips if !hook.is_sync() => {
                    Some(("a write is never deferred or skipped", "`staged` or `passed`"))
                }
                _ => None,
            };
            if let Some((message, instead)) = what {
                self.report(
                    Code::BadStep,
                    message,
                    *span,
                    "cannot happen",
                    format!("write {instead}"),
                );
                return None;
            }
        }
        Some(match hook {
            Hook::Write => Step::Write { amount, expected },
            Hook::Reply => Step::Reply { bytes: amount, clean, expected },
            Hook::Turn => Step::Turn { ready: amount, expected },
            hook => Step::Sync { hook, expected },
        })
    }

    /// How much a write writes: bytes, or updates if the log has records.
    fn written(&mut self, amount: &Spanned<ast::Expr>) -> Option<Expr> {
        let checked = self.scoped(|scope| scope.expr(amount));
        if checked.unit != Unit::Updates {
            let checked = self.scoped(|scope| scope.coerce(checked, Unit::Bytes));
            return self.readable(checked);
        }
        if self.policy.target.records == Records::None {
            let message =
                format!("the log of `{}` is not divided into updates", self.policy.target.name);
            self.report(
                Code::BadStep,
                message,
                amount.span,
                "no updates here",
                "for example, `write 4KiB`",
            );
            return None;
        }
        self.readable(checked)
    }

    fn expected(&mut self, returns: Option<&Spanned<ast::Outcome>>) -> Option<Expected> {
        let Some(returns) = returns else { return Some(None) };
        let does = match &returns.node {
            ast::Outcome::Passed => Does::Passes,
            ast::Outcome::Deferred => Does::Defers,
            ast::Outcome::Skipped => Does::Skips,
            ast::Outcome::Staged => Does::Stages,
            ast::Outcome::Held => Does::Holds,
            ast::Outcome::Gathers => Does::Gathers,
            ast::Outcome::Waits => Does::Waits,
            ast::Outcome::Fails(errno) => Does::Fails(self.errno(errno)?),
        };
        Some(Some(Spanned::new(does, returns.span)))
    }

    fn errno(&mut self, name: &Ident) -> Option<Errno> {
        if let Some((_, number)) = names::ERRNOS.iter().find(|(n, _)| *n == name.node) {
            return Some(*number);
        }
        let known: Vec<&str> = names::ERRNOS.iter().map(|(n, _)| *n).collect();
        let message = format!("unknown error `{}`", short(&name.node));
        self.report(
            Code::UnknownErrno,
            message,
            name.span,
            "not an error here",
            names::suggest(&name.node, &known),
        );
        None
    }

    fn set(&mut self, name: &Ident, value: &Spanned<ast::Expr>) -> Option<Step> {
        let params = &self.policy.params;
        let found = params.iter().enumerate().find(|(_, p)| p.name.node == name.node);
        let Some((index, param)) = found else {
            let known: Vec<&str> = params.iter().map(|p| p.name.node.as_str()).collect();
            let is_state = self.policy.states.iter().any(|s| s.name.node == name.node);
            let help = match known.as_slice() {
                _ if is_state => "state is the policy's own: only its calls change it".to_owned(),
                [] => "the policy has no parameters".to_owned(),
                known => names::suggest(&name.node, known),
            };
            let message = format!("unknown parameter `{}`", short(&name.node));
            self.report(Code::UnknownName, message, name.span, "not a parameter", help);
            return None;
        };
        let (unit, range) = (param.unit, param.min..=param.max);
        let value = self.value(value, unit)?;
        if let Ok(to) = constant_value(&value)
            && !range.contains(&to)
        {
            let (low, high) = (show(*range.start(), unit), show(*range.end(), unit));
            let message = format!("`{}` must be in {low}..={high}", name.node);
            self.report(
                Code::OutOfRange,
                message,
                value.span,
                "outside its range",
                "choose another value",
            );
            return None;
        }
        Some(Step::Set(index, value))
    }

    fn amount(&mut self, amount: &Spanned<ast::Expr>, failure: Failure) -> Option<Expr> {
        let checked = self.expr(amount)?;
        let example = match failure {
            Failure::PowerLoss => "1 sync",
            Failure::ProcessCrash => "1 write",
        };
        match checked.unit {
            Unit::Syncs | Unit::Writes | Unit::Updates | Unit::Bytes | Unit::Duration => {
                Some(checked)
            }
            Unit::Unknown => None,
            Unit::Plain => {
                let help = format!("for example, `{example}`, `100B` or `20ms`");
                self.report(
                    Code::MissingUnit,
                    "a loss needs a unit",
                    amount.span,
                    "a plain number",
                    help,
                );
                None
            }
            _ => {
                let help = format!("for example, `{example}`, `100B` or `20ms`");
                self.report(
                    Code::Mismatch,
                    "a loss is counted in syncs, writes, updates, bytes or time",
                    amount.span,
                    "not an amount",
                    help,
                );
                None
            }
        }
    }

    fn expect(&mut self, condition: &Spanned<ast::Expr>, span: Span) -> Option<Step> {
        // One word that is no name is a step that does not exist.
        if let ast::Expr::Name(path) = &condition.node {
            let name = path.dotted();
            let known = names::reading(&name).is_some()
                || self.policy.params.iter().any(|p| p.name.node == name)
                || self.policy.states.iter().any(|s| s.name.node == name);
            if !known && path.parts.len() == 1 {
                let help = match durac_grammar::step_meant(&name) {
                    Some(step) => format!("did you mean `{step}`?"),
                    None => "for example, `write`, `fdatasync`, `sync ends`, `after 20ms` or `pending == 2`; \
                             `durac explain E0802` lists the steps"
                        .to_owned(),
                };
                let message = format!("unknown step `{}`", short(&name));
                self.report(Code::UnknownStep, message, span, "not a step", help);
                return None;
            }
        }
        let checked = self.expr(condition)?;
        match checked.unit {
            Unit::Bool => Some(Step::Expect(checked)),
            Unit::Unknown => None,
            _ => {
                let text = self.sources.slice(condition.span).trim();
                let help = format!("compare it, for example `{} == 0`", short(text));
                self.report(
                    Code::NotBool,
                    "expected a condition",
                    condition.span,
                    "is not true or false",
                    help,
                );
                None
            }
        }
    }

    fn value(&mut self, expr: &Spanned<ast::Expr>, unit: Unit) -> Option<Expr> {
        let checked = self.scoped(|scope| scope.expect(expr, unit));
        self.readable(checked)
    }

    fn expr(&mut self, expr: &Spanned<ast::Expr>) -> Option<Expr> {
        let checked = self.scoped(|scope| scope.expr(expr));
        self.readable(checked)
    }

    fn scoped<T>(&mut self, check: impl FnOnce(&mut Scope<'_>) -> T) -> T {
        let mut read_params = vec![false; self.policy.params.len()];
        let mut read_states = vec![false; self.policy.states.len()];
        check(&mut Scope {
            params: &self.policy.params,
            states: &self.policy.states,
            read_params: &mut read_params,
            read_states: &mut read_states,
            diagnostics: &mut self.diagnostics,
        })
    }

    /// An expression whose readings exist between two calls.
    fn readable(&mut self, expr: Expr) -> Option<Expr> {
        let mut odd = None;
        visit_expr(&expr, &mut |node| {
            if let Node::Expr(Expr { kind: ExprKind::Read(reading), span, .. }) = node
                && matches!(
                    reading,
                    Reading::CallLen
                        | Reading::CallUpdates
                        | Reading::Now
                        | Reading::Ready
                        | Reading::ReplyClean
                )
            {
                odd.get_or_insert((*reading, *span));
            }
        });
        let Some((reading, span)) = odd else {
            return (expr.unit != Unit::Unknown).then_some(expr);
        };
        let name = names::reading_name(reading);
        let (label, help) = match reading {
            Reading::Now => (
                "a clock that begins anywhere",
                "test `pending.age`, or what the policy does `after 1s`",
            ),
            Reading::Ready => {
                ("there is no turn here", "test what a turn does: `turn 3 -> gathers`")
            }
            Reading::ReplyClean => {
                ("there is no reply here", "test what a reply does: `clean reply -> passed`")
            }
            _ => ("there is no call here", "test what the call does: `write 4KiB -> staged`"),
        };
        self.report(
            Code::BadStep,
            format!("`{name}` has no value between two calls"),
            span,
            label,
            help,
        );
        None
    }
}
