//! The loaded policy: machine code, maps and what the object says about itself.

use crate::entries;
use crate::environment;
use crate::maps::MapArea;
use crate::note;
use durac_bpf::abi::{Context, ENV_ENGINE, Engine, Hook, Reading, Verdict};
use durac_bpf::object::{Meta, OnError};
use durac_engine::Rules;
use durac_jit::Code;
use std::path::Path;
use std::sync::OnceLock;

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
    programs: [Option<Program>; 3],
    /// The application has functions of its own.
    by_entries: bool,
}

static POLICY: OnceLock<Policy> = OnceLock::new();

/// The policy; none while the application runs without hooks.
pub fn get() -> Option<&'static Policy> {
    POLICY.get()
}

/// Sets the policy, once, and answers it.
pub fn set(policy: Policy) -> &'static Policy {
    POLICY.get_or_init(|| policy)
}

impl Policy {
    /// A policy without programs.
    #[must_use]
    pub fn new(meta: Meta) -> Self {
        let reads = meta.reads.iter().fold(0, |set, &reading| set | bit(reading));
        let rules = Rules {
            flush_within: meta.flush_within,
            keeps_age: reads & bit(Reading::PendingAge) != 0,
            stages: meta.stages(),
        };
        let engine = asked_engine().or(meta.engine).unwrap_or_default();
        let by_entries = !meta.entries.is_empty();
        let programs = [const { None }; 3];
        Self {
            meta,
            params: None,
            state: None,
            rules,
            watches: false,
            engine,
            reads,
            programs,
            by_entries,
        }
    }

    /// Sets the program of a hook.
    pub fn set_program(&mut self, hook: Hook, program: Program) {
        if let Some(place) = self.programs.get_mut(hook as usize) {
            *place = Some(program);
        }
    }

    /// The program of a hook, if it is to be asked about this thread's call.
    #[inline]
    #[must_use]
    pub fn program(&self, hook: Hook) -> Option<&Program> {
        let program = self.programs.get(hook as usize)?.as_ref();
        program.filter(|_| !self.by_entries || entries::asked() || self.meta.entry(hook).is_none())
    }

    /// Whether programs load `reading`.
    #[inline]
    #[must_use]
    pub fn reads(&self, reading: Reading) -> bool {
        self.reads & bit(reading) != 0
    }

    /// Whether somebody wants to know how many bytes a write has.
    #[inline]
    #[must_use]
    pub fn asks_length(&self) -> bool {
        self.rules.stages || self.reads(Reading::CallLen)
    }

    /// Whether a file that is opened for writing by this name is a log.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        durac_bpf::glob::covers(&self.meta.files, &self.meta.except, path)
    }

    /// Whether a failed sync stops every log.
    #[must_use]
    pub fn stops_all(&self) -> bool {
        self.meta.on_error == OnError::Stop
    }

    /// One line that says what runs.
    #[must_use]
    pub fn describe(&self) -> String {
        let hooks = Hook::ALL.into_iter().zip(&self.programs).filter(|(_, p)| p.is_some());
        let hooks: Vec<&str> = hooks.map(|(hook, _)| hook.name()).collect();
        format!(
            "policy `{}` for target `{}`: files {}, hooks {}",
            self.meta.policy,
            self.meta.target,
            self.meta.files.join(" "),
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
            note::error(&format!("{ENV_ENGINE}: there is no engine `{name}`"));
            None
        }
    }
}

fn bit(reading: Reading) -> u32 {
    1 << (reading.offset() / 8)
}
