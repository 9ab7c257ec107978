//! Whether two trees mean the same: equal but for the choice between one line and braces.

use crate::ast::{Block, File, Item, Stmt};

/// Compares two files.
pub(super) fn same(a: &File, b: &File) -> bool {
    let (mut a, mut b) = (a.clone(), b.clone());
    plain(&mut a);
    plain(&mut b);
    a == b
}

fn plain(file: &mut File) {
    for item in &mut file.items {
        if let Item::On(on) = &mut item.node {
            on.braces = true;
            block(&mut on.body);
        }
    }
}

fn block(b: &mut Block) {
    b.braces = true;
    for stmt in &mut b.stmts {
        match &mut stmt.node {
            Stmt::If { then, otherwise, .. } => {
                block(then);
                if let Some(otherwise) = otherwise {
                    block(otherwise);
                }
            }
            Stmt::Unless { then: inner, .. } | Stmt::Every { body: inner, .. } => block(inner),
            _ => {}
        }
    }
}
