//! `durac lsp` as an editor starts it. What it answers is tested in compiler/lsp.

use anyhow::{Context, Result, ensure};
use durac_tests::{copy_program, durac, run, show, tool};
use durac_workload::child;
use lsp_server::{Message, Notification, Request};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::process::Stdio;

#[test]
fn a_session() -> Result<()> {
    let mut command = durac(["lsp"])?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = command.spawn()?;
    let mut input = server.stdin.take().context("no input")?;
    let mut output = BufReader::new(server.stdout.take().context("no output")?);
    let mut say = |message: Message| message.write(&mut input).context("cannot write");
    let ask = |id: i32, method: &str, params: Value| {
        Message::Request(Request::new(id.into(), method.to_owned(), params))
    };
    let tell = |method: &str, params: Value| {
        Message::Notification(Notification::new(method.to_owned(), params))
    };
    say(ask(1, "initialize", json!({ "capabilities": {} })))?;
    say(tell("initialized", json!({})))?;
    let document = json!({
        "uri": "file:///a.dur", "languageId": "durac", "version": 1, "text": "on fdatasync: defr",
    });
    say(tell("textDocument/didOpen", json!({ "textDocument": document })))?;
    say(ask(2, "shutdown", Value::Null))?;
    say(tell("exit", Value::Null))?;

    let mut methods = Vec::new();
    while let Some(message) = Message::read(&mut output)? {
        match message {
            Message::Response(response) => methods.push(format!("response {}", response.id)),
            Message::Notification(said) => {
                ensure!(said.params["diagnostics"][0]["code"] == "E0105", "{said:?}");
                methods.push(said.method);
            }
            Message::Request(asks) => methods.push(asks.method),
        }
    }
    let expected = ["response 1", "textDocument/publishDiagnostics", "response 2"];
    ensure!(methods == expected, "{methods:?}");
    ensure!(server.wait()?.success());
    Ok(())
}

/// What is no conversation ends it, with a line that says so.
#[test]
fn no_editor() -> Result<()> {
    let mut command = durac(["lsp"])?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = command.spawn()?;
    server.stdin.take().context("no input")?.write_all(b"on fsync: skip\n")?;
    let ended = server.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.code() == Some(2), "{}: {said}", ended.status);
    ensure!(said.starts_with("durac: the editor broke off"), "{said}");
    Ok(())
}

/// The server is a program of its own: without it, what to do is said.
#[test]
fn no_server() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let alone = dir.path().join("durac");
    copy_program(tool()?, &alone)?;
    let mut command = child::command(&[], &alone);
    command.arg("lsp");
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(2), "{}", show(&ended));
    let line = "durac: cannot find the language server, `durac-lsp`, beside durac or in `../lib/durac`: \
                `cargo build --release -p durac-lsp` builds it\n";
    ensure!(ended.stderr == line, "{}", show(&ended));
    Ok(())
}
