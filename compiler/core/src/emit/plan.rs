//! What is known about a function before its code is laid out: which addresses must be kept across
//! calls, and which waits share their call.

use super::{MapKind, PARAMS, STATE};
use crate::mir::{BlockId, End, Function, InstKind, Value};
use durac_abi::insn::Reg;
use std::collections::BTreeMap;

/// What is known about a function before its code is laid out.
pub(super) struct Plan {
    /// The parameters are on the stack.
    copied: bool,
    /// Whether the context is read after a call, and so must be kept in r6.
    pub(super) keep_context: bool,
    /// Whether the address of the parameters is used after a call, and so must be kept in r7.
    pub(super) keep_params: bool,
    /// The same for the state and r8.
    pub(super) keep_state: bool,
    /// What every path to a block has looked up.
    pub(super) at_start: BTreeMap<BlockId, LookedUp>,
    /// What has been looked up when a block branches.
    pub(super) at_end: BTreeMap<BlockId, LookedUp>,
    /// Maps that every path from the start of a block uses.
    wanted: BTreeMap<BlockId, (bool, bool)>,
    /// How many places each block is reached from.
    pub(super) predecessors: BTreeMap<BlockId, u32>,
    /// Blocks that only wait for a constant distance and go on at the same place as another one:
    /// they share the call.
    pub(super) waits: BTreeMap<BlockId, SharedWait>,
}

/// A block whose wait shares its call with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SharedWait {
    /// The distance it waits for.
    pub(super) distance: u64,
    /// The block that holds the call: the last of them that is laid out.
    pub(super) leader: BlockId,
    /// Every branch to it sets the distance before it compares, so it has no code of its own.
    pub(super) absorbed: bool,
}

/// Where the address of a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Address {
    /// Nowhere.
    Unknown,
    /// In r7 or r8, if it is kept: there was a call since.
    Kept,
    /// In r0 as well: it was the last call.
    Fresh,
}

/// Where the addresses of the maps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LookedUp {
    pub(super) params: Address,
    pub(super) state: Address,
}

impl LookedUp {
    pub(super) const NOTHING: Self = Self { params: Address::Unknown, state: Address::Unknown };

    fn meet(self, other: Self) -> Self {
        Self { params: self.params.min(other.params), state: self.state.min(other.state) }
    }

    fn call(&mut self) {
        self.params = self.params.min(Address::Kept);
        self.state = self.state.min(Address::Kept);
    }
}

/// A place that computes values: what it reads and whether it calls.
#[derive(Clone, Copy, Default)]
struct Site {
    params: bool,
    state: bool,
    context: bool,
    calls: bool,
}

fn inst_site(kind: &InstKind) -> Site {
    let of = |value: &Value, state: bool, calls: bool| Site {
        params: value.reads_params(),
        state: state || value.reads_state(),
        context: value.reads_context(),
        calls,
    };
    match kind {
        InstKind::Request => Site { calls: true, ..Site::default() },
        InstKind::Await(value) => of(value, false, true),
        InstKind::Store(_, value) => of(value, true, false),
    }
}

fn end_site(end: &End) -> Site {
    let mut site = Site::default();
    if let End::Branch { left, right, .. } = end {
        for value in [left, right] {
            site.params |= value.reads_params();
            site.state |= value.reads_state();
            site.context |= value.reads_context();
        }
    }
    site
}

impl Plan {
    /// `ring` of a function with a frame: its parameters are on the stack, and if the program starts syncs, the
    /// state's address is in its register from the beginning.
    pub(super) fn new(function: &Function, order: &[BlockId], ring: Option<bool>) -> Self {
        let copied = ring.is_some();
        let ring = ring.unwrap_or(false);
        let state = if ring { Address::Kept } else { Address::Unknown };
        let start = LookedUp { state, ..LookedUp::NOTHING };
        let mut plan = Plan {
            copied,
            keep_context: false,
            keep_params: false,
            keep_state: ring,
            at_start: BTreeMap::from([(BlockId(0), start)]),
            at_end: BTreeMap::new(),
            wanted: BTreeMap::new(),
            predecessors: BTreeMap::new(),
            waits: BTreeMap::new(),
        };
        for &id in order.iter().rev() {
            let Some(block) = function.block(id) else { continue };
            let (params, state) = plan.wanted_after(&block.end);
            let mut wanted = (params, state);
            for site in block.insts.iter().map(|i| inst_site(&i.kind)).chain([end_site(&block.end)])
            {
                wanted = (wanted.0 || site.params, wanted.1 || site.state);
            }
            plan.wanted.insert(id, wanted);
        }
        let mut called: BTreeMap<BlockId, bool> = BTreeMap::new();
        for &id in order {
            let Some(block) = function.block(id) else { continue };
            let mut has_called = called.get(&id).copied().unwrap_or(false);
            let mut known = plan.at_start.get(&id).copied().unwrap_or(LookedUp::NOTHING);
            for inst in &block.insts {
                plan.follow(inst_site(&inst.kind), &mut known, &mut has_called);
            }
            let mut site = end_site(&block.end);
            let (params, state) = plan.wanted_after(&block.end);
            (site.params, site.state) = (site.params || params, site.state || state);
            plan.follow(site, &mut known, &mut has_called);
            plan.at_end.insert(id, known);
            for next in block.end.successors() {
                *plan.predecessors.entry(next).or_insert(0) += 1;
                *called.entry(next).or_insert(false) |= has_called;
                let before = plan.at_start.entry(next).or_insert(known);
                *before = before.meet(known);
            }
        }
        if !ring {
            plan.share_waits(function, order);
        }
        plan
    }

    fn share_waits(&mut self, function: &Function, order: &[BlockId]) {
        let mut groups: BTreeMap<BlockId, Vec<(BlockId, u64)>> = BTreeMap::new();
        for &id in order {
            let Some(block) = function.block(id) else { continue };
            if let ([inst], End::Jump(next)) = (block.insts.as_slice(), &block.end)
                && let InstKind::Await(Value::Const(distance)) = inst.kind
            {
                groups.entry(*next).or_default().push((id, distance));
            }
        }
        // The context would be in the register that the distance is passed in.
        let can_absorb = self.keep_context;
        for members in groups.values().filter(|members| members.len() > 1) {
            let mut absorbed = Vec::new();
            for &(id, _) in members.iter().rev() {
                // Jumps go forward, so the call must stand behind every branch to it.
                let leader = members.iter().rfind(|(m, _)| *m != id && !absorbed.contains(m));
                let Some(&(leader, _)) = leader else { break };
                let before_leader = order.iter().take_while(|p| **p != leader);
                let reaches = |p: &&BlockId| {
                    function.block(**p).is_some_and(|b| b.end.successors().contains(&id))
                };
                let branches = |p: &&BlockId| {
                    matches!(function.block(**p).map(|b| &b.end),
                        Some(End::Branch { then, otherwise, .. })
                            if *then == id && !absorbed.contains(otherwise))
                };
                let all = order.iter().filter(reaches).count();
                if can_absorb && before_leader.filter(reaches).filter(branches).count() == all {
                    absorbed.push(id);
                }
            }
            let laid_out = members.iter().rfind(|(id, _)| !absorbed.contains(id));
            let Some(&(leader, _)) = laid_out else { continue };
            for &(id, distance) in members {
                let absorbed = absorbed.contains(&id);
                self.waits.insert(id, SharedWait { distance, leader, absorbed });
            }
        }
    }

    /// The maps that both sides of a branch use: they are looked up once, before it.
    pub(super) fn wanted_after(&self, end: &End) -> (bool, bool) {
        match end {
            End::Branch { then, otherwise, .. } => {
                let of = |id| self.wanted.get(id).copied().unwrap_or((false, false));
                let (a, b) = (of(then), of(otherwise));
                (a.0 && b.0, a.1 && b.1)
            }
            _ => (false, false),
        }
    }

    /// What a site does to the addresses, and what must be kept for it.
    fn follow(&mut self, site: Site, known: &mut LookedUp, has_called: &mut bool) {
        let site = Site { params: site.params && !self.copied, ..site };
        // In the order of `Emitter::look_up_for`: the state first, since its key is in the context.
        if site.state && known.state == Address::Unknown {
            self.keep_context |= *has_called;
            *has_called = true;
            known.call();
            known.state = Address::Fresh;
        }
        if site.params && known.params == Address::Unknown {
            *has_called = true;
            known.call();
            known.params = Address::Fresh;
        }
        self.keep_state |= site.state && known.state == Address::Kept;
        self.keep_params |= site.params && known.params == Address::Kept;
        self.keep_context |= site.context && *has_called;
        if site.calls {
            *has_called = true;
            known.call();
        }
    }

    /// The register an address is in.
    pub(super) fn register(&self, map: MapKind, address: Address) -> Option<Reg> {
        let (keep, kept) = match map {
            MapKind::Params => (self.keep_params, PARAMS),
            MapKind::State => (self.keep_state, STATE),
        };
        match address {
            Address::Unknown => None,
            _ if keep => Some(kept),
            Address::Fresh => Some(Reg::R0),
            Address::Kept => None,
        }
    }
}
