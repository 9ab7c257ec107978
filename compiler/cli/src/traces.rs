//! Errors of a trace, in the form of diagnostics. A trace can be too large to be loaded, so its text
//! is not shown.

use crate::args::Global;
use crate::output;
use durac_grammar::Code;
use durac_grammar::render::{Streamed, render_streamed};
use durac_trace::TraceError;
use std::path::Path;

/// Prints an error of the trace, or of the strace output, at `path` on standard error.
pub fn report(path: &Path, error: &TraceError, global: &Global) {
    let file = path.to_string_lossy();
    let found = Streamed {
        code: Code::BadTrace,
        message: &error.message(),
        file: if file == "-" { "<stdin>" } else { &file },
        line: error.line,
        column: error.column,
        byte: error.byte,
    };
    if global.is_json() {
        return global.document.add_streamed(&found);
    }
    output::stderr(&render_streamed(&found, global.format.into()));
}
