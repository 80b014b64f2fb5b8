//! What is said while checks run: the run's events, for people as one live line or plain lines, for programs as JSON lines.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs::File, thread::JoinHandle, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use verdict::{folder::Event, plan::GatewayPlan, record::Verdict};

use crate::options::{Output, OutputFormat};

/// How often the events are looked at. A file has no way to wake a reader.
const LOOK: Duration = Duration::from_millis(100);

/// Follows a run's events in a thread of its own until it is dropped.
pub struct Live {
    shown: Arc<Mutex<Shown>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    pub fn of(run: &Path, place: &str, style: Style) -> Self {
        let follower = Follower { path: run.join("events.jsonl"), file: None, rest: Vec::new() };
        let shown = Shown { follower, style, place: place.to_owned(), counts: None, line: None };
        let (shown, over) = (Arc::new(Mutex::new(shown)), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (Arc::clone(&shown), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                lock(&seen).step();
                std::thread::sleep(LOOK);
            }
        });
        Self { shown, over, thread: Some(thread) }
    }

    pub fn checks(&self, gateways: &[&GatewayPlan], planned: usize) {
        let mut shown = lock(&self.shown);
        shown.step();
        shown.begin(gateways.iter().map(|gateway| gateway.name.clone()).collect(), planned);
    }

    /// Nothing is checked for a while: what was not said yet is said, and the line makes room for others.
    pub fn rest(&self) {
        let mut shown = lock(&self.shown);
        shown.step();
        shown.clear();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            _ = thread.join(); // it has nothing to say of its own
        }
        self.rest();
    }
}

fn lock(shown: &Mutex<Shown>) -> std::sync::MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Silent,
    JsonLines,
    /// Somebody who reads a log: a line for each check.
    Plain,
    /// Somebody before a terminal: one line that moves, and a line for each check that breaks the run.
    Terminal,
}

impl Style {
    pub fn of(output: &Output) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match output.format {
            OutputFormat::JsonLines => Style::JsonLines,
            OutputFormat::Text if output.quiet => Style::Silent,
            OutputFormat::Text if io::stderr().is_terminal() && !dumb => Style::Terminal,
            OutputFormat::Text => Style::Plain,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    gateways: Vec<String>,
    planned: usize,
    done: usize,
    breaking: usize,
    others: usize,
}

impl Counts {
    fn add(&mut self, event: &Event) {
        let breaks = event.breaks == Some(true);
        self.done += usize::from(event.attempt.is_none_or(|attempt| attempt <= 1)); // a retry is no further check
        self.breaking += usize::from(breaks);
        self.others += usize::from(!breaks && event.verdict != Some(Verdict::Pass));
    }

    fn line(&self, place: &str) -> String {
        let mut line = format!("{} on {place}: {}/{} checks", self.gateways.join(", "), self.done, self.planned);
        if self.breaking > 0 {
            line += &format!(", {} breaking the run", self.breaking);
        }
        if self.others > 0 {
            line += &format!(", {} known, found or retried", self.others);
        }
        line
    }
}

struct Shown {
    follower: Follower,
    style: Style,
    place: String,
    counts: Option<Counts>,
    line: Option<ProgressBar>,
}

impl Shown {
    fn begin(&mut self, gateways: Vec<String>, planned: usize) {
        if self.counts.as_ref().is_some_and(|c| c.gateways == gateways) {
            return; // the second part of the same gateway's checks
        }
        let counts = Counts { gateways, planned, ..Counts::default() };
        if self.style == Style::Terminal {
            let line = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
                line.set_style(style);
            }
            line.set_message(counts.line(&self.place));
            line.enable_steady_tick(LOOK);
            self.line = Some(line);
        }
        self.counts = Some(counts);
    }

    fn clear(&mut self) {
        if let Some(line) = self.line.take() {
            line.finish_and_clear();
        }
    }

    fn step(&mut self) {
        for raw in self.follower.lines() {
            let Ok(event) = serde_json::from_str::<Event>(&raw) else { continue };
            if self.style == Style::JsonLines {
                _ = writeln!(io::stdout(), "{raw}"); // who closed it does not want to read on
                continue;
            }
            if event.kind != "check" {
                continue;
            }
            let ours = |c: &&mut Counts| event.gateway.as_ref().is_some_and(|g| c.gateways.contains(g));
            if let Some(counts) = self.counts.as_mut().filter(ours) {
                counts.add(&event);
                if let Some(line) = &self.line {
                    line.set_message(counts.line(&self.place));
                }
            }
            match (self.style, &self.line) {
                (Style::Plain, _) => _ = writeln!(io::stderr(), "{}", event.text),
                (Style::Terminal, Some(line)) if event.breaks == Some(true) => line.println(&event.text),
                _ => {}
            }
        }
    }
}

/// Reads the whole lines that were appended to a file, which may not be there yet.
struct Follower {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Follower {
    fn lines(&mut self) -> Vec<String> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Vec::new() };
        if file.read_to_end(&mut self.rest).is_err() {
            return Vec::new(); // tried again at the next look
        }
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        String::from_utf8_lossy(&lines).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn only_whole_lines_are_read_and_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut follower = Follower { path: path.clone(), file: None, rest: Vec::new() };
        assert_eq!(follower.lines(), Vec::<String>::new(), "it is not there yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(follower.lines(), ["one"]);
        file.write_all(b"o\n\xff\n").unwrap();
        assert_eq!(follower.lines(), ["two", "\u{fffd}"]);
        assert_eq!(follower.lines(), Vec::<String>::new());
    }

    fn event(verdict: Verdict, breaks: bool, attempt: u32) -> Event {
        Event { verdict: Some(verdict), breaks: Some(breaks), attempt: Some(attempt), ..Event::now("check", "") }
    }

    #[rstest]
    #[case::begun(&[], "gw on kind: 0/9 checks")]
    #[case::good(&[event(Verdict::Pass, false, 1), event(Verdict::Pass, false, 1)], "gw on kind: 2/9 checks")]
    #[case::broken(&[event(Verdict::Fail, true, 1), event(Verdict::Pass, false, 1)], "gw on kind: 2/9 checks, 1 breaking the run")]
    #[case::known(&[event(Verdict::Fail, false, 1)], "gw on kind: 1/9 checks, 1 known, found or retried")]
    #[case::retried(&[event(Verdict::Fail, false, 1), event(Verdict::Fail, true, 2)],
        "gw on kind: 1/9 checks, 1 breaking the run, 1 known, found or retried")]
    fn the_line_counts(#[case] events: &[Event], #[case] line: &str) {
        let mut counts = Counts { gateways: vec!["gw".into()], planned: 9, ..Counts::default() };
        events.iter().for_each(|event| counts.add(event));
        assert_eq!(counts.line("kind"), line);
    }

    #[test]
    fn what_is_said_of_a_gateway_is_counted_for_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let live = Live::of(folder.path(), "kind", Style::Silent);
        lock(&live.shown).begin(vec!["a".into()], 2);
        let line = |gateway: &str| {
            let event = Event { gateway: Some(gateway.into()), ..event(Verdict::Pass, false, 1) };
            serde_json::to_string(&event).unwrap() + "\n"
        };
        std::fs::write(folder.path().join("events.jsonl"), line("a") + &line("b") + "no json\n").unwrap();
        live.rest();
        assert_eq!(lock(&live.shown).counts.as_ref().map(|c| c.done), Some(1));
    }
}
