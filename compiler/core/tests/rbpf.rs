//! The bytecode does what the policy says: random policies are run in rbpf's interpreter and by a
//! direct evaluation of HIR, and must agree on every wait, the verdict and the state.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its cases"
)]

use durac_abi::object::Program;
use durac_abi::{Context, Helper, Hook, Reading, Verdict};
use durac_core::CompileOptions;
use durac_core::hir::{self, Expr, ExprKind, Policy, Stmt, StmtKind};
use durac_grammar::Sources;
use durac_support::Random;
use std::cell::RefCell;

/// A policy with two parameters, three state variables, and a body of random statements.
fn policy(random: &mut Random) -> String {
    let mut body = String::new();
    let statements = 1 + random.below(5);
    for _ in 0..statements {
        statement(random, &mut body, 2);
    }
    format!(
        "param n: syncs = 8 in 1..=4096\nparam d: duration = 5ms in 1us..=1s\n\
         state slow: bool = false\nstate seen: syncs = 3\nstate bytes_seen: bytes = 0\n\
         on fdatasync {{\n{body}}}\nflush within 1s\n"
    )
}

fn statement(random: &mut Random, out: &mut String, depth: u64) {
    match random.below(if depth == 0 { 7 } else { 11 }) {
        0 => out.push_str(random.pick(&["pass\n", "defer\n", "skip\n", "fail EIO\n"])),
        1 => out.push_str("await previous\n"),
        2 => out.push_str("await all\n"),
        3 => {
            let limit = number(random, 2);
            out.push_str(&format!("await pending < {limit} + 1\n"));
        }
        4 => {
            let value = condition(random, 2);
            out.push_str(&format!("slow = {value}\n"));
        }
        5 => {
            let value = number(random, 3);
            out.push_str(&format!("seen = {value}\n"));
        }
        6 => out.push_str("bytes_seen = bytes_seen + call.len + 3KiB\n"),
        7 | 8 => {
            let cond = condition(random, 2);
            out.push_str(&format!("if {cond} {{\n"));
            statement(random, out, depth - 1);
            out.push_str("} else {\n");
            statement(random, out, depth - 1);
            out.push_str("}\n");
        }
        9 => {
            let cond = condition(random, 2);
            out.push_str(&format!("unless {cond} {{\n"));
            statement(random, out, depth - 1);
            out.push_str("}\n");
        }
        _ => {
            let period = random.pick(&["3 calls", "1ms", "5s"]);
            out.push_str(&format!("every {period} {{\n"));
            statement(random, out, depth - 1);
            out.push_str("}\n");
        }
    }
}

fn number(random: &mut Random, depth: u64) -> String {
    if depth == 0 || random.below(3) == 0 {
        return random.pick(&["n", "seen", "pending", "3", "4096", "9999999999"]).to_owned();
    }
    let (a, b) = (number(random, depth - 1), number(random, depth - 1));
    match random.below(5) {
        0 => format!("({a} + {b})"),
        1 => format!("({a} - {b})"),
        2 => format!("({a} * {})", random.pick(&["2", "3"])),
        3 => format!("({a} / {})", random.pick(&["2", "7"])),
        _ => format!("({a} % {})", random.pick(&["5", "64"])),
    }
}

fn condition(random: &mut Random, depth: u64) -> String {
    if depth == 0 || random.below(3) == 0 {
        let cmp = random.pick(&["<", "<=", ">", ">=", "==", "!="]);
        return match random.below(6) {
            0 => random.pick(&["slow", "notify.done", "child.active"]).to_owned(),
            1 => format!("sync.latency {cmp} d"),
            2 => format!("pending.age {cmp} 9s"),
            3 => format!("pending.bytes {cmp} bytes_seen + 4GiB"),
            _ => format!("{} {cmp} {}", number(random, 2), number(random, 1)),
        };
    }
    let (a, b) = (condition(random, depth - 1), condition(random, depth - 1));
    match random.below(4) {
        0 => format!("({a} && {b})"),
        1 => format!("({a} || {b})"),
        2 => format!("!({a})"),
        _ => format!("(({a}) {} ({b}))", random.pick(&["==", "!="])),
    }
}

/// What a program or an evaluation works on.
#[derive(Clone, Debug, PartialEq)]
struct World {
    context: Context,
    params: Vec<u64>,
    state: Vec<u64>,
    waits: Vec<u64>,
    requests: u32,
}

impl World {
    fn random(random: &mut Random, params: usize, state: usize) -> Self {
        // Small numbers meet the constants of the policies; some are huge.
        let mut number = || match random.below(8) {
            0 => random.bits(),
            1 => random.below(20_000_000_000),
            _ => random.below(12),
        };
        let context = Context {
            log: number() % 4,
            len: number(),
            now: number(),
            pending: number(),
            pending_bytes: number(),
            pending_age: number(),
            staged: 0,
            sync_latency: number(),
            notify_done: number() % 2,
            notify_count: number(),
            child_active: number() % 2,
            pending_updates: number(),
            updates: number(),
            ready: number(),
            reply_clean: number() % 2,
        };
        let params = (0..params).map(|_| number()).collect();
        let mut state: Vec<u64> = (0..state).map(|_| number()).collect();
        state[0] %= 2;
        Self { context, params, state, waits: Vec::new(), requests: 0 }
    }

    /// What a wait changes: the same for both sides.
    fn wait(&mut self, distance: u64) {
        self.waits.push(distance);
        let c = &mut self.context;
        c.pending = c.pending.min(distance.saturating_sub(1));
        c.now = c.now.wrapping_add(1_000_000);
        c.notify_done = u64::from(distance == 0);
        c.sync_latency = c.sync_latency.rotate_left(3);
    }
}

// ---- direct evaluation ----

fn read(context: &Context, reading: Reading) -> u64 {
    match reading {
        Reading::Log => context.log,
        Reading::CallLen => context.len,
        Reading::Now => context.now,
        Reading::Pending => context.pending,
        Reading::PendingBytes => context.pending_bytes,
        Reading::PendingAge => context.pending_age,
        Reading::Staged => context.staged,
        Reading::SyncLatency => context.sync_latency,
        Reading::NotifyDone => context.notify_done,
        Reading::NotifyCount => context.notify_count,
        Reading::ChildActive => context.child_active,
        Reading::PendingUpdates => context.pending_updates,
        Reading::CallUpdates => context.updates,
        Reading::Ready => context.ready,
        Reading::ReplyClean => context.reply_clean,
    }
}

fn eval(expr: &Expr, world: &World) -> u64 {
    match &expr.kind {
        ExprKind::Const(value) => *value,
        ExprKind::Param(id) => world.params[id.index()],
        ExprKind::State(id) => world.state[id.index()],
        ExprKind::Read(reading) => read(&world.context, *reading),
        ExprKind::Not(a) => u64::from(eval(a, world) == 0),
        ExprKind::And(a, b) => u64::from(eval(a, world) != 0 && eval(b, world) != 0),
        ExprKind::Or(a, b) => u64::from(eval(a, world) != 0 || eval(b, world) != 0),
        ExprKind::Compare(cmp, a, b) => u64::from(cmp.holds(eval(a, world), eval(b, world))),
        ExprKind::Arith(op, a, b) => op.apply(eval(a, world), eval(b, world)),
    }
}

fn exec(stmts: &[Stmt], world: &mut World) -> Option<Verdict> {
    for stmt in stmts {
        let ended = match &stmt.node {
            StmtKind::Verdict(verdict) => Some(match verdict {
                hir::Verdict::Pass => Verdict::Pass,
                hir::Verdict::Defer => Verdict::Defer,
                hir::Verdict::Skip => Verdict::Skip,
                hir::Verdict::Fail(_, errno) => Verdict::Fail(*errno),
                other => panic!("{other:?} is not in this runtime"),
            }),
            StmtKind::Await(distance) => {
                let distance = eval(distance, world);
                world.wait(distance);
                None
            }
            StmtKind::Commit => panic!("commit is not in this runtime"),
            StmtKind::Assign(id, value) => {
                world.state[id.index()] = eval(value, world);
                None
            }
            StmtKind::If(cond, then, otherwise) => {
                let taken = if eval(cond, world) != 0 { then } else { otherwise };
                exec(taken, world)
            }
            StmtKind::EveryTime(period, id, body) => {
                let now = world.context.now;
                if now.wrapping_sub(world.state[id.index()]) >= *period {
                    world.state[id.index()] = now;
                    exec(body, world)
                } else {
                    None
                }
            }
            StmtKind::EveryCalls(period, id, body) => {
                world.state[id.index()] = world.state[id.index()].wrapping_add(1);
                if world.state[id.index()] >= *period {
                    world.state[id.index()] = 0;
                    exec(body, world)
                } else {
                    None
                }
            }
        };
        if ended.is_some() {
            return ended;
        }
    }
    None
}

// ---- the bytecode in rbpf ----

/// What the helpers see: the world, with the memory the program has addresses of.
struct Machine {
    world: World,
    context: Box<Context>,
    params: Vec<u64>,
    state: Vec<u64>,
}

thread_local! {
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
}

/// Addresses that stand for the maps; never dereferenced.
const PARAMS: u64 = 0x1000;
const STATE: u64 = 0x2000;

fn with<T>(body: impl FnOnce(&mut Machine) -> T) -> T {
    MACHINE.with_borrow_mut(|machine| body(machine.as_mut().expect("a program runs")))
}

fn look_up(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: the verifier proved that the key is four bytes of the program's stack.
    let key = unsafe { *(key as *const u32) };
    with(|m| match map {
        PARAMS if key == 0 => m.params.as_ptr() as u64,
        STATE if u64::from(key) == m.context.log => m.state.as_ptr() as u64,
        _ => panic!("lookup of {key} in {map:#x}"),
    })
}

fn request(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    with(|m| m.world.requests += 1);
    0
}

fn wait(distance: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    with(|m| {
        m.world.wait(distance);
        *m.context = m.world.context;
    });
    0
}

fn run(program: &Program, maps: &[String], world: World) -> (World, Verdict) {
    let mut code: Vec<u8> = Vec::new();
    for (slot, insn) in program.insns.iter().enumerate() {
        let mut insn = *insn;
        if let Some(reloc) = program.relocs.iter().find(|r| r.slot == slot as u32) {
            let address = if maps[reloc.map as usize] == "params" { PARAMS } else { STATE };
            insn.imm = address as i32;
        }
        code.extend(insn.to_bytes());
    }
    let context = Box::new(world.context);
    let (params, state) = (world.params.clone(), world.state.clone());
    let machine = Machine { world, context, params, state };
    let range = |address: u64, bytes: usize| address..address + bytes as u64;
    let mut vm = rbpf::EbpfVmMbuff::new(Some(&code)).expect("rbpf accepts the program");
    vm.register_helper(Helper::MapLookup as u32, look_up).unwrap();
    vm.register_helper(Helper::Request as u32, request).unwrap();
    vm.register_helper(Helper::Await as u32, wait).unwrap();
    let context_at = &raw const *machine.context as u64;
    vm.register_allowed_memory(range(context_at, size_of::<Context>()));
    vm.register_allowed_memory(range(machine.params.as_ptr() as u64, machine.params.len() * 8));
    vm.register_allowed_memory(range(machine.state.as_ptr() as u64, machine.state.len() * 8));
    // SAFETY: the machine keeps the context alive and in place until the program has ended.
    let buffer =
        unsafe { std::slice::from_raw_parts(context_at as *const u8, size_of::<Context>()) };
    MACHINE.set(Some(machine));
    let r0 = vm.execute_program(&[], buffer).expect("the program ends");
    let machine = MACHINE.take().expect("the program ran");
    (World { state: machine.state, ..machine.world }, Verdict::decode(r0))
}

#[test]
fn bytecode_agrees_with_the_policy() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut programs = 0;
    let mut too_complex = 0;
    while programs < 300 {
        let text = policy(&mut random);
        let mut sources = Sources::new();
        let file = sources.add("random.dur", text.as_str());
        let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new("random"));
        assert!(!analysis.has_errors(), "{text}\n{:#?}", analysis.diagnostics);
        let policy: Policy = analysis.policy.unwrap();
        let object = match durac_core::compile(&policy, &sources, file, &CompileOptions::default())
        {
            Ok(object) => object,
            Err(_) => {
                too_complex += 1;
                continue;
            }
        };
        durac_verify::verify(&object).unwrap_or_else(|why| panic!("{text}\n{why:#?}"));
        programs += 1;
        let program = object.programs.iter().find(|p| p.hook == Hook::Fdatasync).unwrap();
        let body = &policy.hooks[0].body;
        let maps: Vec<String> = object.maps.iter().map(|m| m.name.clone()).collect();
        let mut expected = World::random(&mut random, 2, policy.states.len());
        for _ in 0..20 {
            let before = expected.clone();
            let verdict = exec(body, &mut expected).unwrap_or(Verdict::Pass);
            let (mut after, got) = run(program, &maps, before);
            assert_eq!(got, verdict, "{text}");
            // Asking early is for calls that are certain to be deferred.
            assert!(after.requests == 0 || verdict == Verdict::Defer, "{text}");
            after.requests = 0;
            assert_eq!(after, expected, "{text}");
            expected = World {
                state: expected.state,
                ..World::random(&mut random, 2, policy.states.len())
            };
        }
    }
    assert!(too_complex < programs / 20, "{too_complex} of the policies cannot be compiled");
}
