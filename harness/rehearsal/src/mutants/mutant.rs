//! One mutant, and the table of those that any gateway can have.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mutant {
    name: &'static str,
    sentence: &'static str,
    clauses: &'static [&'static str],
    carriers: &'static [&'static str],
    /// What it does; two mutants may do the same, at other rates.
    fault: &'static str,
    one_in: u64,
}

impl Mutant {
    /// A row of a table; [`mutants!`](mutants) makes them.
    pub(crate) const fn row(
        name: &'static str,
        sentence: &'static str,
        clauses: &'static [&'static str],
        carriers: &'static [&'static str],
    ) -> Self {
        Self { name, sentence, clauses, carriers, fault: name, one_in: 1 }
    }

    /// The same, wrong once in ten.
    pub(crate) const fn one_in_ten(self, name: &'static str) -> Self {
        Self { name, one_in: 10, ..self }
    }

    pub(super) fn does_as(self, other: Self) -> bool {
        self.fault == other.fault
    }

    pub(super) fn one_in(self) -> u64 {
        self.one_in
    }

    pub fn name(self) -> &'static str {
        self.name
    }

    pub fn sentence(self) -> &'static str {
        self.sentence
    }

    /// The clauses that show it, of whichever check; `*` stands for any letters.
    pub fn clauses(self) -> &'static [&'static str] {
        self.clauses
    }

    /// The checks whose drive makes it visible to invariants; empty where checks name it themselves.
    pub fn carriers(self) -> &'static [&'static str] {
        self.carriers
    }

    pub fn shows_in(self, clause: &str) -> bool {
        self.clauses.iter().any(|pattern| covers(pattern, clause))
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

/// A table of mutants: a constant for each, and `ALL` of them. Where only invariants show one, its clauses are those, and the
/// checks that carry it stand behind `in`.
macro_rules! mutants {
    ($($mutant:ident $name:literal $sentence:literal [$($clause:literal),+] $(in [$($carrier:literal),+])?;)+) => {
        $(
            #[doc = concat!("It violates: ", $sentence, ".")]
            pub(crate) const $mutant: $crate::mutants::Mutant =
                $crate::mutants::Mutant::row($name, $sentence, &[$($clause),+], &[$($($carrier),+)?]);
        )+
        pub(crate) const ALL: &[$crate::mutants::Mutant] = &[$($mutant),+];
    };
}
pub(crate) use mutants;

/// A table of mutants that only invariants show, each at two rates: the second one's name ends in `-one-in-ten`.
macro_rules! rated {
    ($($mutant:ident $name:literal $sentence:literal [$($clause:literal),+] in [$($carrier:literal),+];)+) => {
        $(
            #[doc = concat!("It violates: ", $sentence, ".")]
            pub(crate) const $mutant: $crate::mutants::Mutant =
                $crate::mutants::Mutant::row($name, $sentence, &[$($clause),+], &[$($carrier),+]);
        )+
        pub(crate) const ALL: &[$crate::mutants::Mutant] =
            &[$($mutant, $mutant.one_in_ten(concat!($name, "-one-in-ten"))),+];
    };
}
pub(crate) use rated;

mutants! {
    // ---- routing
    IGNORES_HOST "ignores-host" "a hostname selects its route"
        ["unknown-host-*", "address-as-host-*", "step-6-*", "step-7-*"];
    PREFERS_SHORT_PREFIX "prefers-short-prefix" "the longer of two prefixes wins" ["both-match-answered-by-beta"];
    REGEX_ALWAYS_LOSES "regex-always-loses" "a regular expression wins where the gateway declares it"
        ["both-match-answered-by-*"];
    REGEX_ALWAYS_WINS "regex-always-wins" "an exact path, or a longer one, wins over a regular expression"
        ["both-match-answered-by-*", "second-route-wins"];
    DROPS_MODEL_HEADER_REWRITE "drops-model-header-rewrite" "the model of the body selects the backend"
        ["names-*-answered-by-*"];
    SENDS_ONE_IN_FIFTY_ELSEWHERE "sends-one-in-fifty-elsewhere" "every request goes to the model that it names"
        ["names-*-answered-by-*"];
    DUPLICATES_REQUESTS "duplicates-requests" "a request reaches its model once" ["names-*-answered-by-*"];
    TRUSTS_CLIENT_MODEL_HEADER "trusts-client-model-header" "the body's model outweighs a header of the client"
        ["says-beta-in-header-answered-by-alpha", "says-nobody-in-header-answered-by-alpha"];
    // ---- headers and bodies
    APPENDS_INSTEAD_OF_SET "appends-instead-of-set" "a header that is set replaces the client's"
        ["spoofed-kserve-isvc-*", "given-x-igc-set"];
    ADDS_HOP_BY_HOP_HEADER "adds-hop-by-hop-header" "headers of a connection stay on it"
        ["of-the-connection-x-igc-hop", "of-the-connection-keep-alive", "of-the-connection-proxy-connection"];
    IGNORES_HEADER_REMOVAL "ignores-header-removal" "a header that is to be removed is removed" ["given-x-igc-remove"];
    LEAKS_UPSTREAM_KEEP_ALIVE "leaks-upstream-keep-alive" "the model's Keep-Alive is not the client's"
        ["of-the-connection-keep-alive"];
    IGNORES_RESPONSE_HEADERS "ignores-response-headers" "headers of the reply are changed as the route says"
        ["given-x-igc-*", "bare-x-igc-*", "transformed-x-igc-fixed"];
    READS_THE_OTHER_BODY "reads-the-other-body" "request.body is the request's and response.body the reply's"
        ["alpha-says-somebody-x-requested-model", "says-somebody-x-actual-model"];
    KEEPS_HEADER_OF_UPSTREAM "keeps-header-of-upstream" "a header that is set replaces the model's"
        ["alpha-sends-the-header-x-requested-model", "says-alpha-x-actual-model"];
    TRANSFORMATION_ON_ALL_ROUTES "transformation-on-all-routes" "a transformation is its own route's alone"
        ["neighbour-*", "on-the-second-route-headers"];
    TRUNCATES_BODIES "truncates-bodies-over-64-kib" "bodies pass whole"
        ["*-request-untouched", "*-reply-untouched", "*-arrives-unchanged"];
    RESERIALISES_JSON "reserialises-json" "bodies pass byte by byte" ["*-odd-request-untouched"];
    DROPS_USAGE "drops-usage-of-replies" "a reply says what it used" ["usage", "prompt-tokens"];
    BUFFERS_STREAMS_FOR_TRANSFORMATION "buffers-streams-for-transformation" "a stream is passed on while it comes, transformed or not"
        ["stream-in-step"];
    CANNOT_READ_COMPRESSED "cannot-read-compressed" "a compressed reply is transformed like any other" ["compressed-*"];
    LOSES_HEADERS_OF_LARGE_BODIES "loses-headers-of-large-bodies" "large replies are transformed like any other"
        ["large-x-*"];
    TRANSFORMATION_LOST_AFTER_UPDATE "transformation-lost-after-update" "a transformation survives a change of its route"
        ["meanwhile-*", "after-*", "added-*"];
    HIDES_COMPRESSION "hides-compression" "a reply that is compressed says so" ["invariant/own-reply"]
        in ["transformation/gzip"];
    DROPS_QUERIES "drops-queries" "a request keeps its query" ["invariant/request-untouched"]
        in ["routing/query-and-encoding"];
    // ---- errors
    MALFORMED_AS_500 "malformed-as-500" "what a client sends wrong is a client's error" ["cut-short-is-a-client-error"];
    DEFAULTS_TO_FIRST_MODEL "defaults-to-first-model" "without a model nothing is reached"
        ["*-model-reaches-nothing", "empty-body-reaches-nothing"];
    PASSES_UNKNOWN_PATHS "passes-unknown-paths" "a path that the API does not have reaches nothing"
        ["post-unknown-reaches-nothing"];
    // ---- streams
    BUFFERS_STREAMS "buffers-streams" "a stream is passed on while it comes" ["stream-in-step"];
    RE_CHUNKS_SPLITTING_UTF8 "re-chunks-splitting-utf8" "characters that chunks split stay whole"
        ["tokens-reply-untouched", "events-reply-untouched"];
    DROPS_DONE "drops-done" "a stream ends with [DONE]" ["tokens-ends-with-done", "events-ends-with-done"];
    REWRITES_EVENTS "rewrites-events" "events pass byte by byte" ["events-reply-untouched"];
    DROPS_USAGE_CHUNK "drops-usage-chunk" "a stream that was asked for usage reports it" ["asked-usage"];
    DUPLICATES_USAGE_CHUNK "duplicates-usage-chunk" "a stream reports its usage once" ["asked-usage"];
    SWALLOWS_UPSTREAM_DEATH "swallows-upstream-death" "a stream that breaks off does not end cleanly"
        ["dies-truncated"];
    READS_ON_AFTER_ABORT "reads-on-after-abort" "the model hears of a client that left" ["leaves-*"];
    // ---- limits
    OFF_BY_ONE_LIMIT "off-by-one-limit" "a budget ends where its rule says" ["admitted"];
    CHARGES_BEFORE "charges-before" "a reply is charged when it has come" ["admitted"];
    CHARGES_REQUESTS "charges-requests" "tokens are charged, not requests" ["admitted"];
    NEVER_BLOCKS "never-blocks" "a spent budget admits nobody" ["refused-beyond-the-budget", "live"];
    FAILS_OPEN_ONE_IN_TEN "fails-open-one-in-ten" "every request is limited" ["refused-beyond-the-budget"];
    CHARGES_PER_GATEWAY "charges-per-gateway" "a budget is one user's, and one route's" ["second-user", "admitted"];
    CHARGES_PER_USER_ONLY "charges-per-user-only" "each model has a budget of its own" ["beta"];
    REFUSES_WITHOUT_HEADERS "429-without-headers" "a refusal says how the budget stands" ["refusal-headers", "numbers", "live"];
    REFUSES_WITH_200 "429-as-200" "a refusal has the status of one" ["statuses", "live"];
    REMAINING_RISES "remaining-rises" "what is left never rises" ["numbers"];
    WINDOW_SLIDES "window-slides" "a window ends when it said" ["next-window"];
    REFILLS_EARLY "refills-early" "a budget is not whole before its window ends" ["late-in-the-window"];
    SAYS_THAT_WINDOWS_END_SOON "says-that-windows-end-soon" "a window ends when it said" ["live", "next-window", "admitted"];
    LEAVES_ANSWERS_UNMARKED "leaves-answers-unmarked" "every answer says how its budget stands, where that is declared"
        ["live", "refusal-headers", "admitted"];
    NEVER_REFILLS "never-refills" "a budget is whole in the next window" ["next-window"];
    CHARGES_OTHER_FIELD "charges-other-field" "the numbers are charged that are declared" ["admitted", "counted"];
    CHARGES_ONE_MORE "charges-one-more" "a reply costs what it used, and no token more"
        ["invariant/metered-as-used", "admitted"] in ["tokens/exact"];
    NEVER_CHARGES_STREAMS "never-charges-streams" "a stream costs what it used" ["admitted"];
    CHARGES_STREAMS_THAT_ASK "charges-streams-that-ask" "a stream costs what it used, whether its usage was asked for or not"
        ["admitted"];
    CHARGES_ON_FIRST_BYTE "charges-on-first-byte" "a stream that its client leaves costs what is declared" ["admitted"];
    CHARGES_5XX "charges-5xx" "errors of the model are free" ["admitted"];
    LOSES_CHARGES_IN_FLIGHT "loses-charges-in-flight" "replies are charged however many there are at a time" ["next"];
    LIMITS_EVERY_ROUTE "limits-every-route" "a limit is its own route's alone" ["neighbour-*-answered-by-alpha"];
    ACCEPTED_WITHOUT_EFFECT "accepted-without-effect" "what is accepted has an effect"
        ["works-or-is-not-accepted", "after-headers"];
    ONLY_FIRST_LIMIT "only-first-limit" "all limits of a list count" ["admitted"];
    ONLY_LAST_LIMIT "only-last-limit" "all limits of a list count" ["admitted"];
    LIMITS_PLAIN_ROUTES "limits-plain-routes" "tokens are counted where replies say them"
        ["not-limited", "spend-answered-by-mock-llm"];
    // ---- pools
    SKIPS_PICKER "skips-picker" "the picker is asked for every request" ["*-as-picked", "commanded-as-commanded"];
    IGNORES_CHOICE "ignores-choice" "the picker's choice is followed" ["*-as-picked", "commanded-as-commanded"];
    ASKS_FOR_EVERY_MATCH "asks-for-every-match" "the picker is asked once for a request"
        ["first-as-picked", "second-as-picked", "third-as-picked"];
    SWAPS_CHOICES "swaps-choices-of-concurrent-requests" "each request goes where the picker said of it"
        ["commanded-as-picked"];
    ONE_PICKER_FOR_ALL_POOLS "one-picker-for-all-pools" "each pool asks its own picker"
        ["beta-as-picked", "beta-does-not-ask-alpha"];
    TAKES_THE_FIRST_ENDPOINT_ALONE "takes-the-first-endpoint-alone" "the second endpoint serves where the first is dead"
        ["first-is-dead-as-picked"];
    CHOOSES_IN_THE_PICKERS_PLACE "chooses-in-the-pickers-place" "where the picker names none, none serves"
        ["picker-names-none-*"];
    KEEPS_THE_CLIENTS_DESTINATION "keeps-the-clients-destination-header" "a client's endpoint is not followed"
        ["client-names-one-*", "names-an*-as-picked"];
    SWALLOWS_IMMEDIATE_RESPONSES "swallows-immediate-responses" "the picker's own answer reaches the client"
        ["post-status", "post-body"];
    FAILS_OPEN_ALWAYS "fails-open-always" "a pool that fails closed serves nobody without its picker"
        ["*-is-a-server-error", "*-reaches-nothing"];
    FAILS_OPEN_NEVER "fails-open-never" "a pool that fails open serves without its picker" ["*-answered-by-alpha"];
    FAILS_OPEN_WITHOUT_A_BODY_ONLY "fails-open-without-a-body-only" "a pool that fails open serves requests with a body"
        ["post-answered-by-alpha"];
    FAILS_OPEN_TO_ANOTHER_POOL "fails-open-to-another-pool" "a pool is served by its own endpoints, or not at all"
        ["*-answered-by-alpha", "*-is-a-server-error"];
    DOES_NOT_REPORT_SERVED "does-not-report-the-served-endpoint" "the picker is told who served"
        ["post-served-is-reported"];
    USES_THE_BACKEND_REFS_PORT "uses-the-backend-refs-port" "the port of a reference to a pool says nothing"
        ["other-port-as-picked"];
    RESOLVES_MISSING_PICKERS "resolves-missing-pickers" "a picker that is missing is not resolved"
        ["pool-ResolvedRefs"];
    SERVES_WITHOUT_A_PICKER "serves-without-a-picker" "a pool whose picker is missing does not serve"
        ["bad-is-a-server-error", "bad-reaches-nothing"];
    BACKEND_NOT_FOUND_FOR_UNKNOWN_KINDS "backend-not-found-for-unknown-kinds" "an unknown kind is InvalidKind"
        ["route-reason", "route-group", "migrated"];
    POOL_STATUS_NEVER_WRITTEN "pool-status-never-written" "a pool in use says how it stands"
        ["one-entry", "pool-parents", "routed-ready", "routed-pool-ready"];
    STATUS_NEVER_CLEARED "status-never-cleared" "a pool that nothing leads to says nothing of the Gateway"
        ["cleared", "one-second"];
    SAYS_TWO_ENDS_OF_STREAM "says-two-ends-of-stream" "a body ends once"
        ["*-seen-whole", "*-as-picked"];
    KEEPS_THE_FIRST_ENDPOINTS "keeps-the-first-endpoints" "an endpoint that is added is used" ["one-more-as-picked"];
    CUTS_THE_BODY_THAT_THE_PICKER_SEES "cuts-the-body-that-the-picker-sees" "the picker sees the whole body"
        ["prefix-*-sticks", "spreads", "prefix-*-as-picked", "prefix-*-status"];
    // ---- status, children, admission
    PROGRAMMED_NEVER "programmed-never" "a Gateway that serves says Programmed" ["gateway-Programmed"];
    STALE_OBSERVED_GENERATION "stale-observed-generation" "a condition is of the generation that is there"
        ["gateway-*", "pool-*"];
    RESOLVES_MISSING_BACKENDS "resolves-missing-backends" "a backend that is missing is not resolved"
        ["bad-ResolvedRefs", "route-ResolvedRefs"];
    FORGETS_PREDICTOR_ROUTE "forgets-predictor-route" "an InferenceService has both routes"
        ["predictor-route", "mock-llm-predictor-hostname"];
    FORGETS_OWNERS "forgets-owners" "what an LLMInferenceService makes is its own"
        ["workload-service", "picker-service"];
    STALE_ROUTE_ANSWERS "stale-route-answers-after-delete" "a route that is deleted answers no more" ["after-status"];
    URL_OF_ANOTHER_SERVICE "url-of-another-service" "status.url leads to the model" ["url"];
    SERVICE_PORT_OF_THE_CONTAINER "service-has-the-containers-port" "the Service of a predictor has port 80"
        ["service-port"];
    NEVER_AVAILABLE "never-available" "a Deployment whose pods are ready is Available" ["cert-manager*"];
    FORGETS_INFRASTRUCTURE_LABELS "forgets-infrastructure-labels" "what a Gateway makes has the labels that it names"
        ["service", "proxy"];
    OPENS_PORT_443 "opens-port-443" "a Service has the ports of its Gateway's listeners" ["ports"];
    NAMES_SERVICES_OTHERWISE "names-services-otherwise" "the Service of a Gateway has the name that the gateway documents"
        ["agentgateway-proxy", "name", "found-by-labels"];
    ACCEPTS_GATEWAYS_OF_NO_CLASS "accepts-gateways-of-no-class" "a Gateway waits for its class" ["without-class"];
    TAKES_A_GRANT_FOR_A_BAN "takes-a-grant-for-a-ban" "a ReferenceGrant takes nothing away"
        ["with-grant-answered-by-alpha"];
    TAKES_UNKNOWN_FIELDS "takes-unknown-fields" "a field that is gone is refused" ["as-printed"];
    SKIPS_RULES "skips-rules" "what the rules of a schema forbid is refused" ["as-printed", "without-timeouts"];
    REFUSES_OLDER_VERSIONS "refuses-older-versions" "older versions of an API that are served are taken"
        ["template", "service"];
    SKIPS_WEBHOOKS "skips-webhooks" "KServe's webhook is asked" ["webhook-answers"];
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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
