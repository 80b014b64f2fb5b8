//! Bodies on the way: the same bytes, or the same content but for declared fields, and the smallest difference in words.

use serde_json::Value;

use super::{Declared, Difference};
use crate::{
    change::{Direction, Form, Rule},
    excerpt::excerpt,
    history::{Body, Passed, Sent},
};

/// How many characters of a piece of a body are shown.
const PIECE: usize = 160;

/// A body as far as it is known.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    bytes: u64,
    sha256: &'a str,
    /// All of it, where it was kept.
    text: Option<&'a str>,
}

impl<'a> Text<'a> {
    pub(super) const EMPTY: Self = Self { bytes: 0, sha256: "", text: Some("") };

    pub(super) fn of(body: &'a Body) -> Self {
        Self { bytes: body.bytes, sha256: &body.sha256, text: body.text.as_deref().filter(|_| !body.truncated) }
    }

    pub(super) fn of_sent(sent: &'a Sent) -> Self {
        Self { bytes: sent.bytes, sha256: &sent.sha256, text: sent.text.as_deref() }
    }

    /// Whether these bytes passed by an endpoint picker.
    pub(super) fn is_of(self, passed: &Passed) -> bool {
        self.bytes == passed.bytes && self.sha256 == passed.sha256
    }

    fn is(self, other: Self) -> bool {
        self.bytes == other.bytes && (self.bytes == 0 || self.sha256 == other.sha256)
    }
}

/// One place at which two JSON documents differ.
struct Place<'v> {
    pointer: String,
    sent: Option<&'v Value>,
    got: Option<&'v Value>,
}

/// All places, an object or an array that is there on one side only by its members: a field that is declared makes the objects
/// around it.
fn places<'v>(pointer: &str, sent: Option<&'v Value>, got: Option<&'v Value>, all: &mut Vec<Place<'v>>) {
    let members = |value: Option<&'v Value>| -> Vec<(String, &'v Value)> {
        match value {
            Some(Value::Object(map)) => map.iter().map(|(name, value)| (name.clone(), value)).collect(),
            Some(Value::Array(list)) => list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
            _ => vec![],
        }
    };
    let (one, other) = (members(sent), members(got));
    let alike = match (sent, got) {
        (Some(Value::Object(_)), Some(Value::Object(_))) | (Some(Value::Array(_)), Some(Value::Array(_))) => true,
        (None, Some(_)) => !other.is_empty(),
        (Some(_), None) => !one.is_empty(),
        _ => false,
    };
    if !alike {
        if sent != got {
            all.push(Place { pointer: pointer.to_owned(), sent, got });
        }
        return;
    }
    let find = |list: &[(String, &'v Value)], name: &str| list.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    for (name, value) in &one {
        places(&format!("{pointer}/{name}"), Some(value), find(&other, name), all);
    }
    for (name, value) in other.iter().filter(|(name, _)| find(&one, name).is_none()) {
        places(&format!("{pointer}/{name}"), None, Some(value), all);
    }
}

/// Server-sent events without their comments, lines joined as their framing wants it (WHATWG HTML, section 9.2.6).
fn events(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    let kept = |event: &str| {
        let lines = event.split('\n').filter(|line| !line.is_empty() && !line.starts_with(':'));
        lines.collect::<Vec<_>>().join("\n")
    };
    text.split("\n\n").map(kept).filter(|event| !event.is_empty()).collect()
}

fn data(event: &str) -> Option<Value> {
    serde_json::from_str(event.strip_prefix("data:")?.trim_start()).ok()
}

impl Declared<'_> {
    pub(super) fn body(&self, direction: Direction, sent: Text<'_>, got: Text<'_>) -> Option<Difference> {
        if sent.is(got) {
            return None;
        }
        let (Some(one), Some(other)) = (sent.text, got.text) else {
            return Some(Difference::of(
                "body",
                format!("the {} bytes that were sent", sent.bytes),
                format!("{} other bytes", got.bytes),
            ));
        };
        match (serde_json::from_str::<Value>(one), serde_json::from_str::<Value>(other)) {
            (Ok(one_json), Ok(other_json)) if one_json.is_object() && other_json.is_object() => {
                self.documents(direction, (one, &one_json), (other, &other_json))
            }
            _ if one.contains("data:") || other.contains("data:") => self.streams(direction, one, other),
            _ => Some(texts(one, other)),
        }
    }

    /// What came of a body that was cut short.
    pub(super) fn beginning(&self, sent: Text<'_>, got: Text<'_>) -> Option<Difference> {
        let (one, other) = (sent.text?, got.text?);
        if one.starts_with(other) {
            return None;
        }
        let (sent, mut got) = (events(one), events(other));
        got.pop(); // it may be cut in two
        let pairs = sent
            .iter()
            .zip(&got)
            .all(|(one, other)| one == other || self.event(Direction::Reply, one, other).is_none());
        let same = got.len() <= sent.len() && pairs && self.rewrites(Direction::Reply, Form::Events);
        (!same).then(|| texts(one, other))
    }

    fn rewrites(&self, direction: Direction, form: Form) -> bool {
        self.explained(|change| {
            change.direction == direction && change.body == Some(form) && change.rule == Rule::Rewrite
        })
    }

    /// Places that no declared change explains; and whether one explains any.
    fn unexplained<'v>(&self, direction: Direction, one: &'v Value, other: &'v Value) -> (Option<Place<'v>>, bool) {
        let mut all = Vec::new();
        places("", Some(one), Some(other), &mut all);
        let mut explains = false;
        let unexplained = all.into_iter().find(|place| {
            let explained = self.explained(|change| {
                change.is_about_field(direction, &place.pointer)
                    && match (change.rule, place.sent, place.got) {
                        (Rule::Add, None, Some(got)) | (Rule::Set, _, Some(got)) => change.allows(&shown(got)),
                        (Rule::Append, None, Some(got)) => change.allows(&shown(got)),
                        (Rule::Remove, Some(_), None) => true,
                        _ => false,
                    }
            });
            explains |= explained;
            !explained
        });
        (unexplained, explains)
    }

    fn documents(
        &self,
        direction: Direction,
        (one, one_json): (&str, &Value),
        (other, other_json): (&str, &Value),
    ) -> Option<Difference> {
        match self.unexplained(direction, one_json, other_json) {
            (Some(place), _) => Some(place.difference()),
            (None, true) => None,
            (None, false) => (!self.rewrites(direction, Form::Json)).then(|| texts(one, other)),
        }
    }

    /// How an event differs; nothing where declared fields explain it.
    fn event(&self, direction: Direction, one: &str, other: &str) -> Option<(String, String)> {
        if one == other {
            return None;
        }
        match (data(one), data(other)) {
            (Some(one), Some(other)) => {
                let place = self.unexplained(direction, &one, &other).0?.difference();
                Some((format!("{} {}", place.subject, place.expected), format!("{} {}", place.subject, place.got)))
            }
            _ => Some((format!("{:?}", excerpt(one, PIECE)), format!("{:?}", excerpt(other, PIECE)))),
        }
    }

    fn streams(&self, direction: Direction, one: &str, other: &str) -> Option<Difference> {
        let (sent, got) = (events(one), events(other));
        let longest = sent.len().max(got.len());
        let words = |event: Option<&String>| event.map_or("none".to_owned(), |e| format!("{:?}", excerpt(e, PIECE)));
        let first = (0..longest).find_map(|at| match (sent.get(at), got.get(at)) {
            (Some(one), Some(other)) => self.event(direction, one, other).map(|(one, other)| (at, one, other)),
            (one, other) => Some((at, words(one), words(other))),
        });
        let (at, expected, came) = match first {
            Some((at, one, other)) => (at, one, other),
            None if self.rewrites(direction, Form::Events) => return None,
            None => return Some(texts(one, other)),
        };
        let (expected, came) = (format!("with event {} of {}: {expected}", at + 1, sent.len()), came);
        Some(Difference::of("body", expected, format!("{came} (of {} events)", got.len())))
    }
}

impl Place<'_> {
    fn difference(&self) -> Difference {
        let words =
            |value: Option<&Value>| value.map_or("absent".to_owned(), |v| excerpt(&shown(v), PIECE).into_owned());
        Difference::of(format!("field {}", self.pointer), words(self.sent), words(self.got))
    }
}

/// A value as declared patterns match it: a string without its quotes.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn words(sent: Text<'_>, got: Text<'_>) -> String {
    match (sent.text, got.text) {
        (Some(one), Some(other)) => {
            let Difference { expected, got, .. } = texts(one, other);
            format!("{got}, sent was {expected}")
        }
        _ => format!("{} bytes, sent were {}", got.bytes, sent.bytes),
    }
}

/// Two texts from where they first differ.
fn texts(one: &str, other: &str) -> Difference {
    let same = one.char_indices().zip(other.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
    let at = same.unwrap_or(one.len().min(other.len()));
    let from = one[..at].char_indices().rev().nth(20).map_or(0, |(at, _)| at);
    let piece = |text: &str| match text.get(from..) {
        None | Some("") => "its end".to_owned(),
        Some(rest) => format!("{:?}", excerpt(rest, PIECE)),
    };
    Difference::of(
        "body",
        format!("from byte {from}: {}", piece(one)),
        format!("{} ({} bytes, sent were {})", piece(other), other.len(), one.len()),
    )
}
