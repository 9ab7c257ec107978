//! A policy's programs, loaded, and files that they watch.

use durac_abi::Object;
use durac_abi::elf::{KernelTypes, kernel_types};
use durac_abi::notify::{Attach, Word, kernel_device};
use durac_core::CompileOptions;
use durac_grammar::Sources;
use durac_kernel::{Notify, load_at};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A policy that says `use kernel notify`, through the compiler and the file format.
pub fn object() -> Object {
    let text = "use kernel notify\non fdatasync: unless notify.done { await previous }; defer\n";
    let mut sources = Sources::default();
    let file = sources.add("t.dur", text);
    let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new("t"));
    let policy = analysis.policy.unwrap_or_else(|| panic!("{:?}", analysis.diagnostics));
    let object = durac_core::compile(&policy, &sources, file, &CompileOptions::default()).unwrap();
    through_the_file(&object).0
}

/// The types of its kernel programs.
pub fn types() -> KernelTypes {
    through_the_file(&object()).1
}

/// An object as it is read from its file.
pub fn through_the_file(object: &Object) -> (Object, KernelTypes) {
    let bytes = durac_bpf::write(object).unwrap();
    let object = durac_abi::elf::read(&bytes).unwrap();
    let types = kernel_types(&bytes, &object).unwrap();
    (object, types)
}

/// The programs at one place; panics with what is needed.
#[track_caller]
pub fn loaded(attach: Attach) -> Notify {
    load_at(&object(), &types(), attach).unwrap_or_else(|why| {
        panic!("{}: {why} (this test needs root and a kernel with BTF)", attach.text())
    })
}

/// The places that every kernel with BTF allows to root.
pub const PLACES: [Attach; 2] = [Attach::Ext4, Attach::Syscalls];

/// The counts of a watched file since it was claimed.
pub struct Counts<'a> {
    notify: &'a Notify,
    pub slot: u32,
    before: [u64; Word::ALL.len()],
}

impl<'a> Counts<'a> {
    /// Watches a file for this process.
    pub fn of(notify: &'a Notify, file: &File) -> Self {
        Self::owned_by(notify, file, std::process::id())
    }

    /// Watches a file for a process.
    pub fn owned_by(notify: &'a Notify, file: &File, owner: u32) -> Self {
        let meta = file.metadata().unwrap();
        let device = kernel_device(libc::major(meta.dev()), libc::minor(meta.dev()));
        let slot = notify.slots().claim(owner, device, meta.ino()).expect("a free slot");
        let before = Word::ALL.map(|word| notify.slots().get(slot, word));
        Self { notify, slot, before }
    }

    /// How much a count has grown.
    pub fn get(&self, word: Word) -> u64 {
        let before = self.before.get(word as usize).copied().unwrap_or(0);
        self.notify.slots().get(self.slot, word) - before
    }

    /// How much these have grown.
    pub fn all<const N: usize>(&self, words: [Word; N]) -> [u64; N] {
        words.map(|word| self.get(word))
    }
}

/// Runs a command; panics with what the test needs if it fails.
pub fn run(words: &[&str]) {
    let (name, arguments) = words.split_first().unwrap();
    let ended = Command::new(name).args(arguments).output();
    let ended = ended.unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{words:?}: {said} (this test needs root and loop devices)");
}

/// A file system of 64 MiB on 12 MiB of memory.
pub struct Small {
    dir: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Small {
    pub fn new() -> Self {
        let mut small = Self { dir: tempfile::tempdir().unwrap(), mounted: Vec::new() };
        let (memory, disk) = (small.dir.path().join("memory"), small.dir.path().join("disk"));
        let image = memory.join("image");
        std::fs::create_dir(&memory).unwrap();
        std::fs::create_dir(&disk).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        run(&["mount", "-t", "tmpfs", "-o", "size=12m", "none", &text(&memory)]);
        small.mounted.push(memory);
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        // Without a journal: an error is that of the file's pages, and does not abort the rest.
        run(&["mkfs.ext4", "-q", "-O", "^has_journal", &text(&image)]);
        run(&["mount", "-o", "loop", &text(&image), &text(&disk)]);
        small.mounted.push(disk);
        small
    }

    pub fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for place in self.mounted.iter().rev() {
            // What cannot be unmounted now is when the last descriptor is closed.
            let _ = Command::new("umount").arg("--lazy").arg(place).status();
        }
    }
}
