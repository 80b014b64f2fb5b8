//! Budgets of tokens: how one is spent inside one window, and what its answers prove.
//!
//! The limiter's mark is a response header (`x-ratelimit-limit`). Where it marks every answer, one without it was not seen
//! by the limiter: it is left out of the arithmetic, and where that leaves room for doubt the clause is unproven. Where it
//! marks refusals alone (declared as `marks: refusals`), what was admitted is proven by the model's own records.
//!
//! Where budgets are kept by user (`identity-header` is declared) each drive spends one of its own. Else all requests of a
//! route spend one budget: it is spent until a refusal says when the window ends, and the drive begins after that.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};
use verdict::{
    history::{Exchange, History, ModelLog, Response},
    judge::Judgement,
};

use crate::{Call, Stage, chat};

/// Tokens of one reply to [`chat`]: 6 of prompt and 1 of reply.
pub const REPLY: u64 = 7;

/// A budget that tells whether three requests before it cost as little as a token each: of replies it admits three where
/// they did not and two where they did, by either rule.
pub const TELLING: u64 = 15;

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

/// The limited route that is asked.
#[derive(Clone, Debug)]
pub struct Limited {
    /// Its hostname.
    pub host: String,
    /// The model behind it.
    pub model: String,
    /// What the names of its pods begin with.
    pub pods: String,
}

impl Limited {
    /// The route on the stage's own hostname.
    fn of(stage: &Stage, model: &str) -> Self {
        Self { host: stage.hostname().to_owned(), model: model.to_owned(), pods: model.to_owned() }
    }

    fn chat(&self) -> Call {
        chat(&self.host, &self.model)
    }
}

/// Which answers carry the limiter's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marks {
    /// All that it has seen.
    EveryAnswer,
    /// Those that it gave itself.
    Refusals,
}

impl Marks {
    fn of(history: &History) -> Self {
        match history.declared.get("marks").and_then(Value::as_str) {
            Some("refusals") => Self::Refusals,
            _ => Self::EveryAnswer,
        }
    }
}

/// The header that names the user, where budgets are kept by user.
fn identity(stage: &Stage) -> Option<String> {
    stage.declared("identity-header").as_str().map(str::to_owned)
}

/// The call as this user makes it.
pub fn as_user(stage: &Stage, call: Call, user: &str) -> Call {
    match identity(stage) {
        Some(header) => call.header(header, user),
        None => call,
    }
}

/// The status of a refusal, as declared (429 where nothing is).
pub fn refusal(history: &History) -> u16 {
    history.declared.get("status").and_then(Value::as_u64).and_then(|s| u16::try_from(s).ok()).unwrap_or(429)
}

/// Whether the limiter marked this exchange.
pub fn marked(history: &History, exchange: &Exchange) -> bool {
    let mark = history.declared.get("mark").and_then(Value::as_str).unwrap_or("x-ratelimit-limit");
    exchange.response().is_some_and(|r| r.header(mark).is_some())
}

/// Whether the limiter is known to have seen this exchange, or never says so where it lets pass.
fn seen(history: &History, exchange: &Exchange) -> bool {
    marked(history, exchange) || Marks::of(history) == Marks::Refusals
}

fn number(response: &Response, header: &str) -> Option<u64> {
    response.header(header)?.split([',', ';']).next()?.trim().parse().ok()
}

/// Seconds until the window ends, as the limiter says.
fn reset_of(exchange: &Exchange) -> Option<u64> {
    number(exchange.response()?, "x-ratelimit-reset")
}

/// Waits until the limit is live. By user: until the route answers, marked by the limiter, each request with an identity
/// of its own, so that nothing is spent of the budget under test. One budget for all: until it is spent.
pub async fn settle(stage: &mut Stage, model: &str) -> Result<()> {
    settle_on(stage, &Limited::of(stage, model)).await
}

/// The same for this route.
pub async fn settle_on(stage: &mut Stage, limited: &Limited) -> Result<()> {
    let Some(header) = identity(stage) else {
        let refused = refusal(stage.history());
        return stage.settle_status(|| limited.chat(), |status| status == refused).await;
    };
    let mut users = 0;
    stage
        .settle(
            || {
                users += 1;
                limited.chat().header(&header, format!("settle-{users}"))
            },
            &limited.pods,
        )
        .await?;
    probe(stage, limited, &header).await.map(drop)
}

/// One answer that the limiter marked, for a throw-away identity: (seconds to the window's end, unix time of that end).
async fn probe(stage: &mut Stage, limited: &Limited, header: &str) -> Result<(u64, Option<i64>)> {
    for _ in 0..100 {
        let user = format!("probe-{}", stage.unique());
        let exchange = stage.prepare(limited.chat().header(header, &user)).await;
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

/// Spends what is left of the budget that all share: the seconds to the window's end, as the first refusal says.
async fn spend_up(stage: &mut Stage, limited: &Limited) -> Result<u64> {
    let refused = refusal(stage.history());
    for _ in 0..500 {
        let exchange = stage.prepare(limited.chat()).await;
        if exchange.status() == Some(refused) {
            return reset_of(&exchange).ok_or_else(|| {
                anyhow!("a refusal does not say when its window ends: the start of the budget is unknown")
            });
        }
        charged(stage).await;
    }
    bail!("500 requests were admitted, and none was refused: the start of the budget is unknown")
}

/// Waits for the first seconds of a window of this length, with a budget of which nothing is spent.
async fn first_seconds(stage: &mut Stage, limited: &Limited, window: u64) -> Result<()> {
    let Some(header) = identity(stage) else {
        let reset = spend_up(stage, limited).await?;
        stage.set_window_end(reset as f64);
        stage.until_window(stage.window_end(), 0.5).await;
        stage.next_window(window as f64);
        return Ok(());
    };
    // An hour is not waited for: half a minute of it has to be left.
    let enough = if window <= 60 { window.saturating_sub(5) } else { 30 };
    loop {
        let (reset, end) = probe(stage, limited, &header).await?;
        stage.set_window_end(reset as f64);
        if reset >= enough {
            stage.fact("reset-seconds", json!(reset));
            stage.fact("window-end-unix", json!(end));
            return Ok(());
        }
        stage.until_window(stage.window_end(), 0.5).await;
    }
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

/// Drives in the first seconds of a window, with a budget that is whole; anew where the window turned, or where the limiter
/// did not see an answer with one of these labels: what it has not seen cannot be summed up. Every round stays in the
/// history, and how often that happened is a fact. `tokens/no-leak` judges the answers that it misses.
pub async fn in_one_window(
    stage: &mut Stage,
    model: &str,
    labels: &[&str],
    drive: impl AsyncFn(&mut Stage, &str) -> Result<()>,
) -> Result<()> {
    let window = stage.declared("window-seconds").as_u64().unwrap_or(60);
    in_one_window_of(stage, &Limited::of(stage, model), window, labels, drive).await
}

/// The same for this route and a window of this many seconds.
pub async fn in_one_window_of(
    stage: &mut Stage,
    limited: &Limited,
    window: u64,
    labels: &[&str],
    drive: impl AsyncFn(&mut Stage, &str) -> Result<()>,
) -> Result<()> {
    let rounds = if window <= 60 { ROUNDS } else { QUICK_ROUNDS };
    let mut missed = 0;
    stage.begin().await?;
    for round in 1..=rounds {
        first_seconds(stage, limited, window).await?;
        let from = stage.history().exchanges.len();
        let user = format!("user-{}", stage.unique());
        drive(stage, &user).await?;
        let history = stage.history();
        let driven = &history.exchanges[from..];
        let unseen = driven.iter().filter(|e| labels.contains(&e.label.as_str()) && !seen(history, e)).count();
        let turned = turned(driven.iter().filter(|e| e.label != "next-window"), window);
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
    stage.end().await
}

/// When the window of an answer ends, in seconds of the stage's clock, as the limiter says (it says whole seconds).
fn end_of(exchange: &Exchange) -> Option<f64> {
    Some(exchange.sent_ms / 1000.0 + reset_of(exchange)? as f64)
}

/// Whether these exchanges are not of one window: the seconds to its end rise from one answer to a later one, or the first
/// was sent before the window began whose end an answer says.
fn turned<'a>(exchanges: impl Iterator<Item = &'a Exchange>, window: u64) -> bool {
    let exchanges: Vec<&Exchange> = exchanges.collect();
    let resets: Vec<u64> = exchanges.iter().filter_map(|e| reset_of(e)).collect();
    let begins = exchanges.iter().find_map(|e| end_of(e)).map(|end| end - window as f64);
    let before = exchanges.first().zip(begins).is_some_and(|(first, begins)| first.sent_ms / 1000.0 + 1.0 < begins);
    before || resets.windows(2).any(|pair| pair[1] > pair[0])
}

/// The clause that counts what was admitted.
const ADMITTED: &str = "admitted";

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

    fn seen(&self) -> impl Iterator<Item = &'a Exchange> {
        let history = self.history;
        self.exchanges.iter().copied().filter(move |e| seen(history, e))
    }

    fn refusals(&self) -> impl Iterator<Item = &'a Exchange> {
        let status = refusal(self.history);
        self.exchanges.iter().copied().filter(move |e| e.status() == Some(status))
    }

    fn turned(&self) -> bool {
        turned(self.exchanges.iter().copied(), self.window)
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

    /// Where the limiter marks refusals alone: each reply is in the records of one model, once, and no refusal is.
    fn judge_recorded(&self, judgement: &mut Judgement) {
        let (clause, expected) = ("recorded", "one record of a model for each reply, and none for a refusal");
        let models = &self.history.models;
        if models.is_empty() || !models.values().all(ModelLog::is_whole) {
            let got = "the models' records are not whole, and the limiter does not mark what it admits";
            judgement.unproven(clause, expected, got);
            return;
        }
        let records = |e: &&Exchange| self.history.reached(e).len();
        let status = refusal(self.history);
        let wrong: Vec<&Exchange> = self
            .exchanges
            .iter()
            .copied()
            .filter(|e| match e.status() {
                Some(200) => records(e) != 1,
                Some(other) if other == status => records(e) != 0,
                _ => false,
            })
            .collect();
        let got = format!("{} of {} otherwise", wrong.len(), self.exchanges.len());
        judgement.that(clause, wrong.is_empty(), expected, got, wrong.into_iter().take(3));
    }

    /// Exactly as many replies were admitted before the first refusal as the declared rule admits, and none after it.
    pub fn judge_admitted(&self, judgement: &mut Judgement) {
        let admitted: Vec<&Exchange> = self.admitted().collect();
        let costs: Vec<u64> = admitted.iter().filter_map(|e| Self::cost(e)).collect();
        if costs.len() < admitted.len() {
            let got = format!("{} of {} say what they used", costs.len(), admitted.len());
            judgement.unproven(ADMITTED, "usage in every admitted reply", got);
            return;
        }
        let cost = costs.first().copied().unwrap_or(REPLY);
        if costs.iter().any(|c| *c != cost) || cost == 0 {
            judgement.unproven(ADMITTED, "replies that all cost the same", format!("they cost {costs:?}"));
            return;
        }
        self.judge_admitted_costing(judgement, cost);
    }

    /// The same where each reply is known to cost so many tokens, whether it says so or not.
    pub fn judge_admitted_costing(&self, judgement: &mut Judgement, cost: u64) {
        if let Some(wanted) = self.wanted(judgement, cost) {
            let expected = format!("{wanted} replies of {cost} tokens admitted of {}, then refusals", self.limit);
            self.judge_count(judgement, wanted, &expected);
        }
    }

    /// Exactly so many replies were admitted before the first refusal, and none after it.
    pub fn judge_admitted_requests(&self, judgement: &mut Judgement, wanted: u64) {
        self.judge_count(judgement, wanted, &format!("{wanted} requests admitted, then refusals"));
    }

    /// What was sent before these requests cost nothing, where that is declared (`free`): all of the budget was left for
    /// them. Where it is not, it cost something: they were refused sooner.
    pub fn judge_price(&self, judgement: &mut Judgement, declared: Option<&str>) {
        if declared == Some("free") {
            self.judge_admitted_costing(judgement, REPLY);
            return;
        }
        let Some(whole) = self.wanted(judgement, REPLY) else { return };
        let clause = "charged";
        let admitted: Vec<&Exchange> = self.admitted().collect();
        let (count, unseen) = (admitted.len() as u64, self.unseen(&admitted));
        let expected = format!("fewer than the {whole} replies that a whole budget of {} admits", self.limit);
        let got = format!("{count} admitted ({unseen} past the limiter), and declared is {declared:?}");
        if self.turned() || self.refusals().next().is_none() || (count >= whole && count - unseen < whole) {
            judgement.unproven(clause, expected, got);
        } else {
            judgement.that(clause, count < whole, expected, got, admitted.last().copied());
        }
    }

    /// How many replies of this cost the declared rule admits; without a rule the clause is unproven.
    fn wanted(&self, judgement: &mut Judgement, cost: u64) -> Option<u64> {
        let rule = self.history.declared.get("block-when").and_then(Value::as_str).unwrap_or_default().parse::<Rule>();
        match rule {
            Ok(rule) => Some(rule.admits_costing(self.limit, cost)),
            Err(why) => {
                judgement.unproven(ADMITTED, "a declared rule", why);
                None
            }
        }
    }

    /// The replies before the first refusal.
    fn admitted(&self) -> impl Iterator<Item = &'a Exchange> {
        let status = refusal(self.history);
        let before = self.exchanges.iter().copied().take_while(move |e| e.status() != Some(status));
        before.filter(|e| e.status() == Some(200))
    }

    fn unseen(&self, exchanges: &[&Exchange]) -> u64 {
        exchanges.iter().filter(|e| !seen(self.history, e)).count() as u64
    }

    fn judge_count(&self, judgement: &mut Judgement, wanted: u64, expected: &str) {
        if self.exchanges.is_empty() || self.turned() {
            judgement.unproven(ADMITTED, "requests in one window", format!("{} requests", self.exchanges.len()));
            return;
        }
        if Marks::of(self.history) == Marks::Refusals {
            self.judge_recorded(judgement);
        }
        let admitted: Vec<&Exchange> = self.admitted().collect();
        let refused = self.refusals().next();
        let after = self.exchanges.iter().skip_while(|e| refused.is_none_or(|r| e.id != r.id));
        let again = after.filter(|e| e.status() == Some(200) && seen(self.history, e)).count();
        let (count, unseen) = (admitted.len() as u64, self.unseen(&admitted));
        let got = format!(
            "{count} admitted ({unseen} past the limiter), then {}{}",
            if refused.is_none() { "never a refusal" } else { "a refusal" },
            if again > 0 { format!(", and {again} admitted after it") } else { String::new() }
        );
        let shown = admitted.last().copied().into_iter().chain(refused);
        if count == wanted && refused.is_some() && again == 0 {
            judgement.that(ADMITTED, true, expected, got, shown);
        } else if again == 0 && count > wanted && count - unseen <= wanted || (refused.is_none() && count <= wanted) {
            judgement.unproven(ADMITTED, expected, got);
        } else {
            judgement.that(ADMITTED, false, expected, got, shown);
        }
    }

    /// What is left, as the limiter says, is the budget less what was used; a charge may be late by one reply.
    pub fn judge_remaining(&self, judgement: &mut Judgement) {
        if self.turned() {
            return;
        }
        // What the limiter has not seen may have been charged, or not.
        let (mut used, mut charged, mut last) = (0, 0, 0);
        let mut said = Vec::new();
        for exchange in &self.exchanges {
            let left = exchange.response().and_then(|r| number(r, "x-ratelimit-remaining"));
            if let Some(left) = left.filter(|_| exchange.status() == Some(200)) {
                said.push((
                    *exchange,
                    left,
                    self.limit.saturating_sub(used),
                    self.limit.saturating_sub(charged - last),
                ));
            }
            let cost = Self::cost(exchange).unwrap_or(0);
            used += cost;
            if marked(self.history, exchange) {
                (charged, last) = (charged + cost, cost);
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
            self.seen().skip_while(|e| e.id != refused.id).filter(|e| e.status() == Some(200)).collect();
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
        let status = refusal(self.history);
        let spent = |e: &&&Exchange| e.response().and_then(|r| number(r, "x-ratelimit-remaining")) == Some(0);
        let with_nothing_left: Vec<&Exchange> = self.exchanges.iter().filter(spent).copied().collect();
        // By either rule at most one reply comes of a spent budget, and its charge may be late by one.
        if refusals.is_empty() && with_nothing_left.len() > 2 {
            let got = format!("{} answers with nothing left, none of them a refusal", with_nothing_left.len());
            let expected = format!("status {status} once nothing is left");
            judgement.that("statuses", false, expected, got, with_nothing_left.into_iter().take(3));
            return;
        }
        if refusals.is_empty() {
            judgement.unproven("shape", "a refusal to look at", "nothing was refused");
            return;
        }
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
        let marked: Vec<&Exchange> = self.exchanges.iter().copied().filter(|e| marked(self.history, e)).collect();
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
    if !wrong.is_empty() && status != 200 && wrong.iter().all(|e| !seen(history, e)) {
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
    if history.declared.get("window").and_then(Value::as_str) == Some("fixed-from-policy") {
        return judge_distance(judgement, history, window);
    }
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

/// From the end of the window before the drive to the end of the drive's own it is one window: the last refusal of the
/// preparation says the one, the first of the drive says the other.
fn judge_distance(judgement: &mut Judgement, history: &History, window: f64) {
    let before = history.settle.exchanges.iter().rev().find_map(end_of);
    let own = history.exchanges.iter().filter(|e| !e.label.starts_with("discarded")).find_map(end_of);
    match before.zip(own) {
        Some((before, own)) => judgement.that(
            "length",
            (own - before - window).abs() <= 1.5, // each is said in whole seconds
            format!("{window} s between the ends of two windows"),
            format!("{:.1} s", own - before),
            [],
        ),
        None => judgement.unproven("length", "refusals that say the ends of two windows", "there are none"),
    };
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
