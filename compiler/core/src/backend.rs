//! What only the compiler has to know of a runtime, beside [`durac_abi::Backend`]: which policies it
//! cannot run, and why; and what is around the code of a program there.
//!
//! The agent is here; BPFtime and the supervisor, with their reasons, are in `bpftime` and `supervisor`.

use crate::emit::{Frame, Ring};
use crate::hir::{EntryKind, HookBody, Policy};
use crate::mir;
use crate::{bpftime, supervisor};
use durac_abi::object::{EntryPoint, Map, State};
use durac_abi::{Callers, Hook, Reading, Runtime};
use durac_grammar::{Code, Diagnostic, Span};

/// A runtime, as the compiler sees it.
pub trait CompilerBackend: Sync {
    /// Why the policy cannot run there; nothing if it can.
    fn refuses(&self, policy: &Policy) -> Vec<Diagnostic>;

    /// What in the policy only a later version can run: a warning where nothing is compiled.
    fn not_yet(&self, policy: &Policy) -> Option<Diagnostic>;

    /// Whether calls on one log can overlap there, on a target that says this.
    fn callers(&self, said: Callers) -> Callers {
        said
    }

    /// Takes back advice that cannot be followed there.
    fn reword(&self, _diagnostics: &mut [Diagnostic]) {}

    /// What the object has beside what the policy says.
    fn layout(&self, policy: &Policy) -> Layout;

    /// What is around the code of a function: none if it is a program as it is.
    fn frame(&self, layout: &Layout, function: &mir::Function, policy: &Policy) -> Option<Frame>;
}

/// The compiler's view of a runtime.
#[must_use]
pub fn of(runtime: Runtime) -> &'static dyn CompilerBackend {
    match runtime {
        Runtime::Agent => &Agent,
        Runtime::Bpftime => &bpftime::Bpftime,
        Runtime::Supervisor => &supervisor::Supervisor,
    }
}

/// What an object has beside what its policy says.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// The functions that programs are attached to.
    pub entries: Vec<EntryPoint>,
    /// State variables of the compiler's own, behind the policy's.
    pub state: Vec<State>,
    /// Maps of the compiler's own, behind those of the policy.
    pub maps: Vec<Map>,
    /// What the programs read besides what the policy reads.
    pub reads: Option<Reading>,
    /// The program that runs before syncs for which no hook is called, if syncs are started there.
    pub barrier: Option<Barrier>,
}

/// The hook whose program starts syncs and waits for them, and the program that goes with it.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// The hook.
    pub hook: Hook,
    /// The function that is called before a sync for which the hook is not called.
    pub entry: EntryPoint,
    /// What the programs share.
    pub ring: Ring,
    /// The hook's place in the policy.
    pub span: Span,
}

/// Our agent.
struct Agent;

impl CompilerBackend for Agent {
    fn refuses(&self, policy: &Policy) -> Vec<Diagnostic> {
        unsupported(policy, Code::NotInRuntime).into_iter().collect()
    }

    fn not_yet(&self, policy: &Policy) -> Option<Diagnostic> {
        unsupported(policy, Code::NotYetInRuntime)
    }

    fn layout(&self, policy: &Policy) -> Layout {
        Layout {
            entries: bpftime::entries(policy),
            // The key of a log's state.
            reads: (!policy.states.is_empty()).then_some(Reading::Log),
            ..Layout::default()
        }
    }

    fn frame(&self, _: &Layout, _: &mir::Function, _: &Policy) -> Option<Frame> {
        None
    }
}

/// What in the policy the agent of this version cannot run: one diagnostic of `code` that names it
/// all, or none.
fn unsupported(policy: &Policy, code: Code) -> Option<Diagnostic> {
    let of_libc = |kind: &EntryKind| matches!(kind, EntryKind::Library(_));
    let found: Vec<(&HookBody, Span)> = (policy.hooks.iter())
        .filter(|body| !body.hook.is_on_log())
        .filter_map(|body| {
            let functions = &policy.target.entry(body.hook)?.functions;
            let other = functions.iter().find(|function| !of_libc(&function.kind))?;
            Some((body, other.symbol.span))
        })
        .collect();
    let (first, entry) = *found.first()?;
    let names: Vec<String> = found.iter().map(|(body, _)| format!("on {}", body.hook)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    let message = format!(
        "{} at functions of the application {verb} not supported by this runtime yet",
        crate::names::list(&names)
    );
    let mut diagnostic = Diagnostic::new(code, message, first.span, "not supported yet")
        .also(entry, "not a function of libc")
        .help("let the target enter this hook with `entry libc \"…\"`");
    for (other, _) in found.iter().skip(1) {
        diagnostic = diagnostic.also(other.span, "not supported yet either");
    }
    Some(diagnostic)
}
