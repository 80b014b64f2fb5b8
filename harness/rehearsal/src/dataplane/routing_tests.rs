//! Tables of the routing room: hostnames, matches, and which of two routes wins in which dialect.

use http::{HeaderValue, Method};
use rstest::rstest;

use super::*;

const AGENTGATEWAY: Precedence =
    Precedence { paths: regex_beside_prefix, ties: TieBreak::Name, hosts: HostRule::FallThrough };

fn entry(name: &str, host: Option<&str>, matches: Match) -> Arc<Entry> {
    Arc::new(Entry {
        id: RouteId {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            rule: 0,
            matched: 0,
            host: HostPattern::parse(host),
        },
        created: "2026-11-21T00:00:00Z".to_owned(),
        matches,
        rule: Arc::default(),
    })
}

fn table(precedence: Precedence, entries: Vec<Arc<Entry>>) -> Table {
    let listener = Listener { name: "http".to_owned(), port: 80, host: HostPattern::Any, entries };
    Table::new(vec![listener], precedence, |_| LocalReply::empty(500), HeaderCase::Lower)
}

fn chosen(table: &Table, host: &str, path: &str, headers: &HeaderMap) -> Result<String, Failure> {
    let asked = RequestHead { method: &Method::POST, host, path, query: "", headers };
    table.choose(80, &asked).map(|e| e.id.name.clone())
}

#[rstest]
#[case(None, "a.test", true)]
#[case(Some("a.test"), "a.test", true)]
#[case(Some("A.test"), "a.test", true)]
#[case(Some("a.test"), "b.test", false)]
#[case(Some("*.test"), "a.test", true)]
#[case(Some("*.test"), "a.b.test", true)]
#[case(Some("*.test"), "test", false)]
#[case(Some("*.test"), ".test", false)]
fn hostnames_cover(#[case] pattern: Option<&str>, #[case] host: &str, #[case] covered: bool) {
    assert_eq!(HostPattern::parse(pattern).covers(host), covered);
}

#[rstest]
#[case(None, Some("a.test"), Some("a.test"))]
#[case(Some("*.test"), Some("a.test"), Some("a.test"))]
#[case(Some("*.only.example"), Some("a.test"), None)]
#[case(Some("*.b.test"), Some("*.test"), Some("*.b.test"))]
#[case(Some("a.test"), Some("b.test"), None)]
fn hostnames_intersect(#[case] a: Option<&str>, #[case] b: Option<&str>, #[case] common: Option<&str>) {
    let (a, b) = (HostPattern::parse(a), HostPattern::parse(b));
    assert_eq!(a.intersect(&b), common.map(|c| HostPattern::parse(Some(c))));
    assert_eq!(b.intersect(&a), a.intersect(&b));
}

#[rstest]
#[case(PathMatch::Prefix("/v1".into()), "/v1", true)]
#[case(PathMatch::Prefix("/v1".into()), "/v1/models", true)]
#[case(PathMatch::Prefix("/v1/".into()), "/v1", true)]
#[case(PathMatch::Prefix("/v1".into()), "/v1x", false)]
#[case(PathMatch::Prefix("/".into()), "/anything", true)]
#[case(PathMatch::Exact("/v1".into()), "/v1", true)]
#[case(PathMatch::Exact("/v1".into()), "/v1/", false)]
#[case(PathMatch::regex("^/.*$"), "/v1/chat/completions", true)]
#[case(PathMatch::regex("/v[12]"), "/v1", true)]
#[case(PathMatch::regex("/v[12]"), "/v1/models", false)]
#[case(PathMatch::regex("(("), "/", false)]
fn paths_cover(#[case] matching: PathMatch, #[case] path: &str, #[case] covered: bool) {
    assert_eq!(matching.covers(path), covered);
}

#[test]
fn more_headers_win_and_age_or_name_breaks_ties() {
    let with_header = |name: &str, value: &str| Match {
        headers: vec![(name.to_owned(), ValueMatch::Exact(value.to_owned()))],
        ..Match::default()
    };
    let mut young = (*entry("a-young", None, Match::default())).clone();
    young.created = "2026-11-22T00:00:00Z".to_owned();
    let entries =
        vec![Arc::new(young), entry("z-old", None, Match::default()), entry("ai", None, with_header("x-m", "one"))];
    let mut headers = HeaderMap::new();
    for (precedence, tie) in [(Precedence::default(), "z-old"), (AGENTGATEWAY, "a-young")] {
        let table = table(precedence, entries.clone());
        headers.insert("x-m", HeaderValue::from_static("one"));
        assert_eq!(chosen(&table, "h", "/", &headers).as_deref(), Ok("ai"));
        headers.insert("x-m", HeaderValue::from_static("two"));
        assert_eq!(chosen(&table, "h", "/", &headers).as_deref(), Ok(tie));
    }
}

#[test]
fn an_unknown_host_and_an_unknown_port_are_told_apart() {
    let table = table(Precedence::default(), vec![entry("own", Some("m.test"), Match::default())]);
    assert_eq!(chosen(&table, "other.test", "/", &HeaderMap::new()), Err(Failure::NoHost));
    let (method, headers) = (Method::GET, HeaderMap::new());
    let asked = RequestHead { method: &method, host: "m.test", path: "/", query: "", headers: &headers };
    assert_eq!(table.choose(81, &asked).map(|_| ()), Err(Failure::NoListener));
}

#[rstest]
#[case::same_user("a", "one", true)]
#[case::other_user("b", "one", false)]
#[case::other_model("a", "two", false)]
fn a_bucket_belongs_to_route_user_and_model(
    #[case] user: &'static str,
    #[case] model: &'static str,
    #[case] same: bool,
) {
    let limit = |model: &str| GlobalLimit {
        name: "ns/policy/0".to_owned(),
        shared: false,
        selectors: vec![
            Selector::Distinct { name: "x-user-id".to_owned() },
            Selector::Match {
                name: "x-ai-eg-model".to_owned(),
                value: ValueMatch::Exact(model.to_owned()),
                invert: false,
            },
        ],
        limit: WindowLimit { hits: 70, seconds: 60 },
        request_hits: 0,
        response_key: None,
    };
    let headers = |user: &'static str, model: &'static str| {
        HeaderMap::from_iter([
            (http::HeaderName::from_static("x-user-id"), HeaderValue::from_static(user)),
            (http::HeaderName::from_static("x-ai-eg-model"), HeaderValue::from_static(model)),
        ])
    };
    let id = entry("r", None, Match::default()).id.clone();
    let first = limit("one").bucket(&id, &headers("a", "one"));
    assert!(first.is_some());
    assert_eq!(limit("one").bucket(&id, &headers(user, model)) == first, same);
    assert_eq!(limit("one").bucket(&id, &HeaderMap::new()), None, "no identity, no limit");
    let mut other = id.clone();
    other.rule = 1;
    assert_ne!(limit("one").bucket(&other, &headers("a", "one")), first, "a rule has a bucket of its own");
}
