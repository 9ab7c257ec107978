//! The tree as text, for `--emit ast`: nested lists, one item or statement a line, without places.

use crate::ast::{
    Block, Expr, File, HookDef, Item, On, Outcome, Path, Step, Steps, Stmt, TargetDef,
};
use crate::span::Spanned;

/// Prints a tree.
///
/// ```
/// # use durac_grammar::{Sources, parse, print_ast};
/// # let mut sources = Sources::new();
/// let file = sources.add("x.dur", "on fdatasync: await pending < 64; defer");
/// assert_eq!(
///     print_ast(&parse(&sources, file).file),
///     "(file\n  (on fdatasync\n    (await (< pending 64))\n    (defer)))\n"
/// );
/// ```
#[must_use]
pub fn print_ast(file: &File) -> String {
    let mut out = String::from("(file");
    for item in &file.items {
        print_item(&mut out, &item.node);
    }
    out.push_str(")\n");
    out
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
}

fn print_item(out: &mut String, item: &Item) {
    line(out, 1);
    match item {
        Item::Policy(name) => out.push_str(&format!("(policy {})", name.node)),
        Item::Target(path) => out.push_str(&format!("(target {})", path.dotted())),
        Item::TargetDef(def) => target(out, def),
        Item::Guarantee(g) => out.push_str(&format!(
            "(guarantee {} {} {}{} {})",
            g.subject.node,
            g.relation.node.text(),
            expr(&g.bound),
            g.audience
                .as_ref()
                .map_or_else(String::new, |(to, who)| format!(" {} {}", to.node, who.node)),
            g.failure.node
        )),
        Item::Param(p) => {
            out.push_str(&format!("(param {} {} {}", p.name.node, p.ty.node, expr(&p.default)));
            if let Some((low, high)) = &p.range {
                out.push_str(&format!(" (..= {} {})", expr(low), expr(high)));
            }
            out.push(')');
        }
        Item::State(s) => {
            out.push_str(&format!("(state {} {} {})", s.name.node, s.ty.node, expr(&s.init)));
        }
        Item::On(On { hook, body, .. }) => {
            out.push_str(&format!("(on {}", hook.node));
            stmts(out, body, 2);
            out.push(')');
        }
        Item::Assume(a) => out.push_str(&format!(
            "(assume {} {} {})",
            a.relation.node.text(),
            a.subject.node,
            expr(&a.bound)
        )),
        Item::OnError(mode) => out.push_str(&format!("(on-error {})", mode.node)),
        Item::Flush(within) => out.push_str(&format!("(flush-within {})", expr(within))),
        Item::Use(words) => {
            let words: Vec<_> = words.iter().map(|w| w.node.as_str()).collect();
            out.push_str(&format!("(use {})", words.join(" ")));
        }
        Item::Test(test) => {
            out.push_str(&format!("(test {:?}", test.name.node));
            steps(out, &test.body, 2);
            out.push(')');
        }
        Item::Error => out.push_str("(error)"),
    }
}

fn steps(out: &mut String, body: &Steps, depth: usize) {
    for s in &body.steps {
        line(out, depth);
        match &s.node {
            Step::Repeat { times, body } => {
                out.push_str(&format!("(repeat {}", expr(times)));
                steps(out, body, depth + 1);
                out.push(')');
            }
            other => out.push_str(&step(other)),
        }
    }
}

fn step(step: &Step) -> String {
    let returns = |outcome: &Option<Spanned<Outcome>>| match outcome.as_ref().map(|o| &o.node) {
        None => String::new(),
        Some(Outcome::Fails(errno)) => format!(" (-> fails {})", errno.node),
        Some(outcome) => format!(" (-> {})", outcome.word()),
    };
    match step {
        Step::Call { hook, clean, len, returns: outcome } => {
            let clean = if *clean { "clean-" } else { "" };
            let len = len.as_ref().map_or(String::new(), |len| format!(" {}", expr(len)));
            format!("(call {clean}{}{len}{})", hook.node, returns(outcome))
        }
        Step::Sync { error: None, returns: outcome } => format!("(sync-ends{})", returns(outcome)),
        Step::Sync { error: Some(errno), returns: outcome } => {
            format!("(sync-fails {}{})", errno.node, returns(outcome))
        }
        Step::NextFails(errno) => format!("(next-sync-fails {})", errno.node),
        Step::After(time) => format!("(after {})", expr(time)),
        Step::Set(name, value) => format!("(set {} {})", name.node, expr(value)),
        Step::Child { starts: true } => "(child-starts)".to_owned(),
        Step::Child { starts: false } => "(child-ends)".to_owned(),
        Step::Another { returns: outcome } => format!("(another-file{})", returns(outcome)),
        Step::Crash { failure, at_most, loses } => {
            let most = if *at_most { " at-most" } else { "" };
            let loses = loses.as_ref().map_or("nothing".to_owned(), expr);
            format!("({}{most} {loses})", failure.node)
        }
        Step::Runs(runs) => format!("(sync-runs {runs})"),
        Step::Expect(condition) => format!("(expect {})", expr(condition)),
        // Printed by `steps`.
        Step::Repeat { .. } => String::new(),
        Step::Error => "(error)".to_owned(),
    }
}

fn target(out: &mut String, def: &TargetDef) {
    out.push_str(&format!("(target-def {}", def.name.dotted()));
    for (word, globs) in
        [("files", &def.files), ("except", &def.except), ("protects", &def.protects)]
    {
        if !globs.is_empty() {
            line(out, 2);
            out.push_str(&format!("({word}{})", strings(globs)));
        }
    }
    for engine in &def.engines {
        line(out, 2);
        out.push_str(&format!("(engine {})", engine.node));
    }
    for callers in &def.callers {
        line(out, 2);
        out.push_str(&format!("(callers {})", callers.node));
    }
    for records in &def.records {
        line(out, 2);
        out.push_str(&format!("(records {})", records.node));
    }
    for layout in &def.layouts {
        line(out, 2);
        out.push_str(&format!("(layout {})", layout.node));
    }
    for hold in &def.holds {
        line(out, 2);
        out.push_str(&format!("(hold {})", hold.node));
    }
    for hook in &def.hooks {
        hook_def(out, &hook.node);
    }
    out.push(')');
}

fn hook_def(out: &mut String, hook: &HookDef) {
    line(out, 2);
    out.push_str(&format!("(hook {} (", hook.name.node));
    let params: Vec<_> = hook
        .params
        .iter()
        .map(|p| {
            let borrowed = if p.borrowed { "borrowed " } else { "" };
            format!("({} {borrowed}{})", p.name.node, p.ty.node)
        })
        .collect();
    out.push_str(&format!("{})", params.join(" ")));
    if let Some(result) = &hook.result {
        out.push_str(&format!(" {}", result.node));
    }
    for entry in &hook.entries {
        line(out, 3);
        out.push_str(&format!("(entry {} {:?})", entry.kind.node, entry.symbol.node));
    }
    if !hook.may.is_empty() {
        line(out, 3);
        let may: Vec<_> = hook.may.iter().map(|m| m.node.as_str()).collect();
        out.push_str(&format!("(may {})", may.join(" ")));
    }
    out.push(')');
}

fn strings(list: &[Spanned<String>]) -> String {
    list.iter().map(|s| format!(" {:?}", s.node)).collect()
}

fn stmts(out: &mut String, block: &Block, depth: usize) {
    for s in &block.stmts {
        line(out, depth);
        stmt(out, &s.node, depth);
    }
}

fn stmt(out: &mut String, stmt: &Stmt, depth: usize) {
    match stmt {
        Stmt::Pass => out.push_str("(pass)"),
        Stmt::Defer => out.push_str("(defer)"),
        Stmt::Skip => out.push_str("(skip)"),
        Stmt::Stage => out.push_str("(stage)"),
        Stmt::Commit => out.push_str("(commit)"),
        Stmt::Fail(errno) => out.push_str(&format!("(fail {})", errno.node)),
        Stmt::Hold(what) => out.push_str(&format!("(hold-until {})", what.node)),
        Stmt::Gather(within) => out.push_str(&format!("(gather-within {})", expr(within))),
        Stmt::Await(what) => out.push_str(&format!("(await {})", expr(what))),
        Stmt::Assign(place, value) => {
            out.push_str(&format!("(= {} {})", place.dotted(), expr(value)));
        }
        Stmt::If { cond, then, otherwise } => {
            out.push_str(&format!("(if {}", expr(cond)));
            branch(out, "then", then, depth);
            if let Some(otherwise) = otherwise {
                branch(out, "else", otherwise, depth);
            }
            out.push(')');
        }
        Stmt::Unless { cond, then } => {
            out.push_str(&format!("(unless {}", expr(cond)));
            branch(out, "then", then, depth);
            out.push(')');
        }
        Stmt::Every { period, body } => {
            out.push_str(&format!("(every {}", expr(period)));
            branch(out, "do", body, depth);
            out.push(')');
        }
        Stmt::Error => out.push_str("(error)"),
    }
}

fn branch(out: &mut String, word: &str, block: &Block, depth: usize) {
    line(out, depth + 1);
    out.push_str(&format!("({word}"));
    stmts(out, block, depth + 2);
    out.push(')');
}

fn expr(e: &Spanned<Expr>) -> String {
    match &e.node {
        Expr::Number { value, unit } => format!("{value}{}", unit.map_or("", |u| u.text())),
        Expr::Bool(value) => value.to_string(),
        Expr::Name(path) => Path::dotted(path),
        Expr::Unit(inner, unit) => format!("({} {})", unit.node.text(), expr(inner)),
        Expr::Not(inner) => format!("(! {})", expr(inner)),
        Expr::Binary(l, op, r) => format!("({} {} {})", op.node.text(), expr(l), expr(r)),
        Expr::Error => "(error)".to_owned(),
    }
}
