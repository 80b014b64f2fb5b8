//! Progress of an install: one stream of events, written as spinners on a terminal and as plain lines elsewhere.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InstallEvent<'e> {
    Started {
        node: &'e str,
    },
    Note {
        node: Option<&'e str>,
        text: &'e str,
    },
    Finished {
        node: &'e str,
        seconds: f64,
        /// What it waited for before.
        waited_for: Option<&'e str>,
    },
    Failed {
        node: &'e str,
        seconds: f64,
        /// Why, in one line.
        why: &'e str,
    },
    Stopped {
        node: &'e str,
    },
}

pub trait Progress: Send + Sync {
    fn say(&self, event: InstallEvent<'_>);
}

/// Spinners where standard error is a terminal, plain lines otherwise.
pub fn on_stderr() -> Arc<dyn Progress> {
    if io::stderr().is_terminal() {
        Arc::new(Spinners::on(ProgressDrawTarget::stderr()))
    } else {
        Arc::new(Lines::new(io::stderr()))
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn say(&self, _: InstallEvent<'_>) {}
}

/// One plain line for each event that matters.
#[derive(Debug)]
pub struct Lines<W> {
    out: Mutex<W>,
    begun: Instant,
}

impl<W: Write + Send> Lines<W> {
    pub fn new(out: W) -> Self {
        Self { out: Mutex::new(out), begun: Instant::now() }
    }

    #[cfg(test)]
    fn into_inner(self) -> W {
        self.out.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write + Send> Progress for Lines<W> {
    fn say(&self, event: InstallEvent<'_>) {
        let Some(line) = line(event) else { return };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Who closed standard error does not want to read on.
        let _ = writeln!(out, "{:7.1} s  {line}", self.begun.elapsed().as_secs_f64());
    }
}

fn line(event: InstallEvent<'_>) -> Option<String> {
    Some(match event {
        InstallEvent::Started { .. } => return None,
        InstallEvent::Note { node: Some(node), text } => format!("note    {node}: {text}"),
        InstallEvent::Note { node: None, text } => format!("note    {text}"),
        InstallEvent::Finished { node, seconds, waited_for } => {
            let after = waited_for.map(|need| format!(" (after {need})")).unwrap_or_default();
            format!("done    {node} in {seconds:.1} s{after}")
        }
        InstallEvent::Failed { node, seconds, why } => format!("FAILED  {node} after {seconds:.1} s: {why}"),
        InstallEvent::Stopped { node } => format!("stopped {node}"),
    })
}

/// A spinner with its elapsed time for each node that runs; what is done scrolls away above.
struct Spinners {
    all: MultiProgress,
    running: Mutex<HashMap<String, ProgressBar>>,
    begun: Instant,
}

impl Spinners {
    fn on(target: ProgressDrawTarget) -> Self {
        Self { all: MultiProgress::with_draw_target(target), running: Mutex::default(), begun: Instant::now() }
    }

    fn print(&self, line: &str) {
        // Who closed the terminal does not want to read on.
        let _ = self.all.println(format!("{:7.1} s  {line}", self.begun.elapsed().as_secs_f64()));
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, ProgressBar>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Spinners {
    fn say(&self, event: InstallEvent<'_>) {
        match event {
            InstallEvent::Started { node } => {
                let style = ProgressStyle::with_template("           {spinner} {msg}  {elapsed}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = self.all.add(ProgressBar::new_spinner().with_style(style).with_message(node.to_owned()));
                bar.enable_steady_tick(Duration::from_millis(100));
                self.running().insert(node.to_owned(), bar);
            }
            InstallEvent::Finished { node, .. }
            | InstallEvent::Failed { node, .. }
            | InstallEvent::Stopped { node } => {
                if let Some(bar) = self.running().remove(node) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
            InstallEvent::Note { .. } => {}
        }
        if let Some(line) = line(event) {
            self.print(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines() {
        let lines = Lines::new(Vec::new());
        lines.say(InstallEvent::Started { node: "cluster" });
        lines.say(InstallEvent::Finished { node: "cluster", seconds: 22.04, waited_for: None });
        lines.say(InstallEvent::Note { node: Some("redis:images"), text: "not in the engine: redis:8" });
        lines.say(InstallEvent::Note { node: None, text: "egress: closed" });
        lines.say(InstallEvent::Finished { node: "redis:ready", seconds: 1.0, waited_for: Some("redis:installed") });
        lines.say(InstallEvent::Failed { node: "kserve:ready", seconds: 240.0, why: "not within 240 s" });
        lines.say(InstallEvent::Stopped { node: "envoy-gateway:ready" });
        let said = String::from_utf8(lines.into_inner()).unwrap();
        let without_time: Vec<&str> = said.lines().map(|line| line.split_once(" s  ").unwrap().1).collect();
        assert_eq!(
            without_time,
            [
                "done    cluster in 22.0 s",
                "note    redis:images: not in the engine: redis:8",
                "note    egress: closed",
                "done    redis:ready in 1.0 s (after redis:installed)",
                "FAILED  kserve:ready after 240.0 s: not within 240 s",
                "stopped envoy-gateway:ready",
            ]
        );
    }

    #[test]
    fn spinners_end_with_their_nodes() {
        let spinners = Spinners::on(ProgressDrawTarget::hidden());
        spinners.say(InstallEvent::Started { node: "a" });
        spinners.say(InstallEvent::Started { node: "b" });
        assert_eq!(spinners.running().len(), 2);
        spinners.say(InstallEvent::Finished { node: "a", seconds: 1.0, waited_for: None });
        spinners.say(InstallEvent::Stopped { node: "b" });
        spinners.say(InstallEvent::Failed { node: "never begun", seconds: 0.0, why: "x" });
        assert_eq!(spinners.running().len(), 0);
    }
}
