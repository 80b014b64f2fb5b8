//! Records: what the model writes down of each request, kept in a bounded buffer that says what it had to drop.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use verdict::history::ModelRecord;

/// What a model wrote down, as far as a reader asked for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Records in order of arrival.
    pub records: Vec<ModelRecord>,
    /// How many records were dropped since the model began, the oldest first.
    pub dropped: u64,
    /// What to ask for next: no record before it can still appear.
    pub next: u64,
    /// How many requests have arrived whose reply has not ended.
    pub open: u64,
    /// Whether there are more records than fit on this page.
    pub more: bool,
}

/// What a record weighs in bytes besides the text of its body.
const RECORD: usize = 1_024;

/// Bound on the bytes of bodies in the buffer.
const KEEP_BYTES: usize = 256 * 1024 * 1024;

fn weight(record: &ModelRecord) -> usize {
    RECORD + record.body.text.as_ref().map_or(0, String::len)
}

/// Called with each record when it is complete.
pub type OnRecord = Arc<dyn Fn(&ModelRecord) + Send + Sync>;

/// The buffer.
pub struct Log {
    keep: usize,
    on_record: Option<OnRecord>,
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    open: BTreeSet<u64>,
    done: BTreeMap<u64, ModelRecord>,
    weight: usize,
    dropped: u64,
}

impl Log {
    /// A buffer of so many records.
    pub fn new(keep: usize, on_record: Option<OnRecord>) -> Self {
        Self { keep, on_record, inner: Mutex::default(), version: watch::Sender::new(0) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has arrived; its number.
    pub fn arrive(&self) -> u64 {
        let mut inner = self.inner();
        let sequence = inner.next;
        inner.next += 1;
        inner.open.insert(sequence);
        sequence
    }

    /// The reply to a request has ended.
    pub fn complete(&self, record: ModelRecord) {
        if let Some(on_record) = &self.on_record {
            on_record(&record);
        }
        let mut inner = self.inner();
        inner.open.remove(&record.sequence);
        inner.weight += weight(&record);
        inner.done.insert(record.sequence, record);
        while inner.done.len() > self.keep || inner.weight > KEEP_BYTES {
            let Some((_, oldest)) = inner.done.pop_first() else { break };
            inner.weight -= weight(&oldest);
            inner.dropped += 1;
        }
        drop(inner);
        self.version.send_modify(|v| *v += 1);
    }

    /// The peer left before the last bytes of a reply that was thought to be complete had gone out.
    pub fn not_taken(&self, sequence: u64) {
        if let Some(record) = self.inner().done.get_mut(&sequence) {
            record.finished = false;
        }
        self.version.send_modify(|v| *v += 1);
    }

    /// How many requests have arrived whose reply has not ended.
    pub fn open(&self) -> u64 {
        self.inner().open.len() as u64
    }

    /// The records from number `since` on, at least one of them and then as many as fit into `bytes`.
    pub fn page(&self, since: u64, bytes: usize) -> Page {
        let inner = self.inner();
        let mut room = bytes;
        let mut records = Vec::new();
        let mut more = None;
        for (sequence, record) in inner.done.range(since..) {
            if !records.is_empty() && weight(record) > room {
                more = Some(*sequence);
                break;
            }
            room = room.saturating_sub(weight(record));
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

    /// Waits until the records are as wanted, and gives them.
    pub async fn wait(&self, wanted: impl Fn(&[ModelRecord]) -> bool) -> Vec<ModelRecord> {
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
