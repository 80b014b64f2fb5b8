//! Canaries: headers and fields of a body that mean nothing to anyone on the way, so that whoever loses, changes, doubles or
//! reorders something, or takes it from another request, is seen by them.
//!
//! What they say is made from the id of their exchange alone. Observations and the judges of checks look past them.

/// What the names of all canaries among headers begin with, in requests and in replies.
pub const HEADERS: &str = "x-igc-c-";

pub fn is_header(name: &str) -> bool {
    name.get(..HEADERS.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(HEADERS))
}

/// Who sends canaries: no value of one is a value of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Reply,
}

/// Bytes of the long header's value.
const LONG: usize = 2_048;

/// The headers of an exchange, in the order in which they are sent. Each kind is in at least every third one.
pub fn headers(side: Side, exchange: &str) -> Vec<(String, String)> {
    let number = number(exchange);
    let from = match side {
        Side::Request => "asked",
        Side::Reply => "said",
    };
    let long = format!("{from}-{exchange}-").repeat(LONG / (exchange.len() + from.len() + 2) + 1);
    let all = [
        ("names", true, format!("{from} {exchange}")),
        ("plain", number.is_multiple_of(2), format!("{from} {number}")),
        ("lines", number % 2 == 1, format!("{from} {number}, the first of two")),
        ("lines", number % 2 == 1, format!("a {from} {number}, the second of two")),
        ("quoted", number.is_multiple_of(3), format!(r#"{from}, "a  b" ,c;  d='{number}', "\"e""#)),
        ("mixed", number % 3 == 1, format!("{}-AbC-09{number}-xYz", from.to_uppercase())),
        ("empty", number.is_multiple_of(2), String::new()),
        ("long", number % 3 == 2, long[..LONG].to_owned()),
    ];
    let sent = all.into_iter().filter(|(_, sent, _)| *sent);
    sent.map(|(name, _, value)| (format!("{HEADERS}{name}"), value)).collect()
}

/// Numbers that a reader who keeps them as floating-point numbers does not give back, and some that he does.
const SEEDS: [i64; 6] = [9_007_199_254_740_993, -7, 0, -9_007_199_254_740_995, 9_223_372_036_854_775_807, -1];

/// The members of a JSON object, as they are written, that make a body one of a kind: `user` in all, `seed` in every second
/// one, `metadata` in two of three.
pub fn members(exchange: &str) -> String {
    let number = number(exchange);
    let mut members = format!(r#""user":"{exchange}""#);
    if number.is_multiple_of(2) {
        let seed = SEEDS.iter().cycle().nth((number / 2 % 6) as usize).copied().unwrap_or_default();
        members.push_str(&format!(r#","seed":{seed}"#));
    }
    if number % 3 != 2 {
        members.push_str(&format!(
            r#","metadata":{{"zeta":"of {number}","alpha":"caf\u00e9 \"\\\/\t\u2603","empty":"","mid":"é☃𝄞"}}"#
        ));
    }
    members
}

/// Fields that [`members`] makes.
pub const FIELDS: [&str; 3] = ["user", "seed", "metadata"];

/// The number of an exchange in its stage, by its id; of an id without one, a number made from its bytes.
fn number(exchange: &str) -> u64 {
    let number = exchange.rsplit('-').next().and_then(|end| end.parse().ok());
    number.unwrap_or_else(|| exchange.bytes().map(u64::from).sum())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rstest::rstest;
    use serde_json::Value;

    use super::*;
    use crate::redact;

    const KINDS: [&str; 7] = ["names", "plain", "lines", "quoted", "mixed", "empty", "long"];

    #[rstest]
    fn each_kind_is_in_every_third_exchange(#[values(Side::Request, Side::Reply)] side: Side) {
        for first in 0..12 {
            let three = (first..first + 3).flat_map(|number| headers(side, &format!("run-check-1-{number}")));
            let kinds: BTreeSet<String> = three.map(|(name, _)| name).collect();
            assert_eq!(kinds, KINDS.map(|kind| format!("{HEADERS}{kind}")).into(), "from {first}");
        }
    }

    #[rstest]
    fn values_are_their_exchanges_and_their_sides_alone(#[values(0, 1, 2, 3, 4, 5)] number: u64) {
        let of = |side, number| headers(side, &format!("run-check-1-{number}"));
        let asked: BTreeSet<_> = of(Side::Request, number).into_iter().collect();
        for (name, value) in &asked {
            assert!(is_header(name) && name.to_ascii_lowercase() == *name && value.trim() == value, "{name}: {value}");
            assert_eq!(redact::header(name, value), *value, "it is no credential");
        }
        for other in [of(Side::Reply, number), of(Side::Request, number + 6), of(Side::Reply, number + 6)] {
            let same: Vec<_> = other.into_iter().filter(|(_, v)| !v.is_empty()).filter(|h| asked.contains(h)).collect();
            assert_eq!(same, []);
        }
    }

    #[test]
    fn two_lines_of_a_name_come_in_an_order_that_is_not_theirs() {
        let lines = headers(Side::Request, "x-1").into_iter().filter(|(name, _)| name == "x-igc-c-lines");
        let values: Vec<_> = lines.map(|(_, value)| value).collect();
        assert_eq!(values, ["asked 1, the first of two", "a asked 1, the second of two"]);
    }

    #[test]
    fn members_are_members_of_json() {
        let mut users = BTreeSet::new();
        let mut seeds = BTreeSet::new();
        for number in 0..12 {
            let exchange = format!("run-check-1-{number}");
            let body: Value = serde_json::from_str(&format!("{{{}}}", members(&exchange))).unwrap();
            assert!(body.as_object().unwrap().keys().all(|name| FIELDS.contains(&name.as_str())));
            users.insert(body["user"].as_str().unwrap().to_owned());
            seeds.extend(body["seed"].as_i64());
            let all_text = |metadata: &Value| metadata.as_object().unwrap().values().all(Value::is_string);
            assert!(body.get("metadata").is_none_or(all_text));
            assert_eq!(redact::text(&body.to_string()), body.to_string());
        }
        assert_eq!((users.len(), seeds), (12, SEEDS.into()));
    }

    #[rstest]
    #[case("x-igc-c-plain", true)]
    #[case("X-Igc-C-Plain", true)]
    #[case("x-igc-exchange", false)]
    #[case("x-igc-c", false)]
    #[case("x-igc-\u{e9}", false)]
    fn canaries_are_known_by_their_names(#[case] name: &str, #[case] canary: bool) {
        assert_eq!(is_header(name), canary);
    }
}
