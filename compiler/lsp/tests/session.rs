//! A conversation with the server, as an editor has it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first thing that is not as it should be"
)]

use durac_lsp::serve;
use lsp_server::{Connection, Message, Notification, Request, RequestId};
use serde_json::{Value, json};
use std::thread::JoinHandle;
use std::time::Duration;

const URI: &str = "file:///policies/small.dur";
/// A server that says nothing for so long has hung.
const WITHIN: Duration = Duration::from_secs(300);

struct Editor {
    connection: Option<Connection>,
    server: Option<JoinHandle<()>>,
    /// Numbers the requests.
    last: i32,
    /// Notifications and requests of the server that nobody has waited for yet.
    heard: Vec<(String, Value)>,
}

impl Editor {
    fn new(encodings: &[&str]) -> (Self, Value) {
        let (server, client) = Connection::memory();
        let thread = std::thread::spawn(move || serve(&server).unwrap());
        let mut editor =
            Self { connection: Some(client), server: Some(thread), last: 0, heard: Vec::new() };
        let capabilities = json!({
            "general": { "positionEncodings": encodings },
            "workspace": { "inlayHint": { "refreshSupport": true } },
        });
        let answer = editor.ask("initialize", json!({ "capabilities": capabilities })).unwrap();
        editor.tell("initialized", json!({}));
        (editor, answer)
    }

    /// With a text, at its first version.
    fn open(text: &str) -> Self {
        let (editor, _) = Editor::new(&["utf-16"]);
        let document = json!({ "uri": URI, "languageId": "durac", "version": 1, "text": text });
        editor.tell("textDocument/didOpen", json!({ "textDocument": document }));
        editor
    }

    fn send(&self, message: Message) {
        self.connection.as_ref().unwrap().sender.send(message).unwrap();
    }

    fn tell(&self, method: &str, params: Value) {
        self.send(Message::Notification(Notification::new(method.to_owned(), params)));
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.last += 1;
        let id = RequestId::from(self.last);
        self.send(Message::Request(Request::new(id.clone(), method.to_owned(), params)));
        loop {
            match self.connection.as_ref().unwrap().receiver.recv_timeout(WITHIN).unwrap() {
                Message::Response(response) if response.id == id => {
                    return response.response_result.map_err(|error| error.message);
                }
                Message::Response(other) => panic!("not asked: {other:?}"),
                Message::Notification(said) => self.heard.push((said.method, said.params)),
                Message::Request(asks) => self.heard.push((asks.method, asks.params)),
            }
        }
    }

    /// At line and character, both from 0.
    fn at(&mut self, what: &str, line: u32, character: u32) -> Value {
        let place = json!({
            "textDocument": { "uri": URI },
            "position": { "line": line, "character": character },
        });
        self.ask(&format!("textDocument/{what}"), place).unwrap()
    }

    fn of_document(&mut self, what: &str, more: Value) -> Value {
        let mut params = json!({ "textDocument": { "uri": URI } });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask(&format!("textDocument/{what}"), params).unwrap()
    }

    fn change(&self, version: i32, text: &str) {
        let document = json!({ "uri": URI, "version": version });
        let changes = json!([{ "text": text }]);
        self.tell(
            "textDocument/didChange",
            json!({ "textDocument": document, "contentChanges": changes }),
        );
    }

    fn hear(&mut self, method: &str) -> Value {
        loop {
            if let Some(at) = self.heard.iter().position(|(said, _)| said == method) {
                return self.heard.remove(at).1;
            }
            match self.connection.as_ref().unwrap().receiver.recv_timeout(WITHIN).unwrap() {
                Message::Notification(said) => self.heard.push((said.method, said.params)),
                Message::Request(asks) => self.heard.push((asks.method, asks.params)),
                Message::Response(other) => panic!("not asked: {other:?}"),
            }
        }
    }

    /// Waits for the proof of the text; the hint that shows it.
    fn hint(&mut self) -> Value {
        loop {
            self.hear("workspace/inlayHint/refresh");
            let hints = self.hints();
            // If there is none, what has ended is the proof of an older text.
            if hints != json!([]) {
                return hints;
            }
        }
    }

    fn hints(&mut self) -> Value {
        let all = json!({
            "start": { "line": 0, "character": 0 }, "end": { "line": 99, "character": 0 },
        });
        self.of_document("inlayHint", json!({ "range": all }))
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.ask("shutdown", Value::Null), Ok(Value::Null));
        self.tell("exit", Value::Null);
        self.connection = None;
        self.server.take().unwrap().join().unwrap();
    }
}

const WINDOW: &str = "policy small\ntarget redis.aof\nparam n: syncs = 4 in 1..=8\n\
    guarantee loss <= n syncs on power_loss\non fdatasync: await pending < n; defer\n";

fn label(hints: &Value) -> &str {
    hints[0]["label"].as_str().unwrap_or_else(|| panic!("{hints}"))
}

#[test]
fn the_encoding_is_the_editors_choice() {
    for (offered, taken) in [(vec!["utf-8", "utf-16"], "utf-8"), (vec!["utf-16"], "utf-16")] {
        let (_editor, answer) = Editor::new(&offered);
        assert_eq!(answer["capabilities"]["positionEncoding"], taken);
    }
}

#[test]
fn the_proved_bound_stands_at_the_policy() {
    let mut editor = Editor::open(WINDOW);
    let hints = editor.hint();
    assert!(label(&hints).starts_with("loses on power loss: at most 8 syncs"), "{hints}");
    assert_eq!(hints[0]["position"], json!({ "line": 0, "character": 12 }));
    let hover = editor.at("hover", 0, 2);
    assert!(
        hover["contents"]["value"].as_str().unwrap().contains("loses on power_loss"),
        "{hover}"
    );

    // The next text has another bound; the first one's is not shown for it.
    editor.change(2, &WINDOW.replace("1..=8", "1..=6"));
    let hints = editor.hint();
    assert!(label(&hints).starts_with("loses on power loss: at most 6 syncs"), "{hints}");
}

#[test]
fn a_broken_guarantee_is_found_by_the_proof() {
    let mut editor = Editor::open(&WINDOW.replace("loss <= n", "loss <= 2"));
    let first = editor.hear("textDocument/publishDiagnostics");
    assert_eq!(first["diagnostics"], json!([]));
    let proved = editor.hear("textDocument/publishDiagnostics");
    let found = &proved["diagnostics"][0];
    assert_eq!(found["code"], "E0501", "{proved}");
    assert_eq!(found["range"]["start"]["line"], 3);
    editor.hear("workspace/inlayHint/refresh");
    assert_eq!(editor.hints(), json!([]), "a policy that is wrong has no bound");
}

#[test]
fn findings_come_and_go_as_one_types() {
    let mut editor = Editor::open("on fdatasync: defr\n");
    let found = editor.hear("textDocument/publishDiagnostics");
    assert_eq!(found["diagnostics"].as_array().unwrap().len(), 1, "{found}");
    let range = found["diagnostics"][0]["range"].clone();
    assert_eq!(range["start"], json!({ "line": 0, "character": 14 }));

    let context = json!({ "diagnostics": found["diagnostics"] });
    let actions = editor.of_document("codeAction", json!({ "range": range, "context": context }));
    let edit = &actions[0]["edit"]["changes"][URI][0];
    assert_eq!((&edit["newText"], &edit["range"]), (&json!("defer"), &range), "{actions}");

    // A change that can only be meant one way has a place of its own.
    editor.change(2, "on fdatasync { await pending <= 15; defer }\n");
    let found = editor.hear("textDocument/publishDiagnostics")["diagnostics"].clone();
    let range = &found[0]["range"];
    let params = json!({ "range": range, "context": { "diagnostics": found } });
    let actions = editor.of_document("codeAction", params);
    assert_eq!(actions[0]["title"], "Write `pending < 16`", "{actions}");
    assert_eq!(actions[0]["edit"]["changes"][URI][0]["newText"], "pending < 16", "{actions}");

    editor.change(3, "on fdatasync: defer\n");
    assert_eq!(editor.hear("textDocument/publishDiagnostics")["diagnostics"], json!([]));
    let close = json!({ "textDocument": { "uri": URI } });
    editor.tell("textDocument/didClose", close);
    assert!(editor.ask("textDocument/hover", json!({})).is_err());
}

#[test]
fn words_are_explained() {
    let mut editor = Editor::open(
        "param n: syncs = 4 in 1..=8\non fdatasync: await pending < n; if pending.bytes > 4KiB { pass }; defer\n",
    );
    let mut says = |line, character, what: &str| {
        let hover = editor.at("hover", line, character);
        let text = hover["contents"]["value"].as_str().unwrap_or("");
        assert!(text.contains(what), "{line}:{character}: {hover}");
    };
    says(0, 6, "4 by default");
    says(1, 30, "param n: syncs = 4 in");
    says(1, 5, "A policy may `pass`, `defer`");
    says(1, 22, "not durable");
    // On either side of the dot.
    says(1, 38, "(bytes)");
    says(1, 45, "(bytes)");
    says(1, 69, "sync in the background");
    assert_eq!(editor.at("hover", 1, 28), Value::Null);
}

#[test]
fn names_lead_to_their_definitions() {
    let cache = std::env::temp_dir().join(format!("durac-lsp-{}", std::process::id()));
    // SAFETY: no other test of this program reads or changes the environment.
    unsafe { std::env::set_var("XDG_CACHE_HOME", &cache) };
    let mut editor = Editor::open(WINDOW);
    let n = editor.at("definition", 4, 31);
    assert_eq!(
        (&n["uri"], &n["range"]["start"]),
        (&json!(URI), &json!({ "line": 2, "character": 6 }))
    );
    let target = editor.at("definition", 1, 9);
    let path = target["uri"].as_str().unwrap().strip_prefix("file://").unwrap().to_owned();
    let text = std::fs::read_to_string(&path).unwrap();
    let line = target["range"]["start"]["line"].as_u64().unwrap() as usize;
    assert!(text.lines().nth(line).unwrap().starts_with("target redis.aof"), "{target}");
    std::fs::remove_dir_all(&cache).unwrap();
}

#[test]
fn what_fits_is_offered() {
    let mut editor = Editor::open("on fdatasync: await previous; \n\n");
    let mut offers = |line, character| -> Vec<String> {
        let all = editor.at("completion", line, character);
        let labels = all.as_array().unwrap().iter().map(|item| item["label"].as_str().unwrap());
        labels.map(str::to_owned).collect()
    };
    let statements = offers(0, 30);
    for word in ["defer", "pass", "unless", "pending.age"] {
        assert!(statements.iter().any(|s| s == word), "{statements:?}");
    }
    assert!(!statements.iter().any(|s| s == "stage"), "it may not be staged: {statements:?}");
    assert_eq!(offers(0, 3), ["write", "fsync", "fdatasync", "reply", "turn"]);
    assert_eq!(offers(0, 20), ["previous", "all", "pending"]);
    assert!(offers(2, 0).contains(&"guarantee".to_owned()));
}

#[test]
fn a_parameter_gets_another_name_everywhere() {
    let text = format!("// ä𝄞 n\n{WINDOW}test \"t\" {{\n    set n = 2\n    fdatasync\n}}\n");
    let mut editor = Editor::open(&text);
    let to = |name: &str| {
        json!({
            "textDocument": { "uri": URI }, "newName": name,
            "position": { "line": 3, "character": 6 },
        })
    };
    let renamed = editor.ask("textDocument/rename", to("most")).unwrap();
    let edits = renamed["changes"][URI].as_array().unwrap().clone();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    // All are on lines of ASCII; the last first, so that the places stay right.
    for edit in edits.iter().rev() {
        let at = |end: &str, what: &str| edit["range"][end][what].as_u64().unwrap() as usize;
        let line = &mut lines[at("start", "line")];
        line.replace_range(at("start", "character")..at("end", "character"), "most");
    }
    editor.change(2, &(lines.join("\n") + "\n"));
    assert_eq!(edits.len(), 4, "{edits:?}");
    assert!(label(&editor.hint()).contains("8 syncs"));
    for bad in ["pending", "most", "if", "a b", ""] {
        assert!(editor.ask("textDocument/rename", to(bad)).is_err(), "{bad}");
    }
}

#[test]
fn the_layout_is_that_of_fmt() {
    let mut editor = Editor::open("on   fdatasync :  defer");
    let edits = editor
        .of_document("formatting", json!({ "options": { "tabSize": 4, "insertSpaces": true } }));
    assert_eq!(edits[0]["newText"], "on fdatasync: defer\n", "{edits}");
    editor.change(2, "on fdatasync: defer\n");
    let options = json!({ "options": { "tabSize": 4, "insertSpaces": true } });
    assert_eq!(editor.of_document("formatting", options), json!([]));
}

#[test]
fn nonsense_is_answered() {
    let mut editor = Editor::open(WINDOW);
    assert!(editor.ask("textDocument/unknown", Value::Null).is_err());
    assert!(editor.ask("textDocument/hover", json!({ "textDocument": 1 })).is_err());
    editor.tell("textDocument/didChange", json!([]));
    editor.change(2, "\u{0}{{{ on on \"");
    assert_eq!(editor.at("hover", 900, 900), Value::Null);
    assert!(editor.at("completion", 0, 3).is_array());
}

/// A comment of any length in any script neither ends the server nor its proof.
#[test]
fn a_long_comment_leaves_the_server_alive() {
    let mut editor = Editor::open(&format!("// {}\n{WINDOW}", "é".repeat(30_000)));
    assert!(label(&editor.hint()).starts_with("loses on power loss: at most 8 syncs"));
}
