//! Checking: cases that could never differ, or that make no sense, are refused before they are played.

use std::collections::BTreeMap;

use serde_json::Value;
use verdict::names;

use super::{
    case::{Action, Admitted, Case, Step},
    exchange::{Reply, Request, Upstream},
    looks::{Condition, Looks},
    rules::{self, BodyRule, Rule, TextRule},
    written::Refused,
};

impl Case {
    pub(super) fn check(&self) -> Result<(), Refused> {
        if !is_namespaced(&self.kserve.gateway) {
            return Err((self.line, format!("kserve.gateway {:?} is not namespace/name", self.kserve.gateway)));
        }
        let mut expectations = 0;
        for step in &self.steps {
            expectations += step.check().map_err(|problem| (step.line, problem))?;
        }
        if expectations == 0 {
            let problem = "it expects nothing, so that it would agree with everything: add a step with `expect`";
            return Err((self.line, problem.to_owned()));
        }
        Ok(())
    }
}

fn is_namespaced(text: &str) -> bool {
    text.split_once('/').is_some_and(|(home, name)| !home.is_empty() && !name.is_empty())
}

impl Step {
    /// How much it expects.
    fn check(&self) -> Result<usize, String> {
        match &self.action {
            Action::Apply(apply, said) => {
                if apply.manifests.is_empty() {
                    return Err("apply has no manifest".to_owned());
                }
                check_admitted(said.as_ref(), apply.manifests.len())
            }
            Action::Patch(_, said) => check_admitted(said.as_ref(), 1),
            Action::Delete(_) | Action::Advance(_) => Ok(0),
            Action::Object(_, looks) => looks.check(),
            Action::Request(request, replies) => request.check(replies),
        }
    }
}

fn check_admitted(said: Option<&Admitted>, objects: usize) -> Result<usize, String> {
    let Some(said) = said else { return Ok(0) };
    let refused =
        said.refused.is_some() || said.accepted == Some(false) || said.code.is_some() || said.reason.is_some();
    if said.accepted == Some(true) && (said.refused.is_some() || said.reason.is_some()) {
        return Err("it is accepted or refused, not both".to_owned());
    }
    if *said == Admitted::default() {
        return Err("expect is empty: write accepted, refused, warnings or object".to_owned());
    }
    if refused && objects > 1 {
        return Err("which of the objects is refused? apply that one in a step of its own".to_owned());
    }
    said.object.as_ref().and_then(rules::unusable).map_or(Ok(1), Err)
}

impl Request {
    fn check(&self, replies: &[Reply]) -> Result<usize, String> {
        if !self.path.starts_with('/') {
            return Err(format!("path {:?} does not begin with /", self.path));
        }
        if self.json.is_some() && self.body.is_some() {
            return Err("a request has a json or a body, not both".to_owned());
        }
        if let Some(pad) = &self.pad {
            let parent = pad.at.rsplit_once('/').map(|(parent, _)| parent);
            let there = parent.and_then(|p| self.json.as_ref()?.pointer(p)).is_some_and(Value::is_object);
            if !there || pad.of.as_deref() == Some("") || pad.bytes > 64 * 1024 * 1024 {
                return Err(format!(
                    "pad needs a json body with an object above {}, a text, and at most 64 MiB",
                    pad.at
                ));
            }
        }
        if self.to.gateway.is_some() && self.to.service.is_some() {
            return Err("a request goes to a gateway or to a service, not both".to_owned());
        }
        for name in self.to.gateway.iter().chain(&self.to.service) {
            if !is_namespaced(name) {
                return Err(format!("{name:?} is not namespace/name"));
            }
        }
        if let Some(name) =
            self.script.keys().find(|k| !model::script::HEADERS.contains(&format!("x-igc-{k}").as_str()))
        {
            let known = model::script::HEADERS.map(|h| h.trim_start_matches("x-igc-"));
            let near = names::suggestion(&names::near(name, known));
            return Err(format!("a model's script has no {name:?}{near}; there are {}", known.join(", ")));
        }
        if replies.is_empty() {
            return Err("a request without `expect` says nothing: write what came back".to_owned());
        }
        let counted: usize = replies.iter().map(|r| r.times.unwrap_or(1)).sum();
        if replies.iter().any(|r| r.times == Some(0)) || self.times == Some(0) {
            return Err("0 times is never".to_owned());
        }
        if replies.len() > 1 && self.times.is_some_and(|times| times != counted) {
            return Err(format!("{} requests are sent, and {counted} replies expected", self.times.unwrap_or(1)));
        }
        if replies.len() > 1 && replies.iter().any(|r| r.statuses.is_some()) {
            return Err("statuses is of all replies: write it without a list".to_owned());
        }
        if let ([one], Some(times)) = (replies, self.times) {
            let other =
                one.times.filter(|t| *t != times).or(one.statuses.as_ref().map(|s| s.0.len()).filter(|n| *n != times));
            if let Some(other) = other {
                return Err(format!("{times} requests are sent, and {other} replies expected"));
            }
        }
        replies.iter().try_for_each(Reply::check)?;
        Ok(replies.len())
    }

    pub fn count(&self, replies: &[Reply]) -> usize {
        match replies {
            [one] => self.times.or(one.times).or(one.statuses.as_ref().map(|s| s.0.len())).unwrap_or(1),
            many => many.iter().map(|r| r.times.unwrap_or(1)).sum(),
        }
    }
}

impl Reply {
    fn check(&self) -> Result<(), String> {
        if *self == (Self { times: self.times, ..Self::default() }) {
            return Err("expect is empty: write status, headers, body, upstream or picker".to_owned());
        }
        if self.status.as_ref().is_some_and(|s| s.0.is_empty())
            || self.statuses.as_ref().is_some_and(|s| s.0.is_empty())
        {
            return Err("status is an empty list".to_owned());
        }
        if self.no_response == Some(true) && (self.status.is_some() || self.statuses.is_some() || self.body.is_some()) {
            return Err("no-response has neither status nor body".to_owned());
        }
        check_headers(&self.headers)?;
        self.body.iter().chain(self.events.iter().flatten()).try_for_each(check_body)?;
        if let Some(Upstream::Arrived(arrived)) = &self.upstream {
            check_headers(&arrived.headers)?;
            arrived.body.iter().try_for_each(check_body)?;
        }
        Ok(())
    }
}

fn check_headers(headers: &BTreeMap<String, Rule<TextRule>>) -> Result<(), String> {
    match headers.iter().find(|(_, rule)| rule.0.is_empty()) {
        Some((name, _)) => Err(format!("header {name}: an empty rule; write {{present: true}}")),
        None => Ok(()),
    }
}

fn check_body(body: &Rule<BodyRule>) -> Result<(), String> {
    if body.0.is_empty() {
        return Err("body: an empty rule; write the text, or {json: ...}".to_owned());
    }
    body.0.json.iter().chain(&body.0.json_exactly).find_map(rules::unusable).map_or(Ok(()), Err)
}

impl Looks {
    fn check(&self) -> Result<usize, String> {
        if *self == Self::default() {
            return Err("an object without `expect` says nothing: write conditions, status, match or absent".to_owned());
        }
        let parts = [&self.parents, &self.ancestors, &self.listeners];
        let of_parts = parts.into_iter().flatten().flatten().flat_map(|p| &p.conditions);
        for condition in self.conditions.iter().chain(of_parts) {
            if *condition == (Condition { kind: condition.kind.clone(), ..Condition::default() }) {
                return Err(format!("condition {}: write status, reason, message or absent: true", condition.kind));
            }
        }
        self.status.iter().chain(&self.has).find_map(rules::unusable).map_or(Ok(1), Err)
    }
}
