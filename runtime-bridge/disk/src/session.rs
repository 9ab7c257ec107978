//! What the kernel asks of the file system.

use crate::SYNC;
use crate::mount::{Power, Shared, State};
use crate::node::{Content, Entries, Ino, Kind, Node};
use crate::noted::What;
use crate::plan::{Effect, Op};
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, MountOption, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel asks again after so long; nobody else changes anything.
const TTL: Duration = Duration::from_secs(1);
/// Bytes that the file system says it has, when nothing limits it.
const ROOM: u64 = 64 << 30;

/// Past the page cache, in which the kernel would split a write at a page's end: each write of a
/// program is one write here.
const OPENED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

pub(crate) use fuser::BackgroundSession as Served;

/// Serves the file system at `dir`, under this name, until it is unmounted.
pub(crate) fn serve(shared: Arc<Shared>, dir: &Path, name: &str) -> io::Result<Served> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(name.into()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    config.acl = SessionACL::All;
    fuser::Session::new(Session { shared }, dir, &config)?.spawn()
}

type Answer<T> = Result<T, Errno>;

fn empty(reply: ReplyEmpty, result: Answer<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

/// One mount.
struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// Does something while there is power.
    fn powered<T>(&self, act: impl FnOnce(&mut State) -> Answer<T>) -> Answer<T> {
        let mut state = self.shared.lock();
        if state.power == Power::Off {
            return Err(Errno::EIO);
        }
        act(&mut state)
    }

    fn make(&self, at: (Ino, &OsStr), kind: Kind, mode: u32, req: &Request) -> Answer<FileAttr> {
        let node = Node {
            kind,
            perm: (mode & 0o7777) as u16,
            uid: req.uid(),
            gid: req.gid(),
            changed: now(),
            links: 1,
        };
        self.powered(|state| {
            if state.image.lookup(at.0, at.1).is_some() {
                return Err(Errno::EEXIST);
            }
            let ino = state.image.create(at.0, at.1, node).ok_or(Errno::ENOTDIR)?;
            attr(state, ino)
        })
    }

    /// Syncs a file or directory, and then calls `done`, from another thread: others go on meanwhile.
    fn sync(&self, ino: Ino, done: impl FnOnce(Answer<()>) + Send + 'static) {
        let begun = self.powered(|state| {
            let path = state.image.path(ino);
            let effect = state.faults.next(Op::Sync, &path);
            // A sync that is to be made again has not begun, and says nothing of the data.
            if let Some(Effect::Fail(errno @ (libc::EINTR | libc::EAGAIN | libc::EBUSY))) = effect {
                return Err(Errno::from_i32(errno));
            }
            let syncing = state.image.begin_sync(ino).ok_or(Errno::ENOENT)?;
            state.syncs += 1;
            let number = state.syncs;
            state.under_way.push((number, syncing));
            state.notes.add(&path, || What::Began { sync: number });
            let slow = match effect {
                Some(Effect::Slow(more)) => more,
                _ => Duration::ZERO,
            };
            Ok((number, path, effect, state.faults.plan().latency + slow))
        });
        let (number, path, effect, time) = match begun {
            Ok(begun) => begun,
            Err(errno) => return done(Err(errno)),
        };
        let shared = self.shared.clone();
        let rest = move || {
            shared.sleep(time / 2);
            shared.middle_of_sync(number);
            shared.sleep(time - time / 2);
            let mut state = shared.lock();
            if state.power == Power::Off {
                return done(Err(Errno::EIO));
            }
            let at = state.under_way.iter().position(|(known, _)| *known == number);
            let Some((_, syncing)) = at.map(|at| state.under_way.remove(at)) else {
                return done(Err(Errno::EIO));
            };
            let errno = match effect {
                Some(Effect::Fail(errno)) => {
                    state.image.fail_sync(&syncing);
                    Some(errno)
                }
                _ => (!state.image.end_sync(&syncing)).then_some(libc::EIO),
            };
            state.notes.add(&path, || What::Ended { sync: number, errno });
            done(errno.map_or(Ok(()), |errno| Err(Errno::from_i32(errno))));
        };
        // Without a thread `done` is dropped with its reply, and a dropped reply is `EIO`.
        let _ = std::thread::Builder::new().name("sync".into()).spawn(rest);
    }
}

fn now() -> (u64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

fn attr(state: &State, ino: Ino) -> Answer<FileAttr> {
    let node = state.image.node(ino).ok_or(Errno::ENOENT)?;
    let (kind, size) = match &node.kind {
        Kind::File(content) => (FileType::RegularFile, content.data.len() as u64),
        Kind::Dir(_) => (FileType::Directory, 4096),
    };
    let time = UNIX_EPOCH + Duration::new(node.changed.0, node.changed.1);
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: node.perm,
        nlink: node.links,
        uid: node.uid,
        gid: node.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn write(state: &mut State, ino: Ino, offset: u64, data: &[u8]) -> Answer<u32> {
    let path = state.image.path(ino);
    let asked = data.len();
    state.writes += 1;
    let data = match state.faults.next(Op::Write, &path) {
        Some(Effect::Fail(errno)) => {
            state.notes.add(&path, || What::Refused { errno });
            return Err(Errno::from_i32(errno));
        }
        Some(Effect::Short) if data.len() > 1 => data.get(..data.len() / 2).unwrap_or(data),
        _ => data,
    };
    let grows = match &state.image.node(ino).ok_or(Errno::ENOENT)?.kind {
        Kind::File(content) => {
            (offset + data.len() as u64).saturating_sub(content.data.len() as u64)
        }
        Kind::Dir(_) => return Err(Errno::EISDIR),
    };
    let room = state.faults.plan().room.map(|room| room.saturating_sub(state.image.used()));
    let data = match room {
        Some(0) if grows > 0 => {
            state.notes.add(&path, || What::Refused { errno: libc::ENOSPC });
            return Err(Errno::ENOSPC);
        }
        Some(room) if grows > room => {
            let fits = data.len().saturating_sub((grows - room) as usize);
            data.get(..fits).unwrap_or_default()
        }
        _ => data,
    };
    let number = state.image.write(ino, offset, data).ok_or(Errno::EISDIR)?;
    let is_synced = state.under_way.iter().any(|(_, syncing)| syncing.ino() == ino);
    state.overlapping += u64::from(is_synced);
    state.notes.add(&path, || What::wrote(number, data));
    if data.len() < asked {
        state.image.was_short();
    }
    if let Some(node) = state.image.node_mut(ino) {
        node.changed = now();
    }
    Ok(data.len() as u32)
}

impl Filesystem for Session {
    /// Shared mappings, which a file past the page cache has only if this is asked for (Linux 6.6): the index of SQLite's
    /// log is one.
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // An older kernel has none: whoever maps a file gets ENODEV.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.powered(|state| {
            let ino = state.image.lookup(parent.0, name).ok_or(Errno::ENOENT)?;
            attr(state, ino)
        });
        match found {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.powered(|state| attr(state, ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = self.powered(|state| {
            if let Some(size) = size {
                state.image.resize(ino.0, size).ok_or(Errno::EISDIR)?;
            }
            let node = state.image.node_mut(ino.0).ok_or(Errno::ENOENT)?;
            node.perm = mode.map_or(node.perm, |mode| (mode & 0o7777) as u16);
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
            node.changed = now();
            attr(state, ino.0)
        });
        match set {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        match self.make((parent.0, name), Kind::Dir(Entries::new()), mode & !umask, req) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let file = Kind::File(Content::default());
        match self.make((parent.0, name), file, mode & !umask, req) {
            Ok(attr) => {
                reply.created(&TTL, &attr, Generation(0), FileHandle(attr.ino.0), OPENED);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let unlinked =
            self.powered(|state| state.image.unlink(parent.0, name).ok_or(Errno::ENOENT));
        match unlinked {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.powered(|state| {
            let ino = state.image.lookup(parent.0, name).ok_or(Errno::ENOENT)?;
            if !state.image.entries(ino).ok_or(Errno::ENOTDIR)?.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            state.image.unlink(parent.0, name).ok_or(Errno::ENOENT)
        });
        match removed {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.powered(|state| {
            let taken = state.image.lookup(newparent.0, newname).is_some();
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return Err(Errno::EINVAL);
            }
            if taken && flags.contains(RenameFlags::RENAME_NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            let (from, to) = ((parent.0, name), (newparent.0, newname));
            state.image.rename(from, to).ok_or(Errno::ENOENT)
        });
        match renamed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.powered(|state| state.image.node(ino.0).map(|_| ()).ok_or(Errno::ENOENT)) {
            Ok(()) => reply.opened(FileHandle(ino.0), OPENED),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read =
            self.powered(|state| match &state.image.node(ino.0).ok_or(Errno::ENOENT)?.kind {
                Kind::Dir(_) => Err(Errno::EISDIR),
                Kind::File(content) => {
                    let from = (offset as usize).min(content.data.len());
                    let to = from.saturating_add(size as usize).min(content.data.len());
                    Ok(content.data.get(from..to).unwrap_or_default().to_vec())
                }
            });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.powered(|state| {
            if state.image.lookup(newparent.0, newname).is_some() {
                return Err(Errno::EEXIST);
            }
            state.image.add_name(newparent.0, newname, ino.0).ok_or(Errno::ENOENT)?;
            attr(state, ino.0)
        });
        match linked {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.powered(|state| write(state, ino.0, offset, data)) {
            // `O_SYNC` contains this flag.
            Ok(written) if flags.0 & libc::O_DSYNC != 0 => {
                self.sync(ino.0, move |synced| match synced {
                    Ok(()) => reply.written(written),
                    Err(errno) => reply.error(errno),
                });
            }
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino.0, |synced| empty(reply, synced));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(ino.0, |synced| empty(reply, synced));
    }

    /// [`SYNC`]. The kernel holds the file's lock during `fsync`, so that writes of that file wait for its
    /// end, which they do not on ext4. It holds none during this.
    fn ioctl(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        if command != SYNC {
            return reply.error(Errno::ENOTTY);
        }
        self.sync(ino.0, |synced| match synced {
            Ok(()) => reply.ioctl(0, &[]),
            Err(errno) => reply.error(errno),
        });
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.powered(|state| {
            let entries = state.image.entries(ino.0).ok_or(Errno::ENOTDIR)?;
            let mut list = vec![(ino.0, FileType::Directory, ".".into())];
            list.push((ino.0, FileType::Directory, "..".into()));
            for (name, child) in entries {
                let kind = match state.image.node(*child).map(|node| &node.kind) {
                    Some(Kind::Dir(_)) => FileType::Directory,
                    _ => FileType::RegularFile,
                };
                list.push((*child, kind, name.clone()));
            }
            Ok(list)
        });
        match listed {
            Ok(list) => {
                for (at, (ino, kind, name)) in list.into_iter().enumerate().skip(offset as usize) {
                    if reply.add(INodeNo(ino), at as u64 + 1, kind, &name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.shared.lock();
        let room = state.faults.plan().room.unwrap_or(ROOM);
        let free = room.saturating_sub(state.image.used()) / 4096;
        reply.statfs(room / 4096, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
