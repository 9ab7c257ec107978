//! The file system at work.

use crate::image::{Cut, Image, Syncing, Unsynced};
use crate::noted::{Noted, Notes, What};
use crate::plan::{Counted, Plan};
use crate::session::{self, Served};
use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the table of mounts calls it.
const NAME: &str = "durac-disk";

/// Whether the device still has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It works.
    On,
    /// Nothing works any more.
    Off,
}

/// What the threads of a mount share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Syncs that sleep are woken by a cut.
    changed: Condvar,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) image: Image,
    pub(crate) faults: Counted,
    pub(crate) power: Power,
    /// Syncs that have begun and not ended.
    pub(crate) under_way: Vec<(u64, Syncing)>,
    pub(crate) syncs: u64,
    pub(crate) writes: u64,
    /// Writes of a file that was being synced.
    pub(crate) overlapping: u64,
    /// The power goes during the sync after so many.
    cut_in_sync: Option<u64>,
    /// The process that dies with the power; a process group if negative.
    victim: Option<i32>,
    pub(crate) notes: Notes,
}

impl State {
    /// The power goes. The application dies first, so that nothing is acknowledged after it.
    fn cut(&mut self) {
        if let Some(victim) = self.victim.take() {
            // SAFETY: takes no pointers. The process is somebody's child until that has waited for
            // it, so the number is its own.
            unsafe { libc::kill(victim, libc::SIGKILL) };
        }
        if self.power == Power::On {
            self.notes.add("", || What::Cut);
        }
        self.power = Power::Off;
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps so long, or until the power is off.
    pub(crate) fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while state.power == Power::On {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    /// Called in the middle of a sync: does the power go now?
    pub(crate) fn middle_of_sync(&self, number: u64) {
        let mut state = self.lock();
        if state.cut_in_sync.is_some_and(|at| number >= at) {
            state.cut();
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    shared: Arc<Shared>,
    session: Option<Served>,
    dir: TempDir,
}

/// A child of a killed server may have something open for so long.
const BUSY: Duration = Duration::from_secs(120);

/// What is left after a cut.
#[derive(Clone, Debug)]
pub struct After {
    /// The file system as it is mounted again.
    pub image: Image,
    /// Writes that had not been synced, each with the path of its file at the time.
    pub unsynced: Vec<(String, Unsynced)>,
}

impl Mounted {
    /// Mounts `image` in a new temporary folder.
    ///
    /// # Errors
    /// If FUSE is not there, or may not be used: it needs `/dev/fuse` and the right to mount.
    pub fn new(image: Image, plan: Plan) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("durac-disk-").tempdir()?;
        let state = State {
            image,
            faults: Counted::new(plan),
            power: Power::On,
            under_way: Vec::new(),
            syncs: 0,
            writes: 0,
            overlapping: 0,
            cut_in_sync: None,
            victim: None,
            notes: Notes::default(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let session = Some(session::serve(shared.clone(), dir.path(), NAME)?);
        Ok(Self { shared, session, dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `name` below where it is mounted.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The power goes: from now on nothing more becomes durable, and every operation fails.
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
    }

    /// The process that is killed when the power goes, an instant before; it must be a child of ours
    /// that nobody has waited for. Dropping the disk kills nothing.
    pub fn kills(&self, pid: u32) {
        self.shared.lock().victim = i32::try_from(pid).ok();
    }

    /// The same of a process group, by the number of its leader.
    pub fn kills_group(&self, leader: u32) {
        self.shared.lock().victim =
            i32::try_from(leader).ok().filter(|pid| *pid > 1).map(|pid| -pid);
    }

    /// The power goes in the middle of the sync after `more` others.
    pub fn cut_in_sync(&self, more: u64) {
        let mut state = self.shared.lock();
        state.cut_in_sync = Some(state.syncs + more + 1);
    }

    /// Whether it has power.
    #[must_use]
    pub fn power(&self) -> Power {
        self.shared.lock().power
    }

    /// Syncs that have begun.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }

    /// Writes that were made.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.shared.lock().writes
    }

    /// Writes that completed while a sync of the same file was out.
    #[must_use]
    pub fn overlapping(&self) -> u64 {
        self.shared.lock().overlapping
    }

    /// Whether a file of that name is in a directory of that path.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        let state = self.shared.lock();
        let parts = path.split('/').filter(|part| !part.is_empty());
        let mut at = Some(crate::node::ROOT);
        for part in parts {
            at = at.and_then(|dir| state.image.lookup(dir, part.as_ref()));
        }
        at.is_some()
    }

    /// Writes that are not durable, to files whose path ends so.
    #[must_use]
    pub fn unsynced(&self, path: &str) -> usize {
        let state = self.shared.lock();
        let of = |write: &&Unsynced| state.image.path(write.ino).ends_with(path);
        state.image.unsynced().iter().filter(of).count()
    }

    /// From now on what is done to files whose path contains `path` is noted: the last few hundred.
    pub fn note(&self, path: &str) {
        self.shared.lock().notes = Notes::of(path);
    }

    /// What was noted, in order.
    #[must_use]
    pub fn noted(&self) -> Vec<Noted> {
        self.shared.lock().notes.all()
    }

    /// Operations that a fault has met.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.shared.lock().faults.met
    }

    /// Changes what goes wrong from now on.
    pub fn plan(&self, plan: Plan) {
        self.shared.lock().faults = Counted::new(plan);
    }

    /// Cuts the power if it is still on, unmounts, and answers what is left.
    ///
    /// # Errors
    /// If it cannot be unmounted.
    pub fn after_cut(mut self, cut: Cut, seed: u64) -> io::Result<After> {
        self.cut();
        let (image, under_way) = {
            let state = self.shared.lock();
            let under_way: Vec<Syncing> = state.under_way.iter().map(|(_, s)| s.clone()).collect();
            (state.image.clone(), under_way)
        };
        let named = |write: &Unsynced| (image.path(write.ino), write.clone());
        let unsynced = image.unsynced().iter().map(named).collect();
        self.unmount()?;
        Ok(After { image: image.after_cut(cut, seed, &under_way), unsynced })
    }

    /// Unmounts, and answers the file system as programs left it, power or not.
    ///
    /// # Errors
    /// If it cannot be unmounted.
    pub fn into_image(mut self) -> io::Result<Image> {
        self.unmount()?;
        let image = self.shared.lock().image.clone();
        Ok(image)
    }

    fn unmount(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let until = Instant::now() + BUSY;
        while is_busy(self.dir.path()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        session.umount_and_join()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may have been waited for by now, and its number be another's.
        self.shared.lock().victim = None;
        self.cut();
        // Nobody is left to tell.
        let _ = self.unmount();
    }
}

/// Whether a process has something open there.
fn is_busy(dir: &Path) -> bool {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    // The first of these calls unmounts nothing: it answers EAGAIN, or EBUSY (umount2(2)).
    // SAFETY: the path is a C string.
    let result = unsafe { libc::umount2(path.as_ptr(), libc::MNT_EXPIRE) };
    result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY)
}

/// From now on this thread, and the threads and processes that it starts, see mounts that nobody else
/// sees, and that go away with the last of them. Called again in the same thread it does nothing.
///
/// # Errors
/// If the process may not do that.
pub fn private_mounts() -> io::Result<()> {
    thread_local! {
        static PRIVATE: Cell<bool> = const { Cell::new(false) };
    }
    if PRIVATE.get() {
        return Ok(());
    }
    let check = |result: i32| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: takes no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let root = c"/".as_ptr();
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the target is a C string; the other pointers are not looked at for these flags.
    check(unsafe {
        libc::mount(std::ptr::null(), root, std::ptr::null(), flags, std::ptr::null())
    })?;
    PRIVATE.set(true);
    detach_copies()
}

/// The new namespace has copies of all mounts. A copy of another thread's disk would keep that disk alive,
/// and its owner waiting, for as long as this namespace lasts.
fn detach_copies() -> io::Result<()> {
    for line in std::fs::read_to_string("/proc/thread-self/mountinfo")?.lines() {
        let Some(path) = disk_mounted_at(line) else { continue };
        let path = CString::new(path)?;
        // SAFETY: the path is a C string.
        if unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The mount point in a line of `mountinfo` (proc(5)), if one of these disks is mounted there.
fn disk_mounted_at(line: &str) -> Option<Vec<u8>> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut words = file_system.split(' ');
    (words.next() == Some("fuse") && words.next() == Some(NAME)).then_some(())?;
    // Blanks and backslashes are in octal: `\040`.
    let mut bytes = mount.split(' ').nth(4)?.bytes();
    let mut path = Vec::new();
    while let Some(byte) = bytes.next() {
        path.push(match byte {
            b'\\' => (0..3).try_fold(0u8, |code, _| {
                let digit = bytes.next().filter(|b| (b'0'..=b'7').contains(b))?;
                Some(code.wrapping_mul(8).wrapping_add(digit - b'0'))
            })?,
            byte => byte,
        });
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::disk_mounted_at;

    #[test]
    fn lines_of_mountinfo() {
        let line = r"64 44 0:39 / /tmp/a\040b\134c rw,nosuid - fuse durac-disk rw,user_id=0";
        assert_eq!(disk_mounted_at(line).as_deref(), Some(&br"/tmp/a b\c"[..]));
        let tagged = "64 44 0:39 / /d rw shared:7 master:1 - fuse durac-disk rw";
        assert_eq!(disk_mounted_at(tagged).as_deref(), Some(&b"/d"[..]));
        for other in
            ["", "64 44 0:39 / /d rw - fuse sshfs rw", "64 44 0:39 / /d rw - ext4 durac-disk rw"]
        {
            assert_eq!(disk_mounted_at(other), None, "{other}");
        }
    }
}
