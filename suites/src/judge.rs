//! A judge: the history of one attempt and the judgement that grows out of it, clause by clause.
//!
//! The name of a clause is a constant, so that a search finds what a report prints. A status code proves little: a 200
//! counts when the record of the model that was meant shows the request, "reached nothing" counts when whole records of all
//! models show nothing.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use verdict::{
    capability::{self, Refusal},
    change::Change,
    history::{Admission, Body, Ended, Exchange, History, ModelLog, Response, Sent},
    invariant,
    judge::{Clause, Holds, Judgement},
};

#[derive(Debug)]
pub struct Judge<'h> {
    history: &'h History,
    /// What the check's own routes change.
    changes: Vec<Change>,
    judgement: Judgement,
}

/// A clause of which not everything is said yet.
#[must_use = "a clause is judged by `holds` or `unproven`"]
#[derive(Debug)]
pub struct Statement<'j> {
    judgement: &'j mut Judgement,
    clause: Clause,
}

impl<'j> Statement<'j> {
    pub fn expected(mut self, words: impl Into<String>) -> Self {
        self.clause.expected = words.into();
        self
    }

    pub fn got(mut self, words: impl Into<String>) -> Self {
        self.clause.got = words.into();
        self
    }

    pub fn shown_by<'h>(mut self, exchanges: impl IntoIterator<Item = &'h Exchange>) -> Self {
        self.clause.exchanges = exchanges.into_iter().map(|e| e.id.clone()).collect();
        self
    }

    pub fn holds(self, holds: bool) {
        self.holds_if_known(Some(holds));
    }

    pub fn unproven(mut self, missing: impl Into<String>) {
        self.clause.got = missing.into();
        self.ends(Holds::Unproven);
    }

    /// The evidence decides it, where there is any.
    pub fn holds_if_known(self, holds: Option<bool>) {
        self.ends(holds.map_or(Holds::Unproven, |holds| if holds { Holds::Yes } else { Holds::No }));
    }

    fn ends(mut self, holds: Holds) {
        self.clause.holds = holds;
        self.judgement.clauses.push(self.clause);
    }
}

impl<'h> Judge<'h> {
    pub fn of(history: &'h History) -> Self {
        Self::of_changed(history, vec![])
    }

    /// The same for a check whose own routes change requests or replies.
    pub fn of_changed(history: &'h History, changes: Vec<Change>) -> Self {
        Self { history, changes, judgement: Judgement::default() }
    }

    /// Why the only record of an exchange is not of it, or the reply not of that record, by what they contain.
    pub(crate) fn of_another(&self, exchange: &Exchange) -> Option<String> {
        match self.history.reached(exchange)[..] {
            [(_, record)] => invariant::of_another(self.history, &self.changes, exchange, record),
            _ => None,
        }
    }

    pub fn judgement(self) -> Judgement {
        self.judgement
    }

    pub fn history(&self) -> &'h History {
        self.history
    }

    /// The case, `-` where there is none.
    pub fn case(&self) -> &'h str {
        &self.history.key.case
    }

    /// The exchanges that the drive gave this label, in order.
    pub fn labelled(&self, label: &str) -> Vec<&'h Exchange> {
        self.history.exchanges.iter().filter(|e| e.label == label).collect()
    }

    /// An object as it was read, `null` where it was not.
    pub fn object(&self, name: &str) -> &'h Value {
        self.history.objects.get(name).unwrap_or(&Value::Null)
    }

    pub fn admission(&self, name: &str) -> Option<&'h Admission> {
        self.history.admissions.get(name)
    }

    /// The declared parameters of the check's capability. Where they are missing or of another shape the clause
    /// `declared` is unproven.
    pub fn declared<C: DeserializeOwned + JsonSchema>(&mut self) -> Option<C> {
        match capability::of_history(&self.history.declared) {
            Ok(declared) => Some(declared),
            Err(problem) => {
                let statement =
                    self.clause("declared").expected("parameters of the capability in the gateway's folder");
                statement.unproven(problem.to_string());
                None
            }
        }
    }

    pub fn clause(&mut self, name: &'static str) -> Statement<'_> {
        let clause = Clause {
            name: name.to_owned(),
            holds: Holds::Unproven,
            expected: String::new(),
            got: String::new(),
            exchanges: vec![],
            subject: None,
        };
        Statement { judgement: &mut self.judgement, clause }
    }

    /// The exchanges of a label; without any the clause is unproven.
    pub(crate) fn sent(&mut self, clause: &'static str, label: &str) -> Option<Vec<&'h Exchange>> {
        let exchanges = self.labelled(label);
        if exchanges.is_empty() {
            self.clause(clause).expected(format!("requests called {label}")).unproven("none was sent");
            return None;
        }
        Some(exchanges)
    }

    /// One clause about many exchanges: those for which `wrong` has words are its counter-examples.
    pub(crate) fn none_of(
        &mut self,
        clause: &'static str,
        expected: &str,
        exchanges: &[&'h Exchange],
        wrong: impl Fn(&'h Exchange) -> Option<String>,
    ) {
        let wrong = exchanges.iter().map(|exchange| wrong(exchange)).collect();
        self.none_of_these(clause, expected, exchanges, wrong);
    }

    /// The same where what is wrong with each is known.
    pub(crate) fn none_of_these(
        &mut self,
        clause: &'static str,
        expected: &str,
        exchanges: &[&'h Exchange],
        wrong: Vec<Option<String>>,
    ) {
        let pairs = exchanges.iter().copied().zip(wrong);
        let found: Vec<(&Exchange, String)> = pairs.filter_map(|(e, words)| Some((e, words?))).collect();
        let statement = self.clause(clause).expected(expected);
        match found.first() {
            None => {
                let got = format!("{} of {}: {expected}", exchanges.len(), exchanges.len());
                statement.got(got).shown_by(exchanges.iter().copied().take(1)).holds(true);
            }
            Some((_, words)) => {
                let got = format!("{} of {}: {words}", found.len(), exchanges.len());
                statement.got(got).shown_by(found.iter().map(|(e, _)| *e).take(5)).holds(false);
            }
        }
    }

    pub fn every(
        &mut self,
        clause: &'static str,
        label: &str,
        expected: &str,
        wrong: impl Fn(&'h Exchange) -> Option<String>,
    ) {
        if let Some(exchanges) = self.sent(clause, label) {
            self.none_of(clause, expected, &exchanges, wrong);
        }
    }

    /// Whether an absent record of any model means that nothing arrived.
    pub fn records_are_whole(&self) -> bool {
        !self.history.models.is_empty() && self.history.models.values().all(ModelLog::is_whole)
    }

    /// The configuration came to be live. A gateway that never serves what it accepted has failed.
    pub fn live(&mut self) {
        let settle = &self.history.settle;
        let last = settle.exchanges.last();
        let (seconds, requests) = (settle.seconds, settle.exchanges.len());
        let got = match &settle.missing {
            Some(missing) => missing.clone(),
            None if settle.settled => format!("after {seconds:.1} s and {requests} requests"),
            None => {
                let last = last.map_or("none".into(), Exchange::outcome_words);
                format!("not within {seconds:.0} s; the last of {requests} answers was {last}")
            }
        };
        let statement = self.clause("live").expected("the configuration becomes live").got(got);
        statement.shown_by(last.filter(|_| !settle.settled)).holds(settle.settled);
    }

    /// Every exchange of the label is a whole 200, and exactly one record of exactly this model shows it.
    pub fn answered_by(&mut self, clause: &'static str, label: &str, model: &str) {
        let history = self.history;
        let Some(exchanges) = self.sent(clause, label) else { return };
        if !history.models.contains_key(model) {
            return self.clause(clause).expected(format!("records of model {model}")).unproven("there are none");
        }
        let unseen = |e: &&Exchange| e.status() == Some(200) && history.reached(e).is_empty();
        if !self.records_are_whole() && exchanges.iter().all(unseen) {
            let statement = self.clause(clause).expected(format!("a record of model {model}"));
            return statement.unproven("the models' records are not whole");
        }
        let wrong = |exchange: &Exchange| {
            if let Some(wrong) = not_a_whole_200(exchange) {
                return Some(wrong);
            }
            let reached = reached(history, exchange);
            let from = if reached.is_empty() { "no recorded model".into() } else { reached.join(" and ") };
            if reached != [model] { Some(format!("200 from {from}")) } else { self.of_another(exchange) }
        };
        let wrong: Vec<Option<String>> = exchanges.iter().map(|exchange| wrong(exchange)).collect();
        self.none_of_these(clause, &format!("200 from model {model}"), &exchanges, wrong);
    }

    pub fn status(&mut self, clause: &'static str, label: &str, wanted: u16) {
        self.statuses(clause, label, wanted..=wanted);
    }

    fn statuses(&mut self, clause: &'static str, label: &str, wanted: RangeInclusive<u16>) {
        let expected = match (wanted.start(), wanted.end()) {
            (first, last) if first == last => format!("status {first}"),
            (first, _) => format!("{}xx", first / 100),
        };
        self.every(clause, label, &expected, |e| {
            (!e.status().is_some_and(|status| wanted.contains(&status))).then(|| e.outcome_words())
        });
    }

    /// Every exchange of the label has one of these statuses, and reached no model.
    pub fn unserved(&mut self, [status, reaches_nothing]: [&'static str; 2], label: &str, wanted: RangeInclusive<u16>) {
        self.statuses(status, label, wanted);
        self.reached_nothing(reaches_nothing, label);
    }

    /// Every exchange of the label is refused as declared, compared whole.
    pub fn refused(&mut self, clause: &'static str, label: &str, declared: &Refusal) {
        let own = self.changes.clone();
        let changes: Vec<&Change> = self.history.changes.iter().chain(&own).collect();
        self.every(clause, label, &declared.to_string(), |exchange| declared.differs(exchange, &changes));
    }

    /// No model has a record of any exchange of the label, and the records of all of them are whole.
    pub fn reached_nothing(&mut self, clause: &'static str, label: &str) {
        let history = self.history;
        let Some(exchanges) = self.sent(clause, label) else { return };
        if !exchanges.iter().any(|e| !history.reached(e).is_empty()) && !self.records_are_whole() {
            let statement = self.clause(clause).expected("markers before and after in the records of every model");
            return statement.unproven("the records are not whole");
        }
        self.none_of(clause, "reaches no model", &exchanges, |exchange| {
            let reached = reached(history, exchange);
            (!reached.is_empty()).then(|| format!("reached {}", reached.join(" and ")))
        });
    }

    /// This model has no record of any exchange of the label, and its records are whole.
    pub fn did_not_reach(&mut self, clause: &'static str, label: &str, model: &str) {
        let history = self.history;
        let Some(exchanges) = self.sent(clause, label) else { return };
        let reaches = |exchange: &Exchange| reached(history, exchange).contains(&model);
        let whole = history.models.get(model).is_some_and(ModelLog::is_whole);
        if !whole && !exchanges.iter().any(|e| reaches(e)) {
            let statement = self.clause(clause).expected(format!("whole records of model {model}"));
            return statement.unproven("they are not whole");
        }
        self.none_of(clause, &format!("does not reach {model}"), &exchanges, |exchange| {
            reaches(exchange).then(|| format!("reached {model}"))
        });
    }

    pub fn body(&mut self, clause: &'static str, label: &str, wanted: &str) {
        self.every(clause, label, &format!("body {wanted}"), |exchange| {
            let text = exchange.response().and_then(|r| r.body.text.as_deref()).unwrap_or_default();
            (text != wanted).then(|| format!("body {text:?}"))
        });
    }

    pub fn json_if_it_says_so(&mut self, clause: &'static str, label: &str) {
        self.every(clause, label, "JSON, or no claim to be", |exchange| {
            let response = exchange.response()?;
            let says = response.header("content-type").is_some_and(|c| c.to_ascii_lowercase().contains("json"));
            (says && response.json().is_none())
                .then(|| format!("says JSON, but is {}", response.body.text.as_deref().unwrap_or("not even text")))
        });
    }

    pub fn usage_adds_up(&mut self, exchange: &Exchange, body: &Value) {
        let tokens = |name: &str| body["usage"][name].as_u64().unwrap_or(0);
        let (prompt, completion, total) =
            (tokens("prompt_tokens"), tokens("completion_tokens"), tokens("total_tokens"));
        self.clause("usage")
            .expected("prompt and completion tokens that add up to the total")
            .got(format!("{prompt} + {completion}, total {total}"))
            .shown_by([exchange])
            .holds(prompt > 0 && completion > 0 && prompt.checked_add(completion) == Some(total));
    }

    /// The reply to each exchange of the label has exactly these values of a header; none: it does not have it.
    pub fn reply_has(&mut self, clause: &'static str, label: &str, name: &str, wanted: &[&str]) {
        self.every(clause, label, &header(name, wanted), |exchange| match exchange.response() {
            Some(response) => other_values(&response.headers, name, wanted),
            None => Some(exchange.outcome_words()),
        });
    }

    /// The model's record of each exchange of the label has exactly these values of a header; none: it does not have it.
    pub fn model_got(&mut self, clause: &'static str, label: &str, name: &str, wanted: &[&str]) {
        let history = self.history;
        self.every(clause, label, &header(name, wanted), |exchange| match history.reached(exchange).first() {
            Some((_, record)) => other_values(&record.headers, name, wanted),
            None => Some(NO_RECORD.into()),
        });
    }

    /// Exactly one record of a model has each exchange of the label, with the bytes that the client sent.
    pub fn request_untouched(&mut self, clause: &'static str, label: &str) {
        let history = self.history;
        self.every(clause, label, SAME_BYTES, |exchange| {
            let sent = &exchange.request.body;
            match history.reached(exchange)[..] {
                [(_, record)] if same(&record.body, sent) => None,
                [(_, record)] => Some(invariant::differing(sent, &record.body)),
                [] => Some(NO_RECORD.into()),
                ref records => Some(format!("{} records of a model", records.len())),
            }
        });
    }

    /// For each exchange of the label the client got, whole, the bytes that the model sent.
    pub fn reply_untouched(&mut self, clause: &'static str, label: &str) {
        let history = self.history;
        let Some(exchanges) = self.sent(clause, label) else { return };
        let sent = |exchange: &Exchange| history.reached(exchange).first().and_then(|(_, record)| record.sent.clone());
        if exchanges.iter().any(|e| sent(e).is_none() && !history.reached(e).is_empty()) {
            return self.clause(clause).expected("a record of what the model sent").unproven("there is none");
        }
        self.none_of(clause, SAME_BYTES, &exchanges, |exchange| match (exchange.response(), sent(exchange)) {
            (Some(response), Some(sent)) => {
                let same = response.body.sha256 == sent.sha256 && response.ended == Ended::Complete;
                let Sent { bytes, sha256, text } = sent;
                let sent = Body { bytes, sha256, truncated: text.is_none(), text };
                (!same).then(|| format!("{:?}: {}", response.ended, invariant::differing(&sent, &response.body)))
            }
            (Some(_), None) => Some(NO_RECORD.into()),
            (None, _) => Some(exchange.outcome_words()),
        });
    }

    /// The conditions that the Gateway's controller wrote into an object's status, one list for each of its entries: of
    /// `parents` (routes) and `ancestors` (policies) those with its `controllerName`, else the status's own list. A list
    /// of entries without one of it gives nothing.
    pub fn conditions_of<'o>(&self, object: &'o Value) -> Vec<&'o Value> {
        let status = &object["status"];
        let Some(entries) = ["parents", "ancestors"].iter().find_map(|list| status[*list].as_array()) else {
            return vec![&status["conditions"]];
        };
        let controller = match self.history.controller.as_str() {
            // A history of an earlier program does not say whose entries count: those of the only controller do.
            "" => entries.first().map_or(&Value::Null, |entry| &entry["controllerName"]).as_str().unwrap_or_default(),
            controller => controller,
        };
        let alone = self.history.controller.is_empty() && entries.iter().any(|e| e["controllerName"] != controller);
        let own = |entry: &&Value| !alone && entry["controllerName"] == controller;
        entries.iter().filter(own).map(|entry| &entry["conditions"]).collect()
    }

    /// A condition of an object, as the Gateway's controller wrote it; of several entries the first that has it.
    pub fn condition_of<'o>(&self, object: &'o Value, kind: &str) -> Option<&'o Value> {
        self.conditions_of(object).into_iter().find_map(|conditions| condition(conditions, kind))
    }

    /// The object's condition is True, for whatever generation; one that was not read has none.
    pub fn is_true(&mut self, clause: &'static str, object: &Value, kind: &str) {
        let found = self.condition_of(object, kind);
        let status = found.and_then(|c| c["status"].as_str()).unwrap_or("absent");
        let reason = found.and_then(|c| c["reason"].as_str()).unwrap_or_default();
        let statement = self.clause(clause).expected(format!("{kind}=True")).got(format!("{kind}={status} {reason}"));
        statement.holds(status == "True");
    }

    pub fn reason(&mut self, clause: &'static str, found: Option<&Value>, wanted: &str) {
        let reason = found.and_then(|c| c["reason"].as_str()).unwrap_or("no reason");
        self.clause(clause).expected(wanted).got(reason).holds(reason == wanted);
    }

    /// The entries of an InferencePool's status that are about the Gateway which the drive noted with
    /// [`Stage::note_gateway`](crate::Stage::note_gateway).
    pub fn pool_entries<'p>(&self, pool: &'p Value) -> Vec<&'p Value> {
        match self.history.facts.get(GATEWAY) {
            Some(gateway) => pool_parents(pool, gateway),
            // A history of an earlier program may not say which Gateway it is: an entry that is the only one counts.
            None if self.history.controller.is_empty() => match pool["status"]["parents"].as_array().map(Vec::as_slice)
            {
                Some([only]) => vec![only],
                _ => vec![],
            },
            None => vec![],
        }
    }

    /// Like [`Judge::condition`] of an InferencePool, whose entries are told apart by Gateway.
    pub fn pool_condition(&mut self, clause: &'static str, pool: &Value, kind: &str, wanted: &str) {
        let lists: Vec<&Value> = self.pool_entries(pool).into_iter().map(|entry| &entry["conditions"]).collect();
        self.condition_in(clause, pool, &lists, kind, wanted);
    }

    pub fn accepted(&mut self, clause: &'static str, name: &str) {
        self.admitted(clause, name, "accepted", |said| matches!(said, Admission::Accepted { .. }));
    }

    /// The API server refused it, with a message that has each of these words.
    pub fn not_accepted(&mut self, clause: &'static str, name: &str, words: &[&str]) {
        let expected = format!("refused with a message that says {}", words.join(" and "));
        self.admitted(clause, name, &expected, |said| match said {
            Admission::Refused { message, .. } => words.iter().all(|word| message.contains(word)),
            Admission::Accepted { .. } => false,
        });
    }

    fn admitted(&mut self, clause: &'static str, name: &str, expected: &str, holds: impl Fn(&Admission) -> bool) {
        let said = self.admission(name);
        let statement = self.clause(clause).expected(expected);
        match said {
            Some(said @ Admission::Accepted { .. }) => statement.got("accepted").holds(holds(said)),
            Some(said @ Admission::Refused { message, .. }) => statement.got(message).holds(holds(said)),
            None => statement.unproven("it was not offered"),
        }
    }

    /// Every entry of the Gateway's controller in the object's status has the condition with this status, for the
    /// generation that the object has.
    pub fn condition(&mut self, clause: &'static str, object: &Value, kind: &str, wanted: &str) {
        let lists = self.conditions_of(object);
        self.condition_in(clause, object, &lists, kind, wanted);
    }

    /// It is Accepted with its references resolved, for the generation that it has.
    pub fn accepted_and_resolved(&mut self, [accepted, resolved]: [&'static str; 2], object: &Value) {
        self.condition(accepted, object, "Accepted", "True");
        self.condition(resolved, object, "ResolvedRefs", "True");
    }

    /// The same in these lists of conditions, where they are not those of [`Judge::conditions_of`].
    pub fn condition_in(&mut self, clause: &'static str, object: &Value, lists: &[&Value], kind: &str, wanted: &str) {
        let generation = object["metadata"]["generation"].as_u64();
        let found: Vec<Option<&Value>> = lists.iter().map(|conditions| condition(conditions, kind)).collect();
        let holds = |condition: &&Option<&Value>| {
            condition.is_some_and(|c| {
                c["status"] == wanted && generation.is_some() && c["observedGeneration"].as_u64() == generation
            })
        };
        let words = |condition: Option<&Value>| {
            condition.map_or("absent".to_owned(), |c| {
                let observed = &c["observedGeneration"];
                format!("{} ({}), observedGeneration {observed} of {generation:?}", c["status"], c["reason"])
            })
        };
        let shown = found.iter().find(|c| !holds(c)).or(found.first()).copied().flatten();
        self.clause(clause)
            .expected(format!("{kind}={wanted} for the object's generation"))
            .got(words(shown))
            .holds(!found.is_empty() && found.iter().all(|c| holds(&c)));
    }
}

pub const CLIENT_ERROR: RangeInclusive<u16> = 400..=499;
pub const SERVER_ERROR: RangeInclusive<u16> = 500..=599;

/// The fact that says which Gateway it is that all checks share.
pub(crate) const GATEWAY: &str = "gateway";

const NO_RECORD: &str = "no record of the model";
const SAME_BYTES: &str = "the bytes that were sent";

pub fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|c| c["type"] == kind)
}

/// The entries of an InferencePool's status that are about a Gateway, by `parentRef`: they have no controllerName.
pub fn pool_parents<'p>(pool: &'p Value, gateway: &Value) -> Vec<&'p Value> {
    let parents = pool["status"]["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let same = |parent: &&Value| {
        let reference = &parent["parentRef"];
        reference["name"] == gateway["name"] && reference["namespace"] == gateway["namespace"]
    };
    parents.iter().filter(same).collect()
}

pub(crate) fn not_a_whole_200(exchange: &Exchange) -> Option<String> {
    match exchange.response() {
        Some(Response { status: 200, ended: Ended::Complete, .. }) => None,
        Some(Response { status: 200, ended, .. }) => Some(format!("200 whose body was {ended:?}")),
        _ => Some(exchange.outcome_words()),
    }
}

fn reached<'h>(history: &'h History, exchange: &'h Exchange) -> Vec<&'h str> {
    history.reached(exchange).into_iter().map(|(model, _)| model).collect()
}

fn same(one: &Body, other: &Body) -> bool {
    (one.bytes, &one.sha256) == (other.bytes, &other.sha256)
}

/// What is wrong with the values of a header, also those that one line lists, in order.
fn other_values(headers: &[(String, String)], name: &str, wanted: &[&str]) -> Option<String> {
    let lines = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let got: Vec<&str> = lines.flat_map(|(_, value)| value.split(',')).map(str::trim).collect();
    (got != wanted).then(|| header(name, &got))
}

fn header(name: &str, values: &[&str]) -> String {
    if values.is_empty() { format!("no {name}") } else { format!("{name}: {}", values.join(", ")) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::fake::{Fake, No, Yes};

    /// A 200 of the model that was meant, with the exchange's id in its record, and what request and reply contain.
    #[rstest]
    #[case::of_this_request(r#"{"user":"e-1"}"#, r#"{"id":"1"}"#, Yes)]
    #[case::of_another_request(r#"{"user":"e-2"}"#, r#"{"id":"1"}"#, No)]
    #[case::of_another_reply(r#"{"user":"e-1"}"#, r#"{"id":"2"}"#, No)]
    fn who_answered_is_told_by_id_and_content(#[case] got: &str, #[case] wrote: &str, #[case] holds: Holds) {
        let fake = Fake::of("a/b").model("alpha").answered("asked", 200, "alpha").sent_body(r#"{"user":"e-1"}"#);
        let fake = fake.with_response(|response| response.body = Body::of(br#"{"id":"1"}"#)).model_got(got);
        let fake = fake.with_record(|record| {
            (record.sent, record.reply) = (Some(Sent::of(wrote.as_bytes())), Some(vec![]));
        });
        let mut judge = Judge::of(&fake.0);
        judge.answered_by("answered-by-alpha", "asked", "alpha");
        assert_eq!(judge.judgement().holds(), holds);
    }

    /// Two Gateways are named by the entries of a pool; the drive notes `igc`, or nothing as drives did once.
    #[rstest]
    #[case::its_own_among_others(json!("igc"), "c", &["other", "igc"], 1)]
    #[case::none_of_its_own(json!("igc"), "c", &["other"], 0)]
    #[case::not_noted(Value::Null, "c", &["igc"], 0)]
    #[case::not_noted_by_an_earlier_program(Value::Null, "", &["igc"], 1)]
    #[case::nor_told_apart_by_it(Value::Null, "", &["igc", "other"], 0)]
    fn entries_of_a_pool_are_told_apart_by_gateway(
        #[case] noted: Value,
        #[case] controller: &str,
        #[case] said_of: &[&str],
        #[case] entries: usize,
    ) {
        let mut history = Fake::of("a/b").0;
        history.controller = controller.into();
        if let Some(name) = noted.as_str() {
            history.facts.insert(GATEWAY.into(), json!({"name": name, "namespace": "gws"}));
        }
        let entry = |name: &&str| json!({"parentRef": {"name": name, "namespace": "gws"}});
        let pool = json!({"status": {"parents": said_of.iter().map(entry).collect::<Vec<_>>()}});
        assert_eq!(Judge::of(&history).pool_entries(&pool).len(), entries);
    }
}
