//! The loaded policy: machine code, maps and what the object says about itself.

use crate::entries;
use crate::environment;
use crate::maps::MapArea;
use crate::note;
use crate::off;
use durac_abi::object::{Action, Failure, Loss, Meta, OnError};
use durac_abi::{Context, ENV_ENGINE, Engine, Hook, Reading, Verdict};
use durac_engine::Rules;
use durac_jit::Code;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A compiled hook.
pub struct Program {
    /// Its machine code.
    pub code: Code,
}

impl Program {
    /// Runs it.
    ///
    /// # Safety
    /// `context` points to a context that lives until the return, and the helpers find the current
    /// call of this thread.
    pub unsafe fn run(&self, context: *mut Context) -> Verdict {
        // SAFETY: only verified programs are compiled; the caller vouches for the rest.
        unsafe { self.code.run(context.cast(), size_of::<Context>()) }
    }
}

/// The policy of this process.
pub struct Policy {
    /// What the object's note says.
    pub meta: Meta,
    /// Which object it is, for tools: [`durac_abi::object::fingerprint`]; 0 if it was not read from one.
    pub object: u64,
    /// The parameters, if it has some.
    pub params: Option<&'static MapArea>,
    /// The state of the logs, if it has some.
    pub state: Option<&'static MapArea>,
    /// What the engine has to know.
    pub rules: Rules,
    /// Whether it says `use kernel notify`.
    pub watches: bool,
    /// What writes staged bytes in the background.
    pub engine: Engine,
    /// Readings that programs load, by number.
    reads: u32,
    programs: [Option<Program>; Hook::COUNT],
    /// The application has functions of its own.
    by_entries: bool,
    /// It was switched off: this is what runs in the place of that policy.
    pub instead_of: Option<&'static Policy>,
}

static POLICY: AtomicPtr<Policy> = AtomicPtr::new(null_mut());

/// The policy; none while the application runs without hooks.
pub fn get() -> Option<&'static Policy> {
    loaded().filter(|_| !off::is_off())
}

/// The policy, even if it is off: a log that has failed keeps its error. It is exchanged only with the locks of all
/// logs held: who holds one reads the policy by whose rules that log goes.
#[inline]
pub fn loaded() -> Option<&'static Policy> {
    // SAFETY: null, or a policy, which is never freed: a hook that a signal's handler has left by a jump
    // may never tell that it has ended.
    unsafe { POLICY.load(Ordering::Acquire).as_ref() }
}

/// Sets the policy, and returns it.
pub fn set(policy: Policy) -> &'static Policy {
    exchange(Box::leak(Box::new(policy)))
}

/// The same for a policy that lives for ever.
pub fn exchange(policy: &'static Policy) -> &'static Policy {
    POLICY.store(std::ptr::from_ref(policy).cast_mut(), Ordering::Release);
    policy
}

impl Policy {
    /// A policy without programs.
    #[must_use]
    pub fn new(meta: Meta) -> Self {
        let reads = meta.reads.iter().fold(0, |set, reading| set | reading.bit());
        let rules = Rules { holds_replies: false, ..Rules::from(&meta) };
        let engine = asked_engine().or(meta.engine).unwrap_or_default();
        let by_entries = !meta.entries.is_empty();
        let programs = [const { None }; Hook::COUNT];
        Self {
            meta,
            object: 0,
            params: None,
            state: None,
            rules,
            watches: false,
            engine,
            reads,
            programs,
            by_entries,
            instead_of: None,
        }
    }

    /// What runs while it is switched off: no program, so that every call is the application's own. What is
    /// known of the logs is still kept, so that it can come back.
    #[must_use]
    pub fn plain(&'static self) -> Self {
        let rules = Rules {
            flush_within: None,
            keeps_age: false,
            assume_sync: None,
            defers_writes: false,
            ..self.rules
        };
        Self {
            object: self.object,
            params: self.params,
            rules,
            watches: self.watches,
            engine: self.engine,
            instead_of: Some(self),
            ..Self::new(self.meta.clone())
        }
    }

    /// Sets the program of a hook.
    pub fn set_program(&mut self, hook: Hook, program: Program) {
        if let Some(place) = self.programs.get_mut(hook as usize) {
            *place = Some(program);
            // The note says so too, but only the program does it.
            self.rules.holds_replies |= hook == Hook::Reply;
        }
    }

    /// The program of a hook, if it decides this thread's call.
    #[inline]
    #[must_use]
    pub fn program(&self, hook: Hook) -> Option<&Program> {
        let program = self.programs.get(hook as usize)?.as_ref();
        program.filter(|_| !self.by_entries || entries::asked() || self.meta.entry(hook).is_none())
    }

    /// Whether it can report a sync before it is made, as far as its note says: then a syncer thread is
    /// started with the first log. (A second thread makes every call on a descriptor some 40 ns slower in
    /// the kernel.)
    #[must_use]
    pub fn defers(&self) -> bool {
        let direct = |used: &Action| matches!(used, Action::Pass | Action::Fail | Action::Await);
        self.meta.capabilities.is_empty() || !self.meta.capabilities.iter().all(direct)
    }

    /// Whether a log needs a syncer thread for what the policy does, as far as its note says. Without one, calls run as made
    /// where it needs one.
    #[must_use]
    pub fn needs_thread(&self) -> bool {
        let is_direct = |used: &Action| {
            matches!(used, Action::Pass | Action::Fail | Action::Await | Action::Skip)
        };
        let used = &self.meta.capabilities;
        let is_timed = self.rules.defers_writes || self.rules.flush_within.is_some();
        is_timed || used.is_empty() || !used.iter().all(is_direct)
    }

    /// Whether programs load `reading`.
    #[inline]
    #[must_use]
    pub fn reads(&self, reading: Reading) -> bool {
        self.reads & reading.bit() != 0
    }

    /// Whether programs load anything.
    #[inline]
    #[must_use]
    pub fn reads_anything(&self) -> bool {
        self.reads != 0
    }

    /// Whether somebody wants to know how many bytes a write has.
    #[inline]
    #[must_use]
    pub fn asks_length(&self) -> bool {
        self.rules.stages || self.reads(Reading::CallLen) || self.reads(Reading::CallUpdates)
    }

    /// Whether it matters what else can see or write a log's file.
    #[inline]
    #[must_use]
    pub fn needs_sole(&self) -> bool {
        self.rules.stages || self.rules.keeps_amounts
    }

    /// Whether a file that is opened for writing by this name is a log.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        durac_abi::glob::covers(&self.meta.files, &self.meta.except, path)
    }

    /// Whether a failed sync stops every log.
    #[must_use]
    pub fn stops_all(&self) -> bool {
        self.meta.on_error == OnError::Stop
    }

    /// The policy and what a power loss can take, in some words.
    #[must_use]
    pub fn summary(&self) -> String {
        let name = &self.meta.policy;
        match self.instead_of {
            Some(_) => format!("policy `{name}` off (power loss: {})", self.loss_text()),
            None => format!("policy `{name}` (power loss: {})", self.loss_text()),
        }
    }

    /// What a power loss can take, as the object says.
    #[must_use]
    pub fn power_loss(&self) -> Option<&Loss> {
        let is = |loss: &&Loss| loss.failure == Failure::PowerLoss;
        self.meta.loss.iter().find(is).filter(|_| self.instead_of.is_none())
    }

    /// Whether a policy that gives writes a deadline was switched off. What nobody syncs has no deadline then, and how much a
    /// crash takes is not known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.instead_of.is_some_and(|policy| policy.rules.defers_writes)
    }

    /// The same in words.
    #[must_use]
    pub fn loss_text(&self) -> &str {
        match (self.instead_of, self.power_loss()) {
            (Some(_), _) if self.is_unknown() => "not known",
            (Some(_), _) => "nothing",
            (None, Some(loss)) => &loss.text,
            (None, None) => "not proved",
        }
    }

    /// One line that says what runs, on the log at `path`.
    #[must_use]
    pub fn describe(&self, path: &str) -> String {
        let has = |hook: &Hook| self.programs.get(*hook as usize).is_some_and(Option::is_some);
        let mut hooks: Vec<&str> = Hook::ALL.into_iter().filter(has).map(Hook::name).collect();
        if self.rules.defers_writes {
            // Without a program.
            hooks.push(Hook::Write.name());
        }
        let loss = match (self.instead_of, self.power_loss()) {
            (None, None) => "how much a power loss can take was not proved".to_owned(),
            _ => format!("a power loss can take {}", self.loss_text()),
        };
        format!(
            "policy `{}` for target `{}` is in force on {path} ({}): {loss}",
            self.meta.policy,
            self.meta.target,
            hooks.join(" "),
        )
    }
}

/// The engine that the environment asks for.
fn asked_engine() -> Option<Engine> {
    let name = std::env::var_os(ENV_ENGINE).filter(|name| !name.is_empty())?;
    match environment::engine(&name) {
        Ok(engine) => Some(engine),
        Err(name) => {
            let all = Engine::WORDS.join("` or `");
            note::error(&format!("{ENV_ENGINE}: unknown engine `{name}`; it is `{all}`"));
            None
        }
    }
}
