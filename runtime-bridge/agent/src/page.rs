//! The status page of this process: made with its first log, removed at its end.

use crate::clock;
use crate::note;
use crate::past;
use crate::policy::Policy;
use crate::table::{self, Entry};
use durac_abi::ENV_STATUS;
use durac_abi::object::Param;
use durac_shm::status::{self, Amounts, ControlPage, Head, ParamStatus, Status, StatusPage};
use libc::{c_int, pid_t};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static STATUS_PATH: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Remembers where the status file goes. A relative path starts where the process did: servers
/// change their directory before they open their logs.
pub fn remember_path() {
    STATUS_PATH.get_or_init(|| {
        let path = std::env::var_os(ENV_STATUS).filter(|p| !p.is_empty())?;
        let here = std::env::current_dir().unwrap_or_default();
        Some(here.join(path))
    });
}

/// A page that was made.
pub struct Made {
    /// It; for the rest of the process' life.
    pub page: &'static StatusPage,
    /// Where tools ask for a change.
    pub control: Option<&'static ControlPage>,
    /// The descriptor by which others find it, if it has no file.
    pub fd: Option<c_int>,
    /// Its file, if it has one.
    pub file: Option<PageFile>,
}

/// The file by which others find a page.
pub struct PageFile {
    path: PathBuf,
    id: (u64, u64),
}

impl PageFile {
    /// Removes it, if it is still the one that was made.
    pub fn remove(&self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.id) {
            // Nobody is left to tell if it cannot be removed.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the page. Its descriptor has this number or a higher one.
pub fn make(policy: &'static Policy, number: c_int) -> Option<Made> {
    let path = STATUS_PATH.get().cloned().flatten();
    let created = status::create(path.as_deref(), number).or_else(|error| {
        let path = path.as_deref().unwrap_or(Path::new(""));
        if !belongs_to_parent(path) {
            note::error(&format!("no status file {}: {error}", path.display()));
        }
        status::create(None, number)
    });
    let created = created.ok()?;
    if let Some(why) = &created.hidden {
        tell_hidden(why);
    }
    if let Some(fd) = created.fd {
        table::set(fd, Entry::Own);
    }
    describe(policy, created.page);
    let file = path.filter(|_| created.id != (0, 0));
    let file = file.map(|path| PageFile { path, id: created.id });
    Some(Made { page: created.page, control: created.control, fd: created.fd, file })
}

/// Says once that tools do not find the page; a forked child does not repeat it.
fn tell_hidden(why: &std::io::Error) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        note::later(&format!(
            "no status page: {why}; `durac top` and `durac set` do not see this process"
        ));
    }
}

/// Says on the page what runs here, and from now on takes the parameters from it.
fn describe(policy: &'static Policy, page: &'static StatusPage) {
    if past::is_go() {
        page.publish_go();
    }
    page.publish_head(&head(policy), &params(policy, |param| param.default));
    if let Some(params) = policy.params {
        params.follow(page);
    }
}

/// The same for a policy that has come in the place of another. One that was off has the values that its
/// parameters were set to.
pub fn exchanged(policy: &'static Policy, page: &'static StatusPage) {
    let mut values = policy.params.map(|area| area.values()).unwrap_or_default().into_iter();
    let all = params(policy, |param| values.next().unwrap_or(param.default));
    page.publish_policy(&head(policy), &all);
    if let Some(params) = policy.params {
        params.follow(page);
    }
}

fn params(policy: &Policy, mut value: impl FnMut(&Param) -> u64) -> Vec<ParamStatus> {
    let shown = policy.meta.params.iter().map(|param| ParamStatus {
        name: param.name.clone(),
        unit: param.unit.to_string(),
        value: value(param),
        default: param.default,
        min: param.min,
        max: param.max,
    });
    shown.collect()
}

fn head(policy: &Policy) -> Head<'_> {
    let amounts = policy.power_loss().map_or_else(Amounts::default, |loss| Amounts {
        syncs: loss.syncs,
        updates: loss.updates,
        bytes: loss.bytes,
        within: loss.within,
    });
    let nothing = Amounts { syncs: Some(0), updates: Some(0), bytes: Some(0), within: Some(0) };
    let is_off = policy.instead_of.is_some();
    Head {
        pid: std::process::id(),
        since: clock::now(),
        policy: &policy.meta.policy,
        target: &policy.meta.target,
        object: policy.object,
        loss: policy.loss_text(),
        bound: if is_off { nothing } else { amounts },
        is_off,
    }
}

/// Whether the status file is the parent's: its forked children have none, and need no message.
fn belongs_to_parent(path: &Path) -> bool {
    // SAFETY: it takes no pointer, cannot fail, and changes nothing.
    let parent = unsafe { libc::getppid() };
    Status::open(path).is_ok_and(|status| status.page().pid() as pid_t == parent)
}
