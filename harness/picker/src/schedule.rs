//! The choice: candidates are scored by what they have to do and what they have seen; the best is first.

use std::collections::{HashMap, HashSet};

use verdict::history::{Prefix, Reason};

use crate::{
    Endpoint,
    config::{Scheduling, Scorer},
    prefix::PrefixMemory,
};

/// What was chosen, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// In order of preference.
    pub endpoints: Vec<String>,
    /// The one that is counted as having something to do, until it is released.
    pub busy: Option<String>,
    pub reason: Reason,
    pub prefix: Prefix,
}

/// What is known of the endpoints from one request to the next.
#[derive(Debug)]
pub(crate) struct Scheduler {
    scheduling: Scheduling,
    seen: PrefixMemory,
    in_flight: HashMap<String, u64>,
    chosen_at: HashMap<String, u64>,
    choices: u64,
}

struct Scored<'a> {
    endpoint: &'a Endpoint,
    matched: usize,
    score: f64,
    chosen_at: u64,
}

impl Scheduler {
    pub(crate) fn new(scheduling: Scheduling) -> Self {
        let seen = PrefixMemory::new(scheduling.blocks.remembered);
        Self { scheduling, seen, in_flight: HashMap::new(), chosen_at: HashMap::new(), choices: 0 }
    }

    /// Chooses among candidates; the reason alone where nothing can be chosen.
    pub(crate) fn choose(&mut self, candidates: &[Endpoint], model: &str, prompt: &[u8]) -> Result<Choice, Reason> {
        if candidates.is_empty() {
            return Err(Reason::NoEndpoint);
        }
        if let Some(each) = self.scheduling.max_concurrency {
            let busy: u64 = candidates.iter().map(|c| self.in_flight(&c.address)).sum();
            if busy >= each.saturating_mul(candidates.len() as u64) {
                return Err(Reason::Saturated);
            }
        }
        let blocks = self.scheduling.blocks.of(model, prompt);
        let scores = self.scores(candidates, &blocks);
        let mut scored: Vec<_> = candidates
            .iter()
            .zip(scores)
            .map(|(endpoint, score)| Scored {
                endpoint,
                matched: self.seen.matched(&endpoint.address, &blocks),
                score,
                chosen_at: self.chosen_at.get(&endpoint.address).copied().unwrap_or(0),
            })
            .collect();
        // the best first; among equals the one whose turn is longest ago, then the order of the pool
        scored.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.chosen_at.cmp(&b.chosen_at)));
        let best = &scored[0];
        let reason = match scored.iter().find(|s| s.score < best.score) {
            _ if scored.len() == 1 => Reason::Only,
            None => Reason::Turn,
            Some(next) if best.matched > next.matched => Reason::Prefix,
            Some(_) => Reason::Load,
        };
        let prefix = Prefix { blocks: count(blocks.len()), matched: count(best.matched) };
        let endpoints: Vec<String> =
            scored.iter().take(self.scheduling.most).map(|s| s.endpoint.address.clone()).collect();
        let busy = endpoints.first().cloned();
        busy.iter().for_each(|endpoint| self.take(endpoint, &blocks));
        Ok(Choice { endpoints, busy, reason, prefix })
    }

    /// A choice that somebody else made. A candidate that is its first endpoint sees the prompt all the same.
    pub(crate) fn commanded(
        &mut self,
        endpoints: Vec<String>,
        candidates: &[Endpoint],
        model: &str,
        prompt: &[u8],
    ) -> Choice {
        let blocks = self.scheduling.blocks.of(model, prompt);
        let busy = endpoints.first().filter(|first| candidates.iter().any(|c| c.address == **first)).cloned();
        let matched = busy.as_ref().map_or(0, |endpoint| self.seen.matched(endpoint, &blocks));
        busy.iter().for_each(|endpoint| self.take(endpoint, &blocks));
        let prefix = Prefix { blocks: count(blocks.len()), matched: count(matched) };
        Choice { endpoints, busy, reason: Reason::Commanded, prefix }
    }

    fn take(&mut self, endpoint: &str, blocks: &[u64]) {
        self.choices += 1;
        self.chosen_at.insert(endpoint.to_owned(), self.choices);
        *self.in_flight.entry(endpoint.to_owned()).or_default() += 1;
        self.seen.learn(endpoint, blocks);
    }

    pub(crate) fn release(&mut self, endpoint: &str) {
        if let Some(count) = self.in_flight.get_mut(endpoint) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.in_flight.remove(endpoint);
            }
        }
    }

    pub(crate) fn keep(&mut self, endpoints: &[Endpoint]) {
        let there: HashSet<&str> = endpoints.iter().map(|e| e.address.as_str()).collect();
        self.seen.keep(|endpoint| there.contains(endpoint));
        self.chosen_at.retain(|endpoint, _| there.contains(endpoint.as_str()));
    }

    fn in_flight(&self, endpoint: &str) -> u64 {
        self.in_flight.get(endpoint).copied().unwrap_or(0)
    }

    fn scores(&self, candidates: &[Endpoint], blocks: &[u64]) -> Vec<f64> {
        let mut sums = vec![0.0; candidates.len()];
        for (scorer, weight) in &self.scheduling.scorers {
            for (sum, score) in sums.iter_mut().zip(self.score(*scorer, candidates, blocks)) {
                *sum += weight * score;
            }
        }
        sums
    }

    fn score(&self, scorer: Scorer, candidates: &[Endpoint], blocks: &[u64]) -> Vec<f64> {
        let in_flight = || candidates.iter().map(|c| self.in_flight(&c.address)).collect();
        let said = |read: fn(&crate::Load) -> u64| {
            candidates.iter().map(|c| c.load.as_ref().map(read)).collect::<Option<Vec<_>>>()
        };
        match scorer {
            Scorer::Prefix if blocks.is_empty() => vec![0.0; candidates.len()],
            Scorer::Prefix => {
                candidates.iter().map(|c| self.seen.matched(&c.address, blocks) as f64 / blocks.len() as f64).collect()
            }
            Scorer::Waiting => fewer(said(|load| load.waiting).unwrap_or_else(in_flight)),
            Scorer::Running => fewer(said(|load| load.running).unwrap_or_else(in_flight)),
            Scorer::InFlight => fewer(in_flight()),
            Scorer::BelowThreshold(threshold) => {
                let share = |waiting: u64| 0.5 * (1.0 - waiting.min(threshold) as f64 / threshold as f64);
                said(|load| load.waiting).unwrap_or_else(in_flight).into_iter().map(share).collect()
            }
            Scorer::KvCache => {
                candidates.iter().map(|c| 1.0 - c.load.as_ref().map_or(0.0, |l| l.kv_cache.clamp(0.0, 1.0))).collect()
            }
        }
    }
}

/// 1 for the fewest, 0 for the most, 1 for all where they are equal.
fn fewer(counts: Vec<u64>) -> Vec<f64> {
    let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    let share = |count: u64| if most == least { 1.0 } else { (most - count) as f64 / (most - least) as f64 };
    counts.into_iter().map(share).collect()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::Load;

    fn pool(addresses: &[&str]) -> Vec<Endpoint> {
        addresses.iter().map(|a| Endpoint::from(*a)).collect()
    }

    fn scheduler(scorers: &[(Scorer, f64)]) -> Scheduler {
        let mut scheduling = Scheduling { scorers: scorers.to_vec(), ..Scheduling::default() };
        scheduling.blocks.size = 4;
        Scheduler::new(scheduling)
    }

    fn chosen(scheduler: &mut Scheduler, candidates: &[Endpoint], prompt: &str) -> (String, Reason) {
        let choice = scheduler.choose(candidates, "m", prompt.as_bytes()).unwrap();
        (choice.endpoints[0].clone(), choice.reason)
    }

    struct Known {
        in_flight: u64,
        seen: &'static str,
        load: Option<Load>,
    }

    fn doing(in_flight: u64) -> Known {
        Known { in_flight, seen: "", load: None }
    }
    fn having_seen(seen: &'static str) -> Known {
        Known { in_flight: 0, seen, load: None }
    }
    fn saying(waiting: u64, running: u64, kv_cache: f64) -> Known {
        Known { in_flight: 0, seen: "", load: Some(Load { waiting, running, kv_cache }) }
    }

    #[rstest]
    #[case::fewer_in_flight(Scorer::InFlight, [doing(2), doing(1), doing(3)], "b", Reason::Load)]
    #[case::two_alike(Scorer::InFlight, [doing(2), doing(1), doing(1)], "b", Reason::Load)]
    #[case::all_alike(Scorer::InFlight, [doing(1), doing(1), doing(1)], "a", Reason::Turn)]
    #[case::waiting_unsaid(Scorer::Waiting, [doing(2), doing(0), doing(1)], "b", Reason::Load)]
    #[case::waiting_said(Scorer::Waiting, [saying(3, 0, 0.0), saying(2, 9, 0.9), saying(1, 9, 0.9)], "c", Reason::Load)]
    #[case::running_said(Scorer::Running, [saying(0, 3, 0.0), saying(9, 1, 0.9), saying(9, 2, 0.9)], "b", Reason::Load)]
    #[case::said_by_some_only(Scorer::Waiting, [doing(2), saying(0, 0, 0.0), doing(1)], "b", Reason::Load)]
    #[case::running_unsaid(Scorer::Running, [doing(1), doing(1), doing(0)], "c", Reason::Load)]
    #[case::below_the_threshold(Scorer::BelowThreshold(4), [saying(4, 0, 0.0), saying(1, 9, 0.9), saying(3, 0, 0.0)], "b", Reason::Load)]
    #[case::all_above_it(Scorer::BelowThreshold(1), [doing(9), doing(2), doing(1)], "a", Reason::Turn)]
    #[case::kv_cache(Scorer::KvCache, [saying(0, 0, 0.5), saying(9, 9, 0.2), saying(0, 0, 0.9)], "b", Reason::Load)]
    #[case::kv_cache_unsaid(Scorer::KvCache, [saying(0, 0, 0.5), doing(9), saying(0, 0, 0.1)], "b", Reason::Load)]
    #[case::longest_prefix(Scorer::Prefix, [having_seen("aaaabbbb"), having_seen("aaaabbbbcccc"), having_seen("xxxxbbbbcccc")], "b", Reason::Prefix)]
    #[case::same_prefix(Scorer::Prefix, [having_seen("aaaa"), having_seen("aaaa"), having_seen("")], "a", Reason::Prefix)]
    #[case::no_prefix(Scorer::Prefix, [having_seen("xxxx"), having_seen("yyyy"), having_seen("")], "a", Reason::Turn)]
    #[case::less_than_a_block(Scorer::Prefix, [having_seen("aaa"), having_seen("aaa"), having_seen("")], "a", Reason::Turn)]
    fn one_rule(#[case] scorer: Scorer, #[case] known: [Known; 3], #[case] wins: &str, #[case] reason: Reason) {
        let mut scheduler = scheduler(&[(scorer, 1.0)]);
        let mut candidates = pool(&["a", "b", "c"]);
        for (candidate, known) in candidates.iter_mut().zip(known) {
            scheduler.in_flight.insert(candidate.address.clone(), known.in_flight);
            let blocks = scheduler.scheduling.blocks.of("m", known.seen.as_bytes());
            scheduler.seen.learn(&candidate.address, &blocks);
            candidate.load = known.load;
        }
        assert_eq!(chosen(&mut scheduler, &candidates, "aaaabbbbccccd"), (wins.to_owned(), reason));
    }

    #[rstest]
    #[case::prefix_outweighs_load(3.0, 2.0, "a")]
    #[case::load_outweighs_prefix(2.0, 3.0, "b")]
    fn weights(#[case] prefix: f64, #[case] load: f64, #[case] wins: &str) {
        let mut scheduler = scheduler(&[(Scorer::Prefix, prefix), (Scorer::InFlight, load)]);
        let candidates = pool(&["a", "b"]);
        assert_eq!(chosen(&mut scheduler, &candidates, "aaaabbbb"), ("a".to_owned(), Reason::Turn));
        assert_eq!(chosen(&mut scheduler, &candidates, "aaaabbbb").0, wins, "a has seen it, and is still at it");
    }

    #[test]
    fn a_long_prompt_sticks_and_others_spread() {
        let mut scheduler = Scheduler::new(Scheduling::default());
        let candidates = pool(&["a", "b", "c"]);
        let prompt = |n: usize| format!("{n}").repeat(1_000);
        let mut at = Vec::new();
        for n in 0..6 {
            let (endpoint, _) = chosen(&mut scheduler, &candidates, &prompt(n));
            scheduler.release(&endpoint);
            at.push(endpoint);
        }
        assert_eq!(at, ["a", "b", "c", "a", "b", "c"]);
        for (n, endpoint) in at.iter().enumerate() {
            assert_eq!(chosen(&mut scheduler, &candidates, &prompt(n)), (endpoint.clone(), Reason::Prefix));
            scheduler.release(endpoint);
        }
        let choice = scheduler.choose(&candidates, "another model", prompt(1).as_bytes()).unwrap();
        assert_eq!((choice.reason, choice.prefix), (Reason::Turn, Prefix { blocks: 15, matched: 0 }));
    }

    #[test]
    fn fallbacks_are_the_next_best() {
        let mut scheduler = Scheduler::new(Scheduling { most: 2, ..Scheduling::default() });
        scheduler.in_flight = HashMap::from([("a".to_owned(), 5), ("b".to_owned(), 1), ("c".to_owned(), 3)]);
        let choice = scheduler.choose(&pool(&["a", "b", "c"]), "m", b"").unwrap();
        assert_eq!(choice.endpoints, ["b", "c"]);
        assert_eq!(scheduler.choose(&pool(&["a"]), "m", b"").unwrap().endpoints, ["a"], "no more than there are");
    }

    #[rstest]
    #[case::nothing_there(&[], 9, Err(Reason::NoEndpoint))]
    #[case::one(&["a"], 9, Ok(Reason::Only))]
    #[case::room_left(&["a", "b"], 3, Ok(Reason::Load))]
    #[case::full(&["a", "b"], 2, Err(Reason::Saturated))]
    #[case::full_where_it_may_go(&["b"], 4, Err(Reason::Saturated))]
    #[case::nothing_allowed(&["a"], 0, Err(Reason::Saturated))]
    fn refusals(#[case] candidates: &[&str], #[case] each: u64, #[case] expected: Result<Reason, Reason>) {
        let mut scheduler = Scheduler::new(Scheduling { max_concurrency: Some(each), ..Scheduling::default() });
        scheduler.in_flight.insert("b".to_owned(), 4);
        assert_eq!(scheduler.choose(&pool(candidates), "m", b"").map(|c| c.reason), expected);
    }

    #[test]
    fn what_is_commanded_counts_and_is_remembered() {
        let mut scheduler = scheduler(&[(Scorer::InFlight, 1.0), (Scorer::Prefix, 0.5)]);
        let candidates = pool(&["a", "b"]);
        let command = |s: &mut Scheduler, to: &str| s.commanded(vec![to.to_owned()], &candidates, "m", b"aaaa");
        assert_eq!(command(&mut scheduler, "a").prefix, Prefix { blocks: 1, matched: 0 });
        assert_eq!(chosen(&mut scheduler, &candidates, "zzzz").0, "b", "a is busy");
        scheduler.release("a");
        scheduler.release("b");
        assert_eq!(command(&mut scheduler, "a").prefix, Prefix { blocks: 1, matched: 1 });
        command(&mut scheduler, "elsewhere");
        assert!(!scheduler.chosen_at.contains_key("elsewhere") && !scheduler.in_flight.contains_key("elsewhere"));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut scheduler = scheduler(&[(Scorer::Prefix, 1.0)]);
        let all = pool(&["a", "b"]);
        assert_eq!(chosen(&mut scheduler, &all, "aaaa").0, "a");
        scheduler.keep(&pool(&["b"]));
        scheduler.keep(&all);
        assert_eq!(chosen(&mut scheduler, &all, "aaaa"), ("a".to_owned(), Reason::Turn), "it comes back as new");
    }

    proptest! {
        #[test]
        fn counts_come_back_to_nothing(asked in prop::collection::vec((0_usize..4, "[ab]{0,20}"), 0..60)) {
            let mut scheduler = Scheduler::new(Scheduling::default());
            let all = pool(&["a", "b", "c", "d"]);
            let mut taken = Vec::new();
            for (n, prompt) in &asked {
                let choice = scheduler.choose(&all[..=*n], "m", prompt.as_bytes()).unwrap();
                prop_assert!(all[..=*n].iter().any(|e| e.address == choice.endpoints[0]));
                taken.push(choice.endpoints[0].clone());
            }
            prop_assert_eq!(scheduler.in_flight.values().sum::<u64>(), asked.len() as u64);
            taken.iter().for_each(|endpoint| scheduler.release(endpoint));
            prop_assert!(scheduler.in_flight.is_empty());
        }

        #[test]
        fn equal_load_is_spread_evenly(rounds in 1_usize..20, endpoints in 1_usize..6) {
            let mut scheduler = Scheduler::new(Scheduling::default());
            let names: Vec<String> = (0..endpoints).map(|n| n.to_string()).collect();
            let all: Vec<Endpoint> = names.iter().map(|n| Endpoint::from(n.as_str())).collect();
            for _ in 0..rounds * endpoints {
                scheduler.choose(&all, "m", b"").unwrap();
            }
            prop_assert!(scheduler.in_flight.values().all(|count| *count == rounds as u64));
        }
    }
}
