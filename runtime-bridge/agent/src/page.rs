//! The status page of this process: made with its first log, removed at its end.

use crate::clock;
use crate::note;
use crate::past;
use crate::policy::Policy;
use crate::sys;
use crate::table::{self, Entry};
use durac_abi::ENV_STATUS;
use durac_abi::object::Param;
use durac_shm::status::{self, Amounts, ControlPage, Head, ParamStatus, Status, StatusPage};
use libc::{c_int, pid_t};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// The descriptor of the page, where a forked child finds it, and the file that it has.
static NUMBER: AtomicI32 = AtomicI32::new(NONE);
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);
const NONE: c_int = -1;

/// The page has this descriptor, or none any more.
pub fn has(fd: Option<c_int>) {
    let [device, inode] = fd.and_then(file).unwrap_or_default();
    DEVICE.store(device, Ordering::Relaxed);
    INODE.store(inode, Ordering::Relaxed);
    NUMBER.store(fd.unwrap_or(NONE), Ordering::Release);
}

/// Device and inode.
fn file(fd: c_int) -> Option<[u64; 2]> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    let place = stat.as_mut_ptr().expose_provenance();
    // SAFETY: any number may be passed, and there is room for the result.
    if unsafe { sys::call(libc::SYS_fstat, [fd as usize, place]) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    Some([stat.st_dev, stat.st_ino])
}

/// Closes it in a forked child, as the descriptors of logs. Past the hooks it may have been closed, and given to another file.
pub extern "C" fn close_in_child() {
    let fd = NUMBER.swap(NONE, Ordering::AcqRel);
    let known = [&DEVICE, &INODE].map(|number| number.load(Ordering::Relaxed));
    if fd != NONE && file(fd) == Some(known) {
        // SAFETY: the child's copy of the agent's descriptor.
        unsafe { sys::call(libc::SYS_close, [fd as usize]) };
    }
}

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
        has(Some(fd));
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
    let off = if policy.is_unknown() { Amounts::default() } else { nothing };
    Head {
        pid: std::process::id(),
        since: clock::now(),
        policy: &policy.meta.policy,
        target: &policy.meta.target,
        object: policy.object,
        loss: policy.loss_text(),
        bound: if is_off { off } else { amounts },
        is_off,
    }
}

/// Whether the status file is the parent's: its forked children have none, and need no message.
fn belongs_to_parent(path: &Path) -> bool {
    // SAFETY: it takes no pointer, cannot fail, and changes nothing.
    let parent = unsafe { libc::getppid() };
    Status::open(path).is_ok_and(|status| status.page().pid() as pid_t == parent)
}
