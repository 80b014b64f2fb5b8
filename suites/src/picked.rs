//! Proofs about pools: what the client got, what the endpoint picker said and what the model wrote down, joined by the
//! exchange. A 200 proves nothing here: it counts when the picker was asked and its choice was the one that served.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use verdict::{
    history::{Exchange, History, PickerLog, PickerRecord},
    observation::Observer,
};

use crate::{
    judge::{Judge, Statement, not_a_whole_200},
    stage::endpoints_of,
};

struct Known<'h> {
    name: &'h str,
    picker: &'h PickerLog,
    pods: BTreeMap<String, String>,
}

impl<'h> Known<'h> {
    fn of(history: &'h History, name: &'h str) -> Option<Self> {
        let pods = history.facts.get(&endpoints_of(name)).cloned()?;
        Some(Self { name, picker: history.pickers.get(name)?, pods: serde_json::from_value(pods).ok()? })
    }

    fn picks(&self, exchange: &Exchange) -> Vec<&'h PickerRecord> {
        self.picker.records.iter().filter(|r| r.exchange.as_deref() == Some(exchange.id.as_str())).collect()
    }

    /// What is wrong with an exchange that the picker's choice of this number was to serve.
    fn wrong(&self, history: &History, exchange: &Exchange, number: usize) -> Option<String> {
        if let Some(wrong) = not_a_whole_200(exchange) {
            return Some(wrong);
        }
        let pick = match self.picks(exchange)[..] {
            [] => return Some("200 that never asked the picker".into()),
            [pick] => pick,
            ref picks => return Some(format!("200, and the picker was asked {} times", picks.len())),
        };
        let Some(endpoint) = pick.chosen.get(number) else {
            return Some(format!("200 although the picker named {} endpoints", pick.chosen.len()));
        };
        let Some(pod) = self.pods.get(endpoint) else {
            return Some(format!("200 although the picker named {endpoint}, which is none of the pool"));
        };
        let reached = served_by(history, exchange);
        if reached == [(self.name, pod.as_str())] {
            return None;
        }
        let served: Vec<String> = reached.iter().map(|(model, pod)| format!("{pod} of {model}")).collect();
        let served = if served.is_empty() { "no recorded model".to_owned() } else { served.join(" and ") };
        Some(format!("200 from {served} although the picker named {pod}"))
    }
}

/// The exchanges of the label, and the pool with its picker's records; unproven where either is missing.
fn with_records<'h>(
    judge: &mut Judge<'h>,
    clause: &'static str,
    label: &str,
    pool: &'h str,
) -> Option<(Vec<&'h Exchange>, Known<'h>)> {
    let exchanges = judge.sent(clause, label)?;
    let known = Known::of(judge.history(), pool);
    if known.is_none() {
        judge.clause(clause).expected(format!("records of the picker of pool {pool}")).unproven("there are none");
    }
    Some((exchanges, known?))
}

/// Every exchange of the label is a whole 200 of the endpoint that the pool's picker chose, which was asked exactly once.
pub fn as_picked<'h>(judge: &mut Judge<'h>, clause: &'static str, label: &str, pool: &'h str) {
    served_by_choice(judge, clause, label, pool, 0);
}

/// The same, by the second endpoint of the picker's list: the first one is dead.
pub fn by_the_fallback<'h>(judge: &mut Judge<'h>, clause: &'static str, label: &str, pool: &'h str) {
    served_by_choice(judge, clause, label, pool, 1);
}

fn served_by_choice<'h>(judge: &mut Judge<'h>, clause: &'static str, label: &str, pool: &'h str, number: usize) {
    let Some((exchanges, known)) = with_records(judge, clause, label, pool) else { return };
    let history = judge.history();
    let whole = judge.records_are_whole();
    let doubtful = |e: &&Exchange| {
        let (no_pick, no_record) = (known.picks(e).is_empty(), history.reached(e).is_empty());
        e.status() == Some(200) && (no_pick && !known.picker.is_whole() || no_record && !whole)
    };
    if exchanges.iter().any(doubtful) {
        let statement = judge.clause(clause).expected("whole records of picker and models");
        return statement.unproven("markers are missing in them");
    }
    let which = if number == 0 { "the endpoint that the picker named" } else { "the picker's second endpoint" };
    let wrong = |e: &&Exchange| known.wrong(history, e, number).or_else(|| judge.of_another(e));
    let wrong: Vec<Option<String>> = exchanges.iter().map(wrong).collect();
    judge.none_of_these(clause, &format!("200 from {which}"), &exchanges, wrong);
}

pub fn not_asked<'h>(judge: &mut Judge<'h>, clause: &'static str, label: &str, pool: &'h str) {
    let Some(exchanges) = judge.sent(clause, label) else { return };
    match Known::of(judge.history(), pool) {
        Some(known) if known.picker.is_whole() => {
            judge.none_of(clause, &format!("picker of {pool} not asked"), &exchanges, |e| {
                (!known.picks(e).is_empty()).then(|| format!("the picker of {pool} was asked"))
            });
        }
        _ => {
            let statement = judge.clause(clause).expected(format!("whole records of the picker of {pool}"));
            statement.unproven("they are not whole");
        }
    }
}

pub fn record_of_each<'h>(
    judge: &mut Judge<'h>,
    clause: &'static str,
    label: &str,
    pool: &'h str,
    expected: &str,
    wrong: impl Fn(&Exchange, &PickerRecord) -> Option<String>,
) {
    let Some((exchanges, known)) = with_records(judge, clause, label, pool) else { return };
    judge.none_of(clause, expected, &exchanges, |exchange| match known.picks(exchange)[..] {
        [pick] => wrong(exchange, pick),
        ref picks => Some(format!("{} records of the picker", picks.len())),
    });
}

/// The picker's records of the exchanges of a label, in their order, those without one left out.
pub fn picks<'h>(history: &'h History, label: &'h str, pool: &str) -> Vec<&'h PickerRecord> {
    let log = history.pickers.get(pool);
    let of = |exchange: &Exchange| log?.records.iter().find(|r| r.exchange.as_deref() == Some(exchange.id.as_str()));
    history.labelled(label).filter_map(of).collect()
}

pub fn pick_of<'h>(history: &'h History, exchange: &Exchange, pool: &str) -> Option<&'h PickerRecord> {
    let records = &history.pickers.get(pool)?.records;
    records.iter().find(|r| r.exchange.as_deref() == Some(exchange.id.as_str()))
}

/// Beginnings of prompts, as labels, and the clauses that requests with one were served as picked and went to one place.
pub const PREFIXES: [(&str, &str, &str); 4] = [
    ("prefix-1", "prefix-1-as-picked", "prefix-1-sticks"),
    ("prefix-2", "prefix-2-as-picked", "prefix-2-sticks"),
    ("prefix-3", "prefix-3-as-picked", "prefix-3-sticks"),
    ("prefix-4", "prefix-4-as-picked", "prefix-4-sticks"),
];

/// Requests that begin alike, which went to these places, all went where the first one did: to that place, if it is known.
pub fn sticks(judge: &mut Judge<'_>, clause: &'static str, places: &[Option<String>]) -> Option<String> {
    let statement = judge.clause(clause).expected("one endpoint for all prompts that begin alike");
    match places {
        [Some(first), rest @ ..] if !rest.is_empty() => {
            let strays = rest.iter().filter(|place| place.as_ref() != Some(first)).count();
            statement.got(format!("{strays} of {} strayed", rest.len())).holds(strays == 0);
            Some(first.clone())
        }
        _ => {
            statement.unproven(format!("places {places:?}"));
            None
        }
    }
}

/// Begins the clause that prompts with nothing in common did not all go to one of these places; whether they did.
pub fn spreads<'j>(judge: &'j mut Judge<'_>, used: &[String]) -> (Statement<'j>, bool) {
    let endpoints: BTreeSet<&String> = used.iter().collect();
    let statement = judge.clause("spreads").expected("prompts with nothing in common spread over endpoints");
    (statement.got(format!("{} endpoints used", endpoints.len())), endpoints.len() > 1)
}

/// Every exchange of the label is a 200 of the endpoint that its own request header named to the picker, by the records of
/// the models: for pickers that keep none. Only a picker reads that header.
pub fn as_commanded(judge: &mut Judge<'_>, clause: &'static str, label: &str, pool: &str, header: &str) {
    let history = judge.history();
    let Some(exchanges) = judge.sent(clause, label) else { return };
    let unrecorded = |e: &&Exchange| e.status() == Some(200) && history.reached(e).is_empty();
    if exchanges.iter().any(unrecorded) && !judge.records_are_whole() {
        return judge.clause(clause).expected("whole records of the models").unproven("markers are missing in them");
    }
    judge.none_of(clause, "200 from the endpoint that was commanded", &exchanges, |exchange| {
        let wanted = sent_header(exchange, header).and_then(|endpoint| pod_of(history, pool, endpoint));
        let reached = served_by(history, exchange);
        match (exchange.status(), wanted) {
            (Some(200), Some(pod)) if reached == [(pool, pod.as_str())] => None,
            (Some(200), pod) => Some(format!("200 from {reached:?} where {pod:?} was commanded")),
            _ => Some(exchange.outcome_words()),
        }
    });
}

/// Model and pod of each record of the exchange.
fn served_by<'h>(history: &'h History, exchange: &'h Exchange) -> Vec<(&'h str, &'h str)> {
    history.reached(exchange).iter().map(|(model, record)| (*model, record.pod.as_str())).collect()
}

pub fn sent_header<'h>(exchange: &'h Exchange, header: &str) -> Option<&'h str> {
    exchange.request.headers.iter().find(|(name, _)| name == header).map(|(_, value)| value.as_str())
}

fn pod_of(history: &History, pool: &str, endpoint: &str) -> Option<String> {
    history.facts.get(&endpoints_of(pool))?[endpoint].as_str().map(str::to_owned)
}

/// What each label came to, whether pickers were asked and followed, and conditions; which endpoint it was is chance.
pub fn observe(history: &History) -> Value {
    let observer = Observer::new(history);
    let mut labels: BTreeMap<&str, Vec<&Exchange>> = BTreeMap::new();
    for exchange in &history.exchanges {
        labels.entry(&exchange.label).or_default().push(exchange);
    }
    let of_label = |exchanges: &Vec<&Exchange>| {
        let mut pickers: BTreeMap<&str, bool> = BTreeMap::new();
        for pool in history.pickers.keys() {
            let Some(known) = Known::of(history, pool) else { continue };
            if exchanges.iter().any(|e| !known.picks(e).is_empty()) {
                pickers.insert(pool, exchanges.iter().all(|e| known.wrong(history, e, 0).is_none()));
            }
        }
        let outcomes: Vec<String> = observer
            .statuses(exchanges.iter().copied())
            .as_object()
            .into_iter()
            .flat_map(|o| o.keys().cloned())
            .collect();
        json!({"outcomes": outcomes, "asked-and-followed": pickers})
    };
    let labels: BTreeMap<&str, Value> = labels.iter().map(|(label, exchanges)| (*label, of_label(exchanges))).collect();
    json!({"conditions": observer.conditions(), "labels": labels})
}

/// Where there is no picker: of many requests that name one endpoint of several in a header, not all go there.
pub fn not_steered(judge: &mut Judge<'_>, clause: &'static str, label: &str, pool: &str, header: &str) {
    /// Of fewer all may have gone there by chance.
    const ENOUGH: usize = 10;
    let history = judge.history();
    let Some(exchanges) = judge.sent(clause, label) else { return };
    let mut served = 0;
    let mut as_named = Vec::new();
    for exchange in &exchanges {
        let named = sent_header(exchange, header).and_then(|endpoint| pod_of(history, pool, endpoint));
        for (_, record) in history.reached(exchange) {
            served += 1;
            if Some(&record.pod) == named.as_ref() {
                as_named.push(*exchange);
            }
        }
    }
    let got = format!("{} of {served} that were served went where the client said", as_named.len());
    let steered = served > 0 && as_named.len() == served;
    let statement = judge.clause(clause).expected("an endpoint that the client names is not followed");
    if steered && served < ENOUGH {
        statement.unproven(got);
    } else {
        let shown = if steered { 3 } else { 0 };
        statement.got(got).shown_by(as_named.into_iter().take(shown)).holds(!steered);
    }
}
