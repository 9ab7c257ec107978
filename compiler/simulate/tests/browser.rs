//! The page in a real browser: it draws without errors, zooms, redraws, and reads without scripts.
//!
//! Chromium prints the document as it is after its scripts. A test adds a script of its own before the end of
//! the page, which does what a reader would and writes what it saw into an element.

#![allow(clippy::indexing_slicing, reason = "a test may fail")]

mod sample;

use durac_simulate::html::page;
use durac_workload::child::{self, Ended};
use serde_json::Value;
use std::sync::OnceLock;
use std::time::Duration;

/// A browser that takes longer has hung.
const WITHIN: Duration = Duration::from_secs(300);

/// Comes before every other script: notes what goes wrong.
const WATCH: &str = include_str!("browser/watch.js");

/// What the tests' scripts use.
const TOOLS: &str = include_str!("browser/tools.js");

fn sample_page() -> &'static str {
    static PAGE: OnceLock<String> = OnceLock::new();
    PAGE.get_or_init(|| page(&sample::report()))
}

/// Opens `html`; answers the document after its scripts, and what the console says.
fn open(html: &str, size: &str) -> (String, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("report.html");
    std::fs::write(&file, html).expect("a file");
    let command = child::chromium(&file, size, folder.path())
        .expect("these tests need Chromium, which `bash tests/run.sh` installs");
    let Ended { status, stdout, stderr } = child::run(command, WITHIN).expect("an end in time");
    assert!(status.success(), "{status}: {stderr}");
    let console = stderr.lines().filter(|line| line.contains(":CONSOLE"));
    (stdout, console.map(str::to_owned).collect())
}

/// Opens `html`, whose console has to be empty, and answers what `script` returns. It runs after the
/// scripts of the page.
fn ask(html: &str, script: &str, size: &str) -> Value {
    let (seen, console) = ask_aloud(html, script, size);
    assert_eq!(console, Vec::<String>::new());
    seen
}

/// As [`ask`], with what the console says.
fn ask_aloud(html: &str, script: &str, size: &str) -> (Value, Vec<String>) {
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
    let (document, console) = open(&html, size);
    let told = document.split_once("<pre id=\"told\">").and_then(|(_, t)| t.split_once("</pre>"));
    assert!(told.is_some(), "the script did not end: {console:#?}");
    let told = told.unwrap_or_default().0;
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["wrong"], serde_json::json!([]), "{console:#?}");
    (told["seen"].clone(), console)
}

#[test]
fn everything_is_drawn() {
    let script = include_str!("browser/draw.js");
    for size in ["1000,900", "1600,1200", "500,900"] {
        let seen = ask(sample_page(), script, size);
        for unit in seen["units"].as_array().unwrap() {
            assert_eq!(unit["points"], 9, "{size}");
            assert_eq!(unit["unbounded"], true, "{size}");
            let labels = unit["labels"].as_array().unwrap();
            assert_eq!(labels.len(), 9);
            for (at, label) in labels.iter().enumerate() {
                for other in &labels[at + 1..] {
                    assert!(!overlap(label, other), "{size}: {label} and {other}");
                }
            }
        }
        assert!(seen["units"][0]["bounds"].as_u64() >= Some(3), "{size}: {seen}");
        let histograms = seen["histograms"].as_array().unwrap();
        assert_eq!(histograms.len(), 9);
        assert!(histograms.iter().all(|bars| bars.as_u64() > Some(0)), "{size}: {seen}");
        assert_eq!(seen["marks"], 27, "{size}");
        let lanes = seen["lanes"].as_array().unwrap();
        assert!(lanes.iter().all(|bars| bars.as_u64() > Some(0)), "{size}: {seen}");
        assert_eq!(seen["crash"], 1, "{size}");
        assert_eq!(seen["options"], 8, "{size}");
        assert_eq!(seen["broken"], 0, "{size}");
        assert_eq!(seen["wide"], 0, "{size}: the page scrolls sideways");
    }
}

/// Whether two boxes have more than a pixel in common. Empty room above and below a text counts as its box.
fn overlap(a: &Value, b: &Value) -> bool {
    let number = |of: &Value, name: &str| of[name].as_f64().expect("a number");
    let common = |at: &str, long: &str| {
        let end = |of| number(of, at) + number(of, long);
        end(a).min(end(b)) - number(a, at).max(number(b, at))
    };
    common("x", "width") > 1.0 && common("y", "height") > 3.0
}

#[test]
fn the_timeline_zooms_and_moves() {
    let script = include_str!("browser/zoom.js");
    let seen = ask(sample_page(), script, "1200,900");
    let steps: Vec<f64> =
        seen["steps"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    let [whole, closer, closest, back, all, wheel, again] = steps[..] else {
        panic!("{seen}");
    };
    assert!(closer < whole && closest < closer && back > closest && wheel < all, "{seen}");
    assert_eq!((all, again), (whole, whole), "{seen}");
    // At the whole, the wheel scrolls the page.
    assert_eq!((&seen["scrolls"], &seen["zooms"]), (&Value::Bool(true), &Value::Bool(true)));
    let from = |name: &str| seen[name][0].as_f64().unwrap();
    assert!(from("left") < from("before") && from("right") > from("left"), "{seen}");
    assert!(from("dragged") < from("right"), "{seen}");
    assert_eq!(seen["dragged"], seen["after"], "the drag has ended");
    assert_eq!(seen["narrowest"], 100.0, "{seen}");
    assert!(seen["fewer"].as_u64() < seen["bars"].as_u64(), "{seen}");
}

#[test]
fn another_policy_redraws() {
    let script = include_str!("browser/choose.js");
    let seen = ask(sample_page(), script, "1200,900");
    let states = seen["states"].as_array().unwrap();
    let labels = ["delayed_fsync, ", "window n=4, ", "everysec, ", "window n=16, "];
    for ((state, label), table) in states.iter().zip(labels).zip(["1", "3", "7", "4"]) {
        assert!(state["label"].as_str().unwrap().starts_with(label), "{state}");
        assert_eq!(state["tables"], serde_json::json!([table]));
    }
    let lost: Vec<_> = states.iter().map(|s| s["lost"].as_u64()).collect();
    assert_eq!([lost[0], lost[1], lost[3]], [Some(1), Some(4), Some(16)], "{seen}");
    assert!(states[2]["text"].as_str().unwrap().contains("from before what is shown"), "{seen}");
    assert!(seen["tip"].as_str().unwrap().starts_with("window n=4\n"), "{seen}");
}

#[test]
fn the_table_sorts() {
    let script = include_str!("browser/sort.js");
    let seen = ask(sample_page(), script, "1200,900");
    let numbers = |name: &str| -> Vec<f64> {
        let values = seen[name].as_array().unwrap().iter();
        values.map(|v| v.as_str().unwrap().parse().unwrap()).collect()
    };
    let (up, down) = (numbers("up"), numbers("down"));
    assert_eq!(seen["sorted"], "ascending");
    assert!(up.len() == 9 && up.is_sorted() && down.iter().rev().is_sorted(), "{seen}");
    assert!(up.first() < up.last(), "{seen}");
}

#[test]
fn without_scripts_there_are_tables() {
    let page = serde_json::to_string(sample_page()).unwrap().replace('<', "\\u003c");
    let around = format!(
        "<!DOCTYPE html><html><head><style></style></head><body>\
         <script type=\"application/json\" id=\"page\">{page}</script></body></html>"
    );
    let (seen, console) = ask_aloud(&around, include_str!("browser/off.js"), "1300,1000");
    assert!(console.iter().all(|line| line.contains("Blocked script execution")), "{console:#?}");
    let wanted =
        serde_json::json!({"rows": 9, "events": 8, "notes": 2, "drawings": 0, "buttons": 0});
    assert_eq!(seen, wanted);
}

#[test]
fn a_policy_cannot_run_a_script() {
    let mut report = sample::report();
    report.policies[1].name = "</script><img src=x onerror=\"document.title='out'\">".to_owned();
    report.policies[1].timeline[0].text = "<svg onload=\"document.title='out'\">".to_owned();
    let (document, console) = open(&page(&report), "1200,900");
    assert_eq!(console, Vec::<String>::new());
    assert!(document.contains("<title>durac simulate: redis-set.json</title>"));
    assert!(!document.contains("<img"));
    assert!(document.contains("&lt;/script&gt;&lt;img"));
}
