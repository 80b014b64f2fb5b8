//! Proofs that judges share. A status code proves little: a 200 counts when the record of the model that was meant
//! shows the request, a refusal counts when whole records of all models show nothing.

use serde_json::Value;
use verdict::{
    history::{Ended, Exchange, History},
    judge::Judgement,
};

/// The configuration came to be live. A gateway that never serves what it accepted has failed.
pub fn live(judgement: &mut Judgement, history: &History) {
    let settle = &history.settle;
    let last = settle.exchanges.last();
    let got = if settle.settled {
        format!("after {:.1} s and {} requests", settle.seconds, settle.exchanges.len())
    } else {
        format!(
            "not within {:.0} s; the last of {} answers was {}",
            settle.seconds,
            settle.exchanges.len(),
            last.map_or("none".into(), Exchange::outcome_words)
        )
    };
    judgement.that("live", settle.settled, "the configuration becomes live", got, last.filter(|_| !settle.settled));
}

/// All exchanges of a label; without any the clause is unproven.
pub(crate) fn each<'a>(
    judgement: &mut Judgement,
    history: &'a History,
    label: &str,
    clause: &str,
) -> Vec<&'a Exchange> {
    let exchanges: Vec<_> = history.exchanges.iter().filter(|e| e.label == label).collect();
    if exchanges.is_empty() {
        judgement.unproven(clause, format!("requests called {label}"), "none was sent");
    }
    exchanges
}

/// Adds one clause about many exchanges: those for which `found` has words are its counter-examples.
pub(crate) fn none_of(
    judgement: &mut Judgement,
    clause: &str,
    expected: String,
    exchanges: &[&Exchange],
    found: impl Fn(&Exchange) -> Option<String>,
) {
    let wrong: Vec<(&Exchange, String)> = exchanges.iter().filter_map(|e| found(e).map(|words| (*e, words))).collect();
    match wrong.first() {
        None => judgement.that(
            clause,
            true,
            expected.clone(),
            format!("{} of {}: {expected}", exchanges.len(), exchanges.len()),
            exchanges.iter().copied().take(1),
        ),
        Some((_, words)) => {
            let got = format!("{} of {}: {words}", wrong.len(), exchanges.len());
            judgement.that(clause, false, expected, got, wrong.iter().map(|(e, _)| *e).take(5))
        }
    };
}

/// Every exchange of the label is a whole 200, and exactly one record of exactly this model shows it.
pub fn answered_by(judgement: &mut Judgement, history: &History, label: &str, model: &str) {
    let clause = format!("{label}-answered-by-{model}");
    let exchanges = each(judgement, history, label, &clause);
    if exchanges.is_empty() {
        return;
    }
    if !history.models.contains_key(model) {
        judgement.unproven(&clause, format!("records of model {model}"), "there are none");
        return;
    }
    let whole = history.models.values().all(verdict::history::ModelLog::is_whole);
    if !whole && exchanges.iter().all(|e| e.status() == Some(200) && history.reached(e).is_empty()) {
        judgement.unproven(&clause, format!("a record of model {model}"), "the models' records are not whole");
        return;
    }
    none_of(judgement, &clause, format!("200 from model {model}"), &exchanges, |exchange| {
        let response = match exchange.response() {
            Some(response) if response.status == 200 && response.ended == Ended::Complete => response,
            Some(response) if response.status == 200 => {
                return Some(format!("200 whose body was {:?}", response.ended));
            }
            _ => return Some(exchange.outcome_words()),
        };
        let reached: Vec<&str> = history.reached(exchange).iter().map(|(model, _)| *model).collect();
        (reached != [model]).then(|| {
            format!(
                "{} from {}",
                response.status,
                if reached.is_empty() { "no recorded model".into() } else { reached.join(" and ") }
            )
        })
    });
}

/// Every exchange of the label has this status; where none is declared it is unproven.
pub fn status(judgement: &mut Judgement, history: &History, label: &str, wanted: Option<u64>) {
    let clause = format!("{label}-status");
    let Some(wanted) = wanted else {
        judgement.unproven(&clause, "a declared status", "the gateway's folder declares none");
        return;
    };
    let exchanges = each(judgement, history, label, &clause);
    if !exchanges.is_empty() {
        none_of(judgement, &clause, format!("status {wanted}"), &exchanges, |e| {
            (e.status().map(u64::from) != Some(wanted)).then(|| e.outcome_words())
        });
    }
}

/// The usage in the body of a reply adds up.
pub fn usage_adds_up(judgement: &mut Judgement, exchange: &Exchange, body: &Value) {
    let tokens = |name: &str| body["usage"][name].as_u64().unwrap_or(0);
    let (prompt, completion, total) = (tokens("prompt_tokens"), tokens("completion_tokens"), tokens("total_tokens"));
    let adds_up = prompt > 0 && completion > 0 && prompt + completion == total;
    let got = format!("{prompt} + {completion}, total {total}");
    judgement.that("usage", adds_up, "prompt and completion tokens that add up to the total", got, [exchange]);
}

/// Every exchange of the label is a 4xx.
pub fn client_error(judgement: &mut Judgement, history: &History, label: &str) {
    let clause = format!("{label}-is-a-client-error");
    let exchanges = each(judgement, history, label, &clause);
    if !exchanges.is_empty() {
        none_of(judgement, &clause, "4xx".into(), &exchanges, |e| {
            (!e.status().is_some_and(|s| (400..500).contains(&s))).then(|| e.outcome_words())
        });
    }
}

/// Every exchange of the label is a 5xx.
pub fn server_error(judgement: &mut Judgement, history: &History, label: &str) {
    let clause = format!("{label}-is-a-server-error");
    let exchanges = each(judgement, history, label, &clause);
    if !exchanges.is_empty() {
        none_of(judgement, &clause, "5xx".into(), &exchanges, |e| {
            (!e.status().is_some_and(|s| (500..600).contains(&s))).then(|| e.outcome_words())
        });
    }
}

/// Every exchange of the label is refused as the gateway declares under `key`: status, and content type where declared.
pub fn declared_refusal(judgement: &mut Judgement, history: &History, label: &str, key: &str) {
    let clause = format!("{label}-as-declared");
    let declared = history.declared.get(key).cloned().unwrap_or_default();
    let Some(wanted) = declared["status"].as_u64() else {
        judgement.unproven(&clause, format!("a declaration of {key}"), "the gateway's folder declares none");
        return;
    };
    let content_type = declared["content-type"].as_str();
    let expected = content_type.map_or(format!("{wanted}"), |c| format!("{wanted} {c}"));
    let exchanges = each(judgement, history, label, &clause);
    if exchanges.is_empty() {
        return;
    }
    none_of(judgement, &clause, expected, &exchanges, |exchange| {
        let got_type = exchange.response().and_then(|r| r.header("content-type")).unwrap_or("without a content type");
        let same_type =
            content_type.is_none_or(|c| got_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(c));
        let same = exchange.status().map(u64::from) == Some(wanted) && same_type;
        (!same).then(|| format!("{} {got_type}", exchange.outcome_words()))
    });
}

/// No model has a record of any exchange of the label, and the records of all of them are whole.
pub fn reached_nothing(judgement: &mut Judgement, history: &History, label: &str) {
    let clause = format!("{label}-reaches-nothing");
    let exchanges = each(judgement, history, label, &clause);
    if exchanges.is_empty() {
        return;
    }
    let reached = exchanges.iter().any(|e| !history.reached(e).is_empty());
    let whole = !history.models.is_empty() && history.models.values().all(verdict::history::ModelLog::is_whole);
    if !reached && !whole {
        judgement.unproven(
            &clause,
            "markers before and after in the records of every model",
            "the records are not whole",
        );
        return;
    }
    none_of(judgement, &clause, "reaches no model".into(), &exchanges, |exchange| {
        let reached: Vec<_> = history.reached(exchange).iter().map(|(model, _)| *model).collect();
        (!reached.is_empty()).then(|| format!("reached {}", reached.join(" and ")))
    });
}

/// This model has no record of any exchange of the label, and its records are whole.
pub fn did_not_reach(judgement: &mut Judgement, history: &History, label: &str, model: &str) {
    let clause = format!("{label}-does-not-reach-{model}");
    let exchanges = each(judgement, history, label, &clause);
    if exchanges.is_empty() {
        return;
    }
    let reaches = |exchange: &Exchange| history.reached(exchange).iter().any(|(reached, _)| *reached == model);
    let whole = history.models.get(model).is_some_and(verdict::history::ModelLog::is_whole);
    if !whole && !exchanges.iter().any(|e| reaches(e)) {
        judgement.unproven(&clause, format!("whole records of model {model}"), "they are not whole");
        return;
    }
    none_of(judgement, &clause, format!("does not reach {model}"), &exchanges, |exchange| {
        reaches(exchange).then(|| format!("reached {model}"))
    });
}

/// Every exchange of the label has exactly this body.
pub fn body(judgement: &mut Judgement, history: &History, label: &str, wanted: &str) {
    let clause = format!("{label}-body");
    let exchanges = each(judgement, history, label, &clause);
    if !exchanges.is_empty() {
        none_of(judgement, &clause, format!("body {wanted}"), &exchanges, |exchange| {
            let text = exchange.response().and_then(|r| r.body.text.as_deref()).unwrap_or_default();
            (text != wanted).then(|| format!("body {text:?}"))
        });
    }
}

/// The request body of each exchange of the label is in one record of a model, byte for byte.
pub fn body_arrives_unchanged(judgement: &mut Judgement, history: &History, label: &str) {
    let clause = format!("{label}-arrives-unchanged");
    let exchanges = each(judgement, history, label, &clause);
    if exchanges.is_empty() {
        return;
    }
    none_of(judgement, &clause, "the bytes that were sent".into(), &exchanges, |exchange| {
        let (sent, reached) = (&exchange.request.body, history.reached(exchange));
        match reached[..] {
            [(_, record)] if (record.body.bytes, &record.body.sha256) == (sent.bytes, &sent.sha256) => None,
            [(_, record)] => Some(format!("{} of {} bytes, or others", record.body.bytes, sent.bytes)),
            ref records => Some(format!("{} records of a model", records.len())),
        }
    });
}

/// A body that is called JSON by its content type is JSON.
pub fn json_if_it_says_so(judgement: &mut Judgement, history: &History, label: &str) {
    let clause = format!("{label}-is-the-json-it-says");
    let exchanges = each(judgement, history, label, &clause);
    if !exchanges.is_empty() {
        none_of(judgement, &clause, "JSON, or no claim to be".into(), &exchanges, |exchange| {
            let response = exchange.response()?;
            let says = response.header("content-type").is_some_and(|c| c.to_ascii_lowercase().contains("json"));
            (says && response.json().is_none())
                .then(|| format!("says JSON, but is {}", response.body.text.as_deref().unwrap_or("not even text")))
        });
    }
}

/// The model's record of each exchange of the label has this header exactly once, with this value.
pub fn model_got_header(judgement: &mut Judgement, history: &History, label: &str, name: &str, value: &str) {
    let clause = format!("{label}-{}", name.to_ascii_lowercase());
    let exchanges = each(judgement, history, label, &clause);
    if exchanges.is_empty() {
        return;
    }
    none_of(judgement, &clause, format!("{name}: {value}"), &exchanges, |exchange| {
        let reached = history.reached(exchange);
        let Some((_, record)) = reached.first() else { return Some("no record of the model".into()) };
        let got: Vec<&str> =
            record.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect();
        (got != [value]).then(|| format!("{name}: {got:?}"))
    });
}

/// All values of a header, also those that one line lists, in order.
fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let lines = headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
    lines.flat_map(|(_, value)| value.split(',')).map(str::trim).collect()
}

fn as_wanted(got: &[&str], name: &str, wanted: &[&str]) -> Option<String> {
    (got != wanted).then(|| if got.is_empty() { format!("no {name}") } else { format!("{name}: {}", got.join(", ")) })
}

fn wanted_words(name: &str, wanted: &[&str]) -> String {
    if wanted.is_empty() { format!("no {name}") } else { format!("{name}: {}", wanted.join(", ")) }
}

/// The reply to each exchange of the label has exactly these values of a header; none: it does not have it.
pub fn reply_has(judgement: &mut Judgement, history: &History, label: &str, name: &str, wanted: &[&str]) {
    let clause = format!("{label}-{name}");
    let exchanges = each(judgement, history, label, &clause);
    if !exchanges.is_empty() {
        none_of(judgement, &clause, wanted_words(name, wanted), &exchanges, |exchange| match exchange.response() {
            Some(response) => as_wanted(&values(&response.headers, name), name, wanted),
            None => Some(exchange.outcome_words()),
        });
    }
}

/// The model's record of each exchange of the label has exactly these values of a header; none: it does not have it.
pub fn model_got(judgement: &mut Judgement, history: &History, label: &str, name: &str, wanted: &[&str]) {
    let clause = format!("{label}-{name}");
    let exchanges = each(judgement, history, label, &clause);
    if !exchanges.is_empty() {
        none_of(judgement, &clause, wanted_words(name, wanted), &exchanges, |exchange| {
            match history.reached(exchange).first() {
                Some((_, record)) => as_wanted(&values(&record.headers, name), name, wanted),
                None => Some("no record of the model".into()),
            }
        });
    }
}

/// For each exchange of the label the model got the bytes that the client sent.
pub fn request_untouched(judgement: &mut Judgement, history: &History, label: &str) {
    let clause = format!("{label}-request-untouched");
    let exchanges = each(judgement, history, label, &clause);
    if !exchanges.is_empty() {
        none_of(judgement, &clause, "the bytes that were sent".into(), &exchanges, |exchange| {
            let sent = &exchange.request.body;
            match history.reached(exchange).first() {
                Some((_, record)) if record.body.sha256 == sent.sha256 => None,
                Some((_, record)) => Some(format!("{} bytes, sent were {}", record.body.bytes, sent.bytes)),
                None => Some("no record of the model".into()),
            }
        });
    }
}

/// For each exchange of the label the client got, whole, the bytes that the model sent.
pub fn reply_untouched(judgement: &mut Judgement, history: &History, label: &str) {
    let clause = format!("{label}-reply-untouched");
    let exchanges = each(judgement, history, label, &clause);
    if exchanges.is_empty() {
        return;
    }
    let sent = |exchange: &Exchange| history.reached(exchange).first().and_then(|(_, record)| record.sent.clone());
    if exchanges.iter().any(|e| sent(e).is_none() && !history.reached(e).is_empty()) {
        judgement.unproven(&clause, "a record of what the model sent", "there is none");
        return;
    }
    none_of(judgement, &clause, "the bytes that were sent".into(), &exchanges, |exchange| {
        match (exchange.response(), sent(exchange)) {
            (Some(response), Some(sent))
                if response.body.sha256 == sent.sha256 && response.ended == Ended::Complete =>
            {
                None
            }
            (Some(response), Some(sent)) => {
                Some(format!("{} bytes, {:?}, sent were {}", response.body.bytes, response.ended, sent.bytes))
            }
            (Some(_), None) => Some("no record of the model".into()),
            (None, _) => Some(exchange.outcome_words()),
        }
    });
}

/// The `status` of a condition, out of a list of conditions.
pub fn condition_status<'a>(conditions: &'a Value, kind: &str) -> Option<&'a str> {
    conditions.as_array()?.iter().find(|c| c["type"] == kind)?["status"].as_str()
}

/// The `reason` of a condition, out of a list of conditions.
pub fn reason<'a>(conditions: &'a Value, kind: &str) -> Option<&'a str> {
    conditions.as_array()?.iter().find(|c| c["type"] == kind)?["reason"].as_str()
}

/// The condition has this status, and was written for the generation that the object has.
pub fn condition(
    judgement: &mut Judgement,
    clause: &str,
    object: &Value,
    conditions: &Value,
    kind: &str,
    wanted: &str,
) {
    let generation = object["metadata"]["generation"].as_u64();
    let condition = conditions.as_array().and_then(|c| c.iter().find(|c| c["type"] == kind));
    let got = condition.map_or("absent".to_owned(), |c| {
        format!("{} ({}), observedGeneration {} of {generation:?}", c["status"], c["reason"], c["observedGeneration"])
    });
    let holds = condition.is_some_and(|c| {
        c["status"] == wanted && generation.is_some() && c["observedGeneration"].as_u64() == generation
    });
    judgement.that(clause, holds, format!("{kind}={wanted} for the object's generation"), got, []);
}
