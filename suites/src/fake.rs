//! Made-up histories for the tables that show each judge able to say yes, no and unproven.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};
use verdict::{
    capability::{MarkedAnswers, Price, Rule, TokenLimit, UsageField, Window, WithoutIdentity},
    history::{
        Admission, Body, Ended, Exchange, History, Key, ModelRecord, Outcome, Passed, PickerRecord, Request, Response,
    },
    judge::Judgement,
};

pub use verdict::judge::Holds::{self, No, Unproven, Yes};

use crate::{judge::GATEWAY, registry, stage::endpoints_of};

/// What a judge says of a made-up history. What it calls false it must not call true for want of any fact: that is asked of
/// every row of every table, and it panics where a failure becomes a pass.
pub(crate) fn verdict_of(judged: impl Fn(&History) -> Judgement, fake: &Fake) -> Holds {
    let holds = judged(&fake.0).holds();
    if holds == No {
        for (what, poorer) in without_one_fact(&fake.0) {
            assert_ne!(judged(&poorer).holds(), Yes, "without {what} a failure becomes a pass");
        }
    }
    holds
}

/// The history again and again, each time without one of the facts that a judge may need, and which one. What a gateway
/// declares is no fact: it says what is expected.
fn without_one_fact(history: &History) -> Vec<(String, History)> {
    let mut poorer = Vec::new();
    let mut without = |what: String, take: &dyn Fn(&mut History)| {
        let mut history = history.clone();
        take(&mut history);
        poorer.push((what, history));
    };
    for name in history.facts.keys() {
        without(format!("the fact {name}"), &|h| _ = h.facts.remove(name));
    }
    for name in history.objects.keys() {
        without(format!("the object {name}"), &|h| _ = h.objects.remove(name));
    }
    for name in history.admissions.keys() {
        without(format!("the admission of {name}"), &|h| _ = h.admissions.remove(name));
    }
    for name in history.models.keys() {
        without(format!("the records of model {name}"), &|h| _ = h.models.remove(name));
        without(format!("the last marker of model {name}"), &|h| {
            h.models.values_mut().for_each(|log| log.marker_after = None);
        });
    }
    for name in history.pickers.keys() {
        without(format!("the records of picker {name}"), &|h| _ = h.pickers.remove(name));
    }
    let labels: BTreeSet<&str> = history.exchanges.iter().map(|e| e.label.as_str()).collect();
    for label in labels {
        without(format!("all requests called {label}"), &|h| h.exchanges.retain(|e| e.label != label));
    }
    poorer
}

/// `controllerName` of the Gateway under test in made-up histories.
pub const CONTROLLER: &str = "example.com/controller";

/// Conditions as an API server stores them: (type, status, reason).
pub fn conditions(observed_generation: u64, said: &[(&str, &str, &str)]) -> Value {
    said.iter()
        .map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason, "observedGeneration": observed_generation}))
        .collect()
}

/// An object of generation 1 whose status has these conditions.
pub fn object_saying(said: &[(&str, &str, &str)]) -> Value {
    json!({"metadata": {"generation": 1}, "status": {"conditions": conditions(1, said)}})
}

/// A route or a pool of generation 1 whose one entry is about the noted Gateway.
pub fn parents_saying(said: &[(&str, &str, &str)]) -> Value {
    let entry = json!({"parentRef": noted_gateway(), "controllerName": CONTROLLER, "conditions": conditions(1, said)});
    json!({"metadata": {"generation": 1}, "status": {"parents": [entry]}})
}

/// A policy of generation 1 with one ancestor of this name.
pub fn policy_saying(ancestor: &str, said: &[(&str, &str, &str)]) -> Value {
    let entry = json!({
        "ancestorRef": {"name": ancestor}, "controllerName": CONTROLLER, "conditions": conditions(1, said),
    });
    json!({"metadata": {"generation": 1}, "status": {"ancestors": [entry]}})
}

fn noted_gateway() -> Value {
    json!({"name": "gw", "namespace": "gws"})
}

pub fn accepted() -> Option<Admission> {
    Some(Admission::Accepted { warnings: vec![] })
}

pub fn refusal(message: &str) -> Option<Admission> {
    Some(Admission::Refused { code: 422, reason: "Invalid".into(), message: message.into() })
}

/// The `usage` of a reply: tokens of prompt, completion and in total.
pub fn usage([prompt, completion, total]: [u64; 3]) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total})
}

/// A limit by user as most tables want it: its limiter marks every answer that it sees.
pub fn token_limit() -> TokenLimit {
    TokenLimit {
        charged_fields: vec![UsageField::Total],
        aborted_stream: Price::Free,
        no_usage_reply: Price::Free,
        block_when: Rule::Over,
        window: Window::FixedUnix,
        window_seconds: 60,
        identity_header: Some("x-user-id".into()),
        without_identity: Some(WithoutIdentity::Unlimited),
        mark_header: "x-ratelimit-limit".into(),
        marked_answers: MarkedAnswers::EveryAnswer,
        model: None,
        status: 429,
        body: "empty".into(),
        content_type: None,
        headers: ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(Into::into).into(),
    }
}

/// A limit that all share, whose limiter marks its refusals alone.
pub fn shared_token_limit() -> TokenLimit {
    TokenLimit {
        block_when: Rule::AtLeast,
        window: Window::FixedFromPolicy,
        identity_header: None,
        without_identity: None,
        marked_answers: MarkedAnswers::Refusals,
        body: "rate limit exceeded".into(),
        content_type: Some("text/plain".into()),
        ..token_limit()
    }
}

/// A history in the making: settled, in namespace `ns`, with nothing in it; and the second from which on requests are sent.
#[derive(Clone, Debug)]
pub struct Fake(pub History, f64);

impl Fake {
    pub fn of(check: &str) -> Self {
        let key = Key { gateway: "some-gateway".into(), check: check.into(), case: "-".into(), attempt: 1 };
        let mut history = History::new(key, "ns", "stage.igc.test");
        history.controller = CONTROLLER.into();
        history.settle.settled = true;
        Self(history, 0.0)
    }

    fn with(mut self, change: impl FnOnce(&mut History)) -> Self {
        change(&mut self.0);
        self
    }

    pub fn case(self, case: &str) -> Self {
        self.with(|h| h.key.case = case.into())
    }

    pub fn declares(self, parameters: impl Serialize) -> Self {
        let value = serde_json::to_value(parameters).expect("parameters are data");
        self.with(|h| h.declared = serde_json::from_value(value).expect("parameters are an object"))
    }

    pub fn verdict(&self) -> Holds {
        let id = &self.0.key.check;
        let check = registry::find(id).unwrap_or_else(|| panic!("there is no check {id}"));
        verdict_of(|history| check.judged(history), self)
    }

    pub fn unsettled(self) -> Self {
        self.with(|h| h.settle.settled = false)
    }

    /// A model with whole records: both markers.
    pub fn model(self, name: &str) -> Self {
        self.with(|h| {
            let log = h.models.entry(name.into()).or_default();
            log.marker_before = Some(format!("{name}-before"));
            log.marker_after = Some(format!("{name}-after"));
            log.records = vec![record(&format!("{name}-before")), record(&format!("{name}-after"))];
        })
    }

    /// The model's last marker is not in its records.
    pub fn without_marker(self, name: &str) -> Self {
        self.with(|h| {
            if let Some(log) = h.models.get_mut(name) {
                let after = log.marker_after.clone();
                log.records.retain(|r| r.exchange != after);
            }
        })
    }

    /// An exchange with this answer, which no model recorded.
    pub fn answer(self, label: &str, status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let response = Response {
            status,
            headers: owned(headers),
            body: Body::of(body.as_bytes()),
            chunks: vec![],
            ended: Ended::Complete,
            head_ms: 1.0,
            end_ms: 1.0,
        };
        self.exchange(label, Outcome::Response(response))
    }

    fn exchange(self, label: &str, outcome: Outcome) -> Self {
        let from = self.1 * 1000.0;
        self.with(|h| {
            let request = Request {
                method: "POST".into(),
                target: "/v1/chat/completions".into(),
                host: h.hostname.clone(),
                headers: vec![],
                body: Body::of(b""),
            };
            let id = format!("x-{}", h.exchanges.len());
            h.exchanges.push(Exchange {
                id,
                label: label.into(),
                sent_ms: from + h.exchanges.len() as f64 * 10.0,
                request,
                outcome,
                connection: None,
            });
        })
    }

    /// An answer that this model recorded.
    pub fn answered(self, label: &str, status: u16, model: &str) -> Self {
        self.answer(label, status, &[("content-type", "application/json")], "{}").also_reached(model)
    }

    /// A pool of this name: so many pods, each with the endpoint of [`endpoint`], and whole records of models and picker.
    pub fn pool(self, name: &str, pods: usize) -> Self {
        let endpoints: BTreeMap<String, String> = (0..pods).map(|n| (endpoint(name, n), pod(name, n))).collect();
        self.model(name).fact(&endpoints_of(name), json!(endpoints)).with(|h| {
            let log = h.pickers.entry(name.into()).or_default();
            (log.marker_before, log.marker_after) = (Some("before".into()), Some("after".into()));
            log.records =
                ["before", "after"].map(|m| PickerRecord { exchange: Some(m.into()), ..Default::default() }).into();
        })
    }

    /// The picker's last marker is not in its records.
    pub fn without_picker_marker(self, pool: &str) -> Self {
        self.with(|h| {
            if let Some(log) = h.pickers.get_mut(pool) {
                log.records.retain(|r| r.exchange.as_deref() != Some("after"));
            }
        })
    }

    pub fn without_picker_records(self, pool: &str) -> Self {
        self.with(|h| _ = h.pickers.remove(pool))
    }

    /// A 200 of this pod of the pool, whose picker was not asked.
    pub fn past_the_picker(self, label: &str, pool: &str, served: usize) -> Self {
        self.answered(label, 200, pool).with_record(|record| record.pod = pod(pool, served))
    }

    /// The last exchange also asked this pool's picker, which named these endpoints.
    pub fn also_asked(self, pool: &str, chosen: &[usize]) -> Self {
        self.with(|h| {
            let Some(exchange) = h.exchanges.last() else { return };
            let body = &exchange.request.body;
            let request = Passed { bytes: body.bytes, sha256: body.sha256.clone(), messages: 1, ends: 1 };
            let record = PickerRecord {
                exchange: Some(exchange.id.clone()),
                chosen: chosen.iter().map(|n| endpoint(pool, *n)).collect(),
                request,
                ..PickerRecord::default()
            };
            h.pickers.entry(pool.into()).or_default().records.push(record);
        })
    }

    /// A 200 of the endpoint that the picker named.
    pub fn picked(self, label: &str, pool: &str, number: usize) -> Self {
        self.past_the_picker(label, pool, number).also_asked(pool, &[number])
    }

    pub fn sent_with(self, name: &str, value: &str) -> Self {
        self.with_exchange(|exchange| exchange.request.headers.push((name.into(), value.into())))
    }

    /// The last exchange was sent with this body, and whoever recorded it recorded all of it.
    pub fn sent_body(self, body: &str) -> Self {
        let sent = Body::of(body.as_bytes());
        self.with_exchange(|exchange| exchange.request.body = sent.clone())
            .with_record(|record| record.body = sent.clone())
            .with_pick(|pick| (pick.request.bytes, pick.request.sha256) = (sent.bytes, sent.sha256.clone()))
    }

    pub fn model_got(self, body: &str) -> Self {
        self.with_record(|record| record.body = Body::of(body.as_bytes()))
    }

    pub fn with_pick(self, change: impl Fn(&mut PickerRecord)) -> Self {
        self.with(|h| {
            let id = h.exchanges.last().map(|e| e.id.clone());
            let records = h.pickers.values_mut().flat_map(|l| &mut l.records);
            records.filter(|r| r.exchange == id).for_each(change);
        })
    }

    pub fn times(self, times: usize, more: impl Fn(Self, usize) -> Self) -> Self {
        (0..times).fold(self, more)
    }

    pub fn also_reached(self, model: &str) -> Self {
        self.with(|h| {
            let id = h.exchanges.last().map(|e| e.id.clone()).unwrap_or_default();
            h.models.entry(model.into()).or_default().records.push(record(&id));
        })
    }

    pub fn with_model_headers(self, headers: &[(&str, &str)]) -> Self {
        self.with_record(|record| record.headers = owned(headers))
    }

    pub fn with_record(self, change: impl Fn(&mut ModelRecord)) -> Self {
        self.with(|h| {
            let id = h.exchanges.last().map(|e| e.id.clone());
            h.models.values_mut().flat_map(|l| &mut l.records).filter(|r| r.exchange == id).for_each(change);
        })
    }

    pub fn with_exchange(self, change: impl Fn(&mut Exchange)) -> Self {
        self.with(|h| h.exchanges.last_mut().into_iter().for_each(change))
    }

    pub fn with_response(self, change: impl Fn(&mut Response)) -> Self {
        self.with_exchange(|exchange| {
            if let Outcome::Response(response) = &mut exchange.outcome {
                change(response);
            }
        })
    }

    pub fn with_model_target(self, target: &str) -> Self {
        self.with_record(|record| record.target = target.to_owned())
    }

    /// An answer of the gateway's own, in plain text.
    pub fn refused(self, label: &str, status: u16) -> Self {
        self.refused_with(label, status, "text/plain", "no")
    }

    pub fn refused_with(self, label: &str, status: u16, content_type: &str, body: &str) -> Self {
        self.answer(label, status, &[("content-type", content_type)], body)
    }

    pub fn cut(self, label: &str) -> Self {
        self.exchange(
            label,
            Outcome::Failed { stage: "read the response head".into(), error: "connection reset".into() },
        )
    }

    /// A reply of 7 tokens that the limiter marked: what the budget is, what was left before it, seconds to the window's end.
    pub fn admitted(self, label: &str, limit: u64, remaining: u64, reset: u64) -> Self {
        self.admitted_for(label, limit, remaining, reset, 7)
    }

    pub fn admitted_for(self, label: &str, limit: u64, remaining: u64, reset: u64, tokens: u64) -> Self {
        self.limiter(label, 200, limit, remaining, reset, &reply(tokens))
    }

    pub fn limited(self, label: &str, limit: u64, remaining: u64, reset: u64) -> Self {
        self.limiter(label, 429, limit, remaining, reset, "")
    }

    fn limiter(self, label: &str, status: u16, limit: u64, remaining: u64, reset: u64, body: &str) -> Self {
        let (limit, remaining, reset) = (format!("{limit}, {limit};w=60"), remaining.to_string(), reset.to_string());
        self.answer(
            label,
            status,
            &[("x-ratelimit-limit", &limit), ("x-ratelimit-remaining", &remaining), ("x-ratelimit-reset", &reset)],
            body,
        )
    }

    /// A reply of 7 tokens that passed the limiter unseen.
    pub fn unmarked(self, label: &str, status: u16) -> Self {
        self.answer(label, status, &[], &reply(7))
    }

    /// What follows is sent this long after the stage was opened.
    pub fn from(self, seconds: f64) -> Self {
        Self(self.0, seconds)
    }

    /// The exchanges of this label, from this one on, are sent so much later.
    pub fn sent_later(self, label: &str, first: usize, seconds: f64) -> Self {
        self.with(|h| {
            let of_label = h.exchanges.iter_mut().filter(|e| e.label == label);
            of_label.skip(first).for_each(|e| e.sent_ms += seconds * 1000.0);
        })
    }

    /// While the drive was prepared, a refusal at this time said what the budget is and when its window ends.
    pub fn prepared_refusal(self, at: f64, limit: u64, reset: u64) -> Self {
        self.from(at).limited("prepare", limit, 0, reset).with(|h| {
            let refusal = h.exchanges.pop();
            h.settle.exchanges.extend(refusal);
        })
    }

    pub fn fact(self, name: &str, value: Value) -> Self {
        self.with(|h| _ = h.facts.insert(name.into(), value))
    }

    pub fn object(self, name: &str, value: Value) -> Self {
        self.with(|h| _ = h.objects.insert(name.into(), value))
    }

    pub fn without_object(self, name: &str) -> Self {
        self.with(|h| _ = h.objects.remove(name))
    }

    /// What the API server said to a manifest, if it was offered.
    pub fn admission(self, name: &str, said: Option<Admission>) -> Self {
        self.with(|h| h.admissions.extend(said.map(|said| (name.to_owned(), said))))
    }

    /// The drive noted the Gateway of [`parents_saying`].
    pub fn of_the_gateway(self) -> Self {
        self.fact(GATEWAY, noted_gateway())
    }
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub fn endpoint(pool: &str, number: usize) -> String {
    format!("{pool}-{number}:8080")
}

fn pod(pool: &str, number: usize) -> String {
    format!("{pool}-pod-{number}")
}

fn reply(tokens: u64) -> String {
    json!({"usage": usage([tokens - 1, 1, tokens])}).to_string()
}

fn record(exchange: &str) -> ModelRecord {
    ModelRecord {
        sequence: 0,
        exchange: Some(exchange.to_owned()),
        pod: "pod".into(),
        at_ms: 0,
        method: "POST".into(),
        target: "/v1/chat/completions".into(),
        headers: vec![],
        body: Body::of(b"{}"),
        model: None,
        status: 200,
        usage: None,
        finished: true,
        sent: None,
        reply: None,
    }
}
