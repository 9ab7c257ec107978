//! Where a parameter or a state variable is named.

use durac_grammar::ast::{Block, Expr, File, Item, Path, Step, Steps, Stmt};
use durac_grammar::{Span, Spanned};

/// Everywhere that `name` is declared, read or set, in the order of the tree.
pub fn uses(file: &File, name: &str) -> Vec<Span> {
    let mut walk = Walk { name, found: Vec::new() };
    for item in &file.items {
        walk.item(&item.node);
    }
    walk.found
}

struct Walk<'a> {
    name: &'a str,
    found: Vec<Span>,
}

impl Walk<'_> {
    fn ident(&mut self, ident: &Spanned<String>) {
        if ident.node == self.name {
            self.found.push(ident.span);
        }
    }

    fn path(&mut self, path: &Path) {
        if let [alone] = path.parts.as_slice() {
            self.ident(alone);
        }
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Guarantee(guarantee) => self.expr(&guarantee.bound),
            Item::Assume(assume) => self.expr(&assume.bound),
            Item::Param(param) => {
                self.ident(&param.name);
                self.expr(&param.default);
                for end in param.range.iter().flat_map(|(low, high)| [low, high]) {
                    self.expr(end);
                }
            }
            Item::State(state) => {
                self.ident(&state.name);
                self.expr(&state.init);
            }
            Item::On(on) => self.block(&on.body),
            Item::Flush(within) => self.expr(within),
            Item::Test(test) => self.steps(&test.body),
            Item::Policy(_)
            | Item::Target(_)
            | Item::TargetDef(_)
            | Item::OnError(_)
            | Item::Use(_)
            | Item::Error => {}
        }
    }

    fn block(&mut self, block: &Block) {
        for stmt in &block.stmts {
            self.stmt(&stmt.node);
        }
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Gather(value) | Stmt::Await(value) => self.expr(value),
            Stmt::Assign(path, value) => {
                self.path(path);
                self.expr(value);
            }
            Stmt::If { cond, then, otherwise } => {
                self.expr(cond);
                self.block(then);
                otherwise.iter().for_each(|block| self.block(block));
            }
            Stmt::Unless { cond: head, then: body } | Stmt::Every { period: head, body } => {
                self.expr(head);
                self.block(body);
            }
            Stmt::Pass
            | Stmt::Defer
            | Stmt::Skip
            | Stmt::Stage
            | Stmt::Commit
            | Stmt::Fail(_)
            | Stmt::Hold(_)
            | Stmt::Error => {}
        }
    }

    fn steps(&mut self, steps: &Steps) {
        for step in &steps.steps {
            match &step.node {
                Step::Call { len, .. } => len.iter().for_each(|len| self.expr(len)),
                Step::After(value) | Step::Expect(value) => self.expr(value),
                Step::Set(name, value) => {
                    self.ident(name);
                    self.expr(value);
                }
                Step::Crash { loses, .. } => loses.iter().for_each(|loses| self.expr(loses)),
                Step::Repeat { times, body } => {
                    self.expr(times);
                    self.steps(body);
                }
                Step::Sync { .. }
                | Step::NextFails(_)
                | Step::Child { .. }
                | Step::Another { .. }
                | Step::Runs(_)
                | Step::Error => {}
            }
        }
    }

    fn expr(&mut self, expr: &Spanned<Expr>) {
        match &expr.node {
            Expr::Name(path) => self.path(path),
            Expr::Unit(value, _) | Expr::Not(value) => self.expr(value),
            Expr::Binary(left, _, right) => {
                self.expr(left);
                self.expr(right);
            }
            Expr::Number { .. } | Expr::Bool(_) | Expr::Error => {}
        }
    }
}
