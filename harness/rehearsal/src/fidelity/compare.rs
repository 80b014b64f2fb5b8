//! Comparing: replies and objects with what was recorded of them. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use verdict::history::{self, Body, Ended, Exchange, ModelRecord};
use wire::sse;

use super::{
    Difference,
    exchange::{Arrived, Picker, Reply, Upstream},
    looks::{Condition, Looks, StatusEntry},
    rules::{BodyRule, Cover, Rule, TextRule, differences, shown},
};
use crate::dialects::object::{self, list, text};

#[derive(Debug, Default)]
pub(super) struct Differences {
    pub all: Vec<Difference>,
    line: u64,
    at: String,
}

impl Differences {
    /// What follows is about a step.
    pub(super) fn step(&mut self, line: u64) {
        self.line = line;
        self.at.clear();
    }

    /// What follows is about a part of the step, for example `reply 3`.
    pub(super) fn about(&mut self, what: String) {
        self.at = what;
    }

    /// Takes in what was found of each of several replies; what is the same of many of them is said once.
    pub(super) fn replies(&mut self, each: Vec<Vec<Difference>>) {
        let mut said: Vec<(Vec<usize>, Difference)> = Vec::new();
        let count = each.len();
        for (at, difference) in
            each.into_iter().enumerate().flat_map(|(at, all)| all.into_iter().map(move |d| (at + 1, d)))
        {
            match said.iter_mut().find(|(_, other)| *other == difference) {
                Some((replies, _)) => replies.push(at),
                None => said.push((vec![at], difference)),
            }
        }
        for (replies, difference) in said {
            let which = match replies.as_slice() {
                _ if count == 1 => "reply".to_owned(),
                [one] => format!("reply {one}"),
                many => format!("replies {}", runs(many)),
            };
            self.about(which);
            self.differ(&difference.at, difference.recorded, difference.here);
        }
    }

    pub(super) fn differ(&mut self, what: &str, recorded: String, here: String) {
        let at = [self.at.as_str(), what].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" ");
        self.all.push(Difference { line: self.line, at, recorded, here });
    }

    fn text(&mut self, what: &str, rule: &TextRule, here: Option<&str>) {
        if !rule.holds(here) {
            self.differ(what, rule.to_string(), here.unwrap_or("absent").to_owned());
        }
    }

    pub(super) fn json(&mut self, what: &str, expected: &Value, here: Option<&Value>, cover: Cover) {
        for (path, recorded, here) in differences(expected, here, cover) {
            self.differ(&format!("{what}{path}"), recorded, here);
        }
    }

    fn equal<T: PartialEq + std::fmt::Display>(&mut self, what: &str, recorded: Option<T>, here: T) {
        if let Some(recorded) = recorded.filter(|r| *r != here) {
            self.differ(what, recorded.to_string(), here.to_string());
        }
    }
}

/// `1-3, 5` of 1, 2, 3, 5.
fn runs(numbers: &[usize]) -> String {
    let runs: Vec<String> = numbers
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [one] => one.to_string(),
            many => format!("{}-{}", many[0], many[many.len() - 1]),
        })
        .collect();
    runs.join(", ")
}

#[derive(Debug, Default)]
pub(super) struct Served {
    pub arrived: Vec<ModelRecord>,
    pub picker: bool,
}

pub(super) fn reply(recorded: &Reply, exchange: &Exchange, seen: &Served, found: &mut Differences) {
    let response = match (exchange.response(), recorded.no_response) {
        (None, Some(true)) => None,
        (None, _) => {
            found.differ("", "a response".to_owned(), exchange.outcome_words());
            None
        }
        (Some(response), Some(true)) => {
            found.differ("", "no response".to_owned(), format!("status {}", response.status));
            None
        }
        (Some(response), _) => Some(response),
    };
    if let Some(response) = response {
        if let Some(statuses) = recorded.status.as_ref().filter(|s| !s.0.contains(&response.status)) {
            let wanted: Vec<String> = statuses.0.iter().map(u16::to_string).collect();
            found.differ("status", wanted.join(" or "), response.status.to_string());
        }
        headers("header", &recorded.headers, &response.headers, found);
        header_names(recorded.header_names.as_deref(), &response.headers, found);
        if let Some(Rule(rule)) = &recorded.body {
            body("body", rule, &response.body, found);
        }
        if let Some(recorded) = &recorded.events {
            events(recorded, response, found);
        }
        found.equal("end", recorded.ended.map(ended), ended(response.ended));
    }
    let asked = if seen.picker { Picker::Asked } else { Picker::Nothing };
    found.equal("picker", recorded.picker.map(Picker::word), asked.word());
    match (&recorded.upstream, seen.arrived.as_slice()) {
        (None, _) | (Some(Upstream::Nothing), []) => {}
        (Some(Upstream::Nothing), some) => found.differ(
            "upstream",
            "nothing".to_owned(),
            some.iter().map(|r| format!("{} {} at {}", r.method, r.target, r.pod)).collect::<Vec<_>>().join(", "),
        ),
        (Some(Upstream::Arrived(wanted)), [one]) => upstream(wanted, one, found),
        (Some(Upstream::Arrived(_)), some) => {
            found.differ("upstream", "one request".to_owned(), format!("{} requests", some.len()));
        }
    }
}

fn ended(how: Ended) -> &'static str {
    match how {
        Ended::Complete => "complete",
        Ended::Truncated => "truncated",
        Ended::Abandoned => "abandoned",
        Ended::Bounded => "bounded",
    }
}

fn headers(
    what: &str,
    recorded: &BTreeMap<String, Rule<TextRule>>,
    here: &[(String, String)],
    found: &mut Differences,
) {
    for (name, Rule(rule)) in recorded {
        let values: Vec<&str> =
            here.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect();
        let value = (!values.is_empty()).then(|| values.join(", "));
        found.text(&format!("{what} {name}"), rule, value.as_deref());
    }
}

/// All names, with their case, in any order.
fn header_names(recorded: Option<&[String]>, here: &[(String, String)], found: &mut Differences) {
    let Some(recorded) = recorded else { return };
    let sorted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.join(" ")
    };
    let here = sorted(here.iter().map(|(name, _)| name.as_str()).collect());
    let recorded = sorted(recorded.iter().map(String::as_str).collect());
    if recorded != here {
        found.differ("header names", recorded, here);
    }
}

fn body(what: &str, rule: &BodyRule, here: &Body, found: &mut Differences) {
    let text = here.text.as_deref();
    let words = || text.map_or_else(|| format!("{} bytes that are no text", here.bytes), str::to_owned);
    let value = text.filter(|_| !here.truncated).and_then(|t| serde_json::from_str::<Value>(t).ok());
    if let Some(wanted) = rule.text.as_deref().filter(|wanted| Some(*wanted) != text || here.truncated) {
        found.differ(what, wanted.to_owned(), words());
    }
    let partly = TextRule { contains: rule.contains.clone(), matches: rule.matches.clone(), ..TextRule::default() };
    if !partly.is_empty() && !partly.holds(text) {
        found.differ(what, partly.to_string(), words());
    }
    for (wanted, cover) in [(&rule.json, Cover::Part), (&rule.json_exactly, Cover::All)] {
        match (wanted, &value) {
            (None, _) => {}
            (Some(wanted), Some(value)) => found.json(what, wanted, Some(value), cover),
            (Some(wanted), None) => found.differ(what, format!("JSON {wanted}"), words()),
        }
    }
    if let Some(wanted) = rule.is_json.filter(|wanted| *wanted != value.is_some()) {
        found.differ(what, (if wanted { "JSON" } else { "no JSON" }).to_owned(), words());
    }
    found.equal(&format!("{what} bytes"), rule.bytes, here.bytes);
    found.equal(&format!("{what} sha256"), rule.sha256.clone(), here.sha256.clone());
}

fn events(recorded: &[Rule<BodyRule>], response: &history::Response, found: &mut Differences) {
    let parsed = sse::parse(response.body.text.as_deref().unwrap_or_default().as_bytes());
    if parsed.events.len() != recorded.len() {
        let data: Vec<&str> = parsed.events.iter().map(|e| e.data.as_str()).collect();
        let here = format!("{}: {}", parsed.events.len(), data.join(" | "));
        found.differ("events", recorded.len().to_string(), here);
        return;
    }
    for (at, (Rule(rule), event)) in recorded.iter().zip(&parsed.events).enumerate() {
        body(&format!("event {}", at + 1), rule, &Body::of(event.data.as_bytes()), found);
    }
}

fn upstream(wanted: &Arrived, here: &ModelRecord, found: &mut Differences) {
    let text = |rule: &Option<Rule<TextRule>>| {
        rule.as_ref().map(|r| r.0.clone()).unwrap_or(TextRule { present: None, ..TextRule::default() })
    };
    found.text("upstream pod", &text(&wanted.pod), Some(&here.pod));
    found.equal("upstream method", wanted.method.clone(), here.method.clone());
    found.text("upstream path", &text(&wanted.path), Some(&here.target));
    headers("upstream header", &wanted.headers, &here.headers, found);
    if let Some(names) = &wanted.header_names {
        let own = |name: &str| name.eq_ignore_ascii_case(history::EXCHANGE_HEADER);
        let there: Vec<(String, String)> =
            here.headers.iter().filter(|(n, _)| !own(n)).map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect();
        header_names(Some(&names.iter().map(|n| n.to_ascii_lowercase()).collect::<Vec<_>>()), &there, found);
    }
    if let Some(Rule(rule)) = &wanted.body {
        body("upstream body", rule, &here.body, found);
    }
    found.equal("upstream reply taken whole", wanted.finished, here.finished);
}

pub(super) fn looks(recorded: &Looks, here: Option<&Value>, found: &mut Differences) {
    let here = match (here, recorded.absent) {
        (None, Some(true)) => return,
        (Some(_), Some(true)) => return found.differ("", "absent".to_owned(), "there".to_owned()),
        (None, _) => return found.differ("", "there".to_owned(), "absent".to_owned()),
        (Some(here), _) => here,
    };
    if !recorded.conditions.is_empty() {
        match conditions_of(here) {
            Ok(all) => conditions(&recorded.conditions, &all, here, found),
            Err(why) => found.differ("conditions", "in one place".to_owned(), why),
        }
    }
    for (name, wanted, reference) in [
        ("parents", &recorded.parents, "parentRef"),
        ("ancestors", &recorded.ancestors, "ancestorRef"),
        ("listeners", &recorded.listeners, ""),
    ] {
        let Some(wanted) = wanted else { continue };
        let there: Vec<&Value> = list(here, &format!("/status/{name}")).collect();
        if wanted.len() != there.len() {
            let here = format!("{}: {}", there.len(), serde_json::to_string(&there).unwrap_or_default());
            found.differ(name, wanted.len().to_string(), here);
            continue;
        }
        for (at, (wanted, there)) in wanted.iter().zip(there).enumerate() {
            part(&format!("{name}[{at}]"), wanted, there, reference, here, found);
        }
    }
    if let Some(status) = &recorded.status {
        found.json("status", status, here.get("status"), Cover::Part);
    }
    if let Some(has) = &recorded.has {
        found.json("object", has, Some(here), Cover::Part);
    }
}

/// The conditions of an object: its own, or those of its only parent or ancestor.
fn conditions_of(object: &Value) -> Result<Vec<&Value>, String> {
    let own: Vec<&Value> = list(object, "/status/conditions").collect();
    let parts: Vec<&Value> = list(object, "/status/parents").chain(list(object, "/status/ancestors")).collect();
    match parts.as_slice() {
        _ if !own.is_empty() => Ok(own),
        [] => Ok(vec![]),
        [one] => Ok(list(one, "/conditions").collect()),
        many => Err(format!("{} parents or ancestors: write parents or ancestors", many.len())),
    }
}

fn conditions(recorded: &[Condition], here: &[&Value], object: &Value, found: &mut Differences) {
    for wanted in recorded {
        let there = here.iter().find(|c| text(c, "/type") == wanted.kind);
        let what = format!("condition {}", wanted.kind);
        match there {
            None if wanted.absent => {}
            None => {
                let types: Vec<&str> = here.iter().map(|c| text(c, "/type")).collect();
                found.differ(&what, "there".to_owned(), format!("absent; there are [{}]", types.join(", ")));
            }
            Some(there) if wanted.absent => found.differ(&what, "absent".to_owned(), there.to_string()),
            Some(there) => {
                for (name, rule) in
                    [("status", &wanted.status), ("reason", &wanted.reason), ("message", &wanted.message)]
                {
                    let Some(Rule(rule)) = rule else { continue };
                    found.text(&format!("{what} {name}"), rule, there.get(name).map(shown).as_deref());
                }
                let current = object::number(there, "/observedGeneration") == Some(object::generation(object));
                found.equal(&format!("{what} current"), wanted.current, current);
            }
        }
    }
}

fn part(what: &str, wanted: &StatusEntry, there: &Value, reference: &str, object: &Value, found: &mut Differences) {
    if let Some(expected) = &wanted.reference {
        found.json(&format!("{what} {reference}"), expected, there.get(reference), Cover::Part);
    }
    found.equal(&format!("{what} name"), wanted.name.as_deref(), text(there, "/name"));
    if let Some(Rule(rule)) = &wanted.controller_name {
        found.text(&format!("{what} controllerName"), rule, there.get("controllerName").and_then(Value::as_str));
    }
    if let Some(routes) = wanted.attached_routes {
        let here = object::number(there, "/attachedRoutes").map_or("absent".to_owned(), |n| n.to_string());
        found.equal(&format!("{what} attachedRoutes"), Some(routes.to_string()), here);
    }
    let conditions_here: Vec<&Value> = list(there, "/conditions").collect();
    let before = found.at.clone();
    found.about([before.as_str(), what].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" "));
    conditions(&wanted.conditions, &conditions_here, object, found);
    found.about(before);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[1, 2, 3, 5], "1-3, 5")]
    #[case(&[4], "4")]
    fn numbers_in_runs(#[case] numbers: &[usize], #[case] words: &str) {
        assert_eq!(runs(numbers), words);
    }
}
