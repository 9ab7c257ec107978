//! The conversation with the editor.

use crate::document::Document;
use crate::hover::Definition;
use crate::place::{self, Encoding};
use crate::prove::{Job, Outcome, Prover};
use crate::{complete, edit, hover};
use durac_grammar::ast::Item;
use durac_grammar::{Code, Diagnostic, Severity, Span};
use lsp_server::{Connection, ErrorCode, Message, Notification, Request, Response};
use lsp_types::{self as lsp, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::error::Error;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What both threads know.
struct Shared {
    /// Ends of the same channels as the caller's.
    connection: Connection,
    encoding: Encoding,
    /// Whether the editor asks for hints again when it is told to.
    refreshes: bool,
    documents: Mutex<HashMap<String, Open>>,
}

/// An open text and the proof of it, if there is one yet.
#[derive(Debug)]
struct Open {
    document: Document,
    proved: Option<Outcome>,
}

impl Shared {
    fn documents(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: Message) {
        // It only fails when the editor is gone; the loop ends then.
        let _ = self.connection.sender.send(message);
    }

    fn publish(&self, uri: &str, document: &Document, diagnostics: &[Diagnostic]) {
        let found: Vec<_> =
            diagnostics.iter().map(|d| diagnostic(uri, document, d, self.encoding)).collect();
        let params = json!({ "uri": uri, "version": document.version, "diagnostics": found });
        self.send(Message::Notification(Notification::new(
            "textDocument/publishDiagnostics".to_owned(),
            params,
        )));
    }

    /// A proof has ended.
    fn proved(&self, outcome: Outcome) {
        let mut documents = self.documents();
        let Some(open) = documents.get_mut(&outcome.document) else { return };
        if open.document.version != outcome.version {
            return;
        }
        self.publish(&outcome.document, &open.document, &outcome.diagnostics);
        open.proved = Some(outcome);
        drop(documents);
        if self.refreshes {
            self.send(Message::Request(Request::new(
                "durac/hints".to_owned().into(),
                "workspace/inlayHint/refresh".to_owned(),
                Value::Null,
            )));
        }
    }
}

/// Answers an editor until it says `exit`.
///
/// # Errors
/// If the conversation breaks, or does not begin as the protocol says.
pub fn serve(connection: &Connection) -> Result<(), Box<dyn Error + Sync + Send>> {
    let (id, asked) = connection.initialize_start()?;
    let asked: lsp::InitializeParams = serde_json::from_value(asked)?;
    let encodings = asked.capabilities.general.and_then(|general| general.position_encodings);
    let utf8 = encodings.is_some_and(|all| all.contains(&lsp::PositionEncodingKind::UTF8));
    let encoding = if utf8 { Encoding::Utf8 } else { Encoding::Utf16 };
    let hints = asked.capabilities.workspace.and_then(|workspace| workspace.inlay_hint);
    connection.initialize_finish(
        id,
        json!({
            "capabilities": capabilities(encoding),
            "serverInfo": { "name": "durac", "version": env!("CARGO_PKG_VERSION") },
        }),
    )?;
    let shared = Arc::new(Shared {
        connection: Connection {
            sender: connection.sender.clone(),
            receiver: connection.receiver.clone(),
        },
        encoding,
        refreshes: hints.and_then(|hints| hints.refresh_support).unwrap_or(false),
        documents: Mutex::default(),
    });
    let told = Arc::clone(&shared);
    let prover = Prover::start(move |outcome| told.proved(outcome))?;
    for message in &connection.receiver {
        match message {
            Message::Request(request) => {
                if connection.handle_shutdown(&request)? {
                    break;
                }
                let response = answer(&shared, request);
                connection.sender.send(Message::Response(response))?;
            }
            Message::Notification(notification) => notified(&shared, &prover, notification),
            Message::Response(_) => {}
        }
    }
    Ok(())
}

fn capabilities(encoding: Encoding) -> lsp::ServerCapabilities {
    lsp::ServerCapabilities {
        position_encoding: Some(match encoding {
            Encoding::Utf8 => lsp::PositionEncodingKind::UTF8,
            Encoding::Utf16 => lsp::PositionEncodingKind::UTF16,
        }),
        text_document_sync: Some(lsp::TextDocumentSyncKind::FULL.into()),
        hover_provider: Some(true.into()),
        definition_provider: Some(lsp::OneOf::Left(true)),
        completion_provider: Some(lsp::CompletionOptions {
            trigger_characters: Some(vec![" ".to_owned(), ".".to_owned()]),
            ..lsp::CompletionOptions::default()
        }),
        rename_provider: Some(lsp::OneOf::Right(lsp::RenameOptions {
            prepare_provider: Some(true),
            work_done_progress_options: lsp::WorkDoneProgressOptions::default(),
        })),
        document_formatting_provider: Some(lsp::OneOf::Left(true)),
        code_action_provider: Some(true.into()),
        inlay_hint_provider: Some(lsp::OneOf::Left(true)),
        ..lsp::ServerCapabilities::default()
    }
}

fn notified(shared: &Shared, prover: &Prover, notification: Notification) {
    let Notification { method, params } = notification;
    match method.as_str() {
        "textDocument/didOpen" => {
            if let Ok(opened) = serde_json::from_value::<lsp::DidOpenTextDocumentParams>(params) {
                let document = opened.text_document;
                changed(shared, prover, &document.uri, &document.text, document.version);
            }
        }
        "textDocument/didChange" => {
            if let Ok(change) = serde_json::from_value::<lsp::DidChangeTextDocumentParams>(params)
                && let Some(all) = change.content_changes.last()
            {
                let document = change.text_document;
                changed(shared, prover, &document.uri, &all.text, document.version);
            }
        }
        "textDocument/didClose" => {
            if let Ok(closed) = serde_json::from_value::<lsp::DidCloseTextDocumentParams>(params) {
                let uri = closed.text_document.uri.as_str();
                if let Some(open) = shared.documents().remove(uri) {
                    shared.publish(uri, &open.document, &[]);
                }
            }
        }
        _ => {}
    }
}

fn changed(shared: &Shared, prover: &Prover, uri: &Uri, text: &str, version: i32) {
    let document = Document::new(uri.as_str(), text, version);
    shared.publish(uri.as_str(), &document, &document.analysis.diagnostics);
    let provable = !document.analysis.has_errors() && document.policy().is_some();
    let job = Job {
        document: uri.as_str().to_owned(),
        version,
        stem: document.stem.clone(),
        text: text.to_owned(),
    };
    shared.documents().insert(uri.as_str().to_owned(), Open { document, proved: None });
    if provable {
        prover.prove(job);
    }
}

/// What is wrong with a request.
struct Refused(ErrorCode, String);

fn read<T: DeserializeOwned>(params: Value) -> Result<T, Refused> {
    serde_json::from_value(params)
        .map_err(|error| Refused(ErrorCode::InvalidParams, error.to_string()))
}

fn write(value: impl Serialize) -> Result<Value, Refused> {
    serde_json::to_value(value)
        .map_err(|error| Refused(ErrorCode::InternalError, error.to_string()))
}

fn answer(shared: &Shared, request: Request) -> Response {
    let Request { id, method, params } = request;
    let documents = shared.documents();
    let asked = Asked { documents: &documents, encoding: shared.encoding };
    let answer = match method.as_str() {
        "textDocument/hover" => asked.hover(params),
        "textDocument/definition" => asked.definition(params),
        "textDocument/completion" => asked.completion(params),
        "textDocument/prepareRename" => asked.prepare_rename(params),
        "textDocument/rename" => asked.rename(params),
        "textDocument/formatting" => asked.formatting(params),
        "textDocument/codeAction" => asked.code_action(params),
        "textDocument/inlayHint" => asked.inlay_hint(params),
        _ => Err(Refused(ErrorCode::MethodNotFound, format!("no method `{method}`"))),
    };
    match answer {
        Ok(value) => Response::new_ok(id, value),
        Err(Refused(code, message)) => Response::new_err(id, code as i32, message),
    }
}

/// Answers requests about the open texts.
struct Asked<'a> {
    documents: &'a HashMap<String, Open>,
    encoding: Encoding,
}

impl Asked<'_> {
    fn open(&self, uri: &Uri) -> Result<&Open, Refused> {
        let unknown = || Refused(ErrorCode::InvalidParams, format!("not open: {}", uri.as_str()));
        self.documents.get(uri.as_str()).ok_or_else(unknown)
    }

    fn at(&self, at: &lsp::TextDocumentPositionParams) -> Result<(&Document, usize), Refused> {
        let document = &self.open(&at.text_document.uri)?.document;
        Ok((document, place::byte(document.text(), at.position, self.encoding)))
    }

    fn range(&self, document: &Document, span: Span) -> lsp::Range {
        place::range(document.text(), span, self.encoding)
    }

    fn hover(&self, params: Value) -> Result<Value, Refused> {
        let asked: lsp::HoverParams = read(params)?;
        let at = asked.text_document_position_params;
        let (document, byte) = self.at(&at)?;
        let mut found = hover::hover(document, byte);
        if let Some((text, span)) = &mut found
            && let Some(proved) = &self.open(&at.text_document.uri)?.proved
            && document
                .analysis
                .tree
                .items
                .iter()
                .any(|item| matches!(&item.node, Item::Policy(_)) && item.span.start == span.start)
        {
            text.push_str("\n\n");
            text.push_str(&proved.report.join("\n\n"));
        }
        write(found.map(|(text, span)| lsp::Hover {
            contents: lsp::HoverContents::Markup(lsp::MarkupContent {
                kind: lsp::MarkupKind::Markdown,
                value: text,
            }),
            range: Some(self.range(document, span)),
        }))
    }

    fn definition(&self, params: Value) -> Result<Value, Refused> {
        let asked: lsp::GotoDefinitionParams = read(params)?;
        let at = asked.text_document_position_params;
        let (document, byte) = self.at(&at)?;
        let location = match hover::definition(document, byte) {
            Some(Definition::Here(span)) => {
                Some(lsp::Location::new(at.text_document.uri.clone(), self.range(document, span)))
            }
            Some(Definition::Shipped { name, text, span }) => shipped(&name, text)
                .map(|uri| lsp::Location::new(uri, place::range(text, span, self.encoding))),
            None => None,
        };
        write(location)
    }

    fn completion(&self, params: Value) -> Result<Value, Refused> {
        let asked: lsp::CompletionParams = read(params)?;
        let (document, byte) = self.at(&asked.text_document_position)?;
        write(complete::complete(document, byte))
    }

    fn prepare_rename(&self, params: Value) -> Result<Value, Refused> {
        let at: lsp::TextDocumentPositionParams = read(params)?;
        let (document, byte) = self.at(&at)?;
        write(edit::renamed(document, byte).map(|(span, _)| self.range(document, span)))
    }

    fn rename(&self, params: Value) -> Result<Value, Refused> {
        let asked: lsp::RenameParams = read(params)?;
        let (document, byte) = self.at(&asked.text_document_position)?;
        if let Some(why) = edit::bad_name(document, &asked.new_name) {
            return Err(Refused(ErrorCode::RequestFailed, why));
        }
        let Some((_, places)) = edit::renamed(document, byte) else {
            let why = "only parameters and state variables can be renamed".to_owned();
            return Err(Refused(ErrorCode::RequestFailed, why));
        };
        let edits: Vec<_> = (places.into_iter())
            .map(|span| lsp::TextEdit::new(self.range(document, span), asked.new_name.clone()))
            .collect();
        let uri = asked.text_document_position.text_document.uri;
        write(json!({ "changes": { uri.as_str(): edits } }))
    }

    fn formatting(&self, params: Value) -> Result<Value, Refused> {
        let asked: lsp::DocumentFormattingParams = read(params)?;
        let document = &self.open(&asked.text_document.uri)?.document;
        let all = Span::new(document.file, 0, document.text().len() as u32);
        let edits: Vec<_> = (edit::format(document).into_iter())
            .map(|text| lsp::TextEdit::new(self.range(document, all), text))
            .collect();
        write(edits)
    }

    fn code_action(&self, params: Value) -> Result<Value, Refused> {
        let asked: lsp::CodeActionParams = read(params)?;
        let uri = &asked.text_document.uri;
        let open = self.open(uri)?;
        let document = &open.document;
        let found = open.proved.as_ref().map_or(&document.analysis.diagnostics, |p| &p.diagnostics);
        let mut actions = Vec::new();
        for finding in found.iter().filter(|d| d.primary.span.file == document.file) {
            let range = self.range(document, finding.primary.span);
            let apart = range.end < asked.range.start || asked.range.end < range.start;
            let Some(fix) = edit::correction(finding).filter(|_| !apart) else { continue };
            let title = match fix.text.trim() {
                "" => format!("Remove `{}`", document.sources.slice(fix.span)),
                text => format!("Write `{text}`"),
            };
            let edit = lsp::TextEdit::new(self.range(document, fix.span), fix.text);
            actions.push(json!({
                "title": title,
                "kind": "quickfix",
                "diagnostics": [diagnostic(uri.as_str(), document, finding, self.encoding)],
                "isPreferred": true,
                "edit": { "changes": { uri.as_str(): [edit] } },
            }));
        }
        write(actions)
    }

    /// The proved bound, at the end of the line that names the policy, or of the first line that says something.
    fn inlay_hint(&self, params: Value) -> Result<Value, Refused> {
        let asked: lsp::InlayHintParams = read(params)?;
        let open = self.open(&asked.text_document.uri)?;
        let document = &open.document;
        let items = &document.analysis.tree.items;
        let policy = items.iter().find(|item| matches!(item.node, Item::Policy(_)));
        let hint = open.proved.as_ref().and_then(|proved| {
            let start = policy.or(items.first())?.span.start as usize;
            let line = document.text().get(start..)?.split('\n').next()?.trim_end();
            let position = place::position(document.text(), start + line.len(), self.encoding);
            Some(json!({
                "position": position,
                "label": format!("loses on power loss: {}", proved.bound.as_ref()?),
                "tooltip": proved.report.join("\n"),
                "paddingLeft": true,
            }))
        });
        write(Vec::from_iter(hint))
    }
}

/// A text that comes with durac, as a file that the editor can open. It lies in the user's cache, read-only.
fn shipped(name: &str, text: &str) -> Option<Uri> {
    let home = || Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(Into::into).or_else(home)?;
    let folder = cache.join("durac").join("targets").join(env!("CARGO_PKG_VERSION"));
    let path = folder.join(name);
    if std::fs::read_to_string(&path).ok().as_deref() != Some(text) {
        std::fs::create_dir_all(&folder).ok()?;
        let made = folder.join(format!("{name}.{}", std::process::id()));
        std::fs::write(&made, text).ok()?;
        let mut permissions = std::fs::metadata(&made).ok()?.permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&made, permissions).ok()?;
        std::fs::rename(&made, &path).ok()?;
    }
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let path = path.to_str()?.bytes().fold(String::new(), |uri, byte| {
        if unreserved(byte) {
            uri + &char::from(byte).to_string()
        } else {
            uri + &format!("%{byte:02X}")
        }
    });
    Uri::from_str(&format!("file://{path}")).ok()
}

fn diagnostic(
    uri: &str,
    document: &Document,
    found: &Diagnostic,
    encoding: Encoding,
) -> lsp::Diagnostic {
    let range = |span: Span| place::range(document.text(), span, encoding);
    // What is wrong in a target that comes with durac is shown at the top.
    let here = found.primary.span.file == document.file;
    let place = if here { range(found.primary.span) } else { lsp::Range::default() };
    let mut message = found.message.clone();
    if !found.primary.text.is_empty() {
        message.push_str(&format!("\n{}", found.primary.text));
    }
    for note in &found.notes {
        message.push_str(&format!("\nnote: {note}"));
    }
    if let Some(help) = &found.help {
        message.push_str(&format!("\nhelp: {help}"));
    }
    if let Some(timeline) = &found.timeline {
        message.push_str(&format!("\n{timeline}"));
    }
    let related = |label: &durac_grammar::Label| {
        let uri = Uri::from_str(uri).ok().filter(|_| label.span.file == document.file)?;
        Some(lsp::DiagnosticRelatedInformation {
            location: lsp::Location::new(uri, range(label.span)),
            message: label.text.clone(),
        })
    };
    lsp::Diagnostic {
        range: place,
        severity: Some(match found.severity() {
            Severity::Error => lsp::DiagnosticSeverity::ERROR,
            Severity::Warning => lsp::DiagnosticSeverity::WARNING,
        }),
        code: Some(lsp::NumberOrString::String(found.code.to_string())),
        source: Some("durac".to_owned()),
        message,
        related_information: Some(found.secondary.iter().filter_map(related).collect()),
        tags: tags(found.code),
        ..lsp::Diagnostic::default()
    }
}

/// What is never read is drawn faded.
fn tags(code: Code) -> Option<Vec<lsp::DiagnosticTag>> {
    matches!(code, Code::UnusedParam | Code::UnusedState | Code::UnusedAssumption)
        .then(|| vec![lsp::DiagnosticTag::UNNECESSARY])
}
