//! What the procedure calls contradictory has no solution: held against trying every value.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use durac_certify::linear::{Facts, Sum, Symbols};

/// Values of each variable.
const VALUES: i128 = 5;

/// Numbers that look random: `splitmix64`.
struct Random(u64);

impl Random {
    fn between(&mut self, low: i128, high: i128) -> i128 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + i128::from(z ^ z >> 31) % (high - low + 1)
    }
}

fn fact(random: &mut Random, vars: u32) -> Sum {
    let mut sum = Sum::number(random.between(-9, 9));
    for var in 0..vars {
        sum = sum.plus(random.between(-3, 3), &Sum::var(var)).unwrap();
    }
    sum
}

fn value(sum: &Sum, values: &[i128]) -> i128 {
    let terms = sum.terms().iter().map(|(var, factor)| factor * values.get(*var as usize).unwrap());
    sum.constant() + terms.sum::<i128>()
}

/// Every choice of values.
fn choices(vars: u32) -> Vec<Vec<i128>> {
    let mut all = vec![vec![]];
    for _ in 0..vars {
        let longer = |choice: &Vec<i128>| {
            (0..VALUES).map(|value| [choice.as_slice(), &[value]].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

fn holds(facts: &[Sum], values: &[i128]) -> bool {
    facts.iter().all(|fact| value(fact, values) >= 0)
}

fn symbols(vars: u32) -> Symbols {
    let mut symbols = Symbols::new();
    (0..vars).for_each(|_| _ = symbols.fresh("v", 0, VALUES - 1));
    symbols
}

#[test]
fn contradictory_facts_have_no_solution() {
    let mut random = Random(1);
    let (mut contradictory, mut empty) = (0, 0);
    for _ in 0..4000 {
        let vars = 1 + random.between(0, 2) as u32;
        let count = random.between(1, 6);
        let facts: Facts = (0..count).map(|_| fact(&mut random, vars)).collect();
        let solvable = choices(vars).iter().any(|values| holds(&facts, values));
        let found = symbols(vars).contradictory(&facts).unwrap();
        assert!(!(found && solvable), "{facts:?}");
        contradictory += u32::from(found);
        empty += u32::from(!solvable);
    }
    // It is not complete, but it finds nearly all.
    assert!(empty > 500 && contradictory * 10 > empty * 9, "{contradictory} of {empty}");
}

#[test]
fn what_is_implied_holds() {
    let mut random = Random(2);
    let (mut implied, mut true_ones) = (0, 0);
    for _ in 0..4000 {
        let given: Facts = (0..random.between(1, 4)).map(|_| fact(&mut random, 2)).collect();
        let mut cells = Vec::new();
        for _ in 0..random.between(1, 3) {
            cells.push((0..random.between(1, 2)).map(|_| fact(&mut random, 2)).collect::<Facts>());
        }
        let right = |values: &Vec<i128>| {
            !holds(&given, values) || cells.iter().any(|cell| holds(cell, values))
        };
        let all = choices(2).iter().all(right);
        let found = symbols(2).implies(&given, &cells).unwrap();
        assert!(!found || all, "{given:?} {cells:?}");
        implied += u32::from(found);
        true_ones += u32::from(all);
    }
    assert!(true_ones > 500 && implied * 10 > true_ones * 9, "{implied} of {true_ones}");
}

#[test]
fn numbers_that_do_not_fit_show_nothing() {
    let (mut symbols, large) = (Symbols::new(), 1 << 119);
    let [a, b] = ["a", "b"].map(|name| Sum::var(symbols.fresh(name, 0, 1)));
    let sum = a.times(large).unwrap();
    assert!(sum.times(2).is_err());
    assert!(sum.plus(large, &a).is_err());
    // Combining these two exceeds the limit.
    let facts = [
        sum.less(&b.times(large - 1).unwrap()).unwrap(),
        b.times(large - 3).unwrap().less(&sum).unwrap(),
    ];
    assert_ne!(symbols.contradictory(&facts), Ok(true));
}
