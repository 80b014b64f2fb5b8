//! The logbook of a stand-in: records in order of arrival, kept in a bounded buffer that says what it had to drop.
//!
//! Model and endpoint picker serve theirs at `GET /igc/records?since=N`, as a JSON array with the headers of [`Page::headers`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use verdict::history::{ModelRecord, PickerRecord};

/// How many bytes of records go into one reply.
pub const PAGE: usize = 4 * 1024 * 1024;

/// Bound on the bytes of text in a buffer.
const KEEP_BYTES: usize = 256 * 1024 * 1024;

pub trait Entry: Clone {
    fn sequence(&self) -> u64;
    /// What it weighs in memory and in a reply, in bytes, roughly.
    fn weight(&self) -> usize;
}

const RECORD: usize = 1_024;

fn headers(headers: &[(String, String)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

impl Entry for ModelRecord {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn weight(&self) -> usize {
        let texts = [self.body.text.as_ref(), self.sent.as_ref().and_then(|sent| sent.text.as_ref())];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        RECORD + headers(&self.headers) + self.reply.as_ref().map_or(0, |reply| headers(reply)) + texts
    }
}

impl Entry for PickerRecord {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn weight(&self) -> usize {
        let endpoints = self.candidates.iter().chain(&self.chosen).map(String::len).sum::<usize>();
        RECORD + headers(&self.headers) + self.target.len() + endpoints
    }
}

pub type OnRecord<R> = Arc<dyn Fn(&R) + Send + Sync>;

#[derive(Clone, Debug, PartialEq)]
pub struct Page<R> {
    pub records: Vec<R>,
    /// How many records were dropped since the log began, the oldest first.
    pub dropped: u64,
    /// What to ask for next: no record before it can still appear.
    pub next: u64,
    /// How many requests have arrived that have not ended.
    pub open: u64,
    pub more: bool,
}

impl<R> Page<R> {
    /// The headers of a reply with this page: `x-igc-next`, `x-igc-open`, and where they say something `x-igc-dropped`
    /// and `x-igc-more`.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("x-igc-next", self.next.to_string()), ("x-igc-open", self.open.to_string())];
        if self.dropped > 0 {
            headers.push(("x-igc-dropped", self.dropped.to_string()));
        }
        if self.more {
            headers.push(("x-igc-more", "true".to_owned()));
        }
        headers
    }
}

pub struct Log<R> {
    keep: usize,
    on_record: Option<OnRecord<R>>,
    inner: Mutex<Inner<R>>,
    version: watch::Sender<u64>,
}

struct Inner<R> {
    next: u64,
    open: BTreeSet<u64>,
    done: BTreeMap<u64, R>,
    weight: usize,
    dropped: u64,
}

impl<R: Entry> Log<R> {
    pub fn new(keep: usize, on_record: Option<OnRecord<R>>) -> Self {
        let inner = Inner { next: 0, open: BTreeSet::new(), done: BTreeMap::new(), weight: 0, dropped: 0 };
        Self { keep, on_record, inner: Mutex::new(inner), version: watch::Sender::new(0) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn arrive(&self) -> u64 {
        let mut inner = self.inner();
        let sequence = inner.next;
        inner.next += 1;
        inner.open.insert(sequence);
        sequence
    }

    pub fn complete(&self, record: R) {
        if let Some(on_record) = &self.on_record {
            on_record(&record);
        }
        let mut inner = self.inner();
        inner.open.remove(&record.sequence());
        inner.weight += record.weight();
        inner.done.insert(record.sequence(), record);
        while inner.done.len() > self.keep || inner.weight > KEEP_BYTES {
            let Some((_, oldest)) = inner.done.pop_first() else { break };
            inner.weight -= oldest.weight();
            inner.dropped += 1;
        }
        drop(inner);
        self.version.send_modify(|v| *v += 1);
    }

    /// Corrects a record that was thought to be complete, if it is still there. Its weight must stay.
    pub fn amend(&self, sequence: u64, amend: impl FnOnce(&mut R)) {
        if let Some(record) = self.inner().done.get_mut(&sequence) {
            amend(record);
        }
        self.version.send_modify(|v| *v += 1);
    }

    pub fn open(&self) -> u64 {
        self.inner().open.len() as u64
    }

    /// The records from number `since` on, at least one of them and then as many as fit into `bytes`.
    pub fn page(&self, since: u64, bytes: usize) -> Page<R> {
        let inner = self.inner();
        let mut room = bytes;
        let mut records = Vec::new();
        let mut more = None;
        for (sequence, record) in inner.done.range(since..) {
            if !records.is_empty() && record.weight() > room {
                more = Some(*sequence);
                break;
            }
            room = room.saturating_sub(record.weight());
            records.push(record.clone());
        }
        let settled = inner.open.first().copied().unwrap_or(inner.next);
        Page {
            records,
            dropped: inner.dropped,
            next: more.map_or(settled, |more| more.min(settled)),
            open: inner.open.len() as u64,
            more: more.is_some(),
        }
    }

    /// Waits until everything that was begun has ended, and gives all records.
    pub async fn at_rest(&self) -> Vec<R> {
        let mut version = self.version.subscribe();
        loop {
            version.mark_unchanged();
            let page = self.page(0, usize::MAX);
            if page.open == 0 {
                return page.records;
            }
            let _closed = version.changed().await; // the sender lives as long as self
        }
    }

    pub async fn wait(&self, wanted: impl Fn(&[R]) -> bool) -> Vec<R> {
        let mut version = self.version.subscribe();
        loop {
            version.mark_unchanged();
            let records = self.page(0, usize::MAX).records;
            if wanted(&records) {
                return records;
            }
            let _closed = version.changed().await; // the sender lives as long as self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Word(u64, usize);

    impl Entry for Word {
        fn sequence(&self) -> u64 {
            self.0
        }
        fn weight(&self) -> usize {
            self.1
        }
    }

    proptest! {
        #[test]
        fn pages_miss_nothing_but_what_they_say(weights in prop::collection::vec(1_usize..50, 0..40), keep in 1_usize..40, room in 1_usize..100) {
            let log = Log::new(keep, None);
            for weight in &weights {
                let sequence = log.arrive();
                log.complete(Word(sequence, *weight));
            }
            let (mut read, mut since) = (Vec::new(), 0);
            let last = loop {
                let page = log.page(since, room);
                prop_assert!(page.records.len() <= 1 || page.records.iter().map(Entry::weight).sum::<usize>() <= room);
                read.extend(page.records.iter().map(Entry::sequence));
                if !page.more { break page }
                prop_assert!(page.next > since);
                since = page.next;
            };
            prop_assert_eq!(last.dropped, weights.len().saturating_sub(keep) as u64);
            prop_assert_eq!(read, (last.dropped..weights.len() as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_open_holds_the_next_page_back() {
        let log = Log::new(10, None);
        let (first, second) = (log.arrive(), log.arrive());
        log.complete(Word(second, 1));
        let page = log.page(0, PAGE);
        assert_eq!((page.records.len(), page.next, page.open), (1, first, 1));
        assert_eq!(page.headers(), [("x-igc-next", "0".to_owned()), ("x-igc-open", "1".to_owned())]);
        log.complete(Word(first, 1));
        log.amend(first, |word| word.0 = first);
        let page = log.page(0, PAGE);
        assert_eq!((page.records, page.next, page.open), (vec![Word(0, 1), Word(1, 1)], 2, 0));
    }
}
