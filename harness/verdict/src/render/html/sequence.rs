//! Sequence drawings: who sent what to whom, and when, as lanes and arrows.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::history::{Exchange, History, Outcome};

use super::super::{Lines, inert};

/// Exchanges of a check that did not pass that are drawn; those that show a false clause come first.
const DRAWN_LOUD: usize = 12;
/// Exchanges of a check that passed that are drawn.
const DRAWN: usize = 3;
/// Pixels between two arrows.
const STEP: u32 = 22;
/// Pixels of the heads of the lanes.
const HEAD: u32 = 34;
/// Pixels between two lanes.
const LANE: u32 = 230;
/// Pixels left of the first lane: times.
const LEFT: u32 = 150;

#[derive(Serialize)]
pub struct Drawing {
    width: u32,
    height: u32,
    lanes: Vec<Lane>,
    arrows: Vec<Arrow>,
    groups: Vec<Group>,
    /// What the drawing leaves out, in words; empty where it shows all.
    more: String,
}

#[derive(Serialize)]
struct Lane {
    x: u32,
    name: String,
}

#[derive(Serialize)]
struct Arrow {
    from: u32,
    to: u32,
    y: u32,
    /// Middle of the label above it.
    middle: u32,
    label: String,
    class: &'static str,
}

#[derive(Serialize)]
struct Group {
    y: u32,
    label: String,
    time: String,
}

/// Draws the exchanges; `shown` are those that the judge named. Nothing to draw is `None`.
pub fn draw(history: &History, shown: &BTreeSet<&str>, loud: bool) -> Option<Drawing> {
    if history.exchanges.is_empty() {
        return None;
    }
    let most = if loud { DRAWN_LOUD } else { DRAWN };
    let named = history.exchanges.iter().filter(|e| shown.contains(e.id.as_str()));
    let others = history.exchanges.iter().filter(|e| !shown.contains(e.id.as_str()));
    let chosen: BTreeSet<&str> = named.chain(others).take(most).map(|e| e.id.as_str()).collect();
    let mut pen = Pen::new(history);
    for exchange in history.exchanges.iter().filter(|e| chosen.contains(e.id.as_str())) {
        pen.exchange(history, exchange);
    }
    Some(Drawing {
        width: pen.x(pen.lanes.len() - 1) + LANE / 2,
        height: pen.y,
        lanes: pen.lanes.iter().enumerate().map(|(at, lane)| Lane { x: pen.x(at), name: lane.label() }).collect(),
        more: match history.exchanges.len() - chosen.len() {
            0 => String::new(),
            left => format!("{left} more exchanges are in the history"),
        },
        arrows: pen.arrows,
        groups: pen.groups,
    })
}

#[derive(PartialEq)]
enum Party<'a> {
    Client,
    Gateway,
    Picker(&'a str),
    Model(&'a str),
}

impl Party<'_> {
    fn label(&self) -> String {
        match self {
            Party::Client => "client".to_owned(),
            Party::Gateway => "gateway".to_owned(),
            Party::Picker(name) => short(&format!("picker {name}"), 30),
            Party::Model(name) => short(&format!("model {name}"), 30),
        }
    }
}

struct Pen<'a> {
    lanes: Vec<Party<'a>>,
    arrows: Vec<Arrow>,
    groups: Vec<Group>,
    y: u32,
}

impl<'a> Pen<'a> {
    fn new(history: &'a History) -> Self {
        let pickers = history.pickers.keys().map(|p| Party::Picker(p));
        let models = history.models.keys().map(|m| Party::Model(m));
        let lanes = [Party::Client, Party::Gateway].into_iter().chain(pickers).chain(models).collect();
        Self { lanes, arrows: Vec::new(), groups: Vec::new(), y: HEAD + STEP }
    }

    fn x(&self, lane: usize) -> u32 {
        LEFT + LANE / 2 + LANE * u32::try_from(lane).unwrap_or(0)
    }

    fn arrow(&mut self, from: &Party<'_>, to: &Party<'_>, label: &str, class: &'static str) {
        let place = |party: &Party<'_>| self.x(self.lanes.iter().position(|l| l == party).unwrap_or(1));
        let (from, to) = (place(from), place(to));
        let (y, middle) = (self.y, u32::midpoint(from, to));
        self.arrows.push(Arrow { from, to, y, middle, label: short(label, 30), class });
        self.y += STEP;
    }

    fn exchange(&mut self, history: &History, exchange: &Exchange) {
        let time = format!("{:.0} ms", exchange.sent_ms);
        self.groups.push(Group { y: self.y, label: short(&exchange.label, 20), time });
        let request = &exchange.request;
        self.arrow(&Party::Client, &Party::Gateway, &format!("{} {}", request.method, request.target), "ask");
        for (picker, choice) in picked(history, exchange) {
            self.arrow(&Party::Gateway, &Party::Picker(picker), "which endpoint?", "ask");
            self.arrow(&Party::Picker(picker), &Party::Gateway, &choice, "answer");
        }
        for (model, record) in history.reached(exchange) {
            let tokens = record.usage.map(|u| format!(", {} tokens", u.total_tokens)).unwrap_or_default();
            let asked = format!("{} {}", record.method, record.target);
            self.arrow(&Party::Gateway, &Party::Model(model), &asked, "ask");
            let answered = format!("{}{tokens} ({})", record.status, record.pod);
            self.arrow(&Party::Model(model), &Party::Gateway, &answered, "answer");
        }
        let (label, class) = match &exchange.outcome {
            Outcome::Response(r) if r.status < 400 => (format!("{} after {:.1} ms", r.status, r.end_ms), "answer"),
            Outcome::Response(r) => (format!("{} after {:.1} ms", r.status, r.end_ms), "refusal"),
            Outcome::Failed { stage, error } => (format!("failed to {stage}: {error}"), "refusal"),
        };
        self.arrow(&Party::Gateway, &Party::Client, &label, class);
        self.y += STEP / 2;
    }
}

/// What pickers say of an exchange: (picker, the endpoints that it chose or what it answered instead).
fn picked<'a>(history: &'a History, exchange: &Exchange) -> Vec<(&'a str, String)> {
    let records = history.pickers.iter().flat_map(|(name, log)| log.records.iter().map(move |r| (name.as_str(), r)));
    let ours = records.filter(|(_, r)| r.exchange.as_deref() == Some(exchange.id.as_str()));
    ours.map(|(name, r)| (name, r.refused.map_or_else(|| r.chosen.join(","), |status| status.to_string()))).collect()
}

fn short(text: &str, most: usize) -> String {
    let text = inert(text, 200, Lines::Joined);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['\u{2026}']).collect()
}
