//! Routing: the one model that all dialects are translated to, and the pure choice of a route in it.
//!
//! A [`Table`] holds listeners; a listener holds entries, one for each hostname x match of a rule, in the dialect's order
//! of precedence. Nothing here does I/O.

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use http::HeaderMap;

use super::{
    limits::{BucketLimit, WindowLimit},
    local_reply::{Failure, LocalReply},
    pool::Pool,
    transform::Transformation,
    usage::Cost,
};

pub use super::matching::{HostPattern, Match, PathMatch, RequestHead, ValueMatch, joined};

/// Where an entry comes from; also the name of its limit bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId {
    pub namespace: String,
    pub name: String,
    /// Which rule, from 0.
    pub rule: usize,
    /// Which match of the rule, from 0.
    pub matched: usize,
    pub host: HostPattern,
}

impl fmt::Display for RouteId {
    /// As Envoy Gateway names its routes: `httproute/<ns>/<name>/rule/<i>/match/<j>/<host>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, rule, matched, host } = self;
        write!(f, "httproute/{namespace}/{name}/rule/{rule}/match/{matched}/{host}")
    }
}

/// One hostname x match of a rule.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: RouteId,
    /// Creation time of the route, as text that sorts.
    pub created: String,
    pub matches: Match,
    pub rule: Arc<Rule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdit {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    Full(String),
    /// The part that the prefix match covered.
    Prefix(String),
}

#[derive(Clone, Debug)]
pub enum Filter {
    Request(HeaderEdit),
    Response(HeaderEdit),
    Rewrite {
        host: Option<String>,
        path: Option<PathRewrite>,
    },
    /// A reply without a backend.
    Direct(LocalReply),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Service {
        namespace: String,
        name: String,
        /// Port of the Service, not of the pod.
        port: u16,
    },
    /// A host name or an address, resolved as a pod would.
    Host {
        host: String,
        port: u16,
    },
    Pool(Arc<Pool>),
    /// A reference that does not resolve: its share of the traffic fails.
    Broken,
    /// A reference to a Service that is not there, where the gateway has words of its own for it.
    NoService,
}

#[derive(Clone, Debug)]
pub struct Backend {
    pub weight: u32,
    pub target: Target,
    /// Host that the backend sees, where it is not the client's.
    pub host_rewrite: Option<String>,
    pub request: HeaderEdit,
    pub provider: Option<Provider>,
}

impl Backend {
    /// One that changes nothing.
    pub fn plain(target: Target) -> Self {
        Self { weight: 1, target, host_rewrite: None, request: HeaderEdit::default(), provider: None }
    }

    pub fn is_pool(&self) -> bool {
        matches!(self.target, Target::Pool(_))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Provider {
    pub model: Option<String>,
    pub path: Option<String>,
    /// What replaces the `/v1` of the client's path.
    pub prefix: Option<String>,
    /// Whether the request must be a chat that parses, with `messages` (agentgateway).
    pub parses_chat: bool,
    /// Whether replies are written anew from what was read (agentgateway).
    pub rewrites_reply: bool,
    /// Whether upstream errors that are not JSON are wrapped in JSON (Envoy AI Gateway).
    pub wraps_errors: bool,
    pub include_usage: IncludeUsage,
}

/// When a proxy adds `stream_options.include_usage` to a streaming request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeUsage {
    #[default]
    Never,
    /// Where the client sent no `stream_options` (agentgateway: a `false` of the client stays).
    WhereAbsent,
    /// Always (Envoy AI Gateway with any request cost configured).
    Always,
}

/// How the model's name comes out of the body, before the route is chosen again (Envoy AI Gateway's ext_proc).
#[derive(Clone, Debug)]
pub struct Extraction {
    pub header: &'static str,
    pub existing: ExistingHeader,
    /// Headers that say how the request came: an id of its own, and its path with the query.
    pub id_header: &'static str,
    pub path_header: &'static str,
    pub destination_header: &'static str,
    pub paths: &'static [&'static str],
    /// What `GET /v1/models` answers for a host: (pattern, model, owner, created in Unix seconds).
    pub models: Vec<(HostPattern, String, String, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingHeader {
    /// Replaced by the body's model (v1.1.0 and later).
    Overwritten,
    /// Kept, with the body's model behind it (before v1.1.0).
    Appended,
}

#[derive(Clone, Debug)]
pub struct GlobalLimit {
    /// Policy and rule; part of the bucket's name.
    pub name: String,
    /// Whether all routes of the policy share one bucket.
    pub shared: bool,
    pub selectors: Vec<Selector>,
    pub limit: WindowLimit,
    pub request_hits: u64,
    /// Metadata key whose number is charged after the response.
    pub response_key: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Selector {
    Match {
        /// Name, lower case.
        name: String,
        value: ValueMatch,
        invert: bool,
    },
    /// Each value has a bucket of its own. Absent: the request is not limited (docs/facts/envoy-ai-gateway.md E5).
    Distinct { name: String },
}

impl GlobalLimit {
    /// The bucket that a request on a route falls in; `None` where it is not limited.
    pub fn bucket(&self, id: &RouteId, headers: &HeaderMap) -> Option<String> {
        let mut bucket = if self.shared { self.name.clone() } else { format!("{id} {}", self.name) };
        for selector in &self.selectors {
            match selector {
                Selector::Match { name, value, invert } => {
                    if value.covers(joined(headers, name).as_deref()) == *invert {
                        return None;
                    }
                }
                Selector::Distinct { name } => {
                    bucket.push_str(&format!(" {name}={}", joined(headers, name)?));
                }
            }
        }
        Some(bucket)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Requests, before the body is read.
    Requests,
    /// Tokens of AI backends' replies.
    Tokens,
}

#[derive(Clone, Debug)]
pub struct LocalLimit {
    /// What the bucket belongs to: a new name is a new, full bucket.
    pub bucket: String,
    pub unit: Unit,
    pub limit: BucketLimit,
}

#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub filters: Vec<Filter>,
    pub backends: Vec<Backend>,
    /// From the request's arrival to the last byte of the reply.
    pub timeout: Option<Duration>,
    pub buffer_limit: Option<usize>,
    pub extraction: Option<Arc<Extraction>>,
    /// What a successful reply's usage is called, for limits.
    pub costs: Vec<(String, Cost)>,
    pub global_limits: Vec<GlobalLimit>,
    pub local_limits: Vec<LocalLimit>,
    /// What a policy limits besides, and the gateway takes for nothing.
    pub unenforced_limits: Vec<LocalLimit>,
    pub transformation: Option<Arc<Transformation>>,
}

/// Whether a host that has routes of its own falls back to less specific ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRule {
    /// The most specific hostname that covers the host is the only one that is looked at (Envoy's virtual hosts).
    MostSpecificOnly,
    /// Less specific hostnames are tried where the more specific ones cover nothing (agentgateway).
    FallThrough,
}

/// The order of two paths in a dialect: `Less` is tried first.
pub type PathOrder = fn(&PathMatch, &PathMatch) -> Ordering;

/// Exact, then regular expressions, then prefixes; longer ones first (Envoy Gateway, `internal/gatewayapi/sort.go`).
pub fn regex_before_prefix(a: &PathMatch, b: &PathMatch) -> Ordering {
    let rank = |path: &PathMatch| match path {
        PathMatch::Exact(_) => 0,
        PathMatch::Regex(..) => 1,
        PathMatch::Prefix(_) => 2,
    };
    rank(a).cmp(&rank(b)).then_with(|| b.text().len().cmp(&a.text().len()))
}

/// Exact, then regular expressions and prefixes together by length (agentgateway, `types/agent.rs`).
pub fn regex_beside_prefix(a: &PathMatch, b: &PathMatch) -> Ordering {
    let rank = |path: &PathMatch| u8::from(!matches!(path, PathMatch::Exact(_)));
    rank(a).cmp(&rank(b)).then_with(|| b.text().len().cmp(&a.text().len()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieBreak {
    /// The older route, then names (Gateway API).
    Oldest,
    /// Names alone (agentgateway).
    Name,
}

#[derive(Clone, Copy, Debug)]
pub struct Precedence {
    pub paths: PathOrder,
    pub ties: TieBreak,
    pub hosts: HostRule,
}

impl Default for Precedence {
    /// Envoy Gateway's.
    fn default() -> Self {
        Self { paths: regex_before_prefix, ties: TieBreak::Oldest, hosts: HostRule::MostSpecificOnly }
    }
}

impl Precedence {
    /// `Less` is tried first, among entries of one hostname.
    pub fn compare(&self, a: &Entry, b: &Entry) -> Ordering {
        let (m, n) = (&a.matches, &b.matches);
        (self.paths)(&m.path, &n.path)
            .then_with(|| n.method.is_some().cmp(&m.method.is_some()))
            .then_with(|| n.headers.len().cmp(&m.headers.len()))
            .then_with(|| n.query.len().cmp(&m.query.len()))
            .then_with(|| match self.ties {
                TieBreak::Oldest => a.created.cmp(&b.created),
                TieBreak::Name => Ordering::Equal,
            })
            .then_with(|| (&a.id.namespace, &a.id.name).cmp(&(&b.id.namespace, &b.id.name)))
            .then_with(|| (a.id.rule, a.id.matched).cmp(&(b.id.rule, b.id.matched)))
    }
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub name: String,
    pub port: u16,
    pub host: HostPattern,
    /// Its entries, in order of precedence within each hostname (see [`Table::new`]).
    pub entries: Vec<Arc<Entry>>,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub listeners: Vec<Listener>,
    pub precedence: Precedence,
    pub local_reply: fn(&Failure) -> LocalReply,
    pub header_case: HeaderCase,
    /// Whether a reply's `Keep-Alive` reaches the client although it belongs to one connection (agentgateway v1.3.1).
    pub passes_keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCase {
    /// All in lower case (Envoy).
    Lower,
    /// As they came; the proxy's own in lower case (agentgateway).
    Kept,
}

impl Table {
    pub fn new(
        mut listeners: Vec<Listener>,
        precedence: Precedence,
        local_reply: fn(&Failure) -> LocalReply,
        header_case: HeaderCase,
    ) -> Self {
        for listener in &mut listeners {
            listener.entries.sort_by(|a, b| precedence.compare(a, b));
        }
        Self { listeners, precedence, local_reply, header_case, passes_keep_alive: false }
    }

    /// Whether models are told of the client, and of how its request came (Envoy).
    pub fn tells_of_clients(&self) -> bool {
        self.header_case == HeaderCase::Lower
    }

    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.listeners.iter().flat_map(|listener| &listener.entries)
    }

    pub fn choose(&self, port: u16, request: &RequestHead<'_>) -> Result<&Arc<Entry>, Failure> {
        let listener = self
            .listeners
            .iter()
            .filter(|l| l.port == port && l.host.covers(request.host))
            .max_by_key(|l| l.host.specificity())
            .ok_or(Failure::NoListener)?;
        let mut by_host: BTreeMap<_, Vec<&Arc<Entry>>> = BTreeMap::new();
        for entry in listener.entries.iter().filter(|e| e.id.host.covers(request.host)) {
            by_host.entry(entry.id.host.specificity()).or_default().push(entry);
        }
        if by_host.is_empty() {
            return Err(Failure::NoHost);
        }
        let candidates = match self.precedence.hosts {
            HostRule::MostSpecificOnly => 1,
            HostRule::FallThrough => usize::MAX,
        };
        by_host
            .into_values()
            .rev()
            .take(candidates)
            .flatten()
            .find(|e| e.matches.covers(request))
            .ok_or(Failure::NoRoute)
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
