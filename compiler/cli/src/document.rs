//! `--format json`: one document on standard output for each command, whether it succeeds or fails.
//!
//! What a command has found is collected here and printed once, at its end. docs/json.md gives the shapes.

use crate::output;
use anyhow::{Context, Result};
use durac_grammar::render::{Format, Streamed, render, render_streamed};
use durac_grammar::{Diagnostic, Sources};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

/// A path in a report. JSON is Unicode, and a path need not be: `U+FFFD` is in the place of what is none.
pub fn path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

/// The document of a command that runs; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Document(Rc<RefCell<Content>>);

#[derive(Debug, Default)]
struct Content {
    /// What the command itself reports.
    fields: Map<String, Value>,
    diagnostics: Vec<Value>,
    /// It has been printed already.
    printed: bool,
}

impl Document {
    /// Adds the fields of a report.
    ///
    /// # Errors
    /// If it is no object: a bug.
    pub fn put(&self, report: &impl Serialize) -> Result<()> {
        let value = serde_json::to_value(report).context("cannot write the report")?;
        let Value::Object(fields) = value else { anyhow::bail!("a report is not an object") };
        self.0.borrow_mut().fields.extend(fields);
        Ok(())
    }

    /// Adds one field, of a value that need not be an object.
    ///
    /// # Errors
    /// As [`Document::put`].
    pub fn put_field(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let value = serde_json::to_value(value).context("cannot write the report")?;
        self.0.borrow_mut().fields.insert(name.to_owned(), value);
        Ok(())
    }

    /// Adds what was found in texts.
    pub fn add(&self, found: &[Diagnostic], sources: &Sources) {
        self.add_text(&render(found, sources, Format::Json, false));
    }

    /// Adds what was found in a stream.
    pub fn add_streamed(&self, found: &Streamed<'_>) {
        self.add_text(&render_streamed(found, Format::Json));
    }

    /// Diagnostics as their one renderer writes them.
    fn add_text(&self, rendered: &str) {
        let all: Vec<Value> = serde_json::from_str(rendered).unwrap_or_default();
        self.0.borrow_mut().diagnostics.extend(all);
    }

    /// Prints it, unless it has been printed. `error`: why the command failed, if it is not the diagnostics that say so.
    pub fn print(&self, command: Option<&str>, exit_code: u8, error: Option<&str>) -> Result<()> {
        let Content { fields, diagnostics, printed } = &mut *self.0.borrow_mut();
        if std::mem::replace(printed, true) {
            return Ok(());
        }
        fields.entry("version").or_insert(json!(1));
        let error = error.map(|message| json!({ "message": message }));
        for (name, value) in [
            ("command", json!(command)),
            ("ok", json!(exit_code == 0)),
            ("exit_code", json!(exit_code)),
            ("error", json!(error)),
            ("diagnostics", Value::Array(std::mem::take(diagnostics))),
        ] {
            fields.insert(name.to_owned(), value);
        }
        let text = serde_json::to_string_pretty(fields).context("cannot write the document")?;
        output::stdout((text + "\n").as_bytes())
    }

    /// Prints a report as a document on one line, of which a monitor writes one after the other. No other follows.
    ///
    /// # Errors
    /// As [`Document::put`].
    pub fn line(&self, command: &str, report: &impl Serialize) -> Result<()> {
        self.0.borrow_mut().printed = true;
        let fields = json!({
            "version": 1, "command": command, "ok": true, "exit_code": 0, "error": null, "diagnostics": [],
        });
        let mut fields = fields.as_object().cloned().unwrap_or_default();
        if let Value::Object(own) = serde_json::to_value(report).context("cannot write")? {
            fields.extend(own);
        }
        let text = serde_json::to_string(&fields).context("cannot write the document")?;
        output::stdout((text + "\n").as_bytes())
    }
}
