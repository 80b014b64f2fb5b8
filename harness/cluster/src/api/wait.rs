//! The one way to wait: list, watch, evaluate, until a deadline; and when that passes, say what was last seen.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::Value;

use super::{
    Bounds, Cluster, Event,
    clock::{Absence, Backoff, Deadline},
    condition::WaitCondition,
    failure::{ApiFailure, FailureKind},
    object::{ObjectRef, conditions_in_short, name_of, text},
    request::{encode, request},
    watch::{Watch, WatchEvent, version_of},
};

/// A watch is renewed after this time even if it says nothing: its server may be gone without a word.
const WATCH: Duration = Duration::from_secs(120);
/// What the API server gets on top, to end a watch by itself.
const WATCH_GRACE: Duration = Duration::from_secs(10);
/// The last look after the deadline, and the search for events.
const LAST_LOOK: Duration = Duration::from_secs(5);
const EVENTS: usize = 6;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Object(ObjectRef),
    /// All objects of a kind with some labels; a condition must hold for each, and for at least one.
    Labelled {
        api_version: String,
        kind: String,
        namespace: Option<String>,
        /// `a=b,c`; empty for all.
        selector: String,
    },
}

impl From<&ObjectRef> for Target {
    fn from(object: &ObjectRef) -> Self {
        Self::Object(object.clone())
    }
}

impl Target {
    pub fn labelled(api_version: &str, kind: &str, namespace: Option<&str>, selector: &str) -> Self {
        Self::Labelled {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            selector: selector.to_owned(),
        }
    }

    /// What is listed and watched for it: a Service's endpoints are in its EndpointSlices.
    fn watched(&self, condition: &WaitCondition) -> Watched {
        match (self, condition) {
            (Self::Object(service), WaitCondition::EndpointsReady) => Watched {
                api_version: "discovery.k8s.io/v1".to_owned(),
                kind: "EndpointSlice".to_owned(),
                namespace: service.namespace.clone(),
                one: false,
                query: ("labelSelector", format!("kubernetes.io/service-name={}", service.name)),
            },
            (Self::Object(object), _) => Watched {
                api_version: object.api_version.clone(),
                kind: object.kind.clone(),
                namespace: object.namespace.clone(),
                one: true,
                query: ("fieldSelector", format!("metadata.name={}", object.name)),
            },
            (Self::Labelled { api_version, kind, namespace, selector }, _) => Watched {
                api_version: api_version.clone(),
                kind: kind.clone(),
                namespace: namespace.clone(),
                one: false,
                query: ("labelSelector", selector.clone()),
            },
        }
    }

    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Object(object) => object.namespace.as_deref(),
            Self::Labelled { namespace, .. } => namespace.as_deref(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => object.fmt(f),
            Self::Labelled { kind, namespace, selector, .. } => {
                let place = namespace.as_deref().map_or("all namespaces".to_owned(), |n| format!("namespace {n}"));
                write!(f, "{kind} objects with {selector} in {place}")
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Watched {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    one: bool,
    query: (&'static str, String),
}

#[derive(Clone, Debug)]
pub struct Waited {
    /// The objects for which the condition holds; empty after [`WaitCondition::Gone`]. For
    /// [`WaitCondition::EndpointsReady`] the EndpointSlices.
    pub objects: Vec<Value>,
}

impl Waited {
    pub fn object(&self) -> &Value {
        self.objects.first().unwrap_or(&Value::Null)
    }
}

#[derive(Debug)]
pub struct WaitError(Box<Unmet>);

#[derive(Debug)]
struct Unmet {
    target: String,
    condition: String,
    waited: Duration,
    missing: Option<String>,
    last: Vec<Value>,
    events: Vec<Event>,
    trouble: Option<ApiFailure>,
    /// Waiting on would not have helped.
    ended_early: bool,
}

impl WaitError {
    pub(crate) fn early(target: impl Into<Target>, condition: &WaitCondition, failure: ApiFailure) -> Self {
        Self(Box::new(Unmet {
            target: target.into().to_string(),
            condition: condition.to_string(),
            waited: Duration::ZERO,
            missing: None,
            last: Vec::new(),
            events: Vec::new(),
            trouble: Some(failure),
            ended_early: true,
        }))
    }

    pub fn last(&self) -> Option<&Value> {
        self.0.last.first()
    }

    /// Whether the cluster is at fault: at the end it did not answer, or answered as no API server does. A check that
    /// meets this is an `error`; otherwise what was waited for did not come true, and that may be judged.
    pub fn is_environment(&self) -> bool {
        self.0.trouble.as_ref().is_some_and(ApiFailure::is_environment)
    }

    pub(crate) fn into_failure(self) -> Option<ApiFailure> {
        self.0.trouble
    }
}

impl std::error::Error for WaitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.trouble.as_ref().map(|trouble| trouble as _)
    }
}

/// As it fits after "failed to": what was awaited, how long, what was last seen, the last events.
impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unmet = &*self.0;
        write!(f, "wait for {} until {}: ", unmet.target, unmet.condition)?;
        match (&unmet.trouble, unmet.ended_early) {
            (Some(trouble), true) => return write!(f, "{trouble}"),
            _ => write!(f, "not within {:.1} s", unmet.waited.as_secs_f64())?,
        }
        if let Some(missing) = &unmet.missing {
            write!(f, "; {missing}")?;
        }
        for object in unmet.last.iter().take(3) {
            let generation = object["metadata"]["generation"].as_i64();
            let generation = generation.map(|g| format!(" (generation {g})")).unwrap_or_default();
            let conditions = conditions_in_short(object);
            let conditions = if conditions.is_empty() { "no conditions".to_owned() } else { conditions.join("; ") };
            write!(f, "\n  last seen: {}{generation}: {conditions}", name_of(object))?;
        }
        if unmet.last.len() > 3 {
            write!(f, "\n  and {} more", unmet.last.len() - 3)?;
        }
        for event in &unmet.events {
            write!(f, "\n  event: {event}")?;
        }
        if let Some(trouble) = &unmet.trouble {
            write!(f, "\n  the API server: {trouble}")?;
        }
        Ok(())
    }
}

/// Whether the objects are as wanted; the error says what is missing.
type Evaluate<'a> = dyn FnMut(&[&Value]) -> Result<(), String> + Send + 'a;

/// What a wait knows at any moment; objects by namespace and name.
#[derive(Default)]
struct Observation {
    objects: BTreeMap<(String, String), Value>,
    missing: Option<String>,
    /// The last question went unanswered.
    trouble: Option<ApiFailure>,
}

impl Observation {
    fn set(&mut self, object: Value) {
        self.objects.insert(key(&object), object);
    }

    fn holds(&mut self, evaluate: &mut Evaluate<'_>) -> bool {
        self.missing = evaluate(&self.objects.values().collect::<Vec<_>>()).err();
        self.missing.is_none()
    }

    fn into_waited(self) -> Waited {
        Waited { objects: self.objects.into_values().collect() }
    }
}

fn key(object: &Value) -> (String, String) {
    (text(object, "/metadata/namespace").to_owned(), name_of(object).to_owned())
}

impl Cluster {
    /// Waits until a condition holds for an object or a set of objects.
    ///
    /// Lists and watches; lists again when the API server says that it forgot (410), when a watch breaks, when the server
    /// does not answer and when the kind is not served yet: until the deadline.
    ///
    /// Fails at once for missing rights and for a target that makes no sense, and soon for a cluster that is gone.
    pub async fn wait(
        &self,
        target: impl Into<Target>,
        condition: WaitCondition,
        within: Duration,
    ) -> Result<Waited, WaitError> {
        let target = target.into();
        let watched = target.watched(&condition);
        let deadline = Deadline::within(within);
        let mut observation = Observation::default();
        let mut evaluate = |objects: &[&Value]| condition.evaluate(objects);
        let ended = deadline.bound(self.follow(&watched, &mut evaluate, &mut observation)).await;
        let waited = deadline.elapsed();
        let failure = match ended {
            Some(Ok(())) => return Ok(observation.into_waited()),
            Some(Err(failure)) => Some(failure),
            None => None,
        };
        if failure.is_none() {
            // A watch may have been deaf: one last look decides between "not true" and "not answered".
            let listed = Deadline::within(LAST_LOOK).bound(self.list_watched(&watched, &mut observation)).await;
            match listed {
                Some(Ok(_)) if observation.holds(&mut evaluate) => return Ok(observation.into_waited()),
                Some(Ok(_)) => {}
                Some(Err(trouble)) => observation.trouble = Some(trouble),
                None => {
                    let said = format!("not within {} s", LAST_LOOK.as_secs());
                    let doing = format!("look at {target} at the end");
                    observation.trouble = Some(ApiFailure::new(doing, FailureKind::Unanswered(said)));
                }
            }
        }
        let events = if observation.trouble.is_none() && failure.is_none() {
            self.last_events(&target, &observation).await
        } else {
            Vec::new()
        };
        Err(WaitError(Box::new(Unmet {
            target: target.to_string(),
            condition: condition.to_string(),
            waited,
            last: observation.objects.into_values().collect(),
            missing: observation.missing,
            events,
            ended_early: failure.is_some(),
            trouble: failure.or(observation.trouble),
        })))
    }

    /// Tells what is there of a target, first as it is found and then whenever something changes, for ever: through lost
    /// watches, forgotten versions and an API server that does not answer.
    /// Ends only with what no waiting cures: missing rights, a target that makes no sense.
    pub async fn observe(&self, target: impl Into<Target>, mut tell: impl FnMut(&[&Value]) + Send) -> ApiFailure {
        let watched = target.into().watched(&WaitCondition::Exists);
        let patient = self.clone().with_bounds(Bounds { absence: Duration::MAX, ..self.bounds });
        let mut evaluate = |objects: &[&Value]| {
            tell(objects);
            Err(String::new())
        };
        loop {
            if let Err(failure) = patient.follow(&watched, &mut evaluate, &mut Observation::default()).await {
                return failure;
            }
        }
    }

    /// Lists, and watches, and lists again, until the condition holds or nothing more is to be waited for.
    async fn follow(
        &self,
        watched: &Watched,
        evaluate: &mut Evaluate<'_>,
        observation: &mut Observation,
    ) -> Result<(), ApiFailure> {
        let for_ever = Deadline::within(Duration::MAX); // the caller ends this future at its own deadline
        let (mut backoff, mut absence) = (Backoff::default(), Absence::default());
        loop {
            match self.list_and_watch(watched, evaluate, observation, &mut backoff).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(failure) if is_final(&failure) || absence.lasts(&failure, self.bounds.absence) => {
                    return Err(failure);
                }
                Err(failure) => {
                    tracing::debug!(%failure, "waiting goes on");
                    observation.trouble = Some(failure);
                }
            }
            backoff.pause(for_ever).await;
        }
    }

    async fn list_watched(&self, watched: &Watched, observation: &mut Observation) -> Result<String, ApiFailure> {
        let query = [(watched.query.0, watched.query.1.as_str())];
        let namespace = watched.namespace.as_deref();
        let kind = self.kind(&watched.api_version, &watched.kind).await?;
        if watched.one && kind.namespaced && namespace.is_none() {
            let said = format!("{} lacks a namespace", watched.kind);
            return Err(ApiFailure::new(format!("list {} objects", watched.kind), FailureKind::Manifest(said)));
        }
        let (objects, version) = self.list_where(&watched.api_version, &watched.kind, namespace, &query).await?;
        observation.objects.clear();
        objects.into_iter().for_each(|object| observation.set(object));
        observation.trouble = None;
        Ok(version)
    }

    /// One list and the watches that continue it: `true` when the condition holds, `false` when the list is needed again.
    async fn list_and_watch(
        &self,
        watched: &Watched,
        evaluate: &mut Evaluate<'_>,
        observation: &mut Observation,
        backoff: &mut Backoff,
    ) -> Result<bool, ApiFailure> {
        let mut version = self.list_watched(watched, observation).await?;
        if observation.holds(evaluate) {
            return Ok(true);
        }
        let kind = self.kind(&watched.api_version, &watched.kind).await?;
        let path = kind.collection(watched.namespace.as_deref());
        let doing = format!("watch {} objects", watched.kind);
        loop {
            let query = format!(
                "?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}&{}={}",
                WATCH.as_secs(),
                encode(&version),
                watched.query.0,
                encode(&watched.query.1),
            );
            let renewed = Deadline::within(WATCH + WATCH_GRACE);
            let asked = request("GET", &format!("{path}{query}"), None);
            let failed = |kind| ApiFailure::new(doing.clone(), kind);
            let opened = Deadline::within(self.bounds.time).bound(self.send(asked)).await;
            let unopened = || FailureKind::Unanswered("the watch did not open".to_owned());
            let response = opened.unwrap_or_else(|| Err(unopened())).map_err(failed)?;
            if !response.status().is_success() {
                return Err(failed(self.refusal(response).await)); // 410 as well: the list comes next
            }
            let mut watch = Watch::of(response);
            let mut alive = false;
            loop {
                let Some(next) = renewed.bound(watch.next()).await else { return Ok(false) };
                match next.map_err(failed)? {
                    None => break,
                    Some(WatchEvent::TooOld) => return Ok(false),
                    Some(WatchEvent::Failed(kind)) => return Err(failed(kind)),
                    Some(WatchEvent::Bookmark(at)) => version = at,
                    Some(WatchEvent::There(object)) => {
                        version = version_of(&object);
                        observation.set(object);
                    }
                    Some(WatchEvent::Gone(object)) => {
                        version = version_of(&object);
                        observation.objects.remove(&key(&object));
                    }
                }
                alive = true;
                backoff.reset();
                if observation.holds(evaluate) {
                    return Ok(true);
                }
            }
            if !alive {
                // It ended without a word: not at once again.
                backoff.pause(Deadline::within(Duration::MAX)).await;
            }
        }
    }

    /// Events about the first of the objects, or about the name that never appeared.
    async fn last_events(&self, target: &Target, observation: &Observation) -> Vec<Event> {
        let name = match target {
            Target::Object(object) => &object.name,
            Target::Labelled { .. } => observation.objects.values().next().map_or("", name_of),
        };
        if name.is_empty() {
            return Vec::new();
        }
        let events = self.events_about(target.namespace(), name, EVENTS);
        Deadline::within(LAST_LOOK).bound(events).await.and_then(Result::ok).unwrap_or_default()
    }
}

/// Waiting does not help against missing rights, a request that the API server calls wrong, or a target without sense.
fn is_final(failure: &ApiFailure) -> bool {
    match &failure.kind {
        FailureKind::Refused { code, .. } => matches!(code, 400 | 401 | 403 | 405 | 422),
        FailureKind::Manifest(_) => true,
        _ => false,
    }
}
