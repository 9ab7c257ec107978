//! What is wrong with a trace, shown as what is wrong with a policy is: the file may be too large to
//! be shown itself.

use crate::args::{Format, Global};
use crate::output;
use durac_grammar::Code;
use durac_trace::TraceError;
use serde_json::json;
use std::path::Path;

/// Prints an error of the trace, or of the strace output, at `path` on standard error.
pub fn report(path: &Path, error: &TraceError, global: &Global) {
    let file = path.to_string_lossy();
    let file = if file == "-" { "<stdin>" } else { &file };
    let (line, column, message) = (error.line, error.column, error.message());
    let code = Code::BadTrace;
    if global.format == Format::Json {
        let place = json!({ "line": line, "column": column });
        let label = json!({
            "file": file, "start": place, "end": place, "text": "here", "primary": true,
        });
        let found = json!([{
            "code": code.text(), "severity": "error", "message": message, "help": null,
            "notes": [], "labels": [label],
        }]);
        output::stderr(&format!("{found:#}\n"));
    } else {
        output::stderr(&format!("{file}:{line}:{column}: error[{code}]: {message}\n"));
    }
}
