//! Which ways of the bytecode the tests have taken.
//!
//! Both ways of each conditional jump get a probe, in a copy of the program that only the tests run. A probe
//! keeps the registers, so the copy does what the program does.

use durac_abi::Object;
use durac_abi::insn::{Insn, Reg, Size, op};
use durac_abi::object::{Line, Program, Reloc};
use durac_abi::{Helper, Hook};
use durac_prove::machine::PROBE;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where a probe keeps r0 and r1, bytes below the frame pointer: the agent's programs use 8 bytes.
const KEPT: [i16; 2] = [-16, -24];
/// Slots of a probe.
const LENGTH: usize = 6;

/// A line and column of the text, from 1.
pub type Place = (u32, u32);

/// The ways on from one condition of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The hook whose program has it.
    pub hook: Hook,
    /// Where the condition is.
    pub from: Place,
    /// Where the two ways go on.
    pub to: [Place; 2],
    /// Whether a test has taken each.
    pub taken: [bool; 2],
}

/// What the tests have made the programs do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The hooks with a program, and whether a test has run it.
    pub hooks: Vec<(Hook, bool)>,
    /// Every branch, in the order of the text.
    pub branches: Vec<Branch>,
    /// What a probe stands for, by its number.
    probes: Vec<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Hook(usize),
    Way(usize, usize),
}

impl Coverage {
    /// How many ways there are, and how many were taken.
    #[must_use]
    pub fn ways(&self) -> (usize, usize) {
        let taken = self.branches.iter().flat_map(|b| b.taken).filter(|taken| *taken).count();
        (2 * self.branches.len(), taken)
    }

    /// Adds the probes that one test has reached.
    pub(super) fn add(&mut self, reached: &[u64]) {
        for number in reached {
            match self.probes.get(*number as usize) {
                Some(Probe::Hook(hook)) => {
                    if let Some((_, run)) = self.hooks.get_mut(*hook) {
                        *run = true;
                    }
                }
                Some(Probe::Way(branch, way)) => {
                    let branch = self.branches.get_mut(*branch);
                    if let Some(taken) = branch.and_then(|b| b.taken.get_mut(*way)) {
                        *taken = true;
                    }
                }
                None => {}
            }
        }
    }

    fn hook(&mut self, hook: Hook) -> u64 {
        self.hooks.push((hook, false));
        self.probes.push(Probe::Hook(self.hooks.len() - 1));
        self.probes.len() as u64 - 1
    }

    /// The numbers of the probes of a branch. Code that the optimiser has copied is one branch.
    fn branch(&mut self, hook: Hook, from: Place, to: [Place; 2]) -> [u64; 2] {
        let same = |b: &Branch| b.hook == hook && b.from == from && sorted(b.to) == sorted(to);
        let index = match self.branches.iter().position(same) {
            Some(index) => index,
            None => {
                self.branches.push(Branch { hook, from, to, taken: [false; 2] });
                self.branches.len() - 1
            }
        };
        // The copy may have its ways exchanged.
        let exchanged = self.branches.get(index).is_some_and(|b| b.to != to);
        [0, 1].map(|way| {
            self.probes.push(Probe::Way(index, if exchanged { 1 - way } else { way }));
            self.probes.len() as u64 - 1
        })
    }
}

fn sorted(mut places: [Place; 2]) -> [Place; 2] {
    places.sort_unstable();
    places
}

/// The object with probes, and what they stand for.
pub(super) fn probe(object: &Object) -> (Object, Coverage) {
    let mut coverage = Coverage::default();
    let mut probed = object.clone();
    for program in &mut probed.programs {
        *program = with_probes(program, &mut coverage);
    }
    // Probes are numbered, so only the list is sorted.
    let order: Vec<usize> = {
        let mut order: Vec<usize> = (0..coverage.branches.len()).collect();
        order.sort_by_key(|i| coverage.branches.get(*i).map(|b| (b.from, b.to)));
        order
    };
    let places: BTreeMap<usize, usize> =
        order.iter().enumerate().map(|(to, from)| (*from, to)).collect();
    coverage.branches = order.iter().filter_map(|i| coverage.branches.get(*i).cloned()).collect();
    for probe in &mut coverage.probes {
        if let Probe::Way(branch, _) = probe {
            *branch = places.get(branch).copied().unwrap_or(*branch);
        }
    }
    (probed, coverage)
}

fn with_probes(program: &Program, coverage: &mut Coverage) -> Program {
    let insns = &program.insns;
    let slots = 0..insns.len() as u32;
    let branching: BTreeMap<u32, [u64; 2]> = slots
        .filter(|slot| is_branch(program, *slot))
        .filter_map(|slot| {
            let from = place(&program.lines, slot)?;
            let taken = insns.get(slot as usize)?.target(slot)?;
            let to = [slot + 1, taken].map(|to| place(&program.lines, landing(insns, to)));
            let [Some(next), Some(taken)] = to else { return None };
            Some((slot, coverage.branch(program.hook, from, [next, taken])))
        })
        .collect();
    // Where each slot comes to: a probe at the start, and one behind each branch.
    let mut at = LENGTH;
    let mut moved = Vec::with_capacity(insns.len());
    for slot in 0..insns.len() as u32 {
        moved.push(at);
        at += 1 + if branching.contains_key(&slot) { LENGTH } else { 0 };
    }
    let moved_to = |slot: u32| moved.get(slot as usize).copied().unwrap_or(0);
    // Behind the program: for each branch a probe, and a jump to where it goes.
    let mut behind = at;
    let mut out = probe_at(coverage.hook(program.hook)).to_vec();
    let mut tail: Vec<Insn> = Vec::new();
    let mut second_half = false;
    for (slot, insn) in (0u32..).zip(insns) {
        let here = out.len();
        // The second slot of a `lddw` is no instruction.
        let jumps = !second_half && insn.is_jump();
        second_half = insn.is_lddw() && !second_half;
        let target = if jumps { insn.target(slot) } else { None };
        match (branching.get(&slot), target) {
            (Some([next, taken]), Some(target)) => {
                out.push(Insn { offset: offset(here, behind), ..*insn });
                out.extend(probe_at(*next));
                tail.extend(probe_at(*taken));
                tail.push(Insn::ja(offset(behind + LENGTH, moved_to(target))));
                behind += LENGTH + 1;
            }
            (_, Some(target)) => {
                out.push(Insn { offset: offset(here, moved_to(target)), ..*insn });
            }
            _ => out.push(*insn),
        }
    }
    out.extend(tail);
    // rbpf takes no program that ends with a jump.
    out.push(Insn::exit());
    let relocs = program.relocs.iter();
    let relocs = relocs.map(|r| Reloc { slot: moved_to(r.slot) as u32, ..*r }).collect();
    Program { insns: out, relocs, ..program.clone() }
}

/// Offset of a jump in slot `from`. A program has 512 slots at most, so the copy's jumps fit.
fn offset(from: usize, to: usize) -> i16 {
    i16::try_from(to as i64 - from as i64 - 1).unwrap_or(0)
}

fn probe_at(number: u64) -> [Insn; LENGTH] {
    let [r0, r1] = KEPT;
    [
        Insn::stx(Size::Dw, Reg::R10, r0, Reg::R0),
        Insn::stx(Size::Dw, Reg::R10, r1, Reg::R1),
        Insn::mov_imm(Reg::R1, number as i32),
        Insn { imm: PROBE, ..Insn::call(Helper::Request) },
        Insn::ldx(Size::Dw, Reg::R1, Reg::R10, r1),
        Insn::ldx(Size::Dw, Reg::R0, Reg::R10, r0),
    ]
}

/// Whether a condition of the text decides at this slot: not whether a map has an entry.
fn is_branch(program: &Program, slot: u32) -> bool {
    let get = |slot: u32| program.insns.get(slot as usize).copied();
    let before = slot.checked_sub(1).and_then(get);
    let data = before.is_some_and(Insn::is_lddw);
    let looked_up = before == Some(Insn::call(Helper::MapLookup));
    get(slot).is_some_and(|insn| insn.is_jump() && insn.opcode != op::JMP | op::JA)
        && !data
        && !looked_up
}

/// Where a way goes on, past jumps that are always made.
fn landing(insns: &[Insn], mut slot: u32) -> u32 {
    let steps: Range<usize> = 0..insns.len();
    for _ in steps {
        match insns.get(slot as usize).filter(|insn| insn.opcode == op::JMP | op::JA) {
            Some(jump) => slot = jump.target(slot).unwrap_or(slot),
            None => break,
        }
    }
    slot
}

/// The place that a slot comes from; none for code without one.
fn place(lines: &[Line], slot: u32) -> Option<Place> {
    let index = lines.partition_point(|line| line.slot <= slot).checked_sub(1)?;
    lines.get(index).filter(|line| line.line > 0).map(|line| (line.line, line.column))
}

#[cfg(test)]
mod tests {
    use super::probe;
    use crate::Options;
    use durac_abi::{Context, Hook, Object};
    use durac_grammar::Sources;
    use durac_prove::machine::{Backend, Ended, Machine, Memory, World};
    use durac_support::Random;

    /// What a program does, and what it would have seen of the probes.
    #[derive(Default, PartialEq, Debug)]
    struct Seen {
        requests: u32,
        waits: Vec<u64>,
        reached: u64,
    }

    impl World for Seen {
        fn request(&mut self) {
            self.requests += 1;
        }

        fn wait(&mut self, distance: u64, _: &Memory) -> bool {
            self.waits.push(distance);
            true
        }

        fn reached(&mut self, _: u64) {
            self.reached += 1;
        }
    }

    fn run(object: &Object, context: Context, state: &[u64]) -> (Vec<(Ended, Vec<u64>)>, Seen) {
        let mut machine = Machine::new(object, Backend::Interpreter).unwrap();
        let mut seen = Seen::default();
        let mut ends = Vec::new();
        for hook in [Hook::Write, Hook::Fdatasync] {
            machine.memory().set_context(context);
            machine.memory().set_state(state);
            let ended = machine.run(hook, &mut seen).unwrap();
            ends.push((ended, machine.memory().copy_state()));
        }
        (ends, seen)
    }

    /// A probed program does what the program does, and its probes are reached.
    #[test]
    fn probes_change_nothing() {
        let texts = [
            "state k: syncs = 0\nstate slow: bool = false\non write { if call.len > 4KiB { commit; pass }\n \
             if k % 3 == 1 || child.active { stage }\n await pending < k + 1 }\non fdatasync {\n every 4 calls { pass }\n \
             unless notify.done && k < 3 || child.active { k = k + 1; await previous }\n if slow skip\n \
             slow = sync.latency > 5ms\n if pending > 3 { await all } else if pending > 1 { fail EIO }\n defer }\n",
        ];
        let ready = durac_stdlib::POLICIES.iter().map(|p| p.text);
        for text in ready.chain(texts) {
            let mut sources = Sources::new();
            let file = sources.add("p", text);
            let options = Options::new("p");
            let Some(policy) = durac_core::analyse(&mut sources, file, &options.analysis()).policy
            else {
                panic!("{text}")
            };
            let Ok(object) = crate::build(&policy, &sources, file, &options) else { continue };
            let (probed, coverage) = probe(&object);
            let mut random = Random(1);
            let mut reached = 0;
            for _ in 0..200 {
                let mut any = |most: u64| random.below(most + 1);
                let context = Context {
                    len: any(9000),
                    now: any(1 << 40),
                    pending: any(6),
                    pending_bytes: any(9000),
                    pending_updates: any(200),
                    staged: any(60),
                    sync_latency: any(9_000_000),
                    notify_done: any(1),
                    child_active: any(1),
                    ..Context::default()
                };
                let state: Vec<u64> = object.meta.state.iter().map(|_| any(5)).collect();
                let (plain, seen) = run(&object, context, &state);
                let (ends, probes) = run(&probed, context, &state);
                assert_eq!(ends, plain, "{text}");
                assert_eq!(
                    (probes.requests, &probes.waits),
                    (seen.requests, &seen.waits),
                    "{text}"
                );
                assert_eq!(seen.reached, 0);
                reached += probes.reached;
            }
            // At least the one at the start of each program that was run.
            let ran = [Hook::Write, Hook::Fdatasync]
                .iter()
                .filter(|hook| object.programs.iter().any(|p| p.hook == **hook));
            assert!(reached >= 200 * ran.count() as u64, "{text}: {reached}");
            assert!(!coverage.hooks.is_empty());
        }
    }
}
