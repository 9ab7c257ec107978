//! Files that are no objects of this ABI: a clear error each, and never a panic.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use crate::common;
use durac_abi::elf::{self, Invalid, MAX_SIZE, ReadError};
use durac_abi::note::NoteError;
use durac_abi::object::{Map, Object};
use durac_bpf::WriteError;

#[track_caller]
fn unreadable(bytes: &[u8], message: &str) {
    assert_eq!(elf::read(bytes).unwrap_err().to_string(), message);
}

/// Replaces a text in the file by another of the same length.
#[track_caller]
fn replaced(object: &Object, old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut bytes = durac_bpf::write(object).unwrap();
    let at = bytes.windows(old.len()).position(|w| w == old.as_bytes());
    let at = at.unwrap_or_else(|| panic!("{old} is not in the file"));
    bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    bytes
}

#[test]
fn other_files() {
    unreadable(b"", "this is not an ELF object file");
    unreadable(b"on fdatasync: await previous; defer\n", "this is not an ELF object file");
    let other =
        "this is not a durac policy object: it is not a relocatable ELF file for little-endian BPF";
    unreadable(&std::fs::read("/proc/self/exe").unwrap()[..4096], other);
    unreadable(b"\x7fELF", other);
    let size = MAX_SIZE + 1;
    let message = format!("the file has {size} bytes; an object has at most {MAX_SIZE}");
    unreadable(&vec![0; size], &message);
}

#[test]
fn another_abi() {
    let bytes = replaced(&common::window(), "\"abi\":1", "\"abi\":2");
    unreadable(&bytes, "the object has ABI 2; this version of durac runs ABI 1");
    // Also when the rest of the note is not what it was.
    let bytes = replaced(&common::window(), "\"abi\":1,\"runtime\"", "\"abi\":2,\"runtimf\"");
    unreadable(&bytes, "the object has ABI 2; this version of durac runs ABI 1");
}

#[test]
fn another_note() {
    let bytes = replaced(&common::window(), "\"policy\"", "\"police\"");
    let error = elf::read(&bytes).unwrap_err();
    assert!(matches!(error, ReadError::Note(NoteError::Json(_))), "{error}");
    let bytes = replaced(&common::window(), "durac\0", "other\0");
    unreadable(
        &bytes,
        "this is not a durac policy object: the section .note.durac holds no durac note",
    );
    let bytes = replaced(&common::window(), ".note.durac", ".note.other");
    unreadable(&bytes, "unexpected or duplicate section `.note.other`");
}

#[test]
fn another_section() {
    let bytes = replaced(&common::every(), ".BTF.ext", ".BTF.exe");
    unreadable(&bytes, "unexpected or duplicate section `.BTF.exe`");
}

#[test]
fn maps_that_do_not_fit_the_note() {
    let bytes = replaced(&common::window(), "\"name\":\"n\"", "\"name\":\"m\"");
    unreadable(&bytes, "the members of the map `params` differ from the note");
}

#[test]
fn objects_that_cannot_be_written() {
    #[track_caller]
    fn check(message: &str, change: impl FnOnce(&mut Object)) {
        let mut object = common::window();
        change(&mut object);
        let error = durac_bpf::write(&object).unwrap_err();
        assert!(matches!(error, WriteError::Invalid(_)), "{error}");
        assert_eq!(error.to_string(), message);
    }
    check("the object has ABI 7; this version of durac runs ABI 1", |o| o.meta.abi = 7);
    check("the object has no program", |o| o.programs.clear());
    check("the programs must be one per hook, in the order of the hooks", |o| o.programs.reverse());
    check("the program of fsync has 0 slots; allowed are 1 to 512", |o| {
        o.programs[0].insns.clear();
        o.programs[0].lines.clear();
    });
    let slot = common::window().programs[1].relocs[0].slot;
    let message =
        format!("slot {slot} of the program of fdatasync does not load the address of a map");
    check(&message, |o| o.programs[1].relocs[0].map = 1);
    check("slot 0 of the program of fdatasync does not load the address of a map", |o| {
        o.programs[1].relocs[0].slot = 0;
    });
    check("the lines of the program of fsync are not in order", |o| {
        o.programs[0].lines[0].slot = 2;
    });
    check("unexpected or duplicate map `cache`", |o| o.maps[0].name = "cache".into());
    check("the map `params` has the wrong number of entries: 2", |o| o.maps[0].max_entries = 2);
    check("the members of the map `params` differ from the note", |o| {
        o.maps[0].fields.push("m".into());
    });
    check(
        "the name of the policy is empty, too long, or contains a character that is not allowed",
        |o| {
            o.meta.policy = "x".repeat(101);
        },
    );
    check(
        "the name of the source file is empty, too long, or contains a character that is not allowed",
        |o| o.source.name = "/home/me/window.dur".into(),
    );
    check("the source text is empty, too long, or contains a character that is not allowed", |o| {
        o.source.text.push('\0')
    });
}

#[test]
fn two_maps_of_one_name() {
    let mut object = common::window();
    let map: Map = object.maps[0].clone();
    object.maps.push(map);
    let error = durac_bpf::write(&object).unwrap_err();
    let expected = Invalid::MapName { name: "params".to_owned() };
    assert!(matches!(error, WriteError::Invalid(found) if found == expected));
}

/// What a huge source does: an error, not a file that no agent reads.
#[test]
fn a_huge_source() {
    let mut object = common::window();
    object.source.text = "// long\n".repeat(MAX_SIZE / 8);
    assert!(matches!(durac_bpf::write(&object), Err(WriteError::TooLarge { .. })));
}

/// Without debug information an object is still one: `llvm-strip -g` and `-d` of its source.
#[test]
fn without_debug_information() {
    let mut object = common::window();
    object.source.text.clear();
    let read = elf::read(&durac_bpf::write(&object).unwrap()).unwrap();
    assert_eq!(read, object);
    object.source.name.clear();
    let read = elf::read(&durac_bpf::write(&object).unwrap()).unwrap();
    assert_eq!(read, object);
}

/// Programs for the kernel are those of this version, all of them, or none.
#[test]
fn other_kernel_programs() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Object)) {
        let mut object = common::notify();
        change(&mut object);
        let error = durac_bpf::write(&object).unwrap_err();
        assert!(matches!(error, WriteError::Invalid(Invalid::Kernel)), "{error}");
    }
    check(|o| drop(o.kernel.pop()));
    check(|o| o.kernel.reverse());
    check(|o| o.kernel[0].insns[3].imm ^= 1);
    check(|o| o.kernel[0].relocs[0].map ^= 1);
    check(|o| o.kernel[2].fields.truncate(1));

    // And in a file: code, a relocation of a field, a map.
    let damaged = |old: &str, new: &str, message: &str| {
        unreadable(&replaced(&common::notify(), old, new), message);
    };
    let message =
        "the object's kernel programs differ from this version's: compile the policy again";
    let code = durac_bpf::write(&common::notify()).unwrap();
    let object = common::notify();
    let first: Vec<u8> = object.kernel[0].insns.iter().flat_map(|i| i.to_bytes()).collect();
    let at = code.windows(first.len()).position(|w| w == first).unwrap();
    let mut changed = code.clone();
    changed[at + 4] ^= 1;
    unreadable(&changed, message);
    damaged("\0s_dev\0", "\0s_uid\0", "the section .BTF.ext is damaged");
    // The name of the section in the lists of `.BTF.ext`.
    damaged("\0tp_btf/ext4_sync_file_exit\0", "\0tp_btf/ext4_sync_file_exi_\0", message);
    let message = "the map `notify_not` is not a mappable array of structs of `unsigned long long`";
    damaged("\0notify_out\0", "\0notify_not\0", message);
}
