//! Budgets of tokens: how one is spent inside one window, and what its answers prove.
//!
//! The limiter's mark is a response header (`x-ratelimit-limit`). Where it marks every answer, one without it was not seen
//! by the limiter: it is left out of the arithmetic, and where that leaves room for doubt the clause is unproven. Where it
//! marks refusals alone (declared as `marked-answers: refusals`), what was admitted is proven by the model's own records.
//!
//! Where budgets are kept by user (`identity-header` is declared) each drive spends one of its own. Else all requests of a
//! route spend one budget: it is spent until a refusal says when the window ends, and the drive begins after that.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::{Value, json};
use verdict::{
    capability::{self, MarkedAnswers, Price, Rule, TokenLimit, UsageField, Window},
    change::{self, Direction},
    history::{Exchange, History},
};

use crate::{Call, Judge, Stage, chat};

/// Tokens of one reply to [`chat`]: 6 of prompt and 1 of reply.
pub const REPLY: u64 = 7;

/// A budget that tells whether three requests before it cost as little as a token each: of replies it admits three where
/// they did not and two where they did, by either rule.
pub const TELLING: u64 = 15;

/// How many replies that cost so many tokens a budget admits when each is charged after its response.
pub fn admits(rule: Rule, limit: u64, cost: u64) -> u64 {
    match rule {
        Rule::Over => limit / cost + 1,
        Rule::AtLeast => limit.div_ceil(cost),
    }
}

/// What a reply costs that says what it used; nothing where it lacks a number that is charged.
pub fn cost(limit: &TokenLimit, usage: &Value) -> Option<u64> {
    limit.cost(|field| {
        let name = match field {
            UsageField::Prompt => "prompt_tokens",
            UsageField::Completion => "completion_tokens",
            UsageField::Total => "total_tokens",
        };
        usage[name].as_u64()
    })
}

#[derive(Clone, Debug)]
pub struct Limited {
    pub host: String,
    pub model: String,
    /// What the names of its pods begin with.
    pub pods: String,
}

impl Limited {
    pub fn of(stage: &Stage, model: &str) -> Self {
        Self { host: stage.hostname().to_owned(), model: model.to_owned(), pods: model.to_owned() }
    }

    fn chat(&self) -> Call {
        chat(&self.model).host(&self.host)
    }
}

fn identity(stage: &Stage) -> Result<Option<String>> {
    Ok(stage.declared::<TokenLimit>()?.identity_header)
}

pub fn as_user(stage: &Stage, call: Call, user: &str) -> Result<Call> {
    Ok(match identity(stage)? {
        Some(header) => call.header(header, user),
        None => call,
    })
}

pub fn marked(limit: &TokenLimit, exchange: &Exchange) -> bool {
    exchange.response().is_some_and(|r| r.header(&limit.mark_header).is_some())
}

/// Whether the limiter is known to have seen this exchange, or never says so where it lets pass.
fn seen(limit: &TokenLimit, exchange: &Exchange) -> bool {
    marked(limit, exchange) || limit.marked_answers == MarkedAnswers::Refusals
}

fn reset_of(exchange: &Exchange) -> Option<u64> {
    exchange.response()?.number("x-ratelimit-reset")
}

/// Waits until the limit is live. By user: until the route answers, marked by the limiter, each request with an identity
/// of its own, so that nothing is spent of the budget under test. One budget for all: until it is spent.
pub async fn settle(stage: &mut Stage, model: &str) -> Result<()> {
    settle_on(stage, &Limited::of(stage, model)).await
}

pub async fn settle_on(stage: &mut Stage, limited: &Limited) -> Result<()> {
    let Some(header) = identity(stage)? else {
        let refused = stage.declared::<TokenLimit>()?.status;
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

/// Requests until the limiter marks an answer.
const PROBES: usize = 100;
/// Requests until a budget that all share is spent.
const SPENDING: usize = 500;
/// Ends of windows that are waited for until one begins.
const WINDOWS: usize = 4;

/// One answer that the limiter marked, for a throw-away identity: (seconds to the window's end, unix time of that end).
async fn probe(stage: &mut Stage, limited: &Limited, header: &str) -> Result<(u64, Option<i64>)> {
    for _ in 0..PROBES {
        let user = format!("probe-{}", stage.unique());
        let exchange = stage.prepare(limited.chat().header(header, &user)).await?;
        if let Some(reset) = reset_of(&exchange) {
            let date =
                exchange.response().and_then(|r| r.header("date")).and_then(|d| jiff::fmt::rfc2822::parse(d).ok());
            let end = date.and_then(|d| d.timestamp().as_second().checked_add(i64::try_from(reset).ok()?));
            return Ok((reset, end));
        }
        stage.pause(0.1).await; // the policy may not be live yet, or the limiter's call took too long
    }
    let header = stage.declared::<TokenLimit>()?.mark_header;
    Err(stage
        .give_up(format!("{PROBES} answers without {header} or x-ratelimit-reset: the start of the budget is unknown")))
}

/// Spends what is left of the budget that all share: the seconds to the window's end, as the first refusal says.
async fn spend_up(stage: &mut Stage, limited: &Limited) -> Result<u64> {
    let refused = stage.declared::<TokenLimit>()?.status;
    for _ in 0..SPENDING {
        let exchange = stage.prepare(limited.chat()).await?;
        if exchange.status() == Some(refused) {
            let without = "a refusal without x-ratelimit-reset: the start of the budget is unknown";
            return reset_of(&exchange).ok_or_else(|| stage.give_up(without.to_owned()));
        }
        charged(stage).await;
    }
    Err(stage.give_up(format!("{SPENDING} requests without a {refused}: the start of the budget is unknown")))
}

/// Gives up on a window whose end is more than twice the declared length away. The judge compares the length itself.
pub(crate) fn not_absurd(stage: &mut Stage, reset: u64, window: u64) -> Result<()> {
    if reset <= window.saturating_mul(2) {
        return Ok(());
    }
    Err(stage.give_up(format!("a window of {window} s that ends in {reset} s: its end is not waited for")))
}

/// Waits for the first seconds of a window of this length, with a budget of which nothing is spent.
async fn first_seconds(stage: &mut Stage, limited: &Limited, window: u64) -> Result<()> {
    let Some(header) = identity(stage)? else {
        let reset = spend_up(stage, limited).await?;
        not_absurd(stage, reset, window)?;
        stage.set_window_end(reset as f64);
        stage.until_window_end(0.5).await?;
        stage.next_window(window as f64);
        return Ok(());
    };
    // An hour is not waited for: half a minute of it has to be left.
    let enough = if window <= 60 { window.saturating_sub(5) } else { 30 };
    for _ in 0..WINDOWS {
        let (reset, end) = probe(stage, limited, &header).await?;
        not_absurd(stage, reset, window)?;
        stage.set_window_end(reset as f64);
        if reset >= enough {
            stage.fact("reset-seconds", json!(reset));
            stage.fact("window-end-unix", json!(end));
            return Ok(());
        }
        stage.until_window_end(0.5).await?;
    }
    let words = format!(
        "{WINDOWS} times less than {enough} s to the end of a window of {window} s, after its end was waited for"
    );
    Err(stage.give_up(words))
}

/// Lets the charge of the last reply land. A limiter that charges after the response does so behind the client's back
/// (Envoy Gateway reports it at the end of the stream): a request sent at once would race it, and `tokens/overshoot`
/// is where that race is looked at.
pub async fn charged(stage: &Stage) {
    stage.pause(0.3).await;
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
    let window = stage.declared::<TokenLimit>()?.window_seconds;
    in_one_window_of(stage, &Limited::of(stage, model), window, labels, drive).await
}

pub async fn in_one_window_of(
    stage: &mut Stage,
    limited: &Limited,
    window: u64,
    labels: &[&str],
    drive: impl AsyncFn(&mut Stage, &str) -> Result<()>,
) -> Result<()> {
    let limit = stage.declared::<TokenLimit>()?;
    let rounds = if window <= 60 { ROUNDS } else { QUICK_ROUNDS };
    let mut missed = 0;
    stage.begin().await?;
    for round in 1..=rounds {
        first_seconds(stage, limited, window).await?;
        let from = stage.history().exchanges.len();
        let user = format!("user-{}", stage.unique());
        drive(stage, &user).await?;
        let driven = &stage.history().exchanges[from..];
        let unseen = driven.iter().filter(|e| labels.contains(&e.label.as_str()) && !seen(&limit, e)).count();
        let turned = turned(driven.iter().filter(|e| e.label != "next-window"), window);
        missed += unseen;
        stage.fact("not-seen-by-the-limiter", json!(missed));
        if round == rounds || (!turned && unseen == 0) {
            break;
        }
        let missed = format!("restart: the limiter did not see {unseen} answers");
        stage.discard_from(from, if turned { "restart: window-turned" } else { &missed });
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

const ADMITTED: &str = "admitted";

pub struct Budget<'h> {
    pub declared: TokenLimit,
    tokens: u64,
    window: u64,
    exchanges: Vec<&'h Exchange>,
}

/// What became of the requests that spent a budget.
struct Spending<'h> {
    /// The replies before the first refusal.
    admitted: Vec<&'h Exchange>,
    /// How many of them the limiter is not known to have seen.
    unseen: u64,
    /// The first refusal.
    refused: Option<&'h Exchange>,
    /// The replies after it that the limiter let pass.
    again: Vec<&'h Exchange>,
}

impl Spending<'_> {
    /// Whether so many were admitted and then none; `None` where it cannot be told.
    fn comes_to(&self, wanted: u64) -> Option<bool> {
        let admitted = self.admitted.len() as u64;
        let too_few_sent = self.refused.is_none() && admitted <= wanted;
        let excess_unseen = admitted > wanted && admitted - self.unseen <= wanted;
        if !self.again.is_empty() {
            Some(false)
        } else if too_few_sent || excess_unseen {
            None
        } else {
            Some(self.refused.is_some() && admitted == wanted)
        }
    }

    /// Whether fewer than so many were admitted; `None` where it cannot be told.
    fn stays_below(&self, whole: u64) -> Option<bool> {
        let admitted = self.admitted.len() as u64;
        let excess_unseen = admitted >= whole && admitted - self.unseen < whole;
        (self.refused.is_some() && !excess_unseen).then_some(admitted < whole)
    }
}

impl<'h> Budget<'h> {
    /// A budget of `tokens` in the declared window. Without a declaration there is no budget, and an unproven clause. Where the
    /// window turned between the requests nothing can be said of sums: another unproven clause.
    pub fn of(judge: &mut Judge<'h>, label: &str, tokens: u64) -> Option<Self> {
        Self::spent(judge, label, tokens, |declared| declared.window_seconds)
    }

    pub fn of_window(judge: &mut Judge<'h>, label: &str, tokens: u64, window: u64) -> Option<Self> {
        Self::spent(judge, label, tokens, |_| window)
    }

    fn spent(judge: &mut Judge<'h>, label: &str, tokens: u64, window: impl FnOnce(&TokenLimit) -> u64) -> Option<Self> {
        let declared = judge.declared::<TokenLimit>()?;
        let window = window(&declared);
        let budget = Self { declared, tokens, window, exchanges: judge.labelled(label) };
        if budget.turned() {
            let statement = judge.clause("one-window").expected("all requests in one window");
            statement.unproven("the window turned between them");
        }
        Some(budget)
    }

    fn turned(&self) -> bool {
        turned(self.exchanges.iter().copied(), self.window)
    }

    fn spending(&self) -> Spending<'h> {
        let is_refusal = |e: &&Exchange| e.status() == Some(self.declared.status);
        let first = self.exchanges.iter().position(is_refusal).unwrap_or(self.exchanges.len());
        let (before, after) = self.exchanges.split_at(first);
        let replies =
            |exchanges: &[&'h Exchange]| exchanges.iter().copied().filter(|e| e.status() == Some(200)).collect();
        let (admitted, mut again): (Vec<&Exchange>, Vec<&Exchange>) = (replies(before), replies(after));
        again.retain(|e| seen(&self.declared, e));
        let unseen = admitted.iter().filter(|e| !seen(&self.declared, e)).count() as u64;
        Spending { admitted, unseen, refused: after.first().copied(), again }
    }

    fn used(exchange: &Exchange) -> Option<u64> {
        exchange.response()?.json()?["usage"]["total_tokens"].as_u64()
    }

    /// Where the limiter marks refusals alone: each reply is in the records of one model, once, and no refusal is.
    fn judge_recorded(&self, judge: &mut Judge<'h>) {
        let (history, whole) = (judge.history(), judge.records_are_whole());
        let statement =
            judge.clause("recorded").expected("one record of a model for each reply, and none for a refusal");
        if !whole {
            return statement
                .unproven("the models' records are not whole, and the limiter does not mark what it admits");
        }
        let wrong = |e: &&Exchange| match e.status() {
            Some(200) => history.reached(e).len() != 1,
            Some(status) if status == self.declared.status => !history.reached(e).is_empty(),
            _ => false,
        };
        let wrong: Vec<&Exchange> = self.exchanges.iter().copied().filter(wrong).collect();
        let got = format!("{} of {} otherwise", wrong.len(), self.exchanges.len());
        statement.got(got).shown_by(wrong.iter().copied().take(3)).holds(wrong.is_empty());
    }

    /// Exactly as many replies were admitted before the first refusal as the declared rule admits, and none after it.
    pub fn judge_admitted(&self, judge: &mut Judge<'h>) {
        let admitted = self.spending().admitted;
        let costs: Vec<u64> = admitted.iter().filter_map(|e| Self::used(e)).collect();
        if costs.len() < admitted.len() {
            let statement = judge.clause(ADMITTED).expected("usage in every admitted reply");
            return statement.unproven(format!("{} of {} say what they used", costs.len(), admitted.len()));
        }
        let cost = costs.first().copied().unwrap_or(REPLY);
        if costs.iter().any(|c| *c != cost) || cost == 0 {
            let statement = judge.clause(ADMITTED).expected("replies that all cost the same");
            return statement.unproven(format!("they cost {costs:?}"));
        }
        self.judge_admitted_costing(judge, cost);
    }

    /// The same where each reply is known to cost so many tokens, whether it says so or not.
    pub fn judge_admitted_costing(&self, judge: &mut Judge<'h>, cost: u64) {
        let wanted = self.admits(cost);
        let expected = format!("{wanted} replies of {cost} tokens admitted of {}, then refusals", self.tokens);
        self.judge_count(judge, wanted, &expected);
    }

    /// Exactly so many replies were admitted before the first refusal, and none after it.
    pub fn judge_admitted_requests(&self, judge: &mut Judge<'h>, wanted: u64) {
        self.judge_count(judge, wanted, &format!("{wanted} requests admitted, then refusals"));
    }

    /// What was sent before these requests cost nothing, where that is declared: all of the budget was left for them. Else
    /// it cost something: they were refused sooner.
    pub fn judge_price(&self, judge: &mut Judge<'h>, declared: Price) {
        if declared == Price::Free {
            return self.judge_admitted_costing(judge, REPLY);
        }
        let (whole, spending) = (self.admits(REPLY), self.spending());
        let got = format!("{} admitted ({} past the limiter)", spending.admitted.len(), spending.unseen);
        let statement = judge
            .clause("charged")
            .expected(format!("fewer than the {whole} replies that a whole budget of {} admits", self.tokens));
        match spending.stays_below(whole).filter(|_| !self.turned()) {
            Some(holds) => statement.got(got).shown_by(spending.admitted.last().copied()).holds(holds),
            None => statement.unproven(got),
        }
    }

    fn admits(&self, cost: u64) -> u64 {
        admits(self.declared.block_when, self.tokens, cost)
    }

    fn judge_count(&self, judge: &mut Judge<'h>, wanted: u64, expected: &str) {
        if self.exchanges.is_empty() || self.turned() {
            let statement = judge.clause(ADMITTED).expected("requests in one window");
            return statement.unproven(format!("{} requests", self.exchanges.len()));
        }
        if self.declared.marked_answers == MarkedAnswers::Refusals {
            self.judge_recorded(judge);
        }
        let spending = self.spending();
        let Spending { admitted, unseen, refused, again } = &spending;
        let got = format!(
            "{} admitted ({unseen} past the limiter), then {}{}",
            admitted.len(),
            if refused.is_none() { "never a refusal" } else { "a refusal" },
            if again.is_empty() { String::new() } else { format!(", and {} admitted after it", again.len()) }
        );
        let statement = judge.clause(ADMITTED).expected(expected);
        match spending.comes_to(wanted) {
            Some(holds) => {
                statement.got(got).shown_by(admitted.last().copied().into_iter().chain(*refused)).holds(holds)
            }
            None => statement.unproven(got),
        }
    }

    /// What is left, as the limiter says, is the budget less what was used; a charge may be late by one reply.
    pub fn judge_remaining(&self, judge: &mut Judge<'h>) {
        if self.turned() {
            return;
        }
        // Charged is at least what the limiter saw before, but for the last reply of it, and at most all that was used.
        let (mut used, mut seen_used, mut last_seen) = (0, 0, 0);
        let mut said = Vec::new();
        for exchange in &self.exchanges {
            let left = exchange.response().and_then(|r| r.number("x-ratelimit-remaining"));
            if let Some(left) = left.filter(|_| exchange.status() == Some(200)) {
                let least = self.tokens.saturating_sub(used);
                let most = self.tokens.saturating_sub(seen_used - last_seen);
                said.push((*exchange, left, least, most));
            }
            let cost = Self::used(exchange).unwrap_or(0);
            used += cost;
            if marked(&self.declared, exchange) {
                seen_used += cost;
                last_seen = cost;
            }
        }
        if said.is_empty() {
            return; // some gateways mark refusals alone
        }
        let wrong = said.iter().find(|(_, left, least, most)| left < least || left > most);
        let got = wrong.map_or(format!("{} answers agree", said.len()), |(_, left, least, most)| {
            format!("{left} left where {least} to {most} were")
        });
        let statement =
            judge.clause("remaining").expected("remaining = limit - used, late by at most one reply").got(got);
        statement.shown_by(wrong.map(|w| w.0)).holds(wrong.is_none());
    }

    /// The budget was seen spent: a refusal, and after it no reply that the limiter let pass.
    pub fn judge_spent(&self, judge: &mut Judge<'h>) {
        let spending = self.spending();
        if spending.refused.is_none() {
            let statement = judge.clause("spent").expected("a refusal that shows the budget spent");
            return statement.unproven("nothing was refused");
        }
        let again = spending.again;
        let statement = judge.clause("spent").expected("refusals from the first one on");
        statement
            .got(format!("{} admitted after it", again.len()))
            .shown_by(again.iter().copied().take(3))
            .holds(again.is_empty());
    }

    /// Every refusal has the declared body and headers, and nothing but replies and refusals came back.
    pub fn judge_refusal_shape(&self, judge: &mut Judge<'h>) {
        let TokenLimit { status, body, content_type, headers, .. } = &self.declared;
        let refusals: Vec<&Exchange> = self.exchanges.iter().copied().filter(|e| e.status() == Some(*status)).collect();
        let spent = |e: &&&Exchange| e.response().and_then(|r| r.number("x-ratelimit-remaining")) == Some(0);
        let with_nothing_left: Vec<&Exchange> = self.exchanges.iter().filter(spent).copied().collect();
        // By either rule at most one reply comes of a spent budget, and its charge may be late by one.
        if refusals.is_empty() && with_nothing_left.len() > 2 {
            let got = format!("{} answers with nothing left, none of them a refusal", with_nothing_left.len());
            let statement = judge.clause("statuses").expected(format!("status {status} once nothing is left")).got(got);
            return statement.shown_by(with_nothing_left.into_iter().take(3)).holds(false);
        }
        if refusals.is_empty() {
            return judge.clause("shape").expected("a refusal to look at").unproven("nothing was refused");
        }
        let is_other = |e: &&Exchange| e.status() != Some(200) && e.status() != Some(*status);
        let others: Vec<&Exchange> = self.exchanges.iter().copied().filter(is_other).collect();
        let statement = judge.clause("statuses").expected(format!("200 or {status}"));
        let shown: Vec<&Exchange> = others.iter().copied().take(3).collect();
        statement.got(format!("{} others", others.len())).shown_by(shown).holds(others.is_empty());
        judge.none_of("body", &format!("body: {body}"), &refusals, |e| {
            let got = &e.response()?.body;
            let differs = if body == "empty" { got.bytes > 0 } else { got.text.as_deref() != Some(body) };
            differs.then(|| format!("body: {}", got.text.as_deref().unwrap_or("no text")))
        });
        let typed = content_type.as_ref().map(|_| "content-type");
        let wanted: Vec<&str> = headers.iter().map(String::as_str).chain(typed).collect();
        judge.none_of("refusal-headers", &format!("{} and no others", wanted.join(", ")), &refusals, |e| {
            let response = e.response()?;
            let missing: Vec<&str> = wanted.iter().copied().filter(|name| response.header(name).is_none()).collect();
            if !missing.is_empty() {
                return Some(format!("without {}", missing.join(", ")));
            }
            response.headers.iter().find_map(|(name, value)| {
                let media_type = value.split(';').next().unwrap_or_default().trim();
                let expected = match (name.to_ascii_lowercase().as_str(), content_type) {
                    ("content-type", Some(declared)) => media_type.eq_ignore_ascii_case(declared),
                    ("content-type", None) => body != "empty",
                    (name, _) => {
                        change::of_any_intermediary(Direction::Reply, name)
                            || wanted.iter().any(|declared| declared.eq_ignore_ascii_case(name))
                    }
                };
                (!expected).then(|| format!("{name}: {value}"))
            })
        });
    }

    /// The limit is the budget's, what is left never rises and is 0 in a refusal, and the reset lies in the window.
    pub fn judge_numbers(&self, judge: &mut Judge<'h>) {
        let turned = self.turned(); // then what is left may rise
        let marked: Vec<&Exchange> = self.exchanges.iter().copied().filter(|e| marked(&self.declared, e)).collect();
        let mut left_before = u64::MAX;
        let wrong = marked.iter().find_map(|exchange| {
            let response = exchange.response()?;
            let said = |header: &str| format!("{header}: {}", response.header(header).unwrap_or("absent"));
            let left = response.number("x-ratelimit-remaining");
            let reset = response.number("x-ratelimit-reset");
            let problem = if response.number("x-ratelimit-limit") != Some(self.tokens) {
                Some(said("x-ratelimit-limit"))
            } else if left.is_none() {
                Some(said("x-ratelimit-remaining"))
            } else if left > Some(left_before) && !turned {
                Some(format!("x-ratelimit-remaining rose from {left_before} to {}", left.unwrap_or_default()))
            } else if left > Some(0) && exchange.status() != Some(200) {
                Some(format!("refused with {} left", left.unwrap_or_default()))
            } else if reset.is_none_or(|r| r > self.window) {
                Some(said("x-ratelimit-reset"))
            } else {
                None
            };
            left_before = left.unwrap_or(left_before);
            problem.map(|words| (*exchange, words))
        });
        let got = wrong.as_ref().map_or(format!("{} marked answers agree", marked.len()), |(_, words)| words.clone());
        let (tokens, window) = (self.tokens, self.window);
        judge
            .clause("numbers")
            .expected(format!("limit {tokens}, remaining never rising and 0 in a refusal, reset at most {window}"))
            .got(got)
            .shown_by(wrong.as_ref().map(|w| w.0))
            .holds(wrong.is_none());
    }
}

pub fn judge_all_refused(judge: &mut Judge<'_>, clause: &'static str, label: &str) {
    if let Some(limit) = judge.declared::<TokenLimit>() {
        judge_all(judge, clause, label, limit.status);
    }
}

/// Where refusals are wanted and only what the limiter has not seen passed, it is unproven.
pub fn judge_all(judge: &mut Judge<'_>, clause: &'static str, label: &str, status: u16) {
    let Some(exchanges) = judge.sent(clause, label) else { return };
    let Some(limit) = judge.declared::<TokenLimit>() else { return };
    let expected = format!("status {status}");
    let wrong: Vec<&Exchange> = exchanges.iter().copied().filter(|e| e.status() != Some(status)).collect();
    // A reply instead of a refusal that the limiter did not see is a leak, which tokens/no-leak counts.
    if !wrong.is_empty() && status != 200 && wrong.iter().all(|e| !seen(&limit, e)) {
        let got = format!("{} of {} passed the limiter unseen", wrong.len(), exchanges.len());
        return judge.clause(clause).expected(expected).unproven(got);
    }
    judge.none_of(clause, &expected, &exchanges, |e| (e.status() != Some(status)).then(|| e.outcome_words()));
}

/// The window is as long as declared, and begins where it is declared to begin.
pub fn judge_length(judge: &mut Judge<'_>) {
    let Some(limit) = judge.declared::<TokenLimit>() else { return };
    let window = limit.window_seconds as f64;
    match limit.window {
        Window::FixedFromPolicy => judge_distance(judge, window),
        Window::FixedUnix => judge_alignment(judge, window),
    }
}

/// The limiter says an end no further away than the window is long, at a multiple of its length in Unix time.
fn judge_alignment(judge: &mut Judge<'_>, window: f64) {
    let history = judge.history();
    let fact = |name: &str| history.facts.get(name).and_then(Value::as_f64);
    let statement = judge.clause("length").expected(format!("at most {window} s to its end"));
    match fact("reset-seconds") {
        Some(reset) => statement.got(format!("{reset} s")).holds(reset > 0.0 && reset <= window),
        None => statement.unproven("the limiter's own reset was not seen"),
    }
    let statement = judge.clause("aligned").expected(format!("ends at a multiple of {window} s of Unix time"));
    match fact("window-end-unix") {
        Some(end) => {
            let off = (end % window).min(window - end % window);
            statement.got(format!("off by {off} s")).holds(off <= 1.0);
        }
        None => statement.unproven("no answer had a Date"),
    }
}

/// From the end of the window before the drive to the end of the drive's own it is one window: the last refusal of the
/// preparation says the one, the first of the drive says the other.
fn judge_distance(judge: &mut Judge<'_>, window: f64) {
    let history = judge.history();
    let before = history.settle.exchanges.iter().rev().find_map(end_of);
    let own = history.exchanges.iter().filter(|e| !e.label.starts_with("discarded")).find_map(end_of);
    let statement = judge.clause("length").expected(format!("{window} s between the ends of two windows"));
    match before.zip(own) {
        // Each is said in whole seconds.
        Some((before, own)) => {
            statement.got(format!("{:.1} s", own - before)).holds((own - before - window).abs() <= 1.5);
        }
        None => statement.unproven("there are no refusals that say the ends of two windows"),
    }
}

fn declared(history: &History) -> Option<TokenLimit> {
    capability::of_history(&history.declared).ok()
}

fn refusal_shape(history: &History, exchange: &Exchange) -> Value {
    let response = exchange.response();
    let kept = |name: &String| ["x-", "retry", "content-"].iter().any(|prefix| name.starts_with(prefix));
    let names = response.into_iter().flat_map(|r| &r.headers).map(|(name, _)| name.to_ascii_lowercase());
    json!({
        "status": exchange.status(), "headers": names.filter(kept).collect::<BTreeSet<String>>(),
        "body": response.and_then(|r| r.body.text.clone()),
        "marked": declared(history).is_some_and(|limit| marked(&limit, exchange)),
    })
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
    let limit = declared(history);
    let refused = history.exchanges.iter().find(|e| limit.as_ref().is_some_and(|l| e.status() == Some(l.status)));
    json!({"refusal": refused.map(|e| refusal_shape(history, e))})
}
