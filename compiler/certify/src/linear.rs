//! Linear facts over integers, and a small procedure that shows that some cannot all hold.
//!
//! A [`Sum`] as a fact says that it is at least 0. The procedure eliminates one variable after the other
//! (Fourier–Motzkin) and rounds every constant down to the next integer. It is sound: facts that it calls
//! contradictory have no solution in the integers. It is not complete: what it does not show is refused.

use std::cell::Cell;
use std::collections::BTreeMap;

/// A variable, by its place in [`Symbols`].
pub type Var = u32;

/// The greatest number in a register.
pub const MOST: i128 = u64::MAX as i128;

/// A number does not fit: nothing is concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// `constant + Σ factor × variable`, the variables in order, no factor 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    constant: i128,
    terms: Vec<(Var, i128)>,
}

/// Each is at least 0.
pub type Facts = Vec<Sum>;

impl Sum {
    /// A number.
    pub fn number(constant: i128) -> Self {
        Self { constant, terms: Vec::new() }
    }

    /// A variable.
    pub fn var(var: Var) -> Self {
        Self { constant: 0, terms: vec![(var, 1)] }
    }

    /// The number, if there is no variable in it.
    pub fn as_number(&self) -> Option<i128> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// Its constant.
    pub fn constant(&self) -> i128 {
        self.constant
    }

    /// Its variables and their factors.
    pub fn terms(&self) -> &[(Var, i128)] {
        &self.terms
    }

    /// `self + factor × other`
    pub fn plus(&self, factor: i128, other: &Sum) -> Result<Sum, TooLarge> {
        let fits = |n: &i128| n.unsigned_abs() < 1 << 120;
        let times = |n: i128| n.checked_mul(factor).ok_or(TooLarge);
        let add = |a: i128, b: i128| a.checked_add(b).filter(fits).ok_or(TooLarge);
        let mut terms = Vec::with_capacity(self.terms.len() + other.terms.len());
        let mut push =
            |var: Var, factor: i128| terms.extend((factor != 0).then_some((var, factor)));
        // Both are in the order of their variables.
        let mut theirs = other.terms.iter().copied().peekable();
        for &(var, ours) in &self.terms {
            while let Some((before, of)) = theirs.next_if(|(theirs, _)| *theirs < var) {
                push(before, add(0, times(of)?)?);
            }
            match theirs.next_if(|(theirs, _)| *theirs == var) {
                Some((_, of)) => push(var, add(ours, times(of)?)?),
                None => push(var, ours),
            }
        }
        for (var, of) in theirs {
            push(var, add(0, times(of)?)?);
        }
        let constant = add(self.constant, times(other.constant)?)?;
        Ok(Sum { constant, terms })
    }

    /// `self + number`
    pub fn and(&self, number: i128) -> Result<Sum, TooLarge> {
        self.plus(1, &Sum::number(number))
    }

    /// `self - other`
    pub fn less(&self, other: &Sum) -> Result<Sum, TooLarge> {
        self.plus(-1, other)
    }

    /// `factor × self`
    pub fn times(&self, factor: i128) -> Result<Sum, TooLarge> {
        Sum::default().plus(factor, self)
    }

    /// The fact that this one does not hold: `-self - 1`.
    pub fn negated(&self) -> Result<Sum, TooLarge> {
        Sum::number(-1).plus(-1, self)
    }

    fn vars(&self) -> impl Iterator<Item = Var> {
        self.terms.iter().map(|(var, _)| *var)
    }

    fn factor(&self, var: Var) -> i128 {
        self.terms.iter().find(|(v, _)| *v == var).map_or(0, |(_, factor)| *factor)
    }
}

/// A variable's name and range.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// For people.
    pub name: String,
    /// Least value.
    pub low: i128,
    /// Greatest value.
    pub high: i128,
}

/// The variables, and how much work may still be done.
#[derive(Clone, Debug)]
pub struct Symbols {
    all: Vec<Symbol>,
    fuel: Cell<u64>,
}

/// Combinations of two facts that one check may make.
const FUEL: u64 = 200_000;
/// Facts that are kept at once.
const MAX_FACTS: usize = 300;

impl Default for Symbols {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbols {
    /// None yet.
    pub fn new() -> Self {
        Self { all: Vec::new(), fuel: Cell::new(FUEL) }
    }

    /// A new variable.
    pub fn fresh(&mut self, name: impl Into<String>, low: i128, high: i128) -> Var {
        self.all.push(Symbol { name: name.into(), low, high });
        self.all.len() as Var - 1
    }

    /// A variable.
    pub fn get(&self, var: Var) -> Option<&Symbol> {
        self.all.get(var as usize)
    }

    /// The ranges of the variables in `facts`, as facts.
    fn ranges(&self, facts: &[&Sum]) -> Result<Facts, TooLarge> {
        let mut vars: Vec<Var> = facts.iter().flat_map(|fact| fact.vars()).collect();
        vars.sort_unstable();
        vars.dedup();
        let mut ranges = Facts::new();
        for var in vars {
            let symbol = self.get(var).ok_or(TooLarge)?;
            ranges.push(Sum::var(var).and(-symbol.low)?);
            ranges.push(Sum::number(symbol.high).less(&Sum::var(var))?);
        }
        Ok(ranges)
    }

    /// Whether `sum` is at most `most` by the ranges of its variables alone.
    fn is_small(&self, sum: &Sum, most: i128) -> Result<bool, TooLarge> {
        let mut high = sum.constant;
        for (var, factor) in &sum.terms {
            let symbol = self.get(*var).ok_or(TooLarge)?;
            let end = if *factor > 0 { symbol.high } else { symbol.low };
            let part = factor.checked_mul(end).ok_or(TooLarge)?;
            high = high.checked_add(part).ok_or(TooLarge)?;
        }
        Ok(high <= most)
    }

    /// Whether `sum` is at most `most` wherever the facts hold.
    pub fn at_most(&self, facts: &[Sum], sum: &Sum, most: i128) -> Result<bool, TooLarge> {
        if self.is_small(sum, most)? {
            return Ok(true);
        }
        self.excluded(facts, &[sum.and(-most - 1)?])
    }

    /// Whether it is shown that `more` cannot hold beside the facts. Only those facts are looked at that share
    /// variables with it, directly or through others: what the others say makes no difference.
    pub fn excluded(&self, facts: &[Sum], more: &[Sum]) -> Result<bool, TooLarge> {
        let mut near: Vec<&Sum> = more.iter().collect();
        let mut shared = vec![false; self.all.len()];
        let share = |fact: &Sum, shared: &mut [bool]| {
            for var in fact.vars() {
                shared.get_mut(var as usize).into_iter().for_each(|shared| *shared = true);
            }
        };
        more.iter().for_each(|fact| share(fact, &mut shared));
        let mut far: Vec<&Sum> = facts.iter().collect();
        loop {
            let before = far.len();
            far.retain(|fact| {
                let shares = fact.vars().any(|var| shared.get(var as usize) == Some(&true));
                if shares {
                    share(fact, &mut shared);
                    near.push(fact);
                }
                !shares
            });
            if far.len() == before {
                return self.contradict(&near);
            }
        }
    }

    /// Whether it is shown that the facts cannot all hold.
    pub fn contradictory(&self, facts: &[Sum]) -> Result<bool, TooLarge> {
        self.contradict(&facts.iter().collect::<Vec<_>>())
    }

    fn contradict(&self, facts: &[&Sum]) -> Result<bool, TooLarge> {
        let mut set = Set::default();
        for fact in facts.iter().copied().chain(&self.ranges(facts)?) {
            if set.add(fact)? {
                return Ok(true);
            }
        }
        while let Some(plan) = set.plan() {
            let mut next = Set::default();
            for fact in set.eliminate(plan, &self.fuel)? {
                if next.add(&fact)? {
                    return Ok(true);
                }
            }
            if next.0.len() > MAX_FACTS {
                return Ok(false);
            }
            set = next;
        }
        Ok(false)
    }

    /// Whether the facts imply that one of the cells holds: all of whose facts do.
    pub fn implies(&self, given: &[Sum], cells: &[Facts]) -> Result<bool, TooLarge> {
        // Mostly one cell does alone.
        for cell in cells {
            if self.covers(given, &mut Facts::new(), std::slice::from_ref(cell))? {
                return Ok(true);
            }
        }
        if self.contradictory(given)? {
            return Ok(true);
        }
        Ok(cells.len() > 1 && self.covers(given, &mut Facts::new(), cells)?)
    }

    fn covers(&self, given: &[Sum], more: &mut Facts, cells: &[Facts]) -> Result<bool, TooLarge> {
        let Some((first, rest)) = cells.split_first() else {
            return self.excluded(given, more);
        };
        if rest.len() > 1 && self.excluded(given, more)? {
            return Ok(true);
        }
        let before = more.len();
        for fact in first {
            more.push(fact.negated()?);
            if !self.covers(given, more, rest)? {
                more.truncate(before);
                return Ok(false);
            }
            more.pop();
            more.push(fact.clone());
        }
        more.truncate(before);
        Ok(true)
    }

    /// The work may be done anew.
    pub fn refuel(&self) {
        self.fuel.set(FUEL);
    }
}

/// How a variable goes.
enum Plan {
    /// Both this sum and its negation are at least 0, and the variable's factor in it is 1 or -1.
    Replace(Var, Sum),
    /// Each lower bound is held against each upper bound.
    Pair(Var),
}

/// Facts, each reduced: by its factors, the least constant.
#[derive(Default)]
struct Set(BTreeMap<Vec<(Var, i128)>, i128>);

impl Set {
    /// Adds a fact; returns whether it contradicts another.
    fn add(&mut self, fact: &Sum) -> Result<bool, TooLarge> {
        let divisor = fact.terms.iter().fold(0, |all, (_, factor)| gcd(all, factor.unsigned_abs()));
        if divisor == 0 {
            return Ok(fact.constant < 0);
        }
        let divisor = i128::try_from(divisor).map_err(|_| TooLarge)?;
        let constant = fact.constant.div_euclid(divisor);
        let terms: Vec<_> = fact.terms.iter().map(|(var, f)| (*var, f / divisor)).collect();
        let mut opposite = terms.clone();
        opposite.iter_mut().for_each(|(_, factor)| *factor = -*factor);
        let other = self.0.get(&opposite).copied();
        let least = self.0.entry(terms).or_insert(constant);
        *least = constant.min(*least);
        let least = *least;
        Ok(match other {
            Some(other) => other.checked_add(least).ok_or(TooLarge)? < 0,
            None => false,
        })
    }

    fn facts(&self) -> impl Iterator<Item = Sum> {
        self.0.iter().map(|(terms, constant)| Sum { constant: *constant, terms: terms.clone() })
    }

    /// The variable that goes next; none if there is none.
    fn plan(&self) -> Option<Plan> {
        for (terms, constant) in &self.0 {
            let unit = terms.iter().find(|(_, factor)| factor.abs() == 1);
            let opposite: Vec<_> = terms.iter().map(|(var, f)| (*var, -f)).collect();
            if let (Some((var, _)), Some(other)) = (unit, self.0.get(&opposite))
                && other.checked_add(*constant) == Some(0)
            {
                return Some(Plan::Replace(
                    *var,
                    Sum { constant: *constant, terms: terms.clone() },
                ));
            }
        }
        let mut counts: BTreeMap<Var, (usize, usize)> = BTreeMap::new();
        for (var, factor) in self.0.keys().flatten() {
            let (lower, upper) = counts.entry(*var).or_default();
            if *factor > 0 { *lower += 1 } else { *upper += 1 }
        }
        let cost = |(_, (lower, upper)): &(Var, (usize, usize))| lower * upper;
        counts.into_iter().min_by_key(cost).map(|(var, _)| Plan::Pair(var))
    }

    /// What follows without the variable.
    fn eliminate(&self, plan: Plan, fuel: &Cell<u64>) -> Result<Facts, TooLarge> {
        let mut after = Facts::new();
        let spend = || {
            let left = fuel.get().checked_sub(1).ok_or(TooLarge)?;
            fuel.set(left);
            Ok(())
        };
        match plan {
            Plan::Replace(var, zero) => {
                let unit = zero.factor(var);
                for fact in self.facts() {
                    spend()?;
                    after.push(fact.plus(-fact.factor(var) * unit, &zero)?);
                }
            }
            Plan::Pair(var) => {
                let (with, without): (Facts, Facts) =
                    self.facts().partition(|f| f.factor(var) != 0);
                let (lower, upper): (Facts, Facts) =
                    with.into_iter().partition(|f| f.factor(var) > 0);
                after = without;
                for low in &lower {
                    for high in &upper {
                        spend()?;
                        let sum = low.times(-high.factor(var))?;
                        after.push(sum.plus(low.factor(var), high)?);
                    }
                }
            }
        }
        Ok(after)
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}
