//! Pages in a real browser: headless Chromium prints a document as it is after its scripts.
//!
//! Only tests use it. A test adds a script of its own before the end of the page, which does what a reader would and
//! tells what it saw.

use crate::child::{self, Ended, which};
use crate::error::{Error, Result, Trying};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A browser that takes longer has hung.
const WITHIN: Duration = Duration::from_secs(300);

/// Comes before every other script: notes what goes wrong.
const WATCH: &str = include_str!("browser/watch.js");
/// What the scripts of tests use.
const TOOLS: &str = include_str!("browser/tools.js");

/// What a script has seen.
#[derive(Debug)]
pub struct Asked {
    /// What it returned.
    pub seen: Value,
    /// What went wrong in the page, its own scripts included.
    pub wrong: Vec<String>,
    /// What the console says.
    pub console: Vec<String>,
}

/// Opens `html` in a window of this size (`1280,900`). Returns the document after its scripts, and what the console
/// says.
///
/// # Errors
/// If Chromium is not installed, fails or does not end.
pub fn open(html: &str, size: &str) -> Result<(String, Vec<String>)> {
    let folder = tempfile::tempdir().trying(|| "make a folder".into())?;
    let file = folder.path().join("report.html");
    std::fs::write(&file, html).trying(|| "write the page".into())?;
    let mut command = chromium(folder.path(), size)?;
    command.arg("--dump-dom").arg(format!("file://{}", file.display()));
    let Ended { status, stdout, stderr } = child::run(command, WITHIN)?;
    if !status.success() {
        return Err(Error::Config(format!("chromium: {status}: {stderr}")));
    }
    let console = stderr.lines().filter(|line| line.contains(":CONSOLE"));
    Ok((stdout, console.map(str::to_owned).collect()))
}

/// Opens `html`, which allows scripts, and runs `script` in it, the body of a function, after the page's own.
///
/// # Errors
/// As [`open`], and if the script does not end.
pub fn ask(html: &str, script: &str, size: &str) -> Result<Asked> {
    let html = html.replacen("<style>", &format!("<script>{WATCH}</script><style>"), 1);
    let probe = format!(
        r#"<script type="module">{TOOLS}
let seen = null;
try {{
  seen = await (async () => {{
{script}
  }})();
}} catch (error) {{ wrong.push(String(error)); }}
const told = document.createElement("pre");
told.id = "told";
told.textContent = JSON.stringify({{ wrong, seen }});
document.body.append(told);
</script></body>"#
    );
    let html = html.replacen("</body>", &probe, 1);
    let (document, console) = open(&html, size)?;
    let told = document.split_once("<pre id=\"told\">").and_then(|(_, t)| t.split_once("</pre>"));
    let Some((told, _)) = told else {
        return Err(Error::Config(format!("the script did not end: {console:#?}")));
    };
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let told: Value = serde_json::from_str(&told)
        .map_err(|why| Error::Config(format!("not what a script says: {why}: {told}")))?;
    let part = |name: &str| told.get(name).cloned().unwrap_or_default();
    let wrong = serde_json::from_value(part("wrong")).unwrap_or_default();
    Ok(Asked { seen: part("seen"), wrong, console })
}

/// Headless Chromium that runs the scripts of a page; `folder` is for its profile.
fn chromium(folder: &Path, size: &str) -> Result<Command> {
    /// Virtual milliseconds in which scripts run. They cost time only while something happens.
    const BUDGET: &str = "--virtual-time-budget=20000";
    let mut command = child::command(&[], &which("chromium")?);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-quic", "--disable-sync", "--disable-extensions"])
        .args(["--disable-background-networking", "--disable-component-update"])
        .args(["--enable-logging=stderr", BUDGET])
        .arg(format!("--window-size={size}"))
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        // Settings of the user have no place here.
        .env("HOME", folder);
    Ok(command)
}

/// What a page looks like in a window of some width.
#[derive(Debug, serde::Deserialize)]
pub struct Layout {
    /// What is cut off, or written over something else: empty if all is well.
    pub found: Vec<String>,
    /// Tables that are shown.
    pub tables: usize,
    /// Drawings that are shown.
    pub drawings: usize,
}

/// Looks at the layout of a page, in each unit that it can show. The window is a frame: one of the browser's own is not
/// narrower than 500 pixels.
///
/// # Errors
/// As [`ask`].
pub fn layout(html: &str, width: u32) -> Result<Layout> {
    let (script, around) = (include_str!("browser/layout.js"), framed(html));
    let asked = ask(&around, &format!("const WIDTH = {width};\n{script}"), "1600,1000")?;
    let Asked { seen, wrong, console } = asked;
    serde_json::from_value(seen)
        .map_err(|why| Error::Config(format!("no layout: {why}: {wrong:?} {console:?}")))
}

/// A page that holds another as data, for a script that shows it in a frame.
#[must_use]
pub fn framed(html: &str) -> String {
    // A string always has a JSON form.
    let page = serde_json::to_string(html).unwrap_or_default().replace('<', "\\u003c");
    format!(
        "<!DOCTYPE html><html><head><style></style></head><body>\
         <script type=\"application/json\" id=\"page\">{page}</script></body></html>"
    )
}
