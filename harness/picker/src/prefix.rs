//! Prefixes: which endpoint has seen the beginning of a prompt before, by hashes of its blocks.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hasher},
};

/// How prompts are cut and remembered (`parameters` of `prefix-cache-scorer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    pub size: usize,
    /// How many blocks of a prompt are looked at.
    pub most: usize,
    /// How many blocks are remembered of an endpoint.
    pub remembered: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { size: 64, most: 256, remembered: 31_250 }
    }
}

impl Blocks {
    /// The hash of each whole block, over the model, all blocks before it, and itself: equal ones have equal beginnings.
    pub fn of(&self, model: &str, text: &[u8]) -> Vec<u64> {
        let mut hash = DefaultHasher::new();
        hash.write(model.as_bytes());
        let blocks = text.chunks_exact(self.size).take(self.most);
        blocks
            .map(|block| {
                hash.write(block);
                hash.finish()
            })
            .collect()
    }
}

/// What each endpoint has seen, the oldest forgotten first.
#[derive(Debug)]
pub struct PrefixMemory {
    remembered: usize,
    endpoints: HashMap<String, EndpointMemory>,
}

#[derive(Debug, Default)]
struct EndpointMemory {
    now: u64,
    last_seen: HashMap<u64, u64>,
    by_age: BTreeMap<u64, u64>,
}

impl PrefixMemory {
    pub fn new(remembered: usize) -> Self {
        Self { remembered, endpoints: HashMap::new() }
    }

    /// How many of these blocks, from the first on, an endpoint has seen.
    pub fn matched(&self, endpoint: &str, blocks: &[u64]) -> usize {
        let Some(memory) = self.endpoints.get(endpoint) else { return 0 };
        blocks.iter().take_while(|block| memory.last_seen.contains_key(block)).count()
    }

    pub fn learn(&mut self, endpoint: &str, blocks: &[u64]) {
        let memory = self.endpoints.entry(endpoint.to_owned()).or_default();
        // from the last to the first, so that a prompt is forgotten from its end
        for block in blocks.iter().rev() {
            memory.now += 1;
            if let Some(before) = memory.last_seen.insert(*block, memory.now) {
                memory.by_age.remove(&before);
            }
            memory.by_age.insert(memory.now, *block);
        }
        while memory.last_seen.len() > self.remembered {
            let Some((_, oldest)) = memory.by_age.pop_first() else { break };
            memory.last_seen.remove(&oldest);
        }
    }

    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.endpoints.retain(|endpoint, _| is_there(endpoint));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::shorter_than_a_block("m", "abc", 4, 10, 0)]
    #[case::the_last_block_is_not_whole("m", "abcdefghij", 4, 10, 2)]
    #[case::whole("m", "abcdefgh", 4, 10, 2)]
    #[case::no_more_than_are_looked_at("m", "abcdefgh", 1, 3, 3)]
    fn blocks(#[case] model: &str, #[case] text: &str, #[case] size: usize, #[case] most: usize, #[case] count: usize) {
        assert_eq!(Blocks { size, most, remembered: 9 }.of(model, text.as_bytes()).len(), count);
    }

    proptest! {
        #[test]
        fn blocks_are_equal_as_far_as_prompts_are(a in "[ab]{0,40}", b in "[ab]{0,40}", size in 1_usize..6) {
            let cut = Blocks { size, most: 100, remembered: 9 };
            let (one, two) = (cut.of("m", a.as_bytes()), cut.of("m", b.as_bytes()));
            let equal = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count() / size;
            prop_assert_eq!(one.iter().zip(&two).take_while(|(x, y)| x == y).count(), equal.min(one.len()).min(two.len()));
            prop_assert!(cut.of("n", a.as_bytes()).iter().all(|block| !one.contains(block)), "another model shares nothing");
        }

        #[test]
        fn memory_is_bounded_and_ends_of_prompts_go_first(prompts in prop::collection::vec(prop::collection::vec(0_u64..50, 1..10), 1..20), bound in 1_usize..20) {
            let mut seen = PrefixMemory::new(bound);
            for prompt in &prompts {
                let mut prompt = prompt.clone();
                let mut known = std::collections::HashSet::new();
                prompt.retain(|block| known.insert(*block));
                seen.learn("e", &prompt);
                let memory = &seen.endpoints["e"];
                prop_assert!(memory.last_seen.len() <= bound && memory.by_age.len() == memory.last_seen.len());
                prop_assert_eq!(seen.matched("e", &prompt), prompt.len().min(bound));
            }
        }
    }

    #[test]
    fn endpoints_are_kept_apart_and_forgotten() {
        let mut seen = PrefixMemory::new(10);
        seen.learn("a", &[1, 2, 3]);
        assert_eq!((seen.matched("a", &[1, 2, 9, 3]), seen.matched("a", &[9, 1]), seen.matched("b", &[1])), (2, 0, 0));
        seen.keep(|endpoint| endpoint != "a");
        assert_eq!(seen.matched("a", &[1]), 0);
    }
}
