//! How limiters and refusals are wrong: about the time, about when to refuse, about whose budget it is, and in their words.

use http::HeaderMap;
use serde_json::json;

use super::{Mutant, Mutants};
use crate::{
    clock::UnixMillis,
    dataplane::{
        limits::WindowState,
        matching::joined,
        routing::{Cost, GlobalLimit, RouteId, Selector},
        usage::Usage,
        words::{Answer, Failure},
    },
};

/// By how much a budget is whole too early, in milliseconds.
const EARLY: u64 = 10_000;
/// What a reply is guessed to cost before it has come.
const GUESS: Usage = Usage { input: 6, output: 1, total: 7, cached: 0, reasoning: 0 };

impl Mutants {
    /// The time that counts for a bucket whose windows have this length.
    pub(crate) fn time_for(&self, bucket: &str, window_ms: u64, now: UnixMillis) -> UnixMillis {
        if self.is(Mutant::RefillsEarly) {
            now + EARLY
        } else if self.is(Mutant::NeverRefills) {
            *self.memory().first.entry(bucket.to_owned()).or_insert(now)
        } else if self.is(Mutant::WindowSlides) {
            let mut memory = self.memory();
            let last = memory.last.insert(bucket.to_owned(), now);
            if last.is_none_or(|last| now.saturating_sub(last) >= window_ms) {
                memory.first.insert(bucket.to_owned(), now);
            }
            memory.first.get(bucket).copied().unwrap_or(now)
        } else {
            now
        }
    }

    /// Whether a request that is to be refused passes all the same.
    pub(crate) fn lets_pass(&self) -> bool {
        self.is(Mutant::NeverBlocks) || self.is(Mutant::FailsOpenOneInTen) && self.is_one_in(10)
    }

    /// What a limiter says of a budget.
    pub(crate) fn state(&self, mut state: WindowState) -> WindowState {
        state.over |= state.remaining == 0 && self.is(Mutant::OffByOneLimit);
        if self.is(Mutant::RemainingRises) {
            state.remaining = state.limit.hits.saturating_sub(state.remaining);
        }
        state
    }

    /// What a proxy answers itself.
    pub(crate) fn answer(&self, failure: &Failure, mut answer: Answer) -> Answer {
        let refusal = matches!(failure, Failure::OverWindow(_) | Failure::OverBucket(_));
        if refusal && self.is(Mutant::RefusesWithoutHeaders) {
            answer.headers.retain(|(name, _)| !name.starts_with("x-ratelimit-"));
        }
        if refusal && self.is(Mutant::RefusesWith200) {
            answer.status = 200;
        }
        if let Failure::MalformedJson { words, .. } = failure {
            if self.is(Mutant::MalformedAs500) {
                answer.status = 500;
            } else if self.is_mended() {
                let said = json!({"error": {"message": words, "type": "invalid_request_error"}});
                answer = Answer::typed(400, "application/json", said.to_string());
            }
        }
        answer
    }

    /// What is charged before a reply, where that is done.
    pub(crate) fn charge_before(&self) -> Option<u64> {
        self.is(Mutant::ChargesBefore).then_some(GUESS.total)
    }

    /// What is charged of a stream that begins, where that is done.
    pub(crate) fn charge_of_a_beginning(&self) -> Option<Usage> {
        self.is(Mutant::ChargesOnFirstByte).then_some(GUESS)
    }

    /// The tokens that a reply costs.
    pub(crate) fn tokens_of(&self, usage: &Usage) -> u64 {
        if self.is(Mutant::ChargesRequests) {
            1
        } else if self.is(Mutant::ChargesOtherField) {
            usage.total
        } else {
            usage.input + usage.output
        }
    }

    /// A number of a reply, as a limit names it.
    pub(crate) fn cost_of(&self, usage: &Usage, cost: Cost) -> u64 {
        match cost {
            _ if self.is(Mutant::ChargesRequests) => 1,
            Cost::Total if self.is(Mutant::ChargesOtherField) => usage.output,
            cost => usage.cost(cost),
        }
    }

    /// The bucket that a request falls in; `None` where it is not limited.
    pub(crate) fn bucket_of(&self, limit: &GlobalLimit, id: &RouteId, headers: &HeaderMap) -> Option<String> {
        let bucket = limit.bucket(id, headers)?;
        if self.is(Mutant::ChargesPerGateway) {
            return Some(limit.name.clone());
        }
        if self.is(Mutant::ChargesPerUserOnly) {
            let user = limit.selectors.iter().find_map(|selector| match selector {
                Selector::Distinct { name } => joined(headers, name),
                Selector::Match { .. } => None,
            });
            return user;
        }
        Some(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_slides_is_moved_by_every_request() {
        let slides = Mutants::awake(Mutant::WindowSlides);
        let times = [0, 50_000, 100_000, 170_000].map(|now| slides.time_for("b", 60_000, now));
        assert_eq!(times, [0, 0, 0, 170_000], "each request within a window of the one before holds it");
        let never = Mutants::awake(Mutant::NeverRefills);
        assert_eq!([5, 90_000].map(|now| never.time_for("b", 60_000, now)), [5, 5]);
        assert_eq!(Mutants::default().time_for("b", 60_000, 7), 7);
    }

    #[test]
    fn one_refusal_in_ten_is_let_pass() {
        let mutants = Mutants::awake(Mutant::FailsOpenOneInTen);
        assert_eq!((0..100).filter(|_| mutants.lets_pass()).count(), 10);
    }
}
