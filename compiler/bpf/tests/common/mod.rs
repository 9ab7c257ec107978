//! Objects that the tests share, assembled by hand.

#![allow(dead_code, reason = "each test file uses some of them")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use durac_abi::Object;
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
use durac_abi::object::{
    Action, Failure, Loss, Map, Meta, OnError, Param, ParamUnit, Program, Source, State,
};
use durac_abi::{ABI, Helper, Hook, MAX_LOGS, PARAMS_MAP, Reading, STATE_MAP};
use durac_bpf::asm::Asm;

/// What the note of a policy of that name says, with nothing in it.
pub fn meta(policy: &str) -> Meta {
    Meta {
        abi: ABI,
        runtime: durac_abi::Runtime::Agent,
        entries: Vec::new(),
        policy: policy.to_owned(),
        target: "redis.aof".to_owned(),
        source_sha256: "0".repeat(64),
        files: vec!["*.aof".to_owned(), "*.incr.aof".to_owned()],
        except: vec!["temp-*".to_owned()],
        capabilities: vec![Action::Await, Action::Defer],
        reads: Vec::new(),
        params: Vec::new(),
        state: Vec::new(),
        flush_within: None,
        on_error: OnError::Fail,
        engine: None,
        callers: Default::default(),
        layout: Default::default(),
        protects: Vec::new(),
        records: Default::default(),
        assume_sync: None,
        holds_replies: false,
        defers_writes: false,
        frees_replicas: false,
        loss: vec![Loss {
            failure: Failure::PowerLoss,
            syncs: Some(2),
            within: None,
            updates: None,
            bytes: None,
            text: "at most 2 syncs".to_owned(),
        }],
        certificate: None,
    }
}

/// An object of one program without maps.
pub fn object(policy: &str, text: &str, program: Program) -> Object {
    Object {
        programs: vec![program],
        maps: Vec::new(),
        kernel: Vec::new(),
        meta: meta(policy),
        source: Source { name: format!("{policy}.dur"), text: text.to_owned() },
    }
}

/// `on fdatasync: await previous; defer`
pub fn delayed_fsync() -> Object {
    let text = "policy delayed_fsync\ntarget redis.aof\n\non fdatasync: await previous; defer\n";
    let mut asm = Asm::new();
    asm.place(4, 31);
    asm.push(Insn::call(Helper::Request));
    asm.place(4, 15);
    asm.push(Insn::mov_imm(Reg::R1, 1));
    asm.push(Insn::call(Helper::Await));
    asm.place(4, 31);
    asm.push(Insn::mov_imm(Reg::R0, 1));
    asm.push(Insn::exit());
    object("delayed_fsync", text, asm.finish(Hook::Fdatasync).unwrap())
}

/// The same, with the kernel's programs.
pub fn notify() -> Object {
    Object {
        kernel: durac_bpf::notify::programs_of(durac_abi::Runtime::Agent).unwrap(),
        ..delayed_fsync()
    }
}

/// `on fdatasync: await pending < n; defer` with a parameter, and a program for `fsync` as well.
pub fn window() -> Object {
    let text = "policy window\ntarget redis.aof\nparam n: syncs = 64 in 1..=4096\n\n\
                on fdatasync: await pending < n; defer\non fsync: pass\nflush within 50ms\n";
    let mut asm = Asm::new();
    asm.place(5, 34);
    asm.push(Insn::call(Helper::Request));
    asm.place(5, 31);
    asm.push(Insn::st(Size::W, Reg::R10, -4, 0));
    asm.push(Insn::mov(Reg::R2, Reg::R10));
    asm.push(Insn::alu_imm(Alu::Add, Reg::R2, -4));
    asm.load_map(Reg::R1, 0);
    asm.push(Insn::call(Helper::MapLookup));
    let null = asm.label();
    asm.jump_if_imm(Cond::Eq, Reg::R0, 0, null);
    asm.push(Insn::ldx(Size::Dw, Reg::R1, Reg::R0, 0));
    asm.place(5, 15);
    asm.push(Insn::call(Helper::Await));
    asm.bind(null);
    asm.place(5, 34);
    asm.push(Insn::mov_imm(Reg::R0, 1));
    asm.push(Insn::exit());
    let mut object = object("window", text, asm.finish(Hook::Fdatasync).unwrap());

    let mut asm = Asm::new();
    asm.place(6, 11);
    asm.push(Insn::mov_imm(Reg::R0, 0));
    asm.push(Insn::exit());
    object.programs.insert(0, asm.finish(Hook::Fsync).unwrap());
    object.maps.push(Map {
        name: PARAMS_MAP.to_owned(),
        max_entries: 1,
        fields: vec!["n".to_owned()],
    });
    object.meta.params.push(Param {
        name: "n".to_owned(),
        unit: ParamUnit::Syncs,
        default: 64,
        min: 1,
        max: 4096,
    });
    object.meta.flush_within = Some(50_000_000);
    object
}

/// `on fdatasync { every 48 calls { await all }; skip }`: counts in the state of the log.
pub fn every() -> Object {
    let text = "on fdatasync {\n    every 48 calls { await all }\n    skip\n}\n";
    let mut asm = Asm::new();
    asm.place(2, 5);
    asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, Reading::Log.offset()));
    asm.push(Insn::stx(Size::W, Reg::R10, -4, Reg::R2));
    asm.push(Insn::mov(Reg::R2, Reg::R10));
    asm.push(Insn::alu_imm(Alu::Add, Reg::R2, -4));
    asm.load_map(Reg::R1, 0);
    asm.push(Insn::call(Helper::MapLookup));
    let end = asm.label();
    asm.jump_if_imm(Cond::Eq, Reg::R0, 0, end);
    asm.push(Insn::ldx(Size::Dw, Reg::R1, Reg::R0, 8));
    asm.push(Insn::alu_imm(Alu::Add, Reg::R1, 1));
    asm.push(Insn::stx(Size::Dw, Reg::R0, 8, Reg::R1));
    asm.jump_if_imm(Cond::Lt, Reg::R1, 48, end);
    asm.push(Insn::st(Size::Dw, Reg::R0, 8, 0));
    asm.place(2, 22);
    asm.push(Insn::mov_imm(Reg::R1, 0));
    asm.push(Insn::call(Helper::Await));
    asm.bind(end);
    asm.place(3, 5);
    asm.push(Insn::mov_imm(Reg::R0, 2));
    asm.push(Insn::exit());
    let mut object = object("every", text, asm.finish(Hook::Fdatasync).unwrap());
    let names = ["slow", ".every1"];
    object.maps.push(Map {
        name: STATE_MAP.to_owned(),
        max_entries: MAX_LOGS,
        fields: names.map(str::to_owned).to_vec(),
    });
    for name in names {
        let name = name.to_owned();
        object.meta.state.push(State { name, init: 0 });
    }
    object.meta.reads.push(Reading::Log);
    object
}

/// All of them.
pub fn all() -> Vec<Object> {
    vec![delayed_fsync(), window(), every(), notify()]
}
