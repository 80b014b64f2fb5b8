//! Budgets of tokens: how one is spent inside one window, and what its marked answers prove.
//!
//! The limiter's mark is a response header (`x-ratelimit-limit`). An answer without it was not seen by the limiter: it is
//! left out of the arithmetic, and where that leaves room for doubt the clause is unproven.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use verdict::{
    history::{Exchange, History, Response},
    judge::Judgement,
};

use crate::{Stage, chat};

/// Tokens of one reply to [`chat`]: 6 of prompt and 1 of reply.
pub const REPLY: u64 = 7;

/// When a budget refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Once more was spent than the limit: equal still passes.
    Over,
    /// Once as much was spent as the limit.
    AtLeast,
}

impl FromStr for Rule {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "spent > limit" => Ok(Self::Over),
            "spent >= limit" => Ok(Self::AtLeast),
            other => Err(format!("'{other}' is no rule: 'spent > limit' or 'spent >= limit'")),
        }
    }
}

impl Rule {
    /// How many replies of 7 tokens a budget admits when each is charged after its response.
    pub fn admits(self, limit: u64) -> u64 {
        self.admits_costing(limit, REPLY)
    }

    fn admits_costing(self, limit: u64, cost: u64) -> u64 {
        match self {
            Rule::Over => limit / cost + 1,
            Rule::AtLeast => limit.div_ceil(cost),
        }
    }
}

/// The header that names the user.
pub fn identity(stage: &Stage) -> String {
    stage.declared("identity-header").as_str().unwrap_or("x-user-id").to_owned()
}

/// The status of a refusal, as declared (429 where nothing is).
pub fn refusal(history: &History) -> u16 {
    history.declared.get("status").and_then(Value::as_u64).and_then(|s| u16::try_from(s).ok()).unwrap_or(429)
}

/// Whether the limiter saw this exchange.
pub fn marked(history: &History, exchange: &Exchange) -> bool {
    let mark = history.declared.get("mark").and_then(Value::as_str).unwrap_or("x-ratelimit-limit");
    exchange.response().is_some_and(|r| r.header(mark).is_some())
}

fn number(response: &Response, header: &str) -> Option<u64> {
    response.header(header)?.split([',', ';']).next()?.trim().parse().ok()
}

/// Seconds until the window ends, as the limiter says.
fn reset_of(exchange: &Exchange) -> Option<u64> {
    number(exchange.response()?, "x-ratelimit-reset")
}

/// Waits until the limited route answers, marked by the limiter: each request with an identity of its own, so that
/// nothing is spent of the budget under test.
pub async fn settle(stage: &mut Stage, model: &str) -> Result<()> {
    let (host, header) = (stage.hostname().to_owned(), identity(stage));
    let mut users = 0;
    stage
        .settle(
            || {
                users += 1;
                chat(&host, model).header(&header, format!("settle-{users}"))
            },
            model,
        )
        .await?;
    probe(stage, model).await.map(drop)
}

/// One answer that the limiter marked, for a throw-away identity: (seconds to the window's end, unix time of that end).
async fn probe(stage: &mut Stage, model: &str) -> Result<(u64, Option<i64>)> {
    let (host, header) = (stage.hostname().to_owned(), identity(stage));
    for _ in 0..100 {
        let user = format!("probe-{}", stage.unique());
        let exchange = stage.prepare(chat(&host, model).header(&header, &user)).await;
        if let Some(reset) = reset_of(&exchange) {
            let date =
                exchange.response().and_then(|r| r.header("date")).and_then(|d| jiff::fmt::rfc2822::parse(d).ok());
            return Ok((reset, date.and_then(|d| Some(d.timestamp().as_second() + i64::try_from(reset).ok()?))));
        }
        stage.pause(0.1).await; // the policy may not be live yet, or the limiter's call took too long
    }
    bail!(
        "100 requests for throw-away identities passed, and the limiter marked none of them: the start of the budget is unknown"
    )
}

/// Lets the charge of the last reply land. A limiter that charges after the response does so behind the client's back
/// (facts: Envoy Gateway reports at the end of the stream): a request sent at once would race it, and `tokens/overshoot`
/// is where that race is looked at.
pub async fn charged(stage: &Stage) {
    stage.pause(0.3).await;
}

/// When the window ends that [`in_one_window`] began in, by the stage's own clock.
pub fn reset(stage: &Stage) -> f64 {
    stage.window_end()
}

/// Times that a drive is begun anew because the window turned or the limiter missed an answer: each may take a minute.
const ROUNDS: usize = 6;
/// The same where a window is not waited for.
const QUICK_ROUNDS: usize = 25;

/// Drives in the first seconds of a window, with a user of its own; anew with another user where the window turned, or
/// where the limiter did not see an answer with one of these labels: what it has not seen cannot be summed up. Every round
/// stays in the history, and how often that happened is a fact. `tokens/no-leak` judges the answers that it misses.
pub async fn in_one_window(
    stage: &mut Stage,
    model: &str,
    labels: &[&str],
    drive: impl AsyncFn(&mut Stage, &str),
) -> Result<()> {
    let window = stage.declared("window-seconds").as_u64().unwrap_or(60);
    in_one_window_of(stage, model, window, labels, drive).await
}

/// The same for a window of this many seconds. An hour is not waited for: half a minute of it has to be left.
pub async fn in_one_window_of(
    stage: &mut Stage,
    model: &str,
    window: u64,
    labels: &[&str],
    drive: impl AsyncFn(&mut Stage, &str),
) -> Result<()> {
    let enough = if window <= 60 { window.saturating_sub(5) } else { 30 };
    let rounds = if window <= 60 { ROUNDS } else { QUICK_ROUNDS };
    let mut missed = 0;
    for round in 1..=rounds {
        loop {
            let (reset, end) = probe(stage, model).await?;
            stage.set_window_end(reset as f64);
            if reset >= enough {
                stage.fact("reset-seconds", json!(reset));
                stage.fact("window-end-unix", json!(end));
                break;
            }
            stage.until_window(stage.window_end(), 0.5).await;
        }
        let from = stage.history().exchanges.len();
        let user = format!("user-{}", stage.unique());
        drive(stage, &user).await;
        let history = stage.history();
        let driven = &history.exchanges[from..];
        let unseen = driven.iter().filter(|e| labels.contains(&e.label.as_str()) && !marked(history, e)).count();
        let turned = turned(driven.iter().filter(|e| e.label != "next-window"));
        missed += unseen;
        stage.fact("not-seen-by-the-limiter", json!(missed));
        match (turned, unseen) {
            (false, 0) => break,
            _ if round == rounds => break,
            (true, _) => stage.discard_from(from, "restart: window-turned"),
            (false, unseen) => stage.discard_from(from, &format!("restart: the limiter did not see {unseen} answers")),
        }
        stage.pause(1.0).await; // whatever kept the limiter busy may be over
    }
    Ok(())
}

/// Whether the seconds to the window's end rise from one answer to a later one.
fn turned<'a>(exchanges: impl Iterator<Item = &'a Exchange>) -> bool {
    let resets: Vec<u64> = exchanges.filter_map(reset_of).collect();
    resets.windows(2).any(|pair| pair[1] > pair[0])
}

/// The exchanges that spent one budget.
pub struct Budget<'a> {
    history: &'a History,
    limit: u64,
    window: u64,
    exchanges: Vec<&'a Exchange>,
}

impl<'a> Budget<'a> {
    /// A budget of `limit` tokens in the declared window, spent by the exchanges of this label.
    pub fn of(history: &'a History, label: &str, limit: u64) -> Self {
        let window = history.declared.get("window-seconds").and_then(Value::as_u64).unwrap_or(60);
        Self::of_window(history, label, limit, window)
    }

    /// The same with a window of this many seconds.
    pub fn of_window(history: &'a History, label: &str, limit: u64, window: u64) -> Self {
        Self { history, limit, window, exchanges: history.exchanges.iter().filter(|e| e.label == label).collect() }
    }

    fn marked(&self) -> impl Iterator<Item = &'a Exchange> {
        let history = self.history;
        self.exchanges.iter().copied().filter(move |e| marked(history, e))
    }

    fn refusals(&self) -> impl Iterator<Item = &'a Exchange> {
        let status = refusal(self.history);
        self.exchanges.iter().copied().filter(move |e| e.status() == Some(status))
    }

    fn turned(&self) -> bool {
        turned(self.exchanges.iter().copied())
    }

    /// Tokens that an admitted reply says it used.
    fn cost(exchange: &Exchange) -> Option<u64> {
        exchange.response()?.json()?["usage"]["total_tokens"].as_u64()
    }

    /// All of it happened in one window; otherwise nothing can be said of sums.
    pub fn judge_one_window(&self, judgement: &mut Judgement) {
        if self.turned() {
            judgement.unproven("one-window", "all requests in one window", "the window turned between them, twice");
        }
    }

    /// Exactly as many replies were admitted before the first refusal as the declared rule admits, and none after it.
    pub fn judge_admitted(&self, judgement: &mut Judgement) {
        let clause = "admitted";
        let rule = self.history.declared.get("block-when").and_then(Value::as_str).unwrap_or_default().parse::<Rule>();
        let rule = match rule {
            Ok(rule) => rule,
            Err(why) => {
                judgement.unproven(clause, "a declared rule", why);
                return;
            }
        };
        if self.exchanges.is_empty() || self.turned() {
            judgement.unproven(clause, "requests in one window", format!("{} requests", self.exchanges.len()));
            return;
        }
        let status = refusal(self.history);
        let first = self.exchanges.iter().position(|e| e.status() == Some(status)).unwrap_or(self.exchanges.len());
        let (before, after) = self.exchanges.split_at(first);
        let admitted: Vec<&Exchange> = before.iter().copied().filter(|e| e.status() == Some(200)).collect();
        let costs: Vec<u64> = admitted.iter().filter_map(|e| Self::cost(e)).collect();
        if costs.len() < admitted.len() {
            judgement.unproven(
                clause,
                "usage in every admitted reply",
                format!("{} of {} say what they used", costs.len(), admitted.len()),
            );
            return;
        }
        let cost = costs.first().copied().unwrap_or(REPLY);
        if costs.iter().any(|c| *c != cost) || cost == 0 {
            judgement.unproven(clause, "replies that all cost the same", format!("they cost {costs:?}"));
            return;
        }
        let wanted = rule.admits_costing(self.limit, cost);
        let count = admitted.len() as u64;
        let unmarked = admitted.iter().filter(|e| !marked(self.history, e)).count() as u64;
        let again = after.iter().filter(|e| e.status() == Some(200) && marked(self.history, e)).count();
        let expected = format!("{wanted} replies of {cost} tokens admitted of {}, then refusals", self.limit);
        let got = format!(
            "{count} admitted ({unmarked} without the limiter's mark), then {}{}",
            if after.is_empty() { "never a refusal" } else { "a refusal" },
            if again > 0 { format!(", and {again} admitted after it") } else { String::new() }
        );
        let shown = before.last().into_iter().chain(after.first()).copied();
        if count == wanted && !after.is_empty() && again == 0 {
            judgement.that(clause, true, expected, got, shown);
        } else if again == 0 && count > wanted && count - unmarked <= wanted || (after.is_empty() && count <= wanted) {
            judgement.unproven(clause, expected, got);
        } else {
            judgement.that(clause, false, expected, got, shown);
        }
    }

    /// What is left, as the limiter says, is the budget less what was used; a charge may be late by one reply.
    pub fn judge_remaining(&self, judgement: &mut Judgement) {
        if self.turned() {
            return;
        }
        // What the limiter has not seen may have been charged, or not.
        let (mut used, mut seen, mut last) = (0, 0, 0);
        let mut said = Vec::new();
        for exchange in &self.exchanges {
            let left = exchange.response().and_then(|r| number(r, "x-ratelimit-remaining"));
            if let Some(left) = left.filter(|_| exchange.status() == Some(200)) {
                said.push((*exchange, left, self.limit.saturating_sub(used), self.limit.saturating_sub(seen - last)));
            }
            let cost = Self::cost(exchange).unwrap_or(0);
            used += cost;
            if marked(self.history, exchange) {
                (seen, last) = (seen + cost, cost);
            }
        }
        if said.is_empty() {
            return; // some gateways mark refusals alone
        }
        let wrong = said.iter().find(|(_, left, least, most)| left < least || left > most);
        let got = wrong.map_or(format!("{} answers agree", said.len()), |(_, left, least, most)| {
            format!("{left} left where {least} to {most} were")
        });
        judgement.that(
            "remaining",
            wrong.is_none(),
            "remaining = limit - used, late by at most one reply",
            got,
            wrong.map(|w| w.0),
        );
    }

    /// The budget was seen spent: a refusal, and after it no reply that the limiter let pass.
    pub fn judge_spent(&self, judgement: &mut Judgement) {
        let Some(refused) = self.refusals().next() else {
            judgement.unproven("spent", "a refusal that shows the budget spent", "nothing was refused");
            return;
        };
        let again: Vec<&Exchange> =
            self.marked().skip_while(|e| e.id != refused.id).filter(|e| e.status() == Some(200)).collect();
        judgement.that(
            "spent",
            again.is_empty(),
            "refusals from the first one on",
            format!("{} admitted after it", again.len()),
            again.into_iter().take(3),
        );
    }

    /// Every refusal has the declared body and headers, and nothing but replies and refusals came back.
    pub fn judge_refusal_shape(&self, judgement: &mut Judgement) {
        let refusals: Vec<&Exchange> = self.refusals().collect();
        if refusals.is_empty() {
            judgement.unproven("shape", "a refusal to look at", "nothing was refused");
            return;
        }
        let status = refusal(self.history);
        let others: Vec<&Exchange> =
            self.exchanges.iter().copied().filter(|e| e.status() != Some(200) && e.status() != Some(status)).collect();
        judgement.that(
            "statuses",
            others.is_empty(),
            format!("200 or {status}"),
            format!("{} others", others.len()),
            others.into_iter().take(3),
        );
        let body = self.history.declared.get("body").and_then(Value::as_str).unwrap_or_default();
        let bodies: Vec<&Exchange> = refusals
            .iter()
            .copied()
            .filter(|e| {
                e.response().is_some_and(|r| {
                    if body == "empty" { r.body.bytes > 0 } else { r.body.text.as_deref() != Some(body) }
                })
            })
            .collect();
        judgement.that(
            "body",
            bodies.is_empty(),
            format!("body: {body}"),
            format!("{} of {} differ", bodies.len(), refusals.len()),
            bodies.into_iter().take(3),
        );
        for header in self
            .history
            .declared
            .get("headers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            let without: Vec<&Exchange> =
                refusals.iter().copied().filter(|e| e.response().is_none_or(|r| r.header(header).is_none())).collect();
            let got = format!("{} of {} without", without.len(), refusals.len());
            judgement.that(
                header,
                without.is_empty(),
                format!("{header} in every refusal"),
                got,
                without.into_iter().take(3),
            );
        }
    }

    /// The limiter's numbers agree: the limit is the budget's, what is left never rises nor is negative and is 0 in a
    /// refusal, and the seconds to the end count down inside the window.
    pub fn judge_numbers(&self, judgement: &mut Judgement) {
        let turned = self.turned(); // then what is left may rise
        let marked: Vec<&Exchange> = self.marked().collect();
        let mut left_before = u64::MAX;
        let wrong = marked.iter().find_map(|exchange| {
            let response = exchange.response()?;
            let limit = number(response, "x-ratelimit-limit");
            let said = |header: &str| response.header(header).unwrap_or("absent").to_owned();
            let problem = if limit != Some(self.limit) {
                Some(format!("x-ratelimit-limit: {}", said("x-ratelimit-limit")))
            } else {
                match (number(response, "x-ratelimit-remaining"), number(response, "x-ratelimit-reset")) {
                    (None, _) => Some(format!("x-ratelimit-remaining: {}", said("x-ratelimit-remaining"))),
                    (Some(left), _) if left > left_before && !turned => {
                        Some(format!("x-ratelimit-remaining rose from {left_before} to {left}"))
                    }
                    (Some(left), _) if left > 0 && exchange.status() != Some(200) => {
                        Some(format!("refused with {left} left"))
                    }
                    (_, reset) if reset.is_none_or(|r| r > self.window) => {
                        Some(format!("x-ratelimit-reset: {}", said("x-ratelimit-reset")))
                    }
                    (Some(left), _) => {
                        left_before = left;
                        None
                    }
                }
            };
            problem.map(|words| (*exchange, words))
        });
        let got = wrong.as_ref().map_or(format!("{} marked answers agree", marked.len()), |(_, words)| words.clone());
        let expected =
            format!("limit {}, remaining never rising and 0 in a refusal, reset at most {}", self.limit, self.window);
        judgement.that("numbers", wrong.is_none(), expected, got, wrong.map(|w| w.0));
    }
}

/// All exchanges of a label have this status, and the limiter marked them where it refused.
pub fn judge_all(judgement: &mut Judgement, history: &History, label: &str, status: u16) {
    let exchanges: Vec<&Exchange> = history.exchanges.iter().filter(|e| e.label == label).collect();
    if exchanges.is_empty() {
        judgement.unproven(label, format!("requests called {label}"), "none was sent");
        return;
    }
    let wrong: Vec<&Exchange> = exchanges.iter().copied().filter(|e| e.status() != Some(status)).collect();
    // A reply instead of a refusal that the limiter did not see is a leak, which tokens/no-leak counts.
    if !wrong.is_empty() && status != 200 && wrong.iter().all(|e| !marked(history, e)) {
        judgement.unproven(
            label,
            format!("status {status}"),
            format!("{} of {} passed the limiter unseen", wrong.len(), exchanges.len()),
        );
        return;
    }
    let got = wrong.first().map_or(format!("{} of {}", exchanges.len(), exchanges.len()), |e| {
        format!("{} of {}: {}", wrong.len(), exchanges.len(), e.outcome_words())
    });
    judgement.that(label, wrong.is_empty(), format!("status {status}"), got, wrong.into_iter().take(3));
}

/// The window is as long as declared, and begins where it is declared to begin.
pub fn judge_length(judgement: &mut Judgement, history: &History) {
    let window = history.declared.get("window-seconds").and_then(Value::as_f64).unwrap_or(60.0);
    match history.facts.get("reset-seconds").and_then(Value::as_f64) {
        Some(reset) => judgement.that(
            "length",
            reset > 0.0 && reset <= window,
            format!("at most {window} s to its end"),
            format!("{reset} s"),
            [],
        ),
        None => judgement.unproven("length", "the limiter's own reset", "it was not seen"),
    };
    if history.declared.get("window").and_then(Value::as_str) == Some("fixed-unix") {
        match history.facts.get("window-end-unix").and_then(Value::as_f64) {
            Some(end) => {
                let off = (end % window).min(window - end % window);
                judgement.that(
                    "aligned",
                    off <= 1.0,
                    format!("ends at a multiple of {window} s of Unix time"),
                    format!("off by {off} s"),
                    [],
                )
            }
            None => judgement.unproven("aligned", "the end of the window in Unix time", "no answer had a Date"),
        };
    }
}

fn refusal_shape(history: &History, exchange: &Exchange) -> Value {
    let response = exchange.response();
    let names: Vec<String> = response
        .map(|r| {
            r.headers
                .iter()
                .map(|(n, _)| n.to_ascii_lowercase())
                .filter(|n| n.starts_with("x-") || n.starts_with("retry") || n.starts_with("content-"))
                .collect()
        })
        .unwrap_or_default();
    json!({"status": exchange.status(), "headers": sorted(names), "body": response.and_then(|r| r.body.text.clone()), "marked": marked(history, exchange)})
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

/// What a golden keeps of a budget: for each label how many passed before the first refusal, and how a refusal looks.
pub fn observe(history: &History) -> Value {
    let mut labels: BTreeMap<&str, Value> = BTreeMap::new();
    for exchange in &history.exchanges {
        if labels.contains_key(exchange.label.as_str()) || exchange.label.starts_with("discarded") {
            continue;
        }
        let all: Vec<&Exchange> = history.exchanges.iter().filter(|e| e.label == exchange.label).collect();
        let before = all.iter().take_while(|e| e.status() == Some(200)).count();
        let refused = all.iter().find(|e| e.status() != Some(200)).map(|e| refusal_shape(history, e));
        labels.insert(&exchange.label, json!({"admitted": before, "then": refused}));
    }
    json!({"spent": labels})
}

/// The same without counts: what leaks stays out of goldens.
pub fn observe_no_leak(history: &History) -> Value {
    let refused = history.exchanges.iter().find(|e| e.status() == Some(refusal(history)));
    json!({"refusal": refused.map(|e| refusal_shape(history, e))})
}
