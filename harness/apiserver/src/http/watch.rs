//! Watches: the changes of a kind as lines of JSON, from a resource version on.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::Stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::request::{Query, Shape, Target};
use super::{objects::partial, response::Response};
use crate::selector::{FieldSelector, Scope};
use crate::state::{Change, Listener, WatchEvent};
use crate::{failure::Result, store::Store};

/// How many events wait for a client that does not read before its watch is closed.
const BACKLOG: usize = 1024;
/// How long a watch lasts when the client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
const INITIAL_END: &str = "k8s.io/initial-events-end";

pub(super) fn start(
    store: &Store,
    target: &Target,
    query: &Query,
    shape: Shape,
    bookmark_every: Duration,
) -> Result<Response> {
    let mut scope = query.scope(target)?;
    if let Some(name) = &target.name {
        scope.fields = FieldSelector::read(&format!("metadata.name={name}"))?;
    }
    let kind = &target.resource.kind;
    let wants_initial = query.is("sendInitialEvents");
    let from = query.number("resourceVersion")?.filter(|v| *v > 0);
    let timeout = query.number("timeoutSeconds")?.filter(|t| *t > 0).map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let (tx, rx) = mpsc::channel(BACKLOG);
    let mut watch = Watch {
        store: store.clone(),
        target: target.clone(),
        scope,
        shape,
        headings: true,
        ready: VecDeque::new(),
        events: Some(rx),
        seen: 0,
        deadline: Instant::now() + timeout,
        bookmarks: query.is("allowWatchBookmarks").then(|| {
            let first = Instant::now() + bookmark_every;
            let mut interval = tokio::time::interval_at(first, bookmark_every);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }),
    };
    {
        let mut state = store.lock();
        watch.seen = state.version();
        match from.filter(|_| !wants_initial) {
            None => {
                let existing = state.list(kind, watch.scope.namespace.as_deref());
                for object in existing {
                    if watch.scope.holds(&object) {
                        watch.push("ADDED", &object);
                    }
                }
            }
            Some(version) => match state.since(kind, version) {
                Ok(events) => events.iter().for_each(|event| watch.take(event)),
                Err(expired) => {
                    watch.push_raw("ERROR", &expired.status());
                    watch.events = None;
                }
            },
        }
        if wants_initial {
            let mut bookmark = watch.bookmark();
            bookmark["metadata"]["annotations"] = json!({INITIAL_END: "true"});
            watch.push_raw("BOOKMARK", &bookmark);
        }
        if watch.events.is_some() {
            state.listen(Some(kind.clone()), Listener::Bounded(tx));
        }
    }
    let mut answer = Response::new(StreamBody::new(watch.lines()).boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

struct Watch {
    store: Store,
    target: Target,
    scope: Scope,
    shape: Shape,
    headings: bool,
    ready: VecDeque<Bytes>,
    /// `None` when the watch ends after what is ready.
    events: Option<mpsc::Receiver<Arc<WatchEvent>>>,
    seen: u64,
    deadline: Instant,
    bookmarks: Option<Interval>,
}

impl Watch {
    fn push_raw(&mut self, change: &str, object: &Value) {
        let mut line = json!({"type": change, "object": object}).to_string();
        line.push('\n');
        self.ready.push_back(line.into());
    }

    fn push(&mut self, change: &str, object: &Arc<Value>) {
        let headings = std::mem::take(&mut self.headings);
        let shown = self.target.show(self.shape, object, self.store.now(), headings);
        self.push_raw(change, &shown);
    }

    /// Writes an event as this watch sees it: objects come and go as selectors begin and cease to hold.
    fn take(&mut self, event: &WatchEvent) {
        self.seen = self.seen.max(event.version);
        let before = event.before.as_ref().is_some_and(|b| self.scope.holds(b));
        let after = event.change != Change::Deleted && self.scope.holds(&event.object);
        let change = match (before, after) {
            (false, false) => return,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        if change == "DELETED" && event.change != Change::Deleted {
            // The last state that the watch could see, at the version of the change.
            let mut last = event.before.as_deref().cloned().unwrap_or_default();
            last["metadata"]["resourceVersion"] = json!(event.version.to_string());
            self.push(change, &Arc::new(last));
        } else {
            self.push(change, &event.object);
        }
    }

    fn bookmark(&self) -> Value {
        let metadata = json!({"resourceVersion": self.seen.to_string(), "creationTimestamp": null});
        match self.shape {
            Shape::Table => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": self.seen.to_string()}, "columnDefinitions": null, "rows": []}),
            Shape::Metadata => partial(&json!({"metadata": metadata})),
            Shape::Whole => json!({"kind": self.target.resource.kind.kind, "apiVersion": self.target.api_version(),
                "metadata": metadata}),
        }
    }

    fn lines(self) -> impl Stream<Item = Result<Frame<Bytes>, io::Error>> {
        futures::stream::unfold(self, |mut watch| async move {
            let line = watch.next().await?;
            Some((Ok(Frame::data(line)), watch))
        })
    }

    /// The next line; `None` when the watch ends.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            let events = self.events.as_mut()?;
            let tick = async {
                match self.bookmarks.as_mut() {
                    Some(interval) => {
                        interval.tick().await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.take(&event),
                    None => return None, // too slow: the client lists again
                },
                () = tokio::time::sleep_until(self.deadline) => {
                    // The last word of a watch that asked for bookmarks is how far it got.
                    self.events = None;
                    if self.bookmarks.is_some() {
                        let bookmark = self.bookmark();
                        self.push_raw("BOOKMARK", &bookmark);
                    }
                }
                () = tick => {
                    self.catch_up();
                    let bookmark = self.bookmark();
                    self.push_raw("BOOKMARK", &bookmark);
                }
            }
        }
    }

    /// Other kinds move the version on too: a bookmark says so, once nothing of this kind is left unsaid.
    fn catch_up(&mut self) {
        let state = self.store.lock();
        if self.events.as_ref().is_some_and(mpsc::Receiver::is_empty) {
            self.seen = self.seen.max(state.version());
        }
    }
}
