//! Tests of the page: everything is there, whatever a gateway sent is inert, and it stays small.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::history::{Admission, Exchange, ModelLog, ModelRecord, Outcome, PickerLog, PickerRecord, Request, Response};
use crate::render::tests_support::{everything, hostile};
use crate::report::tests::World;

fn page(report: &Report) -> String {
    page_of(report, &|key| World::history_of(key), &[])
}

fn page_of(report: &Report, histories: &dyn Fn(&Key) -> Option<History>, earlier: &[Report]) -> String {
    let logs = |folder: &str| vec![Log { path: format!("{folder}/logs/a.log"), end: "the last line".into() }];
    let page = html(report, &Sources { histories, logs: &logs, earlier }).unwrap();
    page.replace("&#x2f;", "/").replace("&#x27;", "'")
}

fn attributes<'a>(page: &'a str, before: &str) -> Vec<&'a str> {
    page.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn everything_is_there() {
    let report = everything().report();
    let page = page(&report);
    for check in &report.checks {
        assert!(page.contains(&check.title()), "{} is missing", check.title());
        assert!(page.contains(&check.sentence), "the sentence of {} is missing", check.title());
    }
    let wanted = ["cert-manager (self-made certificates)", "status 404", "status 200", "the last line", "curl "];
    for words in wanted {
        assert!(page.contains(words), "{words:?} is missing");
    }
    for reason in &report.breaks {
        assert!(page.contains(reason), "{reason:?} is missing");
    }
}

#[test]
fn every_link_leads_somewhere_and_every_place_is_one() {
    let page = page(&everything().report());
    let ids = attributes(&page, " id=\"");
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "an id stands twice");
    let links: Vec<&str> = attributes(&page, "href=\"#");
    assert!(links.len() > 10);
    for link in links {
        assert!(unique.contains(link), "#{link} leads nowhere");
    }
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let page = page(&everything().report());
    for source in [" src=", "url(", "@import", "http-equiv=\"refresh\"", "<link"] {
        assert!(!page.contains(source), "{source}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[rstest]
#[case::scripts("<script>alert(1)</script><img src=x onerror=alert(1)>")]
#[case::attributes("\" onmouseover=\"alert(1)")]
#[case::ends("</pre></details></svg></style></script>")]
#[case::templates("<{{ run.id }}{% raw %}")]
fn hostile_words_are_inert(#[case] words: &str) {
    let mut report = everything().report();
    report.run.statement = words.into();
    for check in &mut report.checks {
        check.sentence = words.into();
        check.reason = words.into();
        check.golden = Some(crate::report::GoldenReport { state: GoldenState::Changed, note: Some(words.into()) });
    }
    let history = |key: &Key| {
        let mut history = World::history_of(key).unwrap();
        history.exchanges[0].label = words.into();
        history.exchanges[0].request.target = words.into();
        history
            .objects
            .insert(words.into(), serde_json::json!({"kind": words, "status": {"conditions": [{"type": words}]}}));
        history.admissions.insert(words.into(), Admission::Accepted { warnings: vec![words.into()] });
        history.notes.push(words.into());
        Some(history)
    };
    let (dirty, clean) = (page_of(&report, &history, &[]), page(&everything().report()));
    assert!(!dirty.contains(words), "shown as it came");
    for markup in ["<script", "<img", " onmouseover=\"", "</script>", "</style>"] {
        assert_eq!(dirty.matches(markup).count(), clean.matches(markup).count(), "{markup}");
    }
}

#[test]
fn what_a_hostile_gateway_sends_is_bounded() {
    let page = page(&hostile().report());
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "a control character");
    assert!(!page.contains("<x>"));
}

#[test]
fn ten_thousand_records_stay_below_five_megabytes() {
    let mut report = everything().report();
    let (pass, fail) = (report.checks[0].clone(), report.checks.iter().find(|c| c.breaks).unwrap().clone());
    report.checks = (0..10_000)
        .map(|at| {
            let mut check = if at % 3 == 0 { fail.clone() } else { pass.clone() };
            check.id = format!("{}/check-{at}", ["routing", "tokens"][at % 2]);
            check
        })
        .collect();
    for check in &mut report.checks {
        check.sentence = "a long sentence with 'quotes' and more of what has to be escaped & counted ".repeat(3);
    }
    let page = page(&report);
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    assert!(page.contains("are not drawn here"), "what is left out is said");
    assert_eq!(page.matches("<details class=\"check fail\" open>").count(), OPEN, "only the first are open");
    assert!(page.contains("tokens/check-9999"), "the last one is in the matrix");
}

/// A history in which a model and a picker saw what the client sent.
fn seen(status: u16) -> History {
    let mut history = World::history_of(&crate::report::tests::key("routing/host", 1)).unwrap();
    history.exchanges[0] = Exchange {
        id: "x-1".into(),
        label: "right-host".into(),
        sent_ms: 12.0,
        request: Request { method: "POST".into(), target: "/v1/chat/completions".into(), ..Request::default() },
        outcome: Outcome::Response(Response { status, end_ms: 2.5, ..Response::default() }),
        connection: None,
    };
    let record = ModelRecord {
        exchange: Some("x-1".into()),
        pod: "alpha-0".into(),
        method: "POST".into(),
        target: "/v1/chat/completions".into(),
        status: 200,
        ..ModelRecord::default()
    };
    history.models.insert("alpha".into(), ModelLog { records: vec![record], ..ModelLog::default() });
    let picked =
        PickerRecord { exchange: Some("x-1".into()), chosen: vec!["10.244.0.7:8000".into()], ..Default::default() };
    history.pickers.insert("epp".into(), PickerLog { records: vec![picked], ..PickerLog::default() });
    history
}

#[rstest]
#[case::answered(200, "answer")]
#[case::refused(429, "refusal")]
fn a_drawing_shows_who_was_asked(#[case] status: u16, #[case] class: &str) {
    let drawing = sequence::draw(&seen(status), &BTreeSet::new(), true).unwrap();
    let drawing = serde_json::to_value(drawing).unwrap();
    let words: Vec<&str> = drawing["arrows"].as_array().unwrap().iter().map(|a| a["label"].as_str().unwrap()).collect();
    let end = format!("{status} after 2.5 ms");
    let expected = [
        "POST /v1/chat/completions",
        "which endpoint?",
        "10.244.0.7:8000",
        "POST /v1/chat/completions",
        "200 (alpha-0)",
        end.as_str(),
    ];
    assert_eq!(words, expected);
    assert_eq!(drawing["arrows"][5]["class"], class);
    assert_eq!(drawing["lanes"].as_array().unwrap().len(), 4);
}

#[test]
fn a_drawing_keeps_what_the_judge_named() {
    let mut history = seen(200);
    let exchange = history.exchanges[0].clone();
    history.exchanges = (0..100).map(|at| Exchange { id: format!("x-{at}"), ..exchange.clone() }).collect();
    history.exchanges[99].label = "the-one".into();
    let drawing = sequence::draw(&history, &BTreeSet::from(["x-99"]), false).unwrap();
    let drawing = serde_json::to_value(drawing).unwrap();
    let labels: Vec<&str> =
        drawing["groups"].as_array().unwrap().iter().map(|g| g["label"].as_str().unwrap()).collect();
    assert_eq!(labels.last(), Some(&"the-one"));
    assert_eq!(drawing["more"], "97 more exchanges are in the history");
}

#[test]
fn earlier_runs_are_told_apart_by_place() {
    let now = everything().report();
    let mut elsewhere = now.clone();
    elsewhere.run.place = crate::plan::PlaceName::Rehearsal;
    let mut before = now.clone();
    before.checks.iter_mut().for_each(|c| c.verdict = Verdict::Flaky);
    let of = |earlier: &[Report]| trend(&now, earlier).remove(&("gw".to_owned(), "routing/host".to_owned()));
    assert_eq!(of(&[before, elsewhere, now.clone()]), Some("~+".to_owned()));
}

#[test]
fn times_are_read_to_the_second() {
    assert_eq!(moment("2026-11-21T20:06:52.439997072Z"), "2026-11-21 20:06:52 UTC");
    assert_eq!(moment("2026-11-21T20:06:52Z"), "2026-11-21 20:06:52 UTC");
}

#[rstest]
#[case::broke_now("x+", Some("it passed in the run before"))]
#[case::broken_for_long("+x", Some("it did not pass in the run before either"))]
#[case::not_supported_before("-", None)]
#[case::never_seen("", None)]
fn what_broke_now_is_told_from_what_was_broken(#[case] signs: &str, #[case] said: Option<&str>) {
    assert_eq!(before(signs), said);
}

#[test]
fn what_breaks_the_run_can_be_repeated_from_the_first_screen() {
    let report = everything().report();
    let page = page(&report);
    let first = page.split("id=\"matrix\"").next().unwrap();
    for check in report.checks.iter().filter(|c| c.breaks) {
        assert!(first.contains(&check.repeat), "{} is missing", check.repeat);
    }
}

proptest! {
    #[test]
    fn any_words_make_a_page(words in any::<String>(), status in 0u16..999) {
        let mut report = World::new().report();
        report.checks[0].reason.clone_from(&words);
        report.checks[0].sentence = words;
        let history = seen(status);
        let page = page_of(&report, &|_| Some(history.clone()), &[]);
        prop_assert_eq!(page.matches("<script").count(), 1);
        prop_assert!(page.ends_with("</html>\n") || page.ends_with("</html>"));
    }
}
