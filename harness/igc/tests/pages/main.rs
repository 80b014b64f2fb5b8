//! The files that a run leaves for readers: small and quick for ten thousand records, inert whatever a gateway sent, and shown
//! by a browser (skipped with a reason where there is none).

mod browser;
#[path = "../fake/mod.rs"]
mod fake;

use std::path::{Path, PathBuf};
use std::{fs, process::Command, time::Instant};

use browser::{Browser, Keyboard};
use serde_json::{Value, json};
use tempfile::TempDir;
use verdict::history::{Body, Exchange, History, Key, Outcome, Request, Response};
use verdict::judge::{Clause, Holds};
use verdict::record::{GoldenState, Record, Verdict};
use verdict::{folder::RunFolder, requirements::Requirements};

/// A checkout with as many requirements as it is told, and a planned run of all of them.
struct Planned {
    checkout: TempDir,
    run: RunFolder,
    checks: usize,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn igc(checkout: &Path, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_igc"));
    command.current_dir(checkout).env_remove("CI").env("IGC_SUITES", checkout.join("suites-fake"));
    let output = command.args(words).output().unwrap();
    assert!(output.stderr.is_empty() || words[0] == "e2e", "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn check(number: usize) -> String {
    format!("{}/check-{number}", ["routing", "tokens", "streaming", "pool"][number % 4])
}

impl Planned {
    fn of(checks: usize) -> Self {
        // In memory where that can be had: removing thousands of files takes a disk longer than all the rest.
        let memory = Path::new("/dev/shm");
        let checkout = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        std::os::unix::fs::symlink(
            fs::canonicalize(root()).unwrap().join("manifests"),
            checkout.path().join("manifests"),
        )
        .unwrap();
        let mut requirements = "checks:\n".to_owned();
        for number in 0..checks {
            let check = check(number);
            requirements += &format!(
                "- {{check: {check}, level: MUST, sentence: a request of kind {number} reaches the model that its route names, source: Gateway API v1}}\n"
            );
        }
        fake::suites(checkout.path(), Some(Requirements::parse(&requirements).unwrap()));
        let (code, out) = igc(checkout.path(), &["e2e", "--on", "rehearsal", "--quiet"]);
        assert_eq!(code, 3, "no check has left a record yet: {out}");
        let run = RunFolder::open(&checkout.path().join("target/igc/latest")).unwrap();
        Self { checkout, run, checks }
    }

    fn recorded(self, made: impl Fn(usize, Key) -> (Record, History)) -> Self {
        for gateway in ["agentgateway", "envoy-ai-gateway"] {
            for number in 0..self.checks {
                let key = Key { gateway: gateway.into(), check: check(number), case: "-".into(), attempt: 1 };
                let (record, history) = made(number, key);
                self.put("records", &record.key, &record);
                self.put("history", &record.key, &history);
            }
        }
        self
    }

    /// Written as the suites write it, but without waiting for the disk.
    fn put(&self, kind: &str, key: &Key, value: &impl serde::Serialize) {
        let file = self.run.path().join(kind).join(format!("{}.json", key.path()));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, serde_json::to_vec(value).unwrap()).unwrap();
    }

    fn report(&self, words: &[&str]) -> (i32, String) {
        let run = self.run.path().display().to_string();
        igc(self.checkout.path(), &[&["report", "--write", &run], words].concat())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.run.path().join(name)).unwrap()
    }
}

fn record(key: Key, verdict: Verdict, clauses: Vec<Clause>) -> Record {
    let reason = |c: &Clause| format!("{}: expected {}, got {}", c.name, c.expected, c.got);
    let reason = clauses.first().map_or("because".into(), reason);
    Record { verdict, reason, clauses, golden: GoldenState::Same, golden_note: None, ..Record::new(key) }
}

fn clause(holds: Holds, got: &str) -> Clause {
    Clause {
        name: "right-model".into(),
        holds,
        expected: "status 200 from alpha".into(),
        got: got.into(),
        exchanges: vec!["x-1".into()],
        subject: None,
    }
}

fn history(key: &Key, body: &[u8], header: &str) -> History {
    let mut history = History::new(key.clone(), "igc-a1", "a1.igc.test");
    history.address = Some("127.0.0.1:30080".into());
    history.exchanges.push(Exchange {
        id: "x-1".into(),
        label: "asked".into(),
        sent_ms: 1.5,
        request: Request {
            method: "POST".into(),
            target: "/v1/chat/completions".into(),
            host: "a1.igc.test".into(),
            headers: vec![("content-type".into(), "application/json".into()), ("x-user-id".into(), header.into())],
            body: Body::of(body),
        },
        outcome: Outcome::Response(Response {
            status: 500,
            headers: vec![("x-hostile".into(), header.into())],
            body: Body::of(body),
            ..Response::default()
        }),
        connection: None,
    });
    history.objects.insert(
        "route".into(),
        json!({"kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "igc-a1"},
            "status": {"parents": [{"conditions": [{"type": "Accepted", "status": "True", "reason": header, "message": "m"}]}]}}),
    );
    history
}

#[test]
fn ten_thousand_records_make_small_pages() {
    let planned = Planned::of(5_000).recorded(|number, key| {
        let (verdict, holds, got) = match number % 10 {
            0 => (Verdict::Fail, Holds::No, "status 500"),
            _ => (Verdict::Pass, Holds::Yes, "status 200 from alpha"),
        };
        let history = history(&key, b"{\"model\":\"alpha\"}", "me");
        (record(key, verdict, vec![clause(holds, got)]), history)
    });
    let begun = Instant::now();
    let (code, out) = planned.report(&["--quiet"]);
    eprintln!("10,000 records: report and all its files in {:.2} s", begun.elapsed().as_secs_f64());
    assert_eq!((code, out.lines().count()), (1, 1), "{out}");
    let size = |name: &str| fs::metadata(planned.run.path().join(name)).unwrap().len();
    for name in ["report.html", "report.json", "report.xml", "report.md"] {
        eprintln!("{name}: {} bytes", size(name));
    }
    assert!(size("report.html") < 5_000_000, "{} bytes", size("report.html"));
    assert!(size("report.md") < 65_536, "longer than a comment may be: {} bytes", size("report.md"));
    let report: Value = serde_json::from_str(&planned.read("report.json")).unwrap();
    assert_eq!((&report["totals"]["pass"], &report["totals"]["fail"]), (&json!(9_000), &json!(1_000)));
    assert!(
        planned.read("report.html").contains(&check(4_999).replace('/', "&#x2f;")),
        "the last check is in the matrix"
    );

    let Some(browser) = Browser::find() else { return };
    let begun = Instant::now();
    let shown = browser.dom(&planned.run.path().join("report.html"));
    eprintln!("10,000 records: Chromium opened and printed the page in {:.2} s", begun.elapsed().as_secs_f64());
    assert_eq!(shown.dom.matches("class=\"row\"").count(), 5_000);
}

/// What a hostile gateway puts wherever it can: a script, escapes for terminals, a forged line, and a megabyte.
fn attack() -> String {
    let words = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">]]></failure>\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r\nrouting/forged pass\n```\n@everyone {{ 7*7 }}";
    format!("{words}{}", "A".repeat(1_000_000))
}

fn attacked() -> Planned {
    Planned::of(3).recorded(|_, key| {
        let attack = attack();
        let mut body = attack.clone().into_bytes();
        body.extend([0xff, 0xfe, 0xc3, 0x28]); // no UTF-8
        let mut history = history(&key, &body, &attack);
        history.notes.push(attack.clone());
        let mut record = record(key, Verdict::Fail, vec![clause(Holds::No, &attack)]);
        record.golden = GoldenState::Changed;
        record.golden_note = Some(format!("-{attack}\n+{attack}"));
        (record, history)
    })
}

/// What of Markdown is not in a fenced block: a fence is closed by as many backticks as opened it.
fn outside_of_code(markdown: &str) -> String {
    let (mut fence, mut outside) = (0, String::new());
    for line in markdown.lines() {
        let ticks = line.len() - line.trim_start_matches('`').len();
        match (fence, ticks) {
            (0, 3..) => fence = ticks,
            (0, _) => outside += &format!("{line}\n"),
            (_, closing) if closing >= fence && line.len() == closing => fence = 0,
            _ => {}
        }
    }
    outside
}

#[test]
fn whatever_a_gateway_sends_is_inert_in_every_output() {
    let planned = attacked();
    let printed = [&[][..], &["--quiet"], &["--format", "json-lines"]].map(|words| {
        let (code, out) = planned.report(words);
        assert_eq!(code, 1, "{out}");
        out
    });
    let written = ["report.html", "report.xml", "report.md"].map(|name| planned.read(name));
    for text in printed.iter().chain(&written) {
        let acting = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(acting), "a character that acts on terminals");
        assert!(text.len() < 1_000_000, "{} bytes", text.len());
    }
    let forged = |text: &String| text.lines().any(|line| line.starts_with("routing/forged"));
    assert!(!printed.iter().any(forged), "a line of the terminal was forged");
    let [html, xml, markdown] = written;
    assert!(!html.contains("<script>document") && !html.contains("<img"), "markup came through");
    assert!(!xml.contains("]]></failure><"), "an element was forged");
    let outside_of_code = outside_of_code(&markdown);
    assert!(outside_of_code.contains("right-model") && outside_of_code.len() < markdown.len());
    assert!(
        !outside_of_code.contains("<img") && !outside_of_code.contains("@everyone"),
        "markup or a mention came through"
    );
    let json: Value = serde_json::from_str(&planned.read("report.json")).unwrap();
    assert_eq!(json["checks"].as_array().map(Vec::len), Some(6));
    assert!(!printed[2].lines().any(|line| serde_json::from_str::<Value>(line).is_err()), "each line is one object");
}

#[test]
fn a_browser_shows_the_page_and_runs_nothing_of_a_gateway() {
    let Some(browser) = Browser::find() else { return };
    let planned = attacked();
    planned.report(&["--quiet"]);
    let shown = browser.dom(&planned.run.path().join("report.html"));
    assert!(shown.dom.contains("<title>rehearsed: "), "the title is another: a script of the gateway ran");
    assert!(shown.dom.contains("class=\"search\">"), "the page's own script did not run: its search is hidden");
    let refused: Vec<&str> = shown.said.lines().filter(|l| l.contains("CONSOLE") || l.contains("Refused")).collect();
    assert_eq!(refused, Vec::<&str>::new(), "the page did what its own policy forbids, or failed");
    for (name, words) in [
        ("light", ["--window-size=1280,1600", "--blink-settings=preferredColorScheme=1"]),
        ("dark", ["--window-size=1280,1600", "--blink-settings=preferredColorScheme=0"]),
        ("narrow", ["--window-size=480,1600", "--blink-settings=preferredColorScheme=1"]),
    ] {
        let picture = planned.run.path().join(format!("{name}.png"));
        let to = format!("--screenshot={}", picture.display());
        browser.call(&[&to, words[0], words[1]], &planned.run.path().join("report.html"));
        assert!(fs::metadata(&picture).is_ok_and(|m| m.len() > 20_000), "{name}: the picture is empty");
    }
    let paper = planned.run.path().join("report.pdf");
    browser.call(&[&format!("--print-to-pdf={}", paper.display())], &planned.run.path().join("report.html"));
    assert!(fs::read(paper).unwrap().starts_with(b"%PDF"), "it does not print");
}

#[test]
fn the_page_is_used_by_keyboard_alone() {
    let Some(browser) = Browser::find() else { return };
    let planned = attacked();
    planned.report(&["--quiet"]);
    let mut page = Keyboard::at(&browser, &planned.run.path().join("report.html"));
    let focused =
        "document.activeElement.tagName + ' ' + (document.activeElement.className || document.activeElement.id)";

    page.press("Tab");
    page.until(focused, "A skip");
    page.press("Enter");
    page.until("location.hash", "#matrix");
    let mut stops = vec![];
    while !stops.contains(&json!("TD")) {
        page.read("window.before = document.activeElement, 0");
        page.press("Tab");
        page.until("document.activeElement !== window.before", true);
        stops.push(page.read("document.activeElement.parentElement.tagName"));
        assert!(stops.len() < 40, "no cell of the matrix is a stop: {stops:?}");
    }
    page.press("Enter");
    page.until("document.activeElement.tagName", "SUMMARY"); // a cell leads to its evidence
    page.until("document.activeElement.parentElement.open", true);
    page.press("Enter");
    page.until("document.activeElement.parentElement.open", false);

    page.press("n");
    page.until("document.activeElement.parentElement.open", true);
    let first = page.read("document.activeElement.textContent");
    page.press("n");
    page.until(&format!("document.activeElement.textContent != {first}"), true);
    page.press("p");
    page.until("document.activeElement.textContent", first);

    page.press("/");
    page.until("document.activeElement.id", "search");
    let shown = "document.querySelectorAll('.matrix .row:not([hidden])').length";
    page.until(shown, 3);
    page.write("check-2");
    page.until("document.activeElement.value", "check-2");
    page.until(shown, 1);
}
