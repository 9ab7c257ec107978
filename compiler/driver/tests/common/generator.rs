//! Random policies.

use super::Random;

/// What may occur in a policy.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Hooks of `write` and `fsync` beside that of `fdatasync`.
    pub hooks: bool,
    /// Readings of the clock and of bytes, parameters.
    pub wide: bool,
    /// Counters without an end: `RISE c` and so on in the text, see [`endless`] and [`with_ends`].
    pub counters: bool,
}

impl Kind {
    /// Hooks, and nothing that a naive explorer does not follow.
    pub const HOOKS: Kind = Kind { hooks: true, wide: false, counters: false };
}

/// The counters of a text rise without end: `c` is read modulo 2 and 3, `w` compared with numbers up to 3,
/// `d` has no effect.
pub fn endless(text: &str) -> String {
    let text = text.replace("RISE c", "c = c + 1").replace("RISE w", "w = w + 1");
    text.replace("RISE d", "d = d + pending + 1")
}

/// The same policy, with counters that go round or stop, and without `d`.
pub fn with_ends(text: &str) -> String {
    let text = text.replace("RISE c", "c = (c + 1) % 6");
    text.replace("RISE w", "if w < 4 { w = w + 1 }").replace("RISE d", "")
}

/// A policy with a body of random statements for each hook.
pub fn policy(random: &mut Random, kind: Kind) -> String {
    let mut text = String::new();
    if kind.wide {
        text.push_str("param n: syncs = 2 in 1..=3\n");
    }
    text.push_str("state a: bool = false\nstate k: count = 0\n");
    if kind.counters {
        text.push_str("state c: count = 0\nstate w: count = 0\nstate d: syncs = 0\n");
        if random.below(3) == 0 {
            text.push_str("on write {\nRISE w\n}\n");
        }
    }
    if kind.hooks && !kind.counters && random.below(4) == 0 {
        let wait = random.pick(&["await previous", "await pending < 2", "if a { await previous }"]);
        text.push_str(&format!("on write {{ {wait} }}\n"));
    } else if kind.hooks && !kind.counters && random.below(2) == 0 {
        let first = random.pick(&[
            "",
            "",
            "",
            "if a { pass }",
            "if staged >= 2 { pass }",
            "every 2 calls { pass }",
            "every 2 calls { commit }",
            "if child.active { pass }",
            "await previous",
            "if staged > 2 { fail EAGAIN }",
        ]);
        text.push_str(&format!("on write {{\n{first}\nstage }}\n"));
    }
    if kind.hooks && random.below(4) == 0 {
        hook(random, kind, "fsync", &mut text);
    }
    hook(random, kind, "fdatasync", &mut text);
    if random.below(4) == 0 {
        text.push_str("flush within 1s\n");
    }
    text
}

fn hook(random: &mut Random, kind: Kind, name: &str, text: &mut String) {
    text.push_str(&format!("on {name} {{\n"));
    // What is read is read again after each wait: many readings and many waits are many states.
    let (most, depth) = if kind.wide { (2, 1) } else { (4, 2) };
    for _ in 0..1 + random.below(most) {
        statement(random, kind, text, depth);
    }
    // What is not acknowledged is not lost, so most end acknowledged.
    text.push_str(random.pick(&["defer\n", "defer\n", "skip\n", "skip\n", "pass\n"]));
    text.push_str("}\n");
}

fn statement(random: &mut Random, kind: Kind, out: &mut String, depth: u64) {
    if kind.counters && random.below(3) == 0 {
        let counts =
            &["RISE c\n", "RISE c\n", "RISE w\n", "RISE w\n", "RISE d\n", "c = 0\n", "w = 0\n"];
        return out.push_str(random.pick(counts));
    }
    match random.below(if depth == 0 { 6 } else { 12 }) {
        0 if depth < 2 => out.push_str(random.pick(&["pass\n", "defer\n", "skip\n", "fail EIO\n"])),
        0 | 1 => {
            out.push_str(random.pick(&["await previous\n", "await previous\n", "await all\n"]))
        }
        2 => {
            let limit =
                random.pick(if kind.wide { &["n", "n + 1", "4"] } else { &["2", "3", "4"] });
            out.push_str(&format!("await pending < {limit}\n"));
        }
        3 if kind.hooks && random.below(4) == 0 => out.push_str("commit\n"),
        3 => out.push_str(random.pick(&["k = (k + 1) % 3\n", "k = 0\n", "k = 2\n"])),
        4 | 5 => {
            let value = condition(random, kind, 1);
            out.push_str(&format!("a = {value}\n"));
        }
        6..=8 => {
            let cond = condition(random, kind, 2);
            out.push_str(&format!("if {cond} {{\n"));
            statement(random, kind, out, depth - 1);
            out.push_str("} else {\n");
            statement(random, kind, out, depth - 1);
            out.push_str("}\n");
        }
        9 => {
            let cond = condition(random, kind, 2);
            out.push_str(&format!("unless {cond} {{\n"));
            statement(random, kind, out, depth - 1);
            out.push_str("}\n");
        }
        _ => {
            let times = if kind.wide {
                &["2 calls", "3 calls", "1s"]
            } else {
                &["2 calls", "3 calls", "2 calls"]
            };
            let period = random.pick(times);
            out.push_str(&format!("every {period} {{\n"));
            statement(random, kind, out, depth - 1);
            out.push_str("}\n");
        }
    }
}

fn condition(random: &mut Random, kind: Kind, depth: u64) -> String {
    if kind.counters && random.below(2) == 0 {
        let tests =
            &["c % 2 == 1", "c % 3 == 0", "c % 3 != 2", "w >= 2", "w > 2", "w + 1 == 2", "2 <= w"];
        return random.pick(tests).to_owned();
    }
    if depth == 0 || random.below(2) == 0 {
        let cmp = random.pick(&["<", "<=", ">", ">=", "==", "!="]);
        if kind.hooks && random.below(6) == 0 {
            return format!("staged {cmp} {}", random.below(3) + 1);
        }
        return match random.below(if kind.wide { 9 } else { 7 }) {
            0 => "a".to_owned(),
            1 => "notify.done".to_owned(),
            2 => "child.active".to_owned(),
            3 => format!("sync.latency {} 5ms", random.pick(&[">", "<="])),
            4 => format!("k {cmp} {}", random.below(3)),
            5 | 6 => format!("pending {cmp} {}", random.below(4) + 1),
            7 => format!("pending.age {} 1s", random.pick(&[">", "<="])),
            _ => format!("pending.bytes {} 4KiB", random.pick(&[">", "<"])),
        };
    }
    let (a, b) = (condition(random, kind, depth - 1), condition(random, kind, depth - 1));
    match random.below(3) {
        0 => format!("({a} && {b})"),
        1 => format!("({a} || {b})"),
        _ => format!("!({a})"),
    }
}
