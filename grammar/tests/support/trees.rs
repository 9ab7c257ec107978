//! Random trees of every shape that a text can have.

use super::Random;
use durac_grammar::ast::{
    Assume, BinOp, Block, Comments, Entry, Expr, File, Guarantee, HookDef, HookParam, Ident, Item,
    On, Outcome, Param, Path, State, Step, Steps, Stmt, Suffix, TargetDef, Test, UnitWord,
};
use durac_grammar::{FileId, Span, Spanned};

const NOWHERE: Span = Span { file: FileId(0), start: 0, end: 0 };

const NAMES: &[&str] =
    &["n", "pending", "sync", "write", "slow", "loss", "_x1", "stop", "durable", "previous", "EIO"];

/// What may stand behind a dot beside them.
const PARTS: &[&str] = &["bytes", "age", "on", "if", "syncs", "done", "target"];

const TYPES: &[&str] =
    &["syncs", "writes", "updates", "bytes", "duration", "count", "bool", "calls"];

fn sp<T>(node: T) -> Spanned<T> {
    Spanned::new(node, NOWHERE)
}

fn name(r: &mut Random) -> Ident {
    sp(r.pick(NAMES).to_owned())
}

fn ty(r: &mut Random) -> Ident {
    sp(r.pick(TYPES).to_owned())
}

fn path(r: &mut Random) -> Path {
    let mut parts = vec![name(r)];
    while r.one_in(3) {
        parts.push(sp(r.pick(PARTS).to_owned()));
    }
    Path { parts }
}

fn many<T>(r: &mut Random, least: u64, most: u64, make: impl Fn(&mut Random) -> T) -> Vec<T> {
    (0..least + r.below(most - least + 1)).map(|_| make(r)).collect()
}

/// A whole file.
pub fn file(r: &mut Random) -> File {
    File { items: many(r, 0, 6, |r| sp(item(r))), comments: Comments::default() }
}

fn item(r: &mut Random) -> Item {
    match r.below(12) {
        11 => Item::Test(Test {
            name: sp(r.pick(&["idle tail", "a { b", "x // y"]).to_owned()),
            body: steps(r, 2),
        }),
        10 => Item::Assume(Assume {
            subject: name(r),
            relation: sp(r.pick(&[BinOp::Le, BinOp::Eq, BinOp::Lt])),
            bound: expr(r, 2),
        }),
        0 => Item::Policy(name(r)),
        1 => Item::Target(path(r)),
        2 => Item::Guarantee(Guarantee {
            subject: name(r),
            relation: sp(r.pick(&[BinOp::Le, BinOp::Eq, BinOp::Lt, BinOp::Gt, BinOp::Ne])),
            bound: expr(r, 3),
            audience: r.one_in(3).then(|| (sp("to".to_owned()), name(r))),
            failure: name(r),
        }),
        3 => Item::Param(Param {
            name: name(r),
            ty: ty(r),
            default: expr(r, 2),
            range: r.one_in(2).then(|| (expr(r, 1), expr(r, 1))),
        }),
        4 => Item::State(State { name: name(r), ty: ty(r), init: expr(r, 4) }),
        5 => Item::OnError(name(r)),
        6 => Item::Flush(expr(r, 2)),
        7 => Item::Use(many(r, 1, 3, name)),
        8 => Item::TargetDef(target(r)),
        _ => {
            let braces = r.one_in(2);
            let body = block(r, 3, u64::from(!braces));
            Item::On(On { hook: name(r), braces, body: Block { braces, ..body } })
        }
    }
}

fn steps(r: &mut Random, depth: u64) -> Steps {
    Steps { steps: many(r, 0, 5, |r| sp(step(r, depth))), span: NOWHERE }
}

fn step(r: &mut Random, depth: u64) -> Step {
    match r.below(if depth == 0 { 11 } else { 12 }) {
        11 => Step::Repeat { times: expr(r, 1), body: steps(r, depth - 1) },
        0 => Step::Sync { error: r.one_in(2).then(|| name(r)), returns: returns(r) },
        1 => Step::NextFails(name(r)),
        2 => Step::After(expr(r, 2)),
        3 => Step::Set(name(r), expr(r, 2)),
        4 => Step::Child { starts: r.one_in(2) },
        5 => Step::Another { returns: returns(r) },
        6 => {
            let loses = r.one_in(2).then(|| expr(r, 2));
            let failure = sp(r.pick(&["power_loss", "process_crash"]).to_owned());
            Step::Crash { failure, at_most: loses.is_some() && r.one_in(2), loses }
        }
        7 => Step::Runs(r.one_in(2)),
        8 => {
            let op = sp(r.pick(&[BinOp::Eq, BinOp::Le, BinOp::Gt]));
            let left = sp(Expr::Name(path(r)));
            Step::Expect(sp(Expr::Binary(Box::new(left), op, Box::new(expr(r, 2)))))
        }
        9 => Step::Call { hook: name(r), clean: false, len: None, returns: Some(sp(outcome(r))) },
        _ => {
            let hook = sp(r.pick(&["write", "fsync", "fdatasync", "reply"]).to_owned());
            let sized = hook.node == "write" || hook.node == "reply";
            let len = (sized && r.one_in(2)).then(|| expr(r, 2));
            let clean = hook.node == "reply" && r.one_in(2);
            Step::Call { hook, clean, len, returns: returns(r) }
        }
    }
}

fn returns(r: &mut Random) -> Option<Spanned<Outcome>> {
    r.one_in(2).then(|| sp(outcome(r)))
}

fn outcome(r: &mut Random) -> Outcome {
    match r.below(6) {
        0 => Outcome::Passed,
        1 => Outcome::Deferred,
        2 => Outcome::Skipped,
        3 => Outcome::Staged,
        4 => Outcome::Waits,
        _ => Outcome::Fails(name(r)),
    }
}

fn block(r: &mut Random, depth: u64, least: u64) -> Block {
    Block { stmts: many(r, least, 3, |r| sp(stmt(r, depth))), span: NOWHERE, braces: true }
}

/// `{ … }`, or one simple statement without braces.
fn body(r: &mut Random, depth: u64) -> Block {
    if r.one_in(3) {
        return Block { stmts: vec![sp(stmt(r, 0))], span: NOWHERE, braces: false };
    }
    block(r, depth, 0)
}

fn stmt(r: &mut Random, depth: u64) -> Stmt {
    match r.below(if depth == 0 { 10 } else { 15 }) {
        0 => Stmt::Pass,
        1 => Stmt::Defer,
        2 => Stmt::Skip,
        3 => Stmt::Stage,
        4 => Stmt::Commit,
        5 => Stmt::Fail(name(r)),
        6 => Stmt::Hold(name(r)),
        7 => Stmt::Await(expr(r, 3)),
        8 => Stmt::Assign(path(r), expr(r, 3)),
        9 => Stmt::Gather(expr(r, 2)),
        10 => Stmt::Unless { cond: expr(r, 2), then: body(r, depth - 1) },
        11 => Stmt::Every { period: expr(r, 1), body: block(r, depth - 1, 0) },
        _ => {
            let otherwise = match r.below(4) {
                0 => None,
                1 => {
                    let stmts = vec![sp(Stmt::If {
                        cond: expr(r, 1),
                        then: body(r, depth - 1),
                        otherwise: None,
                    })];
                    Some(Block { stmts, span: NOWHERE, braces: r.one_in(2) })
                }
                _ => Some(body(r, depth - 1)),
            };
            Stmt::If { cond: expr(r, 2), then: body(r, depth - 1), otherwise }
        }
    }
}

fn expr(r: &mut Random, depth: u64) -> Spanned<Expr> {
    const OPERATORS: &[BinOp] = &[
        BinOp::Or,
        BinOp::And,
        BinOp::Eq,
        BinOp::Ne,
        BinOp::Lt,
        BinOp::Le,
        BinOp::Gt,
        BinOp::Ge,
        BinOp::Add,
        BinOp::Sub,
        BinOp::Mul,
        BinOp::Div,
        BinOp::Rem,
    ];
    sp(match r.below(if depth == 0 { 3 } else { 8 }) {
        0 => Expr::Number {
            value: if r.one_in(4) { r.bits() >> 1 } else { r.below(3) },
            unit: r.one_in(3).then(|| r.pick(&Suffix::ALL)),
        },
        1 => Expr::Bool(r.one_in(2)),
        2 => Expr::Name(path(r)),
        3 => {
            let words = [
                UnitWord::Syncs,
                UnitWord::Writes,
                UnitWord::Updates,
                UnitWord::Bytes,
                UnitWord::Calls,
            ];
            Expr::Unit(Box::new(expr(r, depth - 1)), sp(r.pick(&words)))
        }
        4 => Expr::Not(Box::new(expr(r, depth - 1))),
        _ => Expr::Binary(
            Box::new(expr(r, depth - 1)),
            sp(r.pick(OPERATORS)),
            Box::new(expr(r, depth - 1)),
        ),
    })
}

fn target(r: &mut Random) -> TargetDef {
    TargetDef {
        name: path(r),
        files: many(r, 0, 2, string),
        except: many(r, 0, 1, string),
        engines: many(r, 0, 1, name),
        callers: many(r, 0, 1, name),
        records: many(r, 0, 1, name),
        layouts: many(r, 0, 1, name),
        protects: many(r, 0, 1, string),
        holds: many(r, 0, 1, name),
        hooks: many(r, 0, 2, |r| sp(hook(r))),
    }
}

fn string(r: &mut Random) -> Spanned<String> {
    sp(r.pick(&["*.aof", "", "a // b", "größe", "{", " x "]).to_owned())
}

fn hook(r: &mut Random) -> HookDef {
    const WORDS: &[&str] = &["pass", "defer", "stage", "await", "flush", "every", "remember"];
    HookDef {
        name: name(r),
        params: many(r, 0, 2, |r| HookParam { name: name(r), borrowed: r.one_in(2), ty: ty(r) }),
        result: r.one_in(2).then(|| ty(r)),
        entries: many(r, 0, 3, |r| Entry {
            kind: sp(r.pick(&["libc", "symbol"]).to_owned()),
            symbol: string(r),
        }),
        may: many(r, 0, 3, |r| sp(r.pick(WORDS).to_owned())),
        may_span: NOWHERE,
    }
}
