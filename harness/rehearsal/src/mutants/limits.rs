//! How limiters are wrong: about the time, about when to refuse, about whose budget it is, and about what a reply costs.

use http::HeaderMap;

use super::{Mutants, mutant, unfaithful};
use crate::{
    clock::UnixMillis,
    dataplane::{
        interceptor::LimitInterceptor,
        limits::{BucketDenial, WindowState},
        matching::joined,
        metering::{Charges, MeteredReply, Metering, WindowCharge},
        routing::{Backend, GlobalLimit, LocalLimit, RouteId, Rule, Selector, Table, Unit},
        usage::{Cost, Usage},
    },
};

/// By how much a budget is whole too early, in milliseconds.
const EARLY: u64 = 10_000;
const GUESS: Usage = Usage { input: 6, output: 1, total: 7, cached: 0, reasoning: 0 };

impl Mutants {
    fn lets_pass(&self) -> bool {
        self.is(mutant::NEVER_BLOCKS) || self.is(mutant::FAILS_OPEN_ONE_IN_TEN) && self.is_one_in(10)
    }
}

impl LimitInterceptor for Mutants {
    fn limiter_time(&self, bucket: &str, window_ms: u64, now: UnixMillis) -> UnixMillis {
        if self.is(mutant::REFILLS_EARLY) {
            now + EARLY
        } else if self.is(mutant::NEVER_REFILLS) {
            *self.memory().first.entry(bucket.to_owned()).or_insert(now)
        } else if self.is(mutant::WINDOW_SLIDES) {
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

    fn bucket(
        &self,
        limit: &GlobalLimit,
        _route: &RouteId,
        headers: &HeaderMap,
        bucket: Option<String>,
    ) -> Option<String> {
        let bucket = bucket?;
        if self.is(mutant::CHARGES_PER_GATEWAY) {
            return Some(limit.name.clone());
        }
        if self.is(mutant::CHARGES_PER_USER_ONLY) {
            return limit.selectors.iter().find_map(|selector| match selector {
                Selector::Distinct { name } => joined(headers, name),
                Selector::Match { .. } => None,
            });
        }
        Some(bucket)
    }

    fn request_hits(&self, hits: u64) -> u64 {
        if self.is(mutant::CHARGES_BEFORE) { GUESS.total } else { hits }
    }

    fn budgets(&self, now: UnixMillis, budgets: &mut Vec<WindowState>) {
        for state in budgets.iter_mut() {
            state.reset = state.limit.reset_seconds(now); // whatever time it goes by, it says the right one
            if self.is(mutant::SAYS_THAT_WINDOWS_END_SOON) {
                state.reset = 1;
            }
            state.over |= state.remaining == 0 && self.is(mutant::OFF_BY_ONE_LIMIT);
            if self.is(unfaithful::SHOWS_ONE_MORE) {
                state.remaining += 1;
            }
            if self.is(mutant::REMAINING_RISES) {
                state.remaining = state.limit.hits.saturating_sub(state.remaining);
            }
        }
        if budgets.iter().any(|state| !state.over) && self.is(mutant::LEAVES_ANSWERS_UNMARKED) {
            budgets.retain(|state| state.over);
        }
        if budgets.iter().any(|state| state.over) && self.lets_pass() {
            budgets.clear();
        }
    }

    fn reservations<'r>(&self, rule: &'r Rule, backend: &Backend, reservations: &mut Vec<(&'r LocalLimit, u64)>) {
        if self.is(mutant::CHARGES_BEFORE) {
            reservations.iter_mut().for_each(|(_, units)| *units = GUESS.total);
        }
        let mut of_tokens = rule.local_limits.iter().filter(|limit| limit.unit == Unit::Tokens).peekable();
        let plain = backend.provider.is_none() && !backend.is_pool();
        if plain && of_tokens.peek().is_some() && self.is(mutant::LIMITS_PLAIN_ROUTES) {
            reservations.extend(of_tokens.map(|limit| (limit, GUESS.total)));
        }
    }

    fn admission(&self, limit: &LocalLimit, admitted: Result<(), BucketDenial>) -> Result<(), BucketDenial> {
        match admitted {
            Err(_) if self.lets_pass() => Ok(()),
            Err(mut denial) if self.is(unfaithful::SHOWS_ONE_MORE) => {
                denial.remaining += 1;
                Err(denial)
            }
            Err(mut denial) if self.is(mutant::REMAINING_RISES) => {
                denial.remaining = denial.limit.saturating_sub(denial.remaining);
                Err(denial)
            }
            Err(mut denial) if self.is(mutant::SAYS_THAT_WINDOWS_END_SOON) => {
                denial.reset = 1;
                Err(denial)
            }
            Err(mut denial) if self.is(mutant::REFILLS_EARLY) => {
                denial.reset = (denial.reset + EARLY / 1000) % (limit.limit.interval_ms / 1000).max(1);
                Err(denial)
            }
            admitted => admitted,
        }
    }

    fn metering(&self, reply: &MeteredReply, metering: Metering) -> Metering {
        let free = reply.streaming
            && (self.is(mutant::NEVER_CHARGES_STREAMS)
                || !reply.usage_asked && self.is(mutant::CHARGES_STREAMS_THAT_ASK));
        match metering {
            _ if free => Metering::Never,
            Metering::AtEnd if reply.streaming && self.is(mutant::CHARGES_ON_FIRST_BYTE) => Metering::AtHead(GUESS),
            Metering::Never if reply.of_ai && !reply.success && self.is(mutant::CHARGES_5XX) => Metering::AtEnd,
            metering => metering,
        }
    }

    fn charges(&self, table: &Table, rule: &Rule, usage: &Usage, charges: &mut Charges) {
        if self.is(mutant::CHARGES_BEFORE) || self.is(mutant::LOSES_CHARGES_IN_FLIGHT) && self.leaves_others() {
            *charges = Charges::default();
        }
        if self.is(mutant::CHARGES_ONE_MORE) {
            charges.windows.iter_mut().filter(|w| w.cost.is_some()).for_each(|window| window.hits += 1);
            charges.buckets.iter_mut().for_each(|(_, tokens)| *tokens += 1);
        }
        if charges.buckets.is_empty() && charges.windows.iter().all(|window| window.cost.is_none()) {
            // nothing is charged that could be lost
        } else if self.is(unfaithful::LOSES_CHARGES) {
            *charges = Charges::default();
        } else if self.is(unfaithful::CHARGES_TWICE) {
            charges.windows.iter_mut().filter(|w| w.cost.is_some()).for_each(|window| window.hits *= 2);
            charges.buckets.iter_mut().for_each(|(_, tokens)| *tokens *= 2);
        } else if self.is(unfaithful::CHARGES_PROMPTS_ALONE) {
            charges.windows.iter_mut().filter(|w| w.cost.is_some()).for_each(|window| window.hits = usage.input);
            charges.buckets.iter_mut().for_each(|(_, tokens)| *tokens = usage.input);
        }
        if self.is(mutant::CHARGES_PER_GATEWAY) {
            let limit = table.entries().flat_map(|e| &e.rule.global_limits).next();
            if let Some(limit) = limit.filter(|_| charges.windows.is_empty()) {
                charges.windows.push(WindowCharge::of(rule, limit.name.clone(), limit.clone(), usage));
            }
            let mut limits: Vec<&LocalLimit> =
                table.entries().map(|e| &*e.rule).chain([rule]).flat_map(|rule| &rule.local_limits).collect();
            limits.dedup_by_key(|limit| &limit.bucket);
            let of_tokens = limits.into_iter().filter(|limit| limit.unit == Unit::Tokens);
            charges.buckets = of_tokens.map(|limit| (limit.clone(), usage.tokens())).collect();
        }
        if self.is(mutant::CHARGES_REQUESTS) {
            charges.windows.iter_mut().filter(|w| w.cost.is_some()).for_each(|window| window.hits = 1);
            charges.buckets.iter_mut().for_each(|(_, tokens)| *tokens = 1);
        }
        if self.is(mutant::CHARGES_OTHER_FIELD) {
            let totals = charges.windows.iter_mut().filter(|w| w.cost == Some(Cost::Total));
            totals.for_each(|window| window.hits = usage.output);
            charges.buckets.iter_mut().for_each(|(_, tokens)| *tokens = usage.total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_slides_is_moved_by_every_request() {
        let slides = Mutants::awake(mutant::WINDOW_SLIDES);
        let times = [0, 50_000, 100_000, 170_000].map(|now| slides.limiter_time("b", 60_000, now));
        assert_eq!(times, [0, 0, 0, 170_000], "each request within a window of the one before holds it");
        let never = Mutants::awake(mutant::NEVER_REFILLS);
        assert_eq!([5, 90_000].map(|now| never.limiter_time("b", 60_000, now)), [5, 5]);
        assert_eq!(Mutants::default().limiter_time("b", 60_000, 7), 7);
    }

    #[test]
    fn one_refusal_in_ten_is_let_pass() {
        let mutants = Mutants::awake(mutant::FAILS_OPEN_ONE_IN_TEN);
        assert_eq!((0..100).filter(|_| mutants.lets_pass()).count(), 10);
    }
}
