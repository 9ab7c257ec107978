//! The status page, which `durac top` and `durac set` map.

use crate::clock;
use crate::load::Policy;
use crate::note;
use durac_abi::ENV_STATUS;
use durac_shm::status::{self, Amounts, ControlPage, Head, ParamStatus, StatusPage};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The page of this process.
pub struct Page {
    /// It.
    pub status: &'static StatusPage,
    /// Where tools ask for a change; none where the page has no memory that they find.
    pub control: Option<&'static ControlPage>,
    /// Who writes what is said of the policy holds it, from where that is read.
    writers: Mutex<()>,
}

/// What of a policy is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Force {
    /// What is off.
    pub off: Off,
    /// A process of the command does not show what it has open: it may write to logs, and nobody looks for that.
    pub is_unseen: bool,
}

impl Force {
    /// All of it.
    pub const WHOLE: Self = Self { off: Off::No, is_unseen: false };
}

/// What of a policy is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// Nothing.
    No,
    /// Sync calls are not deferred.
    Syncs,
    /// Writes are not looked for, either.
    All,
}

/// Makes the page, which nobody finds before it is [`Page::ready`], with these values of the parameters, as far as there are some.
pub fn make(policy: &Policy, values: &[u64]) -> std::io::Result<Page> {
    let path = std::env::var_os(ENV_STATUS).filter(|path| !path.is_empty()).map(PathBuf::from);
    let created = status::create(path.as_deref(), 0).or_else(|error| {
        if let Some(path) = path {
            note::error(&format!("no status file {}: {error}", path.display()));
        }
        status::create(None, 0)
    })?;
    if let Some(why) = &created.hidden {
        note::error(&format!(
            "no status page: {why}; `durac top`, `set`, `reload` and `upgrade` do not see this command"
        ));
    }
    created.page.publish_supervisor();
    let value = |index: usize, default| values.get(index).copied().unwrap_or(default);
    created.page.publish_policy(&head(policy, Force::WHOLE), &params(policy, value));
    Ok(Page { status: created.page, control: created.control, writers: Mutex::new(()) })
}

impl Page {
    /// The supervisor is at work.
    pub fn ready(&self) {
        self.status.publish_ready(std::process::id(), clock::now());
    }

    /// Another policy has come, with its own values of the parameters.
    pub fn publish_policy(&self, of: impl FnOnce() -> (&'static Policy, Force)) {
        let _alone = self.alone();
        let (policy, force) = of();
        self.status.publish_policy(&head(policy, force), &params(policy, |_, default| default));
    }

    /// Says whether the policy is in force, and whether it stays off.
    pub fn publish_force(&self, of: impl FnOnce() -> (&'static Policy, Force, bool)) {
        let _alone = self.alone();
        let (policy, force, stays_off) = of();
        self.status.publish_head_again(&head(policy, force));
        if force.off != Off::No && stays_off {
            self.status.publish_stays_off();
        }
    }

    /// The policy, which is off, stays so.
    pub fn publish_stays_off(&self) {
        let _alone = self.alone();
        self.status.publish_stays_off();
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parameters, as the page shows them.
pub fn params(policy: &Policy, value: impl Fn(usize, u64) -> u64) -> Vec<ParamStatus> {
    let shown = policy.meta.params.iter().enumerate().map(|(index, param)| ParamStatus {
        name: param.name.clone(),
        unit: param.unit.to_string(),
        value: value(index, param.default),
        default: param.default,
        min: param.min,
        max: param.max,
    });
    shown.collect()
}

/// One line that says what is in force.
pub fn summary(policy: &Policy, force: Force) -> String {
    if force == Force::WHOLE {
        return policy.summary();
    }
    let (name, loss) = (&policy.meta.policy, head(policy, force).loss);
    let off = if force.off == Off::No { "" } else { " off" };
    format!("policy `{name}`{off} (power loss: {loss})")
}

/// The head, as the page shows it.
pub fn head(policy: &Policy, force: Force) -> Head<'_> {
    let Force { off, is_unseen } = force;
    let power = policy.power_loss();
    let amounts = power.map_or_else(Amounts::default, |loss| Amounts {
        syncs: loss.syncs,
        updates: loss.updates,
        bytes: loss.bytes,
        within: loss.within,
    });
    let text = power.map_or("not known", |loss| loss.text.as_str());
    let nothing = Amounts { syncs: Some(0), updates: Some(0), bytes: Some(0), within: Some(0) };
    let (loss, bound) = match off {
        _ if is_unseen && policy.rules.defers_writes => ("not known", Amounts::default()),
        // Writes keep their deadline as long as they are looked for, and have none otherwise.
        Off::No => (text, amounts),
        Off::Syncs if policy.rules.defers_writes => (text, amounts),
        Off::All if policy.rules.defers_writes => ("not known", Amounts::default()),
        Off::Syncs | Off::All => ("nothing", nothing),
    };
    Head {
        pid: std::process::id(),
        since: clock::now(),
        policy: &policy.meta.policy,
        target: &policy.meta.target,
        object: policy.object,
        loss,
        bound,
        is_off: off != Off::No,
    }
}
