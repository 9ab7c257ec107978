//! An object's bytes, its code and its note: what the agent reads when it is loaded.

use crate::cut;
use crate::seeds;
use durac_abi::elf;
use durac_abi::insn::Insn;
use durac_abi::object::{MAX_SLOTS, Meta, Object};
use durac_abi::{Hook, Runtime};
use durac_prove::machine::{Backend, Machine, Memory, World};

/// Pieces of notes.
pub const WORDS: &[&str] = &[
    "\"abi\":",
    "\"runtime\":",
    "\"agent\"",
    "\"bpftime\"",
    "\"policy\":",
    "\"files\":",
    "\"params\":",
    "\"state\":",
    "\"min\":",
    "\"max\":",
    "\"default\":",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "null",
    "\"\\u0000\"",
    "\"*\"",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "0",
    "1e400",
];

/// Any bytes as an object, as the agent's constructor takes them; what reads can be written and is
/// the same.
pub fn elf(bytes: &[u8]) {
    let Ok(object) = elf::read(cut(bytes)) else { return };
    let written = durac_bpf::write(&object);
    assert!(written.is_ok(), "{written:?}");
    let again = written.ok().and_then(|bytes| elf::read(&bytes).ok());
    let same = again.is_some_and(|again| again.meta == object.meta && again.maps == object.maps);
    assert!(same, "it reads back as another object");
    load(cut(bytes));
}

/// As the agent does it: admitted, then machine code. What is admitted runs without a fault.
fn load(bytes: &[u8]) {
    let Ok(object) = durac_verify::admit(bytes, Runtime::Agent) else { return };
    let compiled = Machine::new(&object, Backend::Jit).map(|_| ());
    assert!(compiled.is_ok(), "{compiled:?}");
    run(&object);
}

/// Nobody waits for anything.
struct Still;

impl World for Still {
    fn request(&mut self) {}

    fn wait(&mut self, _: u64, _: &Memory) -> bool {
        true
    }
}

/// In the interpreter, which checks every access.
fn run(object: &Object) {
    let machine = Machine::new(object, Backend::Interpreter);
    assert!(machine.is_ok(), "{:?}", machine.err());
    let Ok(mut machine) = machine else { return };
    for hook in Hook::ALL {
        let ended = machine.run(hook, &mut Still);
        assert!(ended.is_ok(), "accepted, but {ended:?}");
    }
}

/// The code of a good object replaced by these bytes: refused, or it runs without a fault. The first
/// byte chooses the object.
pub fn code(bytes: &[u8]) {
    let (Some((first, bytes)), objects) = (bytes.split_first(), seeds::objects()) else { return };
    let Some(object) = objects.get(usize::from(*first) % objects.len().max(1)) else { return };
    let mut object = object.clone();
    let Some(program) = object.programs.last_mut() else { return };
    program.insns =
        bytes.as_chunks().0.iter().take(MAX_SLOTS).map(|slot| Insn::from_bytes(*slot)).collect();
    program.relocs.retain(|reloc| (reloc.slot as usize) < program.insns.len());
    program.lines.retain(|line| (line.slot as usize) < program.insns.len());
    if durac_verify::verify(&object).is_ok() {
        run(&object);
    }
    if let Ok(written) = durac_bpf::write(&object) {
        load(&written);
    }
}

/// A good object with these bytes for its note.
pub fn note(bytes: &[u8]) {
    let Ok(meta) = serde_json::from_slice::<Meta>(cut(bytes)) else { return };
    for object in seeds::objects() {
        let object = Object { meta: meta.clone(), ..object.clone() };
        if let Ok(written) = durac_bpf::write(&object) {
            load(&written);
        }
    }
}
