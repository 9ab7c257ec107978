//! Proofs of earlier starts, so that the next `durac run` of the same text does not prove again.
//!
//! An entry is the object that was proved, under the digest of everything that its proof depends on. The text
//! is compiled at each start all the same, and the entry counts only if it is, byte for byte, what that gives:
//! what is taken from it is that these programs were proved, and with which bounds.
//!
//! The folder and its files belong to this user, and nobody else can write to them; otherwise they are not used.

use crate::output;
use durac_abi::Runtime;
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, ReadCache, elf};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Names the folder, or is `off`.
pub const ENV_CACHE: &str = "DURAC_CACHE";
/// Changed when an entry of an earlier version must not be used.
const FORMAT: &str = "durac cache 1";
/// Entries that are kept; the ones that were used least lately go first.
const MOST_ENTRIES: usize = 64;
/// A larger entry is not read: no object is.
const MOST_BYTES: u64 = 1 << 20;
/// A file under a temporary name that is older was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// The folder with the entries.
pub struct Cache {
    folder: PathBuf,
}

/// Everything that a proof depends on.
pub struct Key<'a> {
    /// Its text.
    pub text: &'a str,
    /// The name of its file, which is in the object.
    pub name: &'a str,
    /// The name of a policy that gives none.
    pub stem: &'a str,
    /// The parameters that are set.
    pub settings: &'a [String],
    /// What runs it.
    pub runtime: Runtime,
}

impl Key<'_> {
    /// The digest. None if durac cannot read itself: then nothing says which compiler made an entry.
    fn digest(&self) -> Option<String> {
        let mut hasher = Sha256::new();
        let mut add = |part: &[u8]| {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        add(FORMAT.as_bytes());
        add(env!("CARGO_PKG_VERSION").as_bytes());
        add(&own_identity().ok()?);
        add(self.runtime.text().as_bytes());
        add(self.name.as_bytes());
        add(self.stem.as_bytes());
        add(self.text.as_bytes());
        self.settings.iter().for_each(|setting| add(setting.as_bytes()));
        Some(hex(&hasher.finalize()))
    }
}

/// An entry that may be there.
pub struct Place {
    folder: PathBuf,
    path: PathBuf,
}

impl Cache {
    /// The cache of this user; none if it is off, or there is no place for it.
    pub fn open() -> Option<Cache> {
        match Self::look() {
            Ok(cache) => cache,
            Err(why) => {
                output::error(&format!("not using the cache: {why}"));
                None
            }
        }
    }

    /// The same, with what is wrong with its place.
    pub fn look() -> Result<Option<Cache>, String> {
        let user = rustix::process::geteuid().as_raw();
        let Some(folder) = folder(user, |name| std::env::var_os(name))? else { return Ok(None) };
        // `~/.cache` may be missing; a home that is missing is not made.
        if let Some(above) = folder.parent() {
            let _ = fs::DirBuilder::new().mode(0o700).create(above);
        }
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // A read-only or absent home: the policy is proved at each start.
            Err(_) => return Ok(None),
        }
        // Not followed: a link that somebody else left there must not decide which file is read.
        let Ok(kind) = fs::symlink_metadata(&folder) else { return Ok(None) };
        if kind.is_dir() && kind.uid() == user && kind.mode() & 0o022 == 0 {
            return Ok(Some(Cache { folder }));
        }
        let shown = folder.display();
        Err(format!("`{shown}` must be a folder that only user {user} can write"))
    }

    /// Where the entry for `key` is, or would be.
    pub fn place(&self, key: &Key<'_>) -> Option<Place> {
        let path = self.folder.join(format!("{}.o", key.digest()?));
        Some(Place { folder: self.folder.clone(), path })
    }
}

impl Place {
    /// The entry's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the entry, if it is there; with a line if it may be somebody else's.
    pub fn read(&self) -> Option<Vec<u8>> {
        match self.trusted() {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.ignore(&output::reason(&error));
                None
            }
        }
    }

    /// Tells that the entry is not used.
    pub fn ignore(&self, why: &str) {
        let shown = self.path.display();
        output::error(&format!("ignoring `{shown}` in the cache: {why}; proving again"));
    }

    fn trusted(&self) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        let kind = file.metadata()?;
        let user = rustix::process::geteuid().as_raw();
        let wrong = |why| Err(io::Error::other(why));
        if !kind.is_file() {
            return wrong("not a regular file");
        }
        if kind.uid() != user {
            return wrong("another user's file");
        }
        if kind.mode() & 0o022 != 0 {
            return wrong("other users can write to it");
        }
        if kind.len() > MOST_BYTES {
            return wrong("too large");
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(MOST_BYTES).read_to_end(&mut bytes)?;
        // Used lately; a failure only makes it go earlier.
        let _ = file.set_modified(SystemTime::now());
        Ok(bytes)
    }

    /// Stores an entry, for the next start: not synced, because a start must not wait for the disk; a torn one is
    /// refused by its checksum. What cannot be stored is proved again.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let (mut file, temporary) = output::temporary(&self.folder, 0o600)?;
        let written = file.write_all(bytes).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.make_room();
        Ok(())
    }

    /// Removes what is too much, and what a crash has left behind.
    fn make_room(&self) {
        let Ok(files) = fs::read_dir(&self.folder) else { return };
        let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
        for file in files.flatten() {
            let Ok(modified) = file.metadata().and_then(|kind| kind.modified()) else { continue };
            let name = file.file_name().to_string_lossy().into_owned();
            let old = modified.elapsed().is_ok_and(|age| age > LEFT_BEHIND);
            if is_entry(&name) {
                entries.push((modified, file.path()));
            } else if name.starts_with('.') && name.ends_with(".tmp") && old {
                let _ = fs::remove_file(file.path());
            }
        }
        entries.sort();
        let too_many = entries.len().saturating_sub(MOST_ENTRIES);
        for (_, path) in entries.iter().take(too_many).filter(|(_, path)| *path != self.path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether a file of this name is an entry: nothing else in the folder is touched.
fn is_entry(name: &str) -> bool {
    name.strip_suffix(".o")
        .is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Where the entries of `user` are kept, if anywhere. Root's are in /var/cache, whoever's home the environment names.
fn folder(
    user: u32,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<PathBuf>, String> {
    let absolute = |name: &str| {
        let path = PathBuf::from(environment(name).filter(|value| !value.is_empty())?);
        path.is_absolute().then_some(path)
    };
    if let Some(named) = environment(ENV_CACHE).filter(|value| !value.is_empty()) {
        return match absolute(ENV_CACHE) {
            _ if named == "off" => Ok(None),
            Some(path) => Ok(Some(path)),
            None => Err(format!("{ENV_CACHE} must be an absolute path, or `off`")),
        };
    }
    if user == 0 {
        return Ok(Some(PathBuf::from("/var/cache/durac")));
    }
    let home = || absolute("HOME").map(|home| home.join(".cache"));
    Ok(absolute("XDG_CACHE_HOME").or_else(home).map(|folder| folder.join("durac")))
}

/// What tells this durac from another: the build id of the linker, or the digest of the whole program.
fn own_identity() -> io::Result<Vec<u8>> {
    let mut program = File::open("/proc/self/exe")?;
    if let Some(id) = build_id(&program) {
        return Ok(id);
    }
    let mut hasher = Sha256::new();
    io::copy(&mut program, &mut hasher)?;
    Ok(hasher.finalize().to_vec())
}

fn build_id(program: &File) -> Option<Vec<u8>> {
    let file = ReadCache::new(program);
    let header = elf::FileHeader64::<Endianness>::parse(&file).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, &file).ok()?;
    for section in sections.iter() {
        let Some(mut notes) = section.notes(endian, &file).ok().flatten() else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec()).filter(|id| id.len() >= 8);
            }
        }
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Key, Runtime, build_id, folder, is_entry, own_identity};
    use std::fs::File;
    use std::path::PathBuf;

    #[test]
    fn the_folder_is_the_users_own() {
        let with = |user, set: &[(&str, &str)]| {
            let set: Vec<(String, String)> =
                set.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            let found =
                folder(user, |name| set.iter().find(|(n, _)| n == name).map(|(_, v)| v.into()));
            found.unwrap()
        };
        let home = [("HOME", "/home/a")];
        assert_eq!(with(1000, &home), Some(PathBuf::from("/home/a/.cache/durac")));
        let xdg = [("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")];
        assert_eq!(with(1000, &xdg), Some(PathBuf::from("/c/durac")));
        assert_eq!(with(1000, &[("HOME", "relative")]), None);
        assert_eq!(with(1000, &[]), None);
        // `sudo` keeps another user's home.
        assert_eq!(with(0, &xdg), Some(PathBuf::from("/var/cache/durac")));
        assert_eq!(with(0, &[("DURAC_CACHE", "/d")]), Some(PathBuf::from("/d")));
        assert_eq!(with(0, &[("DURAC_CACHE", "off")]), None);
        let relative = folder(0, |name| (name == "DURAC_CACHE").then(|| "d".into()));
        assert!(relative.is_err_and(|why| why.contains("an absolute path")));
    }

    #[test]
    fn a_key_depends_on_all_that_a_proof_does() {
        let settings = ["n=3".to_owned(), "m=4".to_owned()];
        let one = ["n=3m=4".to_owned()];
        let digest = |text, name, stem, settings| {
            let runtime = Runtime::Agent;
            Key { text, name, stem, settings, runtime }.digest().unwrap()
        };
        let runtime = Runtime::Supervisor;
        let key = Key { text: "a", name: "b", stem: "c", settings: &[], runtime };
        let supervised = key.digest().unwrap();
        let all = [
            digest("a", "b", "c", &[][..]),
            digest("ab", "", "c", &[]),
            digest("a", "b", "d", &[]),
            digest("a", "b", "c", &settings),
            digest("a", "b", "c", &one),
            supervised,
        ];
        let mut different = all.to_vec();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), all.len());
        assert!(is_entry(&format!("{}.o", all[0])));
        assert!(!is_entry("notes.o") && !is_entry(".x.o.1.tmp"));
        assert!(!own_identity().unwrap().is_empty());
        assert!(build_id(&File::open("/proc/self/maps").unwrap()).is_none());
    }
}
