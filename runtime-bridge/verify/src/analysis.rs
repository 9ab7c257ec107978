//! Memory safety and termination, proved by PREVAIL (crate `prevail`).
//!
//! The program is handed over as instructions, not as a file: PREVAIL's own ELF loader would be a
//! second reader of untrusted bytes.

use crate::platform::{Platform, map_fd};
use crate::quirks::prevail_violation;
use crate::{Fault, Violation};
use durac_abi::Insn;
use durac_abi::link::{LinkError, MapRef, link};
use durac_abi::object::{Object, Program};
use prevail::cfg::label::Label;
use prevail::crab::ebpf_domain::DomainContext;
use prevail::crab::var_registry::VariableRegistry;
use prevail::fwd_analyzer;
use prevail::ir::unmarshal::{self, UnmarshalError};
use prevail::spec::config::{EbpfRuntimeConfig, EbpfVerifierOptions, VerbosityOptions};
use prevail::spec::vm_isa::EbpfInst;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Proves the program safe.
pub(crate) fn check(object: &Object, program: &Program) -> Result<(), Vec<Fault>> {
    let failed = |detail: String| vec![Fault::new(0, Violation::Other, detail)];
    quietly(|| analyse(object, program))
        .unwrap_or_else(|| Err(failed("the verifier failed".to_owned())))
}

fn options() -> EbpfVerifierOptions {
    EbpfVerifierOptions {
        must_have_exit: true,
        mock_map_fds: true,
        runtime: EbpfRuntimeConfig {
            strict: false,
            // The standard defines it, but no policy means it.
            allow_division_by_zero: false,
            setup_constraints: true,
            big_endian: false,
            check_for_termination: true,
            subprogram_stack_size: 512,
            // There are no calls inside a program: one frame is the whole stack.
            max_call_stack_frames: 1,
            max_packet_size: EbpfRuntimeConfig::DEFAULT_MAX_PACKET_SIZE,
        },
        verbosity_opts: VerbosityOptions::default(),
    }
}

fn analyse(object: &Object, program: &Program) -> Result<(), Vec<Fault>> {
    let platform = Platform::new(object);
    let mut info = platform.program_info();
    let options = options();
    let code = code(program)
        .map_err(|why| vec![Fault::new(0, Violation::Instruction, why.to_string())])?;

    let mut notes = Vec::new();
    let sequence = unmarshal::unmarshal(&code, &mut notes, &info, &platform, &options)
        .map_err(|error| vec![unmarshal_fault(&error)])?;
    // PREVAIL has two things of this name: the code here, and a trait that the code implements.
    let graph =
        prevail::ir::program::Program::from_sequence(&sequence, &mut info, &platform, &options)
            .map_err(|error| {
                let message = error.to_string();
                vec![Fault::new(0, prevail_violation(&message), message)]
            })?;
    let context = DomainContext {
        program_info: &info,
        program: &graph,
        runtime: &options.runtime,
        options: &options,
        platform: &platform,
    };
    let mut registry = VariableRegistry::new();
    let result = fwd_analyzer::analyze(&graph, &context, &mut registry);
    if !result.failed {
        return Ok(());
    }

    let mut faults: Vec<Fault> = result
        .invariants
        .values()
        .filter(|pair| !pair.pre.is_bottom())
        .filter_map(|pair| pair.error.as_ref())
        .map(|error| {
            let slot = error.label.as_ref().map_or(0, slot_of);
            Fault::new(slot, prevail_violation(&error.message), &error.message)
        })
        .collect();
    if faults.is_empty() {
        faults.push(Fault::new(0, Violation::Other, "the verifier gave no reason"));
    }
    faults.sort_by_key(|fault| fault.slot);
    Err(faults)
}

/// The code as PREVAIL takes it: the addresses of maps are their numbers.
fn code(program: &Program) -> Result<Vec<EbpfInst>, LinkError> {
    let convert = |insn: &Insn| EbpfInst {
        opcode: insn.opcode,
        dst_src: insn.src << 4 | insn.dst & 0xf,
        offset: insn.offset,
        imm: insn.imm,
    };
    let descriptor = |map| Some(MapRef::Descriptor(map_fd(map)));
    let linked = link(&program.insns, &program.relocs, descriptor)?;
    Ok(linked.iter().map(convert).collect())
}

/// The slot a node of the graph belongs to; 0 for the entry.
fn slot_of(label: &Label) -> u32 {
    u32::try_from(label.from).unwrap_or(0)
}

fn unmarshal_fault(error: &UnmarshalError) -> Fault {
    match error {
        UnmarshalError::InvalidInstruction { pc, message } => {
            Fault::new(*pc as u32, Violation::Instruction, message)
        }
        other => Fault::new(0, Violation::Other, other.to_string()),
    }
}

/// Runs `f` and gives nothing if it panics, without a word on stderr.
///
/// PREVAIL is meant for a tool of its own and has assertions that a crafted program might reach.
/// Inside a database neither a panic nor its message may get out, so the unwinding is caught here
/// and the process's hook, which prints the message, is passed over for this thread. (With
/// `panic = "abort"` nothing could be caught; the profiles of this workspace unwind.)
fn quietly<T>(f: impl FnOnce() -> T) -> Option<T> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                others(info);
            }
        }));
    });
    QUIET.set(true);
    // `f` works on data of its own that nobody sees after a panic.
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    QUIET.set(false);
    result.ok()
}
