//! Metering: whether the marks of a limiter say what the model's replies used.
//!
//! What is left is the limit less the usage in the model's records, late by at most one reply: charges land behind the reply.
//! Where only refusals are marked, one says that the budget is used, and the replies before it must have used it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Difference;
use crate::capability::{self, MarkedAnswers, Price, Rule, TokenLimit, UsageField};
use crate::history::{Ended, Exchange, History, ModelRecord, Response, Usage};

/// Ends of windows are said in whole seconds: what is no further apart is one. To it comes the time that the slowest exchange
/// of a budget took: the limiter was asked at an unknown time within it.
const ONE_END: f64 = 1.5;

/// An exchange of one budget, with what it cost.
struct Spent<'h> {
    exchange: &'h Exchange,
    cost: u64,
    sent: f64,
    ended: f64,
    mark: Option<Mark>,
}

/// What the limiter said in an answer.
#[derive(Clone, Copy)]
struct Mark {
    limit: u64,
    remaining: u64,
    /// Seconds of the stage's clock.
    end: f64,
}

/// What is said of the exchanges whose marks could be compared with usage.
pub(super) fn judged<'h>(
    history: &'h History,
    records: &HashMap<&str, Vec<(&'h str, &'h ModelRecord)>>,
) -> Vec<(&'h Exchange, Vec<Difference>)> {
    let Ok(limit) = capability::of_history::<TokenLimit>(&history.declared) else { return vec![] };
    let mut budgets: BTreeMap<(String, String), Vec<&Exchange>> = BTreeMap::new();
    for exchange in history.settle.exchanges.iter().chain(&history.exchanges) {
        let user = limit.identity_header.as_deref().map(|header| value(&exchange.request.headers, header));
        // Without the header nothing, or another budget, is charged.
        if let Some(user) = user.unwrap_or(Some("")) {
            budgets.entry((exchange.request.host.clone(), user.to_owned())).or_default().push(exchange);
        }
    }
    budgets.into_values().filter_map(|exchanges| budget(&limit, exchanges, records)).flatten().collect()
}

/// `None` where something in the budget cannot be reckoned with.
fn budget<'h>(
    limit: &TokenLimit,
    exchanges: Vec<&'h Exchange>,
    records: &HashMap<&str, Vec<(&'h str, &'h ModelRecord)>>,
) -> Option<Vec<(&'h Exchange, Vec<Difference>)>> {
    // Each model may have a budget of its own.
    let model = |e: &Exchange| records.get(e.id.as_str()).and_then(|r| r.first()).and_then(|(_, r)| r.model.clone());
    if exchanges.iter().filter_map(|e| model(e)).collect::<BTreeSet<String>>().len() > 1 {
        return None;
    }
    let spent: Option<Vec<Spent<'h>>> = exchanges
        .into_iter()
        .map(|exchange| {
            let cost = cost(limit, exchange, records.get(exchange.id.as_str()).and_then(|r| r.first()).map(|r| r.1))?;
            let sent = exchange.sent_ms / 1000.0;
            let ended = sent + exchange.response().map_or(0.0, |r| r.end_ms / 1000.0);
            let mark = exchange.response().and_then(|r| mark(limit, r, sent));
            Some(Spent { exchange, cost, sent, ended, mark })
        })
        .collect();
    let spent = spent?;
    let tokens = spent.iter().find_map(|s| Some(s.mark?.limit))?;
    let other = |s: &&Spent<'h>| s.mark.is_some_and(|mark| mark.limit != tokens);
    if let Some(other) = spent.iter().find(other) {
        let got = other.mark.map_or(0, |mark| mark.limit).to_string();
        let wrong = Difference::of("limit", format!("{tokens} in every answer of the budget"), got);
        return Some(vec![(other.exchange, vec![wrong])]);
    }
    let slack = ONE_END + spent.iter().map(|s| s.ended - s.sent).fold(0.0, f64::max);
    Some(match limit.marked_answers {
        MarkedAnswers::EveryAnswer => remaining(tokens, &spent, slack),
        MarkedAnswers::Refusals => refusals(limit, tokens, &spent, slack),
    })
}

/// How many charges may be open at a time; with more of them every sum in between is taken to be possible.
const OPEN: usize = 12;

/// Every mark against the replies of its window: each is charged whole, or not yet.
fn remaining<'h>(tokens: u64, spent: &[Spent<'h>], slack: f64) -> Vec<(&'h Exchange, Vec<Difference>)> {
    let marked = spent.iter().filter_map(|own| Some((own, own.mark?)));
    marked
        .map(|(own, mark)| {
            let before = spent.iter().filter(|other| {
                let same = other.mark.is_none_or(|other| (other.end - mark.end).abs() <= slack);
                same && !std::ptr::eq(*other, own) && other.sent < own.ended && other.cost > 0
            });
            // What the limiter did not see it may not charge, and the last charge may be late.
            let (mut charged, mut open): (Vec<&Spent<'_>>, Vec<&Spent<'_>>) =
                before.partition(|other| other.mark.is_some() && other.ended <= own.sent);
            open.extend(charged.pop());
            let sure: u64 = charged.iter().map(|other| other.cost).sum();
            let most = sure + open.iter().map(|other| other.cost).sum::<u64>();
            let left = |used: u64| tokens.saturating_sub(used);
            let (holds, expected) = if open.len() > OPEN {
                let range = left(most)..=left(sure);
                (range.contains(&mark.remaining), format!("{} to {}", range.start(), range.end()))
            } else {
                let mut sums = BTreeSet::from([sure]);
                for other in &open {
                    sums.extend(sums.clone().into_iter().map(|sum| sum + other.cost));
                }
                let left: BTreeSet<u64> = sums.into_iter().map(left).collect();
                let words: Vec<String> = left.iter().map(u64::to_string).collect();
                (left.contains(&mark.remaining), words.join(" or "))
            };
            let expected = format!("{expected} of {tokens}, as the replies before it used {most}");
            let wrong = Difference::of("remaining", expected, mark.remaining.to_string());
            (own.exchange, if holds { vec![] } else { vec![wrong] })
        })
        .collect()
}

/// Every refusal against the replies of its window, and every reply against a budget that was used before.
fn refusals<'h>(
    limit: &TokenLimit,
    tokens: u64,
    spent: &[Spent<'h>],
    slack: f64,
) -> Vec<(&'h Exchange, Vec<Difference>)> {
    let length = limit.window_seconds as f64;
    let Some(end) = spent.iter().find_map(|s| Some(s.mark?.end)) else { return vec![] };
    // A budget of other windows than the declared ones.
    if spent.iter().any(|s| s.mark.is_some_and(|mark| mark.end - s.sent > length + slack)) {
        return vec![];
    }
    let used_up = |used: u64| match limit.block_when {
        Rule::Over => used > tokens,
        Rule::AtLeast => used >= tokens,
    };
    spent
        .iter()
        .filter(|own| own.mark.is_some() || own.cost > 0)
        .map(|own| {
            let end = own.mark.map_or_else(|| end + ((own.sent - end) / length).ceil() * length, |mark| mark.end);
            let begin = end - length;
            let others = || spent.iter().filter(|other| !std::ptr::eq(*other, own));
            let possible: u64 =
                others().filter(|o| o.ended >= begin - slack && o.sent <= own.ended).map(|o| o.cost).sum();
            let sure: Vec<u64> = others()
                .filter(|o| o.sent > begin + slack && o.ended <= own.sent && own.sent < end - slack && o.cost > 0)
                .map(|o| o.cost)
                .collect();
            let late = sure.last().copied().unwrap_or(0);
            let sure = sure.iter().sum::<u64>() - late;
            let wrong = if own.mark.is_some() {
                (!used_up(possible)).then(|| {
                    Difference::of("refusal", format!("once {tokens} tokens are used"), format!("one after {possible}"))
                })
            } else {
                used_up(sure).then(|| {
                    Difference::of("refusal", format!("once {tokens} tokens are used"), format!("a reply after {sure}"))
                })
            };
            (own.exchange, wrong.into_iter().collect())
        })
        .collect()
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

fn mark(limit: &TokenLimit, response: &Response, sent: f64) -> Option<Mark> {
    Some(Mark {
        limit: response.number(&limit.mark_header)?,
        remaining: response.number("x-ratelimit-remaining")?,
        end: sent + response.number("x-ratelimit-reset")? as f64,
    })
}

/// What a reply costs; `None` where that is not known.
fn cost(limit: &TokenLimit, exchange: &Exchange, record: Option<&ModelRecord>) -> Option<u64> {
    let Some(response) = exchange.response().filter(|r| (200..300).contains(&r.status)) else {
        return Some(0); // refusals and errors are free
    };
    let record = record?;
    let free = |price: Price| (price == Price::Free).then_some(0);
    if response.ended != Ended::Complete || !record.finished {
        return free(limit.aborted_stream);
    }
    let Some(Usage { prompt_tokens, completion_tokens, total_tokens }) = record.usage else {
        return free(limit.no_usage_reply);
    };
    limit.cost(|field| {
        Some(match field {
            UsageField::Prompt => prompt_tokens,
            UsageField::Completion => completion_tokens,
            UsageField::Total => total_tokens,
        })
    })
}
