//! The page of a report, as text: what it embeds cannot break out, and it needs nothing else.

mod sample;

use durac_abi::object::Loss;
use durac_simulate::html::page;
use durac_simulate::report::{
    Lane, Latency, LeftOut, PolicyReport, Report, TimelineEvent, TraceFacts, VERSION,
};

/// What an attacker would call a policy.
const EVIL: &str = r#"</script><img src=x onerror="alert('{{data}}')">&<!--"#;

/// A report in which every text is evil.
fn evil() -> Report {
    let evil = || EVIL.to_owned();
    let policy = PolicyReport {
        name: evil(),
        params: vec![(evil(), evil())],
        proved: Some(Loss {
            failure: durac_abi::object::Failure::PowerLoss,
            syncs: None,
            within: None,
            updates: None,
            bytes: None,
            text: evil(),
        }),
        latency: Latency { histogram: vec![(1, 1)], ..Latency::default() },
        timeline: vec![TimelineEvent {
            start_ns: 0,
            end_ns: 1,
            lane: Lane::Engine,
            text: evil(),
            call: 1,
        }],
        notes: vec![evil()],
        ..PolicyReport::default()
    };
    Report {
        trace: TraceFacts {
            file: evil(),
            policy: evil(),
            target: evil(),
            command: vec![evil()],
            ..TraceFacts::default()
        },
        policies: vec![policy],
        left_out: vec![LeftOut { name: evil(), why: evil() }],
        notes: vec![evil()],
        ..empty()
    }
}

/// A report of nothing.
fn empty() -> Report {
    Report {
        version: VERSION,
        trace: TraceFacts::default(),
        application: Default::default(),
        device: Default::default(),
        seed: 0,
        crashes: durac_simulate::report::CrashChoice::Random(0),
        policies: Vec::new(),
        left_out: Vec::new(),
        notes: Vec::new(),
    }
}

/// The embedded JSON.
fn data(page: &str) -> &str {
    let (_, after) = page.split_once(r#"id="data">"#).expect("the data");
    after.split_once("</script>").expect("its end").0
}

#[test]
fn no_text_breaks_out() {
    let page = page(&evil());
    assert!(!page.contains("<img"), "{page}");
    assert!(!page.contains("<!--"), "{page}");
    assert_eq!(page.matches("</script>").count(), 2);
    assert_eq!(page.matches("<script").count(), 2);
    let data: serde_json::Value = serde_json::from_str(data(&page)).unwrap();
    assert_eq!(data["report"]["policies"][0]["name"], EVIL);
    assert_eq!(data["report"]["trace"]["file"], EVIL);
}

#[test]
fn the_embedded_json_is_the_report_and_what_follows_from_it() {
    let report = sample::report();
    let page = page(&report);
    let data: serde_json::Value = serde_json::from_str(data(&page)).unwrap();
    let whole = serde_json::to_string(&report).unwrap();
    assert_eq!(data["report"], serde_json::from_str::<serde_json::Value>(&whole).unwrap());
    let derived = |at: usize| &data["derived"][at];
    assert_eq!(derived(3)["label"], "window n=4");
    let proved = serde_json::json!({
        "syncs": { "at": 4 }, "bytes": "unbounded", "commands": "unbounded",
        "age_ns": { "at": 50_000_000 },
    });
    assert_eq!(derived(3)["proved_bounds"], proved);
    assert_eq!(derived(3)["lost"].as_array().unwrap().len(), 4);
    assert_eq!(derived(0)["lost"].as_array().unwrap().len(), 0);
    assert_eq!(derived(8)["proved_bounds"]["syncs"], "unbounded");
}

#[test]
fn the_page_needs_nothing_else() {
    let page = page(&sample::report());
    for outside in [" src=", " href=", "@import", "url(http", "fetch(", "import "] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The one address is the name of SVG, which nobody looks up.
    let addresses: Vec<_> =
        page.match_indices("://").map(|(at, _)| &page[at - 4..at + 20]).collect();
    assert_eq!(addresses, ["http://www.w3.org/2000/svg"[..24].to_owned()]);
}

#[test]
fn the_tables_need_no_script() {
    let page = page(&sample::report());
    let body = page.split_once("<script").unwrap().0;
    let numbers = body.split_once("<table id=\"numbers\"").unwrap().1;
    let numbers = numbers.split_once("</table>").unwrap().0;
    assert_eq!(numbers.matches("<th scope=\"row\"").count(), 9);
    // `always` loses nothing, and has no timeline.
    assert_eq!(body.matches("<details class=\"events\"").count(), 8);
    // A crash under window n=4 takes four calls, which its table names.
    let events = body.split_once("The events as a table: window n=4<").unwrap().1;
    let events = events.split_once("</details>").unwrap().0;
    assert_eq!(events.matches(">lost<").count(), 4);
}

#[test]
fn an_empty_report_has_a_page() {
    assert!(page(&empty()).ends_with("</html>\n"));
}
