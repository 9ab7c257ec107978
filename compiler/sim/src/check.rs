//! From a checked policy to an object whose note says what was proved, and what is wrong otherwise.

use crate::machine::MachineError;
use crate::model::explore::{Most, Unit as Counted};
use crate::model::proof::{Age, Broken, Method, Obstacle, Proof, prove};
use durac_bpf::abi::{Runtime, STAGE_ROOM};
use durac_bpf::{Object, object};
use durac_compiler::hir::{Bound, Failure, Guarantee, Policy};
use durac_compiler::unit::{Unit, show};
use durac_compiler::{Analysis, Loss, Naming, bounds};
use durac_engine::Pace;
use durac_grammar::{Code, Diagnostic, FileId, Severity, Sources, Span};

/// A policy with everything that was made of it.
#[derive(Clone, Debug)]
pub struct Proved {
    /// The object; its note holds the bounds.
    pub object: Object,
    /// What was proved.
    pub proof: Proof,
}

impl Proved {
    /// What can be lost on a power loss.
    #[must_use]
    pub fn power_loss(&self) -> Option<&object::Loss> {
        self.object.meta.loss.iter().find(|l| l.failure == Failure::PowerLoss.text())
    }
}

/// What became of a text.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the compiler found, with what the model checker added to its diagnostics.
    pub analysis: Analysis,
    /// The object and the proof; none if the text is wrong or no runtime can run it.
    pub proved: Option<Proved>,
}

/// Checks a text for the agent: names, units, what the target allows, the bounds. A policy without
/// a name is called `stem`.
#[must_use]
pub fn check(sources: &mut Sources, file: FileId, stem: &str) -> Checked {
    check_as(sources, file, &Naming { stem, target: None, runtime: Runtime::Agent })
}

/// Checks a text for a runtime.
#[must_use]
pub fn check_as(sources: &mut Sources, file: FileId, naming: &Naming<'_>) -> Checked {
    let mut analysis = durac_compiler::analyse_as(sources, file, naming);
    let proved = match &analysis.policy {
        Some(policy) if !analysis.has_errors() => {
            // What no runtime can do yet is right all the same; of another runtime than the agent
            // nobody asks unless it is to run there.
            let later = match naming.runtime {
                Runtime::Agent => durac_compiler::lower::unsupported(policy, Code::NotYetInRuntime),
                Runtime::Bpftime => None,
            };
            match later {
                Some(later) => {
                    analysis.diagnostics.push(later);
                    None
                }
                None => {
                    let (proved, found) = compile_for(naming.runtime, policy, sources, file);
                    analysis.diagnostics.extend(found);
                    proved
                }
            }
        }
        _ => None,
    };
    Checked { analysis, proved }
}

/// Compiles, verifies and explores a policy for the agent. The object is there unless the diagnostics
/// have errors.
#[must_use]
pub fn compile(
    policy: &Policy,
    sources: &Sources,
    file: FileId,
) -> (Option<Proved>, Vec<Diagnostic>) {
    compile_for(Runtime::Agent, policy, sources, file)
}

/// Compiles, verifies and explores a policy for a runtime. The object is there unless the diagnostics have errors.
#[must_use]
pub fn compile_for(
    runtime: Runtime,
    policy: &Policy,
    sources: &Sources,
    file: FileId,
) -> (Option<Proved>, Vec<Diagnostic>) {
    let mut object = match durac_compiler::compile_for(runtime, policy, sources, file) {
        Ok(object) => object,
        Err(found) => return (None, found),
    };
    if let Err(rejections) = durac_verify::verify(&object) {
        let found = rejections.iter().map(|r| rejection(r, policy, file)).collect();
        return (None, found);
    }
    let derived = bounds::loss(policy);
    let proof = match prove(policy, &object, &derived) {
        Ok(proof) => proof,
        Err(error) => return (None, vec![not_run(&error, policy, file)]),
    };
    let found = diagnostics(policy, &derived, &proof);
    if found.iter().any(|d| d.severity() == Severity::Error) {
        return (None, found);
    }
    object.meta.loss = note(policy, &derived, &proof);
    (Some(Proved { object, proof }), found)
}

fn rejection(rejection: &durac_verify::Rejection, policy: &Policy, file: FileId) -> Diagnostic {
    let line = rejection.line.map_or(0, |l| l.line);
    let at = if line == 0 { String::new() } else { format!(" at line {line}") };
    Diagnostic::new(
        Code::VerifierRejects,
        format!("the verifier rejects the program of `{}`{at}", rejection.hook),
        hook_span(policy, rejection.hook, file),
        rejection.reason.clone(),
    )
    .note(format!("instruction {}", rejection.slot))
    .help("this is a mistake of durac: please report it with the policy's text")
}

fn not_run(error: &MachineError, policy: &Policy, file: FileId) -> Diagnostic {
    let hook = policy.hooks.first().map_or(durac_bpf::abi::Hook::Fdatasync, |h| h.hook);
    Diagnostic::new(
        Code::VerifierRejects,
        "the compiled policy cannot be run",
        hook_span(policy, hook, file),
        error.to_string(),
    )
    .help("this is a mistake of durac: please report it with the policy's text")
}

fn hook_span(policy: &Policy, hook: durac_bpf::abi::Hook, file: FileId) -> Span {
    let body = policy.hooks.iter().find(|h| h.hook == hook);
    body.map_or(Span::new(file, 0, 0), |h| h.span)
}

// ---- what is wrong ----

fn diagnostics(policy: &Policy, derived: &Loss, proof: &Proof) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    for broken in &proof.broken {
        if let Some(guarantee) = policy.guarantees.get(broken.guarantee) {
            found.push(broken_guarantee(policy, derived, proof, guarantee, broken));
        }
    }
    let faulty = proof.faults.swallowed || proof.faults.stuck;
    if faulty && let Some(hook) = policy.hooks.first() {
        let what = match proof.faults.swallowed {
            true => "a call can be acknowledged after a sync has failed",
            false => "a call can wait for ever",
        };
        found.push(
            Diagnostic::new(Code::VerifierRejects, what, hook.span, "found by the model checker")
                .help("this is a mistake of durac: please report it with the policy's text"),
        );
    }
    if let (Method::Derived, Some(obstacle), true) =
        (proof.method, &proof.obstacle, found.is_empty())
        && let Some(hook) = policy.hooks.iter().find(|h| h.hook.is_sync())
    {
        let (why, help, place) = explain(obstacle, proof);
        let mut diagnostic = Diagnostic::new(
            Code::NotExplored,
            format!("the worst case is not exact: {why}"),
            place.unwrap_or(hook.span),
            "not explored to the end",
        )
        .help(help);
        if proof.syncs == Most::Unbounded {
            diagnostic = diagnostic.note("without a proof, any number of syncs may be lost");
        }
        found.push(diagnostic);
    }
    found
}

/// Why it was not explored, what to do about it, and where.
fn explain(obstacle: &Obstacle, proof: &Proof) -> (String, &'static str, Option<Span>) {
    match obstacle {
        Obstacle::TooManyStates => (
            format!("{} states were explored, and there are more", proof.states),
            "use smaller periods and counters: the states multiply with every value that a \
             `state` variable or an `every n calls` can have while syncs are pending",
            None,
        ),
        Obstacle::TooManyChoices => (
            "too many combinations of readings and parameters".to_owned(),
            "compare fewer readings, with fewer thresholds, or use fewer parameters",
            None,
        ),
        Obstacle::NoThresholds(span) => (
            "a value is used in a way that has no threshold".to_owned(),
            "compare the reading itself with a constant or a parameter",
            Some(*span),
        ),
        Obstacle::WideRange => (
            "the parameters' ranges are too wide to try every value".to_owned(),
            "narrow the ranges to at most 64 combinations, or bound what is pending with \
             `await pending < n`",
            None,
        ),
    }
}

fn broken_guarantee(
    policy: &Policy,
    derived: &Loss,
    proof: &Proof,
    guarantee: &Guarantee,
    broken: &Broken,
) -> Diagnostic {
    let place = guarantee.span;
    let here = "this guarantee does not hold";
    let Some(timeline) = &broken.timeline else {
        let why = proof.obstacle.as_ref().unwrap_or(&Obstacle::WideRange);
        let (why, help, at) = explain(why, proof);
        let mut found = Diagnostic::new(
            Code::NotProved,
            format!("the guarantee could not be proved: {why}"),
            place,
            "this guarantee is not proved",
        )
        .help(help);
        if let Some(at) = at {
            found = found.also(at, "because of this");
        }
        return found;
    };
    if broken.unit != Counted::Syncs {
        return lost_with_the_process(derived, policy, guarantee, broken)
            .timeline(timeline.clone());
    }
    let acknowledged = derived.exceeding(&guarantee.bound, &policy.params).map(|a| a.span);
    let found = match (&guarantee.bound, broken.lost, &policy.flush_within) {
        (Bound::Age(_), _, Some(flush)) => Diagnostic::new(
            Code::TimeBoundFails,
            "the policy can lose syncs older than its guarantee",
            place,
            here,
        )
        .also(flush.span, "the deadline is later"),
        (Bound::Age(_), _, None) => Diagnostic::new(
            Code::TimeBoundFails,
            "nothing bounds the age of what can be lost",
            place,
            here,
        )
        .help("add `flush within …` with at most this time"),
        (Bound::Writes(_) | Bound::Bytes(_), ..) => Diagnostic::new(
            Code::LossUnbounded,
            "the policy can lose without bound in this unit",
            place,
            here,
        )
        .note("one sync covers any number of writes and bytes")
        .help("give the guarantee in syncs"),
        (_, Most::Unbounded, _) => Diagnostic::new(
            Code::LossUnbounded,
            "the policy can lose any number of acknowledged syncs",
            place,
            here,
        )
        .help("await first, for example `await pending < 16`"),
        (_, Most::Count(lost), _) => {
            let syncs = amount(lost, "acknowledged sync");
            let most = match bounded_by(derived, policy) {
                Some(text) if !policy.params.is_empty() => format!(" ({text})"),
                _ => String::new(),
            };
            Diagnostic::new(
                Code::LossBoundFails,
                format!("the policy can lose {syncs}{most}"),
                place,
                here,
            )
        }
    };
    let found = match acknowledged {
        Some(at) if !matches!(guarantee.bound, Bound::Age(_)) => {
            found.also(at, "acknowledged here before it is durable")
        }
        _ => found,
    };
    found.timeline(timeline.clone())
}

/// A guarantee about a crash of the process that does not hold, without its timeline.
fn lost_with_the_process(
    derived: &Loss,
    policy: &Policy,
    guarantee: &Guarantee,
    broken: &Broken,
) -> Diagnostic {
    let (place, here) = (guarantee.span, "this guarantee does not hold");
    let what = match broken.unit {
        Counted::StagedWrites => "staged write",
        _ => "acknowledged sync",
    };
    let found = match (&guarantee.bound, broken.lost) {
        (Bound::Age(_), _) => Diagnostic::new(
            Code::TimeBoundFails,
            "a crash of the process can take writes older than the guarantee",
            place,
            here,
        )
        .help("add `flush within …` with at most this time"),
        (_, Most::Unbounded) => Diagnostic::new(
            Code::LossUnbounded,
            format!("a crash of the process can take any number of {what}s"),
            place,
            here,
        )
        .help(match broken.unit {
            Counted::StagedWrites => "write now and then, for example `every 16 calls { pass }`",
            _ => "commit and wait in time, for example `if staged >= 16 { commit; await all }`",
        }),
        (_, Most::Count(lost)) => Diagnostic::new(
            Code::LossBoundFails,
            format!("a crash of the process can take {}", amount(lost, what)),
            place,
            here,
        ),
    };
    match derived.stages {
        Some(at) if policy.hooks.iter().any(|h| h.hook == durac_bpf::abi::Hook::Write) => {
            found.also(at, "staged here: it is in no file yet")
        }
        _ => found,
    }
}

// ---- what is proved, in words ----

/// A bound that follows from the text in terms of the parameters.
fn bounded_by(derived: &Loss, policy: &Policy) -> Option<String> {
    derived.greatest(&policy.params)?;
    Some(derived.text(policy))
}

fn amount(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What can be lost on a power loss.
#[must_use]
pub fn loss_text(policy: &Policy, derived: &Loss, proof: &Proof) -> String {
    if proof.age == Age::Nothing {
        return "nothing".to_owned();
    }
    let mut text = match (proof.syncs, bounded_by(derived, policy)) {
        (Most::Unbounded, _) => "any number of syncs".to_owned(),
        (_, Some(text)) if proof.method == Method::ExploredAndDerived || !exact(proof) => text,
        (Most::Count(most), _) => match proof.syncs_by_default {
            Most::Count(now) if now != most => {
                format!("at most {} ({now} by default)", amount(most, "sync"))
            }
            _ => format!("at most {}", amount(most, "sync")),
        },
    };
    if let Age::Within(within) = proof.age {
        let within = show(within, Unit::Duration);
        let and = if proof.syncs == Most::Unbounded { "of the last" } else { "and" };
        text.push_str(&format!(" {and} {within}"));
    }
    text
}

/// What a crash of the process takes.
#[must_use]
pub fn process_text(policy: &Policy, derived: &Loss, proof: &Proof) -> String {
    let process = &proof.process;
    if process.is_nothing() {
        return "nothing".to_owned();
    }
    let on_process = derived.process();
    let mut text = match (process.syncs, bounded_by(&on_process, policy)) {
        (Most::Unbounded, _) => "any number of syncs".to_owned(),
        (Most::Count(0), _) => "no sync".to_owned(),
        (_, Some(text)) if proof.method == Method::ExploredAndDerived || !exact(proof) => text,
        (Most::Count(most), _) => match process.syncs_by_default {
            Most::Count(now) if now != most => {
                format!("at most {} ({now} by default)", amount(most, "sync"))
            }
            _ => format!("at most {}", amount(most, "sync")),
        },
    };
    text.push_str(&match process.writes {
        Most::Count(writes) => format!(", {}", amount(writes, "write")),
        Most::Unbounded => ", any number of writes".to_owned(),
    });
    if let Age::Within(within) = process.age {
        text.push_str(&format!(", of the last {}", show(within, Unit::Duration)));
    }
    text
}

fn exact(proof: &Proof) -> bool {
    proof.method != Method::Derived
}

/// What the object's note says.
#[must_use]
pub fn note(policy: &Policy, derived: &Loss, proof: &Proof) -> Vec<object::Loss> {
    vec![
        object::Loss {
            failure: Failure::ProcessCrash.text().to_owned(),
            syncs: proof.process.syncs_by_default.count(),
            within: within(proof.process.age),
            text: process_text(policy, derived, proof),
        },
        object::Loss {
            failure: Failure::PowerLoss.text().to_owned(),
            syncs: proof.syncs_by_default.count(),
            within: within(proof.age),
            text: loss_text(policy, derived, proof),
        },
    ]
}

fn within(age: Age) -> Option<u64> {
    match age {
        Age::Nothing => Some(0),
        Age::Within(within) => Some(within),
        Age::UntilSynced | Age::Forever => None,
    }
}

/// The lines of `durac check` about a proof.
#[must_use]
pub fn report(policy: &Policy, derived: &Loss, proof: &Proof) -> Vec<String> {
    let mut lines =
        vec![format!("loses on process_crash: {}", process_text(policy, derived, proof))];
    if !proof.process.is_nothing() {
        let room = show(STAGE_ROOM, Unit::Bytes);
        lines.push(format!("    in bytes: at most {room}, what can be staged at once"));
        if proof.process.age == Age::Forever {
            lines.push("    in time: unbounded, a write can stay staged for ever".to_owned());
        }
    }
    lines.push(format!("loses on power_loss: {}", loss_text(policy, derived, proof)));
    if proof.age != Age::Nothing {
        let with = match proof.with_progress_by_default {
            Most::Count(n) => amount(n, "sync"),
            Most::Unbounded => "any number of syncs".to_owned(),
        };
        let age = match proof.age {
            Age::Nothing => String::new(),
            Age::Within(within) => format!("{} by its deadline", show(within, Unit::Duration)),
            Age::UntilSynced => {
                let most = show(Pace::PATIENCE_MOST, Unit::Duration);
                format!("no deadline; its sync is under way, or starts within {most}")
            }
            Age::Forever => "unbounded: a tail can stay for ever".to_owned(),
        };
        lines.push(format!("    with the call in progress: {with}"));
        lines.push("    in writes and bytes: unbounded, a sync covers any number".to_owned());
        lines.push(format!("    in time: {age}"));
    }
    lines.push(format!(
        "clients: {}",
        match proof.age {
            Age::Nothing => "no reply precedes durability",
            _ => "a reply, or a read of the value, can precede durability by as much",
        }
    ));
    let values = match (policy.params.is_empty(), proof.method) {
        (true, Method::ExploredAndDerived) => "; it was reached, and no more can be by derivation",
        (true, _) => "",
        (false, Method::Explored) => ", for every value of the parameters",
        (false, _) => ", and derived for every value of the parameters",
    };
    lines.push("errors: every failed sync is returned; waits: every wait ends".to_owned());
    lines.push(match proof.method {
        Method::Derived => format!("not exact: derived; {} states explored", proof.states),
        _ => format!("exact: {} states explored{values}", proof.states),
    });
    lines
}
