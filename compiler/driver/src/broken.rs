//! What is said of a policy that is refused, or whose bound is only derived.

use crate::report::{amount, bounded_by};
use durac_abi::elf::MAX_SIZE;
use durac_bpf::WriteError;
use durac_core::bounds;
use durac_core::hir::{Bound, Expr, Failure, Guarantee, Policy};
use durac_core::unit::{Unit, show};
use durac_engine::Pace;
use durac_grammar::{Code, Diagnostic, FileId, Sources, Span};
use durac_prove::cells::Why;
use durac_prove::explore::{Most, Unit as Counted};
use durac_prove::machine::MachineError;
use durac_prove::proof::{Age, Broken, Method, Obstacle, Proof};

pub fn rejection(rejection: &durac_verify::Rejection, policy: &Policy, file: FileId) -> Diagnostic {
    let line = rejection.line.map_or(0, |l| l.line);
    let at = if line == 0 { String::new() } else { format!(" at line {line}") };
    Diagnostic::new(
        Code::VerifierRejects,
        format!("the verifier rejects the program of `{}`{at}", rejection.hook),
        hook_span(policy, rejection.hook, file),
        rejection.reason.clone(),
    )
    .note(format!("at instruction {}", rejection.slot))
    .help("this is a bug in durac: please report it with the text of the policy")
}

pub fn not_run(error: &MachineError, policy: &Policy, file: FileId) -> Diagnostic {
    let hook = policy.hooks.first().map_or(durac_abi::Hook::Fdatasync, |h| h.hook);
    Diagnostic::new(
        Code::VerifierRejects,
        "the compiled policy cannot be run",
        hook_span(policy, hook, file),
        error.to_string(),
    )
    .help("this is a bug in durac: please report it with the text of the policy")
}

/// The object does not fit into a file: its text is in it, too.
pub fn not_written(error: &WriteError, sources: &Sources, file: FileId) -> Diagnostic {
    let start = Span::new(file, 0, 0);
    match error {
        WriteError::TooLarge { size } => Diagnostic::new(
            Code::TooLarge,
            format!("`{}` is too large", sources.name(file)),
            start,
            format!("its object has {size} bytes, at most {MAX_SIZE} are allowed"),
        )
        .help("the text is part of the object: remove comments or tests"),
        error => Diagnostic::new(
            Code::VerifierRejects,
            "the object cannot be written",
            start,
            error.to_string(),
        )
        .help("this is a bug in durac: please report it with the text of the policy"),
    }
}

fn hook_span(policy: &Policy, hook: durac_abi::Hook, file: FileId) -> Span {
    let body = policy.hooks.iter().find(|h| h.hook == hook);
    body.map_or(Span::new(file, 0, 0), |h| h.span)
}

pub fn guarantees(policy: &Policy, proof: &Proof) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    for broken in &proof.broken {
        if let Some(guarantee) = policy.guarantees.get(broken.guarantee) {
            let diagnostic = broken_guarantee(policy, proof, guarantee, broken);
            found.push(match guarantee.to_clients {
                true if proof.holds_replies => seen_through_replicas(diagnostic),
                true => seen_by_clients(policy, diagnostic),
                false => diagnostic,
            });
        }
    }
    if let Some(unused) = unused_assumption(policy, proof) {
        found.push(unused);
    }
    let faulty = proof.faults.swallowed || proof.faults.stuck;
    if faulty && let Some(hook) = policy.hooks.first() {
        let what = match proof.faults.swallowed {
            true => "a call can be acknowledged after a sync has failed",
            false => "a call can block forever",
        };
        found.push(
            Diagnostic::new(Code::VerifierRejects, what, hook.span, "found by the model checker")
                .help("this is a bug in durac: please report it with the text of the policy"),
        );
    }
    if let (Method::Derived, Some(obstacle), true) =
        (proof.method, &proof.obstacle, found.iter().all(|d| d.code == Code::UnusedAssumption))
        && let Some(hook) = policy.hooks.iter().find(|h| h.hook.is_sync())
    {
        let (why, help, place) = explain(obstacle, proof);
        let mut diagnostic = Diagnostic::new(
            Code::NotExplored,
            format!("the bound may not be exact: {why}"),
            place.unwrap_or(hook.span),
            "not explored completely",
        )
        .help(help);
        if proof.syncs == Most::Unbounded {
            diagnostic = diagnostic.note("without a proof, any number of syncs can be lost");
        }
        found.push(diagnostic);
    }
    found
}

/// What is said besides of a guarantee about clients: replies are not held, or not always.
fn seen_by_clients(policy: &Policy, found: Diagnostic) -> Diagnostic {
    let found =
        found.note("clients see what the application acknowledges, unless every reply is held");
    match policy.hooks.iter().find(|body| body.hook == durac_abi::Hook::Reply) {
        Some(body) => found
            .also(body.span, "a path through this does not end in `hold until durable`")
            .help("end every path of `on reply` with `hold until durable`; only a clean reply may go: `if reply.clean { pass }`"),
        None => found.help("add `on reply: hold until durable`"),
    }
}

/// The same where every reply is held, and what is sent to replicas is not.
fn seen_through_replicas(found: Diagnostic) -> Diagnostic {
    found
        .note("the target does not say `hold replicas`: who reads from a replica can see what is not durable here")
        .help("add `hold replicas` to the target, or leave out `to clients`")
}

/// An assumption that no bound in time rests on.
fn unused_assumption(policy: &Policy, proof: &Proof) -> Option<Diagnostic> {
    let assume = policy.assume_sync.as_ref()?;
    let rests = |age| matches!(age, Age::Within(_));
    if rests(proof.age) || rests(proof.process.age) {
        return None;
    }
    Some(
        Diagnostic::new(
            Code::UnusedAssumption,
            "nothing rests on this assumption",
            assume.span,
            "no bound in time needs it",
        )
        .help("remove `assume`, or add `flush within …`"),
    )
}

/// Why it was not explored, what to do about it, and where.
fn explain(obstacle: &Obstacle, proof: &Proof) -> (String, &'static str, Option<Span>) {
    match obstacle {
        Obstacle::TooManyStates => (
            format!("the model checker stopped after {}", amount(proof.states as u64, "state")),
            "use smaller periods and counters: every value that a `state` variable or an `every n \
             calls` can have while syncs are pending multiplies the states",
            None,
        ),
        Obstacle::TooManyRuns(runs) => (
            format!(
                "the model checker stopped after {} in {}",
                amount(*runs, "run"),
                amount(proof.states as u64, "state")
            ),
            "use fewer waits, readings and thresholds: what a policy reads before and after each wait \
             multiplies the runs",
            None,
        ),
        Obstacle::Stopped => (
            format!("the budget ended after {}", amount(proof.states as u64, "state")),
            "use smaller periods and counters, or fewer readings and thresholds: what a policy keeps and \
             compares multiplies the states; or allow more time with `--budget`",
            None,
        ),
        Obstacle::TooManyChoices => (
            "too many combinations of readings and parameters".to_owned(),
            "compare fewer readings, use fewer thresholds, or use fewer parameters",
            None,
        ),
        Obstacle::NotFollowed(span, why) => {
            let (why, help) = not_followed(*why);
            (why.to_owned(), help, Some(*span))
        }
        Obstacle::Callers => (
            "calls of this target may overlap, and the bound relies on what is kept between calls"
                .to_owned(),
            "wait before each `skip` or `defer` (`await pending < n`), or declare `callers one` in the \
             target: calls that overlap then pass",
            None,
        ),
        Obstacle::WideRange => (
            "the parameters' ranges are too wide to try every value".to_owned(),
            "narrow the ranges to at most 64 combinations, or bound the pending syncs with \
             `await pending < n`",
            None,
        ),
    }
}

/// Why a value cannot be followed, and what to write instead.
fn not_followed(why: Why) -> (&'static str, &'static str) {
    match why {
        Why::NoThreshold => (
            "a value is used without a threshold",
            "compare the reading itself with a constant or a parameter",
        ),
        Why::Pair => (
            "two readings are compared with each other, and one of them with something else too",
            "compare each with a constant, or only the two with each other",
        ),
        Why::Clock => (
            "a time is compared with the clock and in another way too",
            "keep one of the two comparisons",
        ),
        Why::MayWrap => (
            "arithmetic on a reading can exceed 64 bits",
            "compare the reading itself, and divide the other side",
        ),
        Why::AcrossWait => (
            "the same two times are compared before and after a wait, and the clock goes on meanwhile",
            "compare before the wait, or keep the result in a `bool`",
        ),
        Why::AfterAssignment => (
            "a variable that keeps a reading is compared after it was changed in the same call",
            "compare it before it is changed, or in the next call",
        ),
        Why::Distance => (
            "the distance of a wait depends on a reading",
            "wait at a constant or a parameter, in a branch for each",
        ),
        Why::EngineNumber => (
            "a number of syncs is used without a threshold",
            "compare `pending` or `staged` itself with a constant or a parameter",
        ),
    }
}

/// Whether the exploration ended before it had seen everything: that a guarantee is not proved then does not say that it does
/// not hold.
fn is_given_up(obstacle: &Obstacle) -> bool {
    matches!(
        obstacle,
        Obstacle::NotFollowed(..)
            | Obstacle::TooManyStates
            | Obstacle::TooManyRuns(_)
            | Obstacle::TooManyChoices
            | Obstacle::Stopped
    )
}

fn broken_guarantee(
    policy: &Policy,
    proof: &Proof,
    guarantee: &Guarantee,
    broken: &Broken,
) -> Diagnostic {
    let place = guarantee.span;
    let here = "this guarantee does not hold";
    if let Bound::Age(expr) = &guarantee.bound {
        let found = too_old(policy, proof, guarantee, expr);
        return match &broken.timeline {
            Some(timeline) if found.code == Code::TimeBoundFails => {
                found.timeline(introduced(broken, timeline))
            }
            _ => found,
        };
    }
    let Some(timeline) = &broken.timeline else {
        if let Counted::Bytes | Counted::Updates = broken.unit
            && (broken.run.is_some() || !proof.obstacle.as_ref().is_some_and(is_given_up))
        {
            return lost_amount(policy, guarantee, broken);
        }
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
            found = found.also(at, "because of this value");
        }
        return found;
    };
    if let Counted::Bytes | Counted::Updates = broken.unit {
        return lost_amount(policy, guarantee, broken).timeline(introduced(broken, timeline));
    }
    if broken.unit != Counted::Syncs {
        return lost_with_the_process(policy, guarantee, broken)
            .timeline(introduced(broken, timeline));
    }
    let acknowledged = policy.loss.exceeding(&guarantee.bound, &policy.params).map(|a| a.span);
    let found = match (&guarantee.bound, broken.lost) {
        (Bound::Writes(_) | Bound::Bytes(_) | Bound::Updates(_), _) => Diagnostic::new(
            Code::LossUnbounded,
            "the policy can lose any amount in this unit",
            place,
            here,
        )
        .note("a sync covers any number of writes, updates and bytes")
        .help("state the guarantee in syncs"),
        (_, Most::Unbounded) => Diagnostic::new(
            Code::LossUnbounded,
            "the policy can lose any number of acknowledged syncs",
            place,
            here,
        )
        .help("wait before the acknowledgement, for example `await pending < 16; defer`"),
        (_, Most::Count(lost)) => {
            let syncs = amount(lost, "acknowledged sync");
            let found = Diagnostic::new(
                Code::LossBoundFails,
                format!("the policy can lose up to {syncs}"),
                place,
                here,
            );
            match bounded_by(policy, &policy.loss, (proof.syncs, proof.syncs_by_default)) {
                Some(text) if !policy.params.is_empty() => {
                    found.note(format!("the policy can lose {text}"))
                }
                _ => found,
            }
        }
    };
    let found = match acknowledged {
        Some(at) => found.also(at, "acknowledged here before it is durable"),
        None => found,
    };
    found.timeline(introduced(broken, timeline))
}

/// A guarantee in bytes or updates that does not hold, without its timeline.
fn lost_amount(policy: &Policy, guarantee: &Guarantee, broken: &Broken) -> Diagnostic {
    let (place, here) = (guarantee.span, "this guarantee does not hold");
    let (unit, reading, limit) = match broken.unit {
        Counted::Bytes => (Unit::Bytes, "pending.bytes", "64KiB"),
        _ => (Unit::Updates, "pending.updates", "100"),
    };
    let found = match broken.lost {
        Most::Unbounded => Diagnostic::new(
            Code::LossUnbounded,
            format!("the policy can lose any number of {unit}"),
            place,
            here,
        )
        .note(format!("a sync covers any number of {unit}"))
        .help(format!(
            "before each `skip` or `defer`, write `if {reading} > {limit} {{ pass }}`: its condition is \
             what bounds the loss"
        )),
        Most::Count(lost) => {
            let lost = match unit {
                Unit::Bytes => show(lost, unit),
                _ => amount(lost, "update"),
            };
            let what = format!("the policy can lose up to {lost}");
            Diagnostic::new(Code::LossBoundFails, what, place, here)
                .help(format!("compare `{reading}` with what the guarantee allows"))
        }
    };
    match policy.loss.exceeding(&guarantee.bound, &policy.params) {
        Some(ack) => found.also(ack.span, "acknowledged here before it is durable"),
        None => found,
    }
}

/// The assumption that the help suggests, nanoseconds.
const USUAL_SYNC: u64 = 10_000_000;

/// A bound in time that does not hold, or not without an assumption.
fn too_old(policy: &Policy, proof: &Proof, guarantee: &Guarantee, expr: &Expr) -> Diagnostic {
    let (age, what) = match guarantee.failure {
        Failure::PowerLoss => {
            (proof.age, "the policy can lose syncs that are older than its guarantee")
        }
        Failure::ProcessCrash => {
            (proof.process.age, "a process crash can lose writes that are older than the guarantee")
        }
    };
    let time = |time| show(time, Unit::Duration);
    let limit = bounds::least(expr, &policy.params);
    let (place, here) = (guarantee.span, "this guarantee does not hold");
    let late = |found: Diagnostic| match &policy.flush_within {
        Some(flush) => found.also(flush.span, "this deadline is later"),
        None => found.help("add a `flush within …` of at most this time"),
    };
    match age {
        Age::Forever | Age::Nothing => Diagnostic::new(
            Code::TimeBoundFails,
            "nothing bounds the age of the syncs that can be lost",
            place,
            here,
        )
        .help("add a `flush within …` of at most this time"),
        Age::PlusSyncs(start) if start <= limit => Diagnostic::new(
            Code::NoAssumption,
            "a bound in time needs an assumption about how long a sync takes",
            place,
            "not without an assumption",
        )
        .note(format!("the policy keeps {}", age.text()))
        .help(format!(
            "add `assume sync <= {}`, or as long as a sync takes at most on this disk",
            time(USUAL_SYNC.min((limit / 2).max(1)))
        )),
        Age::PlusSyncs(_) => late(Diagnostic::new(Code::TimeBoundFails, what, place, here)),
        Age::Within(most) => {
            let found = Diagnostic::new(Code::TimeBoundFails, what, place, here);
            let found = found.note(format!("they can be {} old", time(most)));
            late(match (&policy.flush_within, &policy.assume_sync) {
                (None, Some(sync)) => found.note(format!(
                    "a sync of each starts within {}; one under way before and that one take {} each",
                    time(Pace::PATIENCE_MOST),
                    time(sync.node)
                )),
                _ => found,
            })
        }
    }
}

/// The drawn run with a line above it that tells it from the worst case.
fn introduced(broken: &Broken, timeline: &str) -> String {
    let a = if broken.shortest { "the shortest run" } else { "a run" };
    match broken.run {
        Some(u64::MAX) => format!("{a} that breaks the guarantee:\n{timeline}"),
        Some(lost) => format!("{a} that breaks the guarantee loses {lost}:\n{timeline}"),
        None => timeline.to_owned(),
    }
}

/// A guarantee about a crash of the process that does not hold, without its timeline.
fn lost_with_the_process(policy: &Policy, guarantee: &Guarantee, broken: &Broken) -> Diagnostic {
    let (place, here) = (guarantee.span, "this guarantee does not hold");
    let what = match broken.unit {
        Counted::StagedWrites => "staged write",
        _ => "acknowledged sync",
    };
    let found = match broken.lost {
        Most::Unbounded => Diagnostic::new(
            Code::LossUnbounded,
            format!("a process crash can lose any number of {what}s"),
            place,
            here,
        )
        .help(match broken.unit {
            Counted::StagedWrites => "pass some writes, for example `every 16 calls { pass }`",
            _ => "commit and wait before it is too much, for example `if staged >= 16 { commit; await all }`",
        }),
        Most::Count(lost) => Diagnostic::new(
            Code::LossBoundFails,
            format!("a process crash can lose up to {}", amount(lost, what)),
            place,
            here,
        ),
    };
    match policy.loss.stages {
        Some(at) if policy.hooks.iter().any(|h| h.hook == durac_abi::Hook::Write) => {
            found.also(at, "staged here: not yet written to the file")
        }
        _ => found,
    }
}
