//! Errors of a trace, in the form of diagnostics. A trace can be too large to be loaded, so its text
//! is not shown.

use crate::args::Global;
use crate::output;
use durac_grammar::Code;
use durac_grammar::render::{Streamed, render_streamed};
use durac_trace::{Problem, TraceError};
use std::path::Path;

/// Prints what the trace at `path` does not say and a policy reads.
pub fn lacks(path: &Path, message: &str, global: &Global) {
    show(path, (Code::NotInTrace, message), (1, 1, 0), global);
}

/// Prints an error of the trace, or of the strace output, at `path` on standard error.
pub fn report(path: &Path, error: &TraceError, global: &Global) {
    let place = (error.line, error.column, error.byte);
    let message = match &error.problem {
        Problem::Io(why) => format!("cannot be read: {}", output::reason(why)),
        _ => error.message(),
    };
    show(path, (Code::BadTrace, &message), place, global);
}

fn show(
    path: &Path,
    (code, message): (Code, &str),
    (line, column, byte): (u64, u64, u64),
    global: &Global,
) {
    let file = path.to_string_lossy();
    let file = if file == "-" { "<stdin>" } else { &*file };
    let found = Streamed { code, message, file, line, column, byte };
    if global.is_json() {
        return global.document.add_streamed(&found);
    }
    output::stderr(&render_streamed(&found, global.format.into()));
}
