//! Objects assembled by hand, so that the agent's tests need no compiler.

use durac_abi::insn::{Cond, Insn, Reg, Size};
use durac_abi::object::{Action, Map, Meta, Object, OnError, Param, ParamUnit, Program, Source};
use durac_abi::{ABI, Helper, Hook, PARAMS_MAP, Verdict};
use durac_bpf::asm::Asm;

/// A policy's text and what the agent needs to know, with one program for `fdatasync`.
pub fn object(name: &str, program: impl FnOnce(&mut Asm)) -> Object {
    Object {
        programs: vec![assemble(Hook::Fdatasync, program)],
        maps: Vec::new(),
        kernel: Vec::new(),
        meta: Meta {
            abi: ABI,
            runtime: durac_abi::Runtime::Agent,
            entries: Vec::new(),
            policy: name.into(),
            target: "test.log".into(),
            source_sha256: "0".repeat(64),
            files: vec!["*.aof".into(), "*.log".into()],
            except: vec!["*.base.aof".into()],
            capabilities: Vec::new(),
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
            loss: Vec::new(),
            certificate: None,
        },
        source: Source { name: format!("{name}.dur"), text: format!("policy {name}\n") },
    }
}

/// A program for `hook`.
pub fn assemble(hook: Hook, program: impl FnOnce(&mut Asm)) -> Program {
    let mut asm = Asm::new();
    asm.place(1, 1);
    program(&mut asm);
    asm.finish(hook).unwrap()
}

/// Ends a program with a verdict.
pub fn verdict(asm: &mut Asm, verdict: Verdict) {
    asm.extend([Insn::mov_imm(Reg::R0, verdict.encode()), Insn::exit()]);
}

/// `on fdatasync: pass`
pub fn pass() -> Object {
    object("pass", |asm| verdict(asm, Verdict::Pass))
}

/// `on fdatasync: await pending < n; defer`, the request hoisted above the wait; `n` may be 1:
/// the paper's delayed fsync.
pub fn window(n: i32) -> Object {
    object(&format!("window{n}"), |asm| {
        asm.push(Insn::call(Helper::Request));
        asm.push(Insn::mov_imm(Reg::R1, n));
        asm.push(Insn::call(Helper::Await));
        verdict(asm, Verdict::Defer);
    })
}

/// As [`window`], with `n` as a parameter that can be changed.
pub fn window_param(default: u64) -> Object {
    let mut object = object("window", |asm| {
        let none = asm.label();
        asm.push(Insn::call(Helper::Request));
        asm.push(Insn::st(Size::W, Reg::R10, -4, 0));
        asm.load_map(Reg::R1, 0);
        asm.push(Insn::mov(Reg::R2, Reg::R10));
        asm.push(Insn::alu_imm(durac_abi::insn::Alu::Add, Reg::R2, -4));
        asm.push(Insn::call(Helper::MapLookup));
        asm.jump_if_imm(Cond::Eq, Reg::R0, 0, none);
        asm.push(Insn::ldx(Size::Dw, Reg::R1, Reg::R0, 0));
        asm.push(Insn::call(Helper::Await));
        verdict(asm, Verdict::Defer);
        asm.bind(none);
        verdict(asm, Verdict::Pass);
    });
    object.maps.push(Map { name: PARAMS_MAP.into(), max_entries: 1, fields: vec!["n".into()] });
    object.meta.params.push(Param {
        name: "n".into(),
        unit: ParamUnit::Syncs,
        default,
        min: 1,
        max: 4096,
    });
    object
}

/// `on fdatasync: skip; flush within …`
pub fn skip(flush_within: Option<u64>) -> Object {
    let mut object = object("skip", |asm| verdict(asm, Verdict::Skip));
    object.meta.flush_within = flush_within;
    object
}

/// `on write: defer; on fdatasync: pass; flush within …`
pub fn at_least(flush_within: u64) -> Object {
    let mut object = pass();
    object.meta.flush_within = Some(flush_within);
    object.meta.defers_writes = true;
    object
}

/// `on fdatasync: defer`
pub fn defer() -> Object {
    object("defer", |asm| verdict(asm, Verdict::Defer))
}

/// `on write: stage; on fdatasync: skip`
pub fn stage(flush_within: Option<u64>) -> Object {
    let mut object = skip(flush_within);
    object.meta.capabilities = vec![Action::Skip, Action::Stage];
    object.programs.insert(0, assemble(Hook::Write, |asm| verdict(asm, Verdict::Stage)));
    object
}

/// `on write: stage; on fdatasync { if staged >= size { commit; await all }; skip }`
pub fn batch(size: i32, flush_within: Option<u64>) -> Object {
    let mut object = stage(flush_within);
    object.meta.reads = vec![durac_abi::Reading::Staged];
    object.programs.pop();
    let program = assemble(Hook::Fdatasync, |asm| {
        let skip = asm.label();
        let staged = durac_abi::Reading::Staged.offset();
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, staged));
        asm.jump_if_imm(Cond::Lt, Reg::R2, size, skip);
        asm.push(Insn::call(Helper::Request));
        asm.push(Insn::mov_imm(Reg::R1, 0));
        asm.push(Insn::call(Helper::Await));
        asm.bind(skip);
        verdict(asm, Verdict::Skip);
    });
    object.programs.push(program);
    object
}

/// `on write { if call.len >= 4096 { fail EIO }; pass }; on fdatasync: defer`
pub fn length() -> Object {
    let mut object = defer();
    object.meta.reads = vec![durac_abi::Reading::CallLen];
    let program = assemble(Hook::Write, |asm| {
        let fail = asm.label();
        let len = durac_abi::Reading::CallLen.offset();
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, len));
        asm.jump_if_imm(Cond::Ge, Reg::R2, 4096, fail);
        verdict(asm, Verdict::Pass);
        asm.bind(fail);
        verdict(asm, Verdict::Fail(5));
    });
    object.programs.insert(0, program);
    object
}

/// The object as a file's content.
pub fn bytes(object: &Object) -> Vec<u8> {
    durac_bpf::write(object).unwrap()
}
