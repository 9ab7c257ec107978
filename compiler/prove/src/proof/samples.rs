//! The values of the parameters for which a policy is explored.

use durac_core::hir::{Bound, Expr, ExprKind, Node, Policy, visit, visit_expr};

/// Vectors of parameters that are tried one by one.
const MAX_SAMPLES: usize = 64;

/// Vectors of parameters to try.
pub(super) struct Samples {
    pub(super) vectors: Vec<Vec<u64>>,
    /// They are all there are.
    pub(super) whole: bool,
}

/// The least, the greatest and the default values, or all of them if they are not too many. What nothing reads
/// has its default.
pub(super) fn samples(policy: &Policy, all: bool) -> Samples {
    let read = read(policy);
    let ranges: Vec<(u64, u64, u64)> = (policy.params.iter().zip(&read))
        .map(|(p, read)| match read {
            true => (p.min, p.max, p.default),
            false => (p.default, p.default, p.default),
        })
        .collect();
    let count = |(min, max, _): &(u64, u64, u64)| (max - min).saturating_add(1);
    let total = ranges.iter().fold(1u64, |total, range| total.saturating_mul(count(range)));
    let whole = total <= if all { MAX_SAMPLES as u64 } else { 8 };
    let mut vectors = vec![ranges.iter().map(|(.., default)| *default).collect::<Vec<u64>>()];
    let mut found = vec![Vec::new()];
    for (min, max, default) in ranges {
        if whole {
            found = extend(&found, &(min..=max).collect::<Vec<_>>());
            continue;
        }
        let mut values = vec![min, max, default];
        if found.len() * 4 <= MAX_SAMPLES / 4 {
            values.push(min.saturating_add(1).min(max));
        }
        values.sort_unstable();
        values.dedup();
        found = extend(&found, &values);
        found.truncate(MAX_SAMPLES);
    }
    vectors.extend(found);
    let mut unique: Vec<Vec<u64>> = Vec::new();
    for vector in vectors {
        if !unique.contains(&vector) {
            unique.push(vector);
        }
    }
    Samples { vectors: unique, whole }
}

/// Which parameters a program on the log or a guarantee reads.
fn read(policy: &Policy) -> Vec<bool> {
    let mut read = vec![false; policy.params.len()];
    let mut note = |node: Node<'_>| {
        if let Node::Expr(Expr { kind: ExprKind::Param(id), .. }) = node
            && let Some(read) = read.get_mut(id.index())
        {
            *read = true;
        }
    };
    for hook in policy.hooks.iter().filter(|hook| hook.hook.is_on_log()) {
        visit(&hook.body, &mut note);
    }
    for guarantee in &policy.guarantees {
        match &guarantee.bound {
            Bound::Syncs(expr)
            | Bound::Writes(expr)
            | Bound::Bytes(expr)
            | Bound::Updates(expr)
            | Bound::Age(expr) => visit_expr(expr, &mut note),
            Bound::Nothing => {}
        }
    }
    read
}

fn extend(vectors: &[Vec<u64>], values: &[u64]) -> Vec<Vec<u64>> {
    let with = |vector: &Vec<u64>, value: u64| vector.iter().copied().chain([value]).collect();
    vectors.iter().flat_map(|v| values.iter().map(move |&value| with(v, value))).collect()
}
