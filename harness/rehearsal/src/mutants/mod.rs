//! The mutants room: gateways that are wrong on purpose, one way at a time, so that every check is seen to fail.
//!
//! A mutant is a row of the table below. Each place that can be wrong asks [`Mutants::is`] whether it has to be, once, and
//! last of all that decides: an answer of true means that the mutant acts, and is remembered ([`Mutants::reached`]).
//! A world can also be mended: rid of the faults that the real gateways have, for checks that would fail without a mutant.

mod limiter;
pub(crate) mod replies;
pub(crate) mod translation;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{dataplane::routing::Entry, dialects::Name};

macro_rules! mutants {
    ($($variant:ident $name:literal $sentence:literal [$($clause:literal),+];)+) => {
        /// A way in which a gateway, or what stands around it, is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $(#[doc = concat!("It violates: ", $sentence, ".")] $variant,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As requirements name it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it violates.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }

            /// The clauses that show it, of whichever check; `*` at the end stands for the rest.
            pub fn clauses(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($clause),+],)+ }
            }
        }
    };
}

mutants! {
    // ---- routing
    IgnoresHost "ignores-host" "a hostname selects its route"
        ["unknown-host-*", "address-as-host-*", "step-6-*", "step-7-*"];
    PrefersShortPrefix "prefers-short-prefix" "the longer of two prefixes wins" ["both-match-answered-by-beta"];
    RegexAlwaysLoses "regex-always-loses" "a regular expression wins where the gateway declares it" ["both-match-answered-by-*"];
    RegexAlwaysWins "regex-always-wins" "an exact path, or a longer one, wins over a regular expression"
        ["both-match-answered-by-*", "second-route-wins"];
    DropsModelHeaderRewrite "drops-model-header-rewrite" "the model of the body selects the backend" ["names-*-answered-by-*"];
    SendsOneInFiftyElsewhere "sends-one-in-fifty-elsewhere" "every request goes to the model that it names" ["names-*-answered-by-*"];
    DuplicatesRequests "duplicates-requests" "a request reaches its model once" ["names-*-answered-by-*"];
    TrustsClientModelHeader "trusts-client-model-header" "the body's model outweighs a header of the client"
        ["says-beta-in-header-answered-by-alpha", "says-nobody-in-header-answered-by-alpha"];
    // ---- headers and bodies
    AppendsInsteadOfSet "appends-instead-of-set" "a header that is set replaces the client's"
        ["spoofed-kserve-isvc-*", "given-x-igc-set"];
    AddsHopByHopHeader "adds-hop-by-hop-header" "headers of a connection stay on it"
        ["of-the-connection-x-igc-hop", "of-the-connection-keep-alive", "of-the-connection-proxy-connection"];
    IgnoresHeaderRemoval "ignores-header-removal" "a header that is to be removed is removed" ["given-x-igc-remove"];
    LeaksUpstreamKeepAlive "leaks-upstream-keep-alive" "the model's Keep-Alive is not the client's" ["of-the-connection-keep-alive"];
    IgnoresResponseHeaders "ignores-response-headers" "headers of the reply are changed as the route says"
        ["given-x-igc-*", "bare-x-igc-*", "transformed-x-igc-fixed"];
    ReadsTheOtherBody "reads-the-other-body" "request.body is the request's and response.body the reply's"
        ["alpha-says-somebody-x-requested-model", "says-somebody-x-actual-model"];
    KeepsHeaderOfUpstream "keeps-header-of-upstream" "a header that is set replaces the model's"
        ["alpha-sends-the-header-x-requested-model", "says-alpha-x-actual-model"];
    TransformationOnAllRoutes "transformation-on-all-routes" "a transformation is its own route's alone"
        ["neighbour-*", "on-the-second-route-headers"];
    TruncatesBodies "truncates-bodies-over-64-kib" "bodies pass whole"
        ["*-request-untouched", "*-reply-untouched", "*-arrives-unchanged"];
    ReserialisesJson "reserialises-json" "bodies pass byte by byte" ["*-odd-request-untouched"];
    DropsUsage "drops-usage-of-replies" "a reply says what it used" ["usage", "prompt-tokens"];
    AcceptsBadExpressionSilently "accepts-bad-expression-silently" "an expression that cannot be compiled is spoken of" ["said"];
    BadExpressionAs500 "bad-expression-as-500" "traffic does not fail for an expression that no status speaks of" ["traffic"];
    BuffersStreamsForTransformation "buffers-streams-for-transformation" "a stream is passed on while it comes, transformed or not"
        ["stream-in-step"];
    CannotReadCompressed "cannot-read-compressed" "a compressed reply is transformed like any other" ["compressed-*"];
    LosesHeadersOfLargeBodies "loses-headers-of-large-bodies" "large replies are transformed like any other" ["large-x-*"];
    TransformationLostAfterUpdate "transformation-lost-after-update" "a transformation survives a change of its route"
        ["meanwhile-*", "after-*", "added-*"];
    // ---- errors
    MalformedAs500 "malformed-as-500" "what a client sends wrong is a client's error" ["cut-short-is-a-client-error"];
    DefaultsToFirstModel "defaults-to-first-model" "without a model nothing is reached" ["*-model-reaches-nothing", "empty-body-reaches-nothing"];
    PassesUnknownPaths "passes-unknown-paths" "a path that the API does not have reaches nothing" ["post-unknown-reaches-nothing"];
    // ---- streams
    BuffersStreams "buffers-streams" "a stream is passed on while it comes" ["stream-in-step"];
    ReChunksSplittingUtf8 "re-chunks-splitting-utf8" "characters that chunks split stay whole" ["tokens-reply-untouched", "events-reply-untouched"];
    DropsDone "drops-done" "a stream ends with [DONE]" ["tokens-ends-with-done", "events-ends-with-done"];
    RewritesEvents "rewrites-events" "events pass byte by byte" ["events-reply-untouched"];
    DropsUsageChunk "drops-usage-chunk" "a stream that was asked for usage reports it" ["asked-usage"];
    DuplicatesUsageChunk "duplicates-usage-chunk" "a stream reports its usage once" ["asked-usage"];
    SwallowsUpstreamDeath "swallows-upstream-death" "a stream that breaks off does not end cleanly" ["dies-truncated"];
    ReadsOnAfterAbort "reads-on-after-abort" "the model hears of a client that left" ["leaves-*"];
    // ---- limits
    OffByOneLimit "off-by-one-limit" "a budget ends where its rule says" ["admitted"];
    ChargesBefore "charges-before" "a reply is charged when it has come" ["admitted"];
    ChargesRequests "charges-requests" "tokens are charged, not requests" ["admitted"];
    NeverBlocks "never-blocks" "a spent budget admits nobody" ["refused-beyond-the-budget"];
    FailsOpenOneInTen "fails-open-one-in-ten" "every request is limited" ["refused-beyond-the-budget"];
    ChargesPerGateway "charges-per-gateway" "a budget is one user's, and one route's" ["second-user", "admitted"];
    ChargesPerUserOnly "charges-per-user-only" "each model has a budget of its own" ["beta"];
    RefusesWithoutHeaders "429-without-headers" "a refusal says how the budget stands" ["x-ratelimit-*"];
    RefusesWith200 "429-as-200" "a refusal has the status of one" ["statuses"];
    RemainingRises "remaining-rises" "what is left never rises" ["numbers"];
    WindowSlides "window-slides" "a window ends when it said" ["next-window"];
    RefillsEarly "refills-early" "a budget is not whole before its window ends" ["late-in-the-window"];
    NeverRefills "never-refills" "a budget is whole in the next window" ["next-window"];
    ChargesOtherField "charges-other-field" "the numbers are charged that are declared" ["admitted", "counted"];
    NeverChargesStreams "never-charges-streams" "a stream costs what it used" ["admitted"];
    ChargesStreamsThatAsk "charges-streams-that-ask" "a stream costs what it used, whether its usage was asked for or not" ["admitted"];
    ChargesOnFirstByte "charges-on-first-byte" "a stream that its client leaves costs what is declared" ["admitted"];
    Charges5xx "charges-5xx" "errors of the model are free" ["admitted"];
    LosesChargesInFlight "loses-charges-in-flight" "replies are charged however many there are at a time" ["next"];
    LimitsEveryRoute "limits-every-route" "a limit is its own route's alone" ["neighbour-*-answered-by-alpha"];
    AcceptedWithoutEffect "accepted-without-effect" "what is accepted has an effect" ["works-or-is-not-accepted", "after-headers"];
    OnlyFirstLimit "only-first-limit" "all limits of a list count" ["admitted"];
    OnlyLastLimit "only-last-limit" "all limits of a list count" ["admitted"];
    LimitsPlainRoutes "limits-plain-routes" "tokens are counted where replies say them" ["not-limited", "spend-answered-by-mock-llm"];
    // ---- pools
    SkipsPicker "skips-picker" "the picker is asked for every request" ["*-as-picked", "commanded-as-commanded"];
    IgnoresChoice "ignores-choice" "the picker's choice is followed" ["*-as-picked", "commanded-as-commanded"];
    AsksForEveryMatch "asks-for-every-match" "the picker is asked once for a request" ["first-as-picked", "second-as-picked", "third-as-picked"];
    SwapsChoices "swaps-choices-of-concurrent-requests" "each request goes where the picker said of it" ["commanded-as-picked"];
    OnePickerForAllPools "one-picker-for-all-pools" "each pool asks its own picker" ["beta-as-picked", "beta-does-not-ask-alpha"];
    TakesTheFirstEndpointAlone "takes-the-first-endpoint-alone" "the second endpoint serves where the first is dead" ["first-is-dead-as-picked"];
    ChoosesInThePickersPlace "chooses-in-the-pickers-place" "where the picker names none, none serves" ["picker-names-none-*"];
    KeepsTheClientsDestination "keeps-the-clients-destination-header" "a client's endpoint is not followed"
        ["client-names-one-*", "names-an*-as-picked"];
    SwallowsImmediateResponses "swallows-immediate-responses" "the picker's own answer reaches the client" ["post-status", "post-body"];
    FailsOpenAlways "fails-open-always" "a pool that fails closed serves nobody without its picker" ["*-is-a-server-error", "*-reaches-nothing"];
    FailsOpenNever "fails-open-never" "a pool that fails open serves without its picker" ["*-answered-by-alpha"];
    FailsOpenWithoutABodyOnly "fails-open-without-a-body-only" "a pool that fails open serves requests with a body" ["post-answered-by-alpha"];
    FailsOpenToAnotherPool "fails-open-to-another-pool" "a pool is served by its own endpoints, or not at all"
        ["*-answered-by-alpha", "*-is-a-server-error"];
    DoesNotReportServed "does-not-report-the-served-endpoint" "the picker is told who served" ["post-served-is-reported"];
    UsesTheBackendRefsPort "uses-the-backend-refs-port" "the port of a reference to a pool says nothing" ["other-port-as-picked"];
    ResolvesMissingPickers "resolves-missing-pickers" "a picker that is missing is not resolved" ["pool-ResolvedRefs"];
    ServesWithoutAPicker "serves-without-a-picker" "a pool whose picker is missing does not serve" ["bad-is-a-server-error", "bad-reaches-nothing"];
    BackendNotFoundForUnknownKinds "backend-not-found-for-unknown-kinds" "an unknown kind is InvalidKind" ["route-reason", "route-group", "migrated"];
    PoolStatusNeverWritten "pool-status-never-written" "a pool in use says how it stands"
        ["one-entry", "pool-parents", "routed-ready", "routed-pool-ready"];
    StatusNeverCleared "status-never-cleared" "a pool that nothing leads to says nothing of the Gateway" ["cleared", "one-second"];
    SaysTwoEndsOfStream "says-two-ends-of-stream" "a body ends once" ["*-seen-whole", "*-as-picked"];
    KeepsTheFirstEndpoints "keeps-the-first-endpoints" "an endpoint that is added is used" ["one-more-as-picked"];
    CutsTheBodyThatThePickerSees "cuts-the-body-that-the-picker-sees" "the picker sees the whole body"
        ["prefix-*-sticks", "spreads", "prefix-*-as-picked", "prefix-*-status"];
    // ---- status, children, admission
    ProgrammedNever "programmed-never" "a Gateway that serves says Programmed" ["gateway-Programmed"];
    StaleObservedGeneration "stale-observed-generation" "a condition is of the generation that is there" ["gateway-*", "pool-*"];
    ResolvesMissingBackends "resolves-missing-backends" "a backend that is missing is not resolved" ["bad-ResolvedRefs", "route-ResolvedRefs"];
    ForgetsPredictorRoute "forgets-predictor-route" "an InferenceService has both routes" ["predictor-route", "mock-llm-predictor-hostname"];
    ForgetsOwners "forgets-owners" "what an LLMInferenceService makes is its own" ["workload-service", "picker-service"];
    StaleRouteAnswers "stale-route-answers-after-delete" "a route that is deleted answers no more" ["after-status"];
    UrlOfAnotherService "url-of-another-service" "status.url leads to the model" ["url"];
    ServicePortOfTheContainer "service-has-the-containers-port" "the Service of a predictor has port 80" ["service-port"];
    NeverAvailable "never-available" "a Deployment whose pods are ready is Available" ["cert-manager*"];
    ForgetsInfrastructureLabels "forgets-infrastructure-labels" "what a Gateway makes has the labels that it names" ["service", "proxy"];
    OpensPort443 "opens-port-443" "a Service has the ports of its Gateway's listeners" ["ports"];
    NamesServicesOtherwise "names-services-otherwise" "the Service of a Gateway has the name that the gateway documents"
        ["agentgateway-proxy", "name", "found-by-labels"];
    AnotherAncestor "status-of-another-ancestor" "a policy says of which Gateway it speaks" ["ancestor"];
    NeverAcceptsAiObjects "never-accepts-ai-objects" "an AI route and its backends that are right say Accepted" ["backend", "ai-route", "route"];
    AcceptsGatewaysOfNoClass "accepts-gateways-of-no-class" "a Gateway waits for its class" ["without-class"];
    TakesAGrantForABan "takes-a-grant-for-a-ban" "a ReferenceGrant takes nothing away" ["with-grant-answered-by-alpha"];
    IgnoresProviderPath "ignores-provider-path" "a provider is asked on its path" ["with-the-extra-route-*"];
    TakesUnknownFields "takes-unknown-fields" "a field that is gone is refused" ["as-printed"];
    SkipsRules "skips-rules" "what the rules of a schema forbid is refused" ["as-printed", "without-timeouts"];
    RefusesOlderVersions "refuses-older-versions" "older versions of an API that are served are taken" ["template", "service"];
    SkipsWebhooks "skips-webhooks" "KServe's webhook is asked" ["webhook-answers"];
}

impl Mutant {
    /// The mutant of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }

    /// Whether a clause that is false is one that shows it.
    pub fn shows_in(self, clause: &str) -> bool {
        self.clauses().iter().any(|pattern| covers(pattern, clause))
    }
}

/// Whether a pattern covers a name; each `*` stands for any letters, none included.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, rest)) => name.strip_prefix(before).is_some_and(|name| {
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| covers(rest, &name[at..]))
        }),
    }
}

/// What is wrong with one world. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Mutants(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    which: Option<Mutant>,
    mended: bool,
    awake: AtomicBool,
    noticed: AtomicBool,
    reached: AtomicBool,
    turns: AtomicU64,
    under_way: AtomicU64,
    memory: Mutex<Memory>,
}

/// What mutants remember from one request to the next.
#[derive(Debug, Default)]
struct Memory {
    first: HashMap<String, u64>,
    last: HashMap<String, u64>,
    endpoints: HashMap<String, Vec<SocketAddr>>,
    entries: HashMap<(Name, String), Vec<Arc<Entry>>>,
    choice: Option<SocketAddr>,
}

impl Mutants {
    /// A world with this mutant, or none, rid of the faults of real gateways or not.
    pub fn new(which: Option<Mutant>, mended: bool) -> Self {
        Self(Arc::new(Inner { which, mended, ..Inner::default() }))
    }

    /// From here on the world is wrong. Until then it is as it should be, so that it can be stood up.
    pub fn wake(&self) {
        self.0.awake.store(true, Ordering::Relaxed);
    }

    /// Whether one woke since this was asked last.
    pub(crate) fn just_woke(&self) -> bool {
        self.0.which.is_some() && self.0.awake.load(Ordering::Relaxed) && !self.0.noticed.swap(true, Ordering::Relaxed)
    }

    /// Whether the world is to be wrong in this way, here and now. To be asked last: it counts as reached.
    pub fn is(&self, mutant: Mutant) -> bool {
        let is = self.0.which == Some(mutant) && self.0.awake.load(Ordering::Relaxed);
        if is {
            self.0.reached.store(true, Ordering::Relaxed);
        }
        is
    }

    /// Whether one of these is the world's mutant; nothing is reached yet.
    fn could_be(&self, mutants: &[Mutant]) -> bool {
        self.0.which.is_some_and(|which| mutants.contains(&which))
    }

    /// Whether the world is rid of the faults that real gateways are known to have.
    pub fn is_mended(&self) -> bool {
        self.0.mended
    }

    /// Whether the mutant has acted.
    pub fn reached(&self) -> bool {
        self.0.reached.load(Ordering::Relaxed)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is one in so many.
    pub(crate) fn is_one_in(&self, many: u64) -> bool {
        self.0.turns.fetch_add(1, Ordering::Relaxed) % many == many - 1
    }

    /// One more request is under way.
    pub(crate) fn enter(&self) {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// One fewer; how many there are still.
    pub(crate) fn leave(&self) -> u64 {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed).saturating_sub(1)
    }

    /// One that is awake.
    #[cfg(test)]
    fn awake(which: Mutant) -> Self {
        let mutants = Self::new(Some(which), false);
        mutants.wake();
        mutants
    }

    /// The choice that was made for the request before, where there is one.
    pub(crate) fn choice_before(&self, choice: SocketAddr) -> SocketAddr {
        self.memory().choice.replace(choice).unwrap_or(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_told_apart() {
        let names: BTreeSet<&str> = Mutant::ALL.iter().map(|m| m.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        assert!(Mutant::ALL.iter().all(|m| Mutant::named(m.name()) == Some(*m)));
        assert_eq!(Mutant::named("none-of-them"), None);
    }

    #[test]
    fn a_mutant_is_reached_where_it_is_the_one_that_is_asked_for() {
        let mutants = Mutants::new(Some(Mutant::DropsDone), false);
        assert!(!mutants.is(Mutant::DropsDone), "it sleeps");
        mutants.wake();
        assert!(!mutants.is(Mutant::IgnoresHost) && !mutants.reached());
        assert!(mutants.is(Mutant::DropsDone) && mutants.reached());
        assert!(Mutant::ALL.iter().all(|m| !Mutants::default().is(*m)));
    }

    #[rstest]
    #[case("admitted", "admitted", true)]
    #[case("admitted", "admitted-2", false)]
    #[case("*-as-picked", "post-as-picked", true)]
    #[case("*-as-picked", "post-as-picked-not", false)]
    #[case("names-*-answered-by-*", "names-alpha-answered-by-alpha", true)]
    #[case("names-*-answered-by-*", "live", false)]
    #[case("x-*", "x-", true)]
    fn clauses_may_have_a_star(#[case] pattern: &str, #[case] clause: &str, #[case] covered: bool) {
        assert_eq!(covers(pattern, clause), covered);
    }
}
