//! Reads the object: file, ELF, verifier, maps, machine code.

use crate::filter::Asked;
use crate::maps::MapArea;
use crate::program::HELPERS;
use durac_abi::link::{self, LinkError, MapRef};
use durac_abi::object::{Failure, Loss, Meta, fingerprint};
use durac_abi::{Hook, Object, PARAMS_MAP, Reading, Runtime, STATE_MAP};
use durac_engine::Rules;
use durac_jit::{Code, JitError};
use durac_shm::status::MAX_PARAMS;
use durac_verify::Refused;
use std::path::Path;

/// Why an object is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// It is not an object for the supervisor, or the verifier refuses it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The status page has no room for its parameters.
    #[error("{0} parameters: the limit is {max}", max = MAX_PARAMS)]
    Params(usize),
    /// A map that no policy has.
    #[error("unexpected map `{0}`")]
    Map(String),
    /// A hook that only other runtimes have.
    #[error("the supervisor does not support `on {0}`")]
    Hook(Hook),
    /// It has programs for the kernel.
    #[error("the supervisor does not load programs into the kernel")]
    Kernel,
    /// A relocation of the object is invalid.
    #[error("on {0}: {1}")]
    Link(Hook, LinkError),
    /// A program was not compiled.
    #[error("on {0}: {1}")]
    Jit(Hook, JitError),
}

/// The loaded policy.
pub struct Policy {
    /// What the object's note says.
    pub meta: Meta,
    /// Which object it is, for tools.
    pub object: u64,
    /// Its bytes, for a supervisor of another version that takes over.
    pub bytes: Vec<u8>,
    /// What the engine has to know.
    pub rules: Rules,
    /// The state of the logs, if it has some.
    pub state: Option<&'static MapArea>,
    /// What the kernel has to ask about for it.
    pub asked: Asked,
    /// The program that runs before a write. None for `on write: defer`: the file is looked at, not the call.
    pub write: Option<Code>,
    /// The programs of `fsync` and `fdatasync`.
    fsync: Option<Code>,
    fdatasync: Option<Code>,
}

impl Policy {
    /// The program of a sync call.
    pub fn program(&self, full: bool) -> Option<&Code> {
        if full { self.fsync.as_ref() } else { self.fdatasync.as_ref() }
    }

    /// Whether a sync call can be deferred.
    pub fn defers_syncs(&self) -> bool {
        self.fsync.is_some() || self.fdatasync.is_some()
    }

    /// Whether it does anything that can be turned off: looks at what is written last, whatever happens.
    pub fn can_be_off(&self) -> bool {
        !self.rules.defers_writes || self.defers_syncs() || self.sees_writes()
    }

    /// Whether what a write does is the policy's business.
    pub fn sees_writes(&self) -> bool {
        self.write.is_some() || self.rules.keeps_amounts
    }

    /// The policy and what a power loss can take, in some words.
    pub fn summary(&self) -> String {
        let loss = self.power_loss().map_or("not proved", |loss| loss.text.as_str());
        format!("policy `{}` (power loss: {loss})", self.meta.policy)
    }

    /// What a power loss can take, as the object says.
    pub fn power_loss(&self) -> Option<&Loss> {
        self.meta.loss.iter().find(|loss| loss.failure == Failure::PowerLoss)
    }

    /// Whether programs load `reading`.
    pub fn reads(&self, reading: Reading) -> bool {
        self.meta.reads.contains(&reading)
    }
}

/// Reads, checks and compiles the object at `path`.
pub fn load(path: &Path) -> Result<Policy, LoadError> {
    admit(std::fs::read(path)?)
}

/// Checks and compiles an object.
pub fn admit(bytes: Vec<u8>) -> Result<Policy, LoadError> {
    let object = durac_verify::admit(&bytes, Runtime::Supervisor)?;
    if object.meta.params.len() > MAX_PARAMS {
        return Err(LoadError::Params(object.meta.params.len()));
    }
    if !object.kernel.is_empty() {
        return Err(LoadError::Kernel);
    }
    let mut policy = prepare(&object)?;
    policy.object = fingerprint(&bytes);
    policy.bytes = bytes;
    Ok(policy)
}

fn prepare(object: &Object) -> Result<Policy, LoadError> {
    let meta = &object.meta;
    let maps = object.maps.iter().map(|map| match map.name.as_str() {
        PARAMS_MAP => {
            let values: Vec<u64> = meta.params.iter().map(|param| param.default).collect();
            Ok(MapArea::leak(&values, 1, true))
        }
        STATE_MAP => {
            let values: Vec<u64> = meta.state.iter().map(|state| state.init).collect();
            Ok(MapArea::leak(&values, map.max_entries, false))
        }
        name => Err(LoadError::Map(name.into())),
    });
    let maps: Vec<&'static MapArea> = maps.collect::<Result<_, _>>()?;
    let mut policy = Policy {
        meta: meta.clone(),
        object: 0,
        bytes: Vec::new(),
        rules: Rules::from(meta),
        state: maps.iter().copied().find(|map| !map.is_parameters),
        asked: Asked::by(object),
        write: None,
        fsync: None,
        fdatasync: None,
    };
    for program in &object.programs {
        let place = match program.hook {
            Hook::Write if meta.defers_writes => continue,
            Hook::Write => &mut policy.write,
            Hook::Fsync => &mut policy.fsync,
            Hook::Fdatasync => &mut policy.fdatasync,
            other => return Err(LoadError::Hook(other)),
        };
        let address = |map: u32| {
            let area: &'static MapArea = maps.get(map as usize)?;
            Some(MapRef::Address(std::ptr::from_ref(area) as u64))
        };
        let insns = link::link(&program.insns, &program.relocs, address)
            .map_err(|why| LoadError::Link(program.hook, why))?;
        let code =
            durac_jit::compile(&insns, HELPERS).map_err(|why| LoadError::Jit(program.hook, why))?;
        *place = Some(code);
    }
    Ok(policy)
}
