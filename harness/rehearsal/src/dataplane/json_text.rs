//! The text of a JSON object, changed without touching the rest of it, or written anew in an order of members.
//!
//! What is given here has been parsed before.

use std::ops::Range;

/// The members of a typed object: those that are written first, in this order, where they are not null; what else there is
/// follows in the order in which it came.
#[derive(Debug)]
pub(super) struct Type(pub &'static [(&'static str, Kind)]);

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Any,
    /// Objects of a type, one or a list.
    Of(&'static Type),
    /// The same; null is written where there is none.
    OfOrNull(&'static Type),
}

impl Type {
    /// An object of this type, or every one of a list; other values as they are.
    pub(super) fn write(&self, value: &str) -> String {
        if value.starts_with('[') {
            let elements: Vec<String> = split(value, b',')
                .into_iter()
                .map(|at| self.write(value[at].trim()))
                .filter(|e| !e.is_empty())
                .collect();
            return format!("[{}]", elements.join(","));
        }
        if !value.starts_with('{') {
            return value.to_owned();
        }
        let members = members(value);
        let text = |(name, at): &(String, Range<usize>)| (name.clone(), &value[at.clone()]);
        let typed = self.0.iter().filter_map(|(name, kind)| {
            let found = members.iter().map(text).find(|(found, value)| found == name && *value != "null");
            let value = match (kind, found) {
                (Kind::Any, Some((_, value))) => value.to_owned(),
                (Kind::Of(of) | Kind::OfOrNull(of), Some((_, value))) => of.write(value),
                (Kind::OfOrNull(_), None) => "null".to_owned(),
                (_, None) => return None,
            };
            Some(((*name).to_owned(), value))
        });
        let is_typed = |name: &str| self.0.iter().any(|(typed, _)| *typed == name);
        let rest = members.iter().map(text).filter(|(name, _)| !is_typed(name)).map(|(n, v)| (n, v.to_owned()));
        let written: Vec<String> =
            typed.chain(rest).map(|(name, value)| format!("{}:{value}", quoted(&name))).collect();
        format!("{{{}}}", written.join(","))
    }
}

/// The object with a member that has this value: in the place of the one that it has, or behind all.
pub(super) fn with_member(object: &str, name: &str, value: &str) -> String {
    let members = members(object);
    if let Some((_, at)) = members.iter().find(|(found, _)| found == name) {
        return format!("{}{value}{}", &object[..at.start], &object[at.end..]);
    }
    let end = object.rfind('}').unwrap_or(object.len());
    let comma = if members.is_empty() { "" } else { "," };
    format!("{}{comma}{}:{value}{}", &object[..end], quoted(name), &object[end..])
}

/// The value of a member.
pub(super) fn member<'o>(object: &'o str, name: &str) -> Option<&'o str> {
    members(object).into_iter().find(|(found, _)| found == name).map(|(_, at)| &object[at])
}

/// Without blanks between values.
pub(super) fn compact(json: &str) -> String {
    let mut within = Within::default();
    json.chars().filter(|c| within.step(*c) || !c.is_ascii_whitespace()).collect()
}

fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// Names, and where their values stand.
fn members(object: &str) -> Vec<(String, Range<usize>)> {
    let pairs = split(object, b',').into_iter().filter_map(|pair| {
        let text = &object[pair.clone()];
        let mut within = Within::default();
        let colon = text.char_indices().find(|(_, c)| !within.step(*c) && *c == ':')?.0;
        let name = serde_json::from_str(text[..colon].trim()).ok()?;
        let value = &text[colon + 1..];
        let start = pair.start + colon + 1 + (value.len() - value.trim_start().len());
        Some((name, start..start + value.trim().len()))
    });
    pairs.collect()
}

/// The parts of an object or a list between its brackets.
fn split(outer: &str, at: u8) -> Vec<Range<usize>> {
    let (mut within, mut depth, mut parts) = (Within::default(), 0_usize, Vec::new());
    let mut start = 0;
    for (i, c) in outer.char_indices() {
        if within.step(c) {
            continue;
        }
        match c {
            '{' | '[' => {
                depth += 1;
                if depth == 1 {
                    start = i + 1;
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    parts.push(start..i);
                    break;
                }
            }
            c if depth == 1 && c == char::from(at) => {
                parts.push(start..i);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts
}

/// Whether a character stands in a string.
#[derive(Default)]
struct Within {
    string: bool,
    escaped: bool,
}

impl Within {
    /// Whether this next character belongs to a string, its quotes included.
    fn step(&mut self, c: char) -> bool {
        let was = self.string;
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.string => self.escaped = true,
            '"' => self.string = !self.string,
            _ => {}
        }
        was || self.string
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::put_behind(r#"{ "a": 1 }"#, "b", r#"{ "a": 1 ,"b":2}"#)]
    #[case::replaced(r#"{"b": {"c": [1, "}"]} , "a":1}"#, "b", r#"{"b": 2 , "a":1}"#)]
    #[case::into_nothing("{}", "b", r#"{"b":2}"#)]
    #[case::not_the_inner_one(r#"{"a":{"b":1}}"#, "b", r#"{"a":{"b":1},"b":2}"#)]
    #[case::not_a_word_of_a_string(r#"{"a":"\",\"b\":1"}"#, "b", r#"{"a":"\",\"b\":1","b":2}"#)]
    fn a_member_is_set_in_place(#[case] object: &str, #[case] name: &str, #[case] changed: &str) {
        assert_eq!(with_member(object, name, "2"), changed);
        assert_eq!(member(changed, name), Some("2"));
    }

    const INNER: Type = Type(&[("b", Kind::Any)]);
    const OUTER: Type = Type(&[("z", Kind::Any), ("list", Kind::Of(&INNER)), ("gone", Kind::Any)]);

    #[rstest]
    #[case(
        r#"{"a":"x y","list":[{"c":{"d":[1]},"b":2},3],"z":0}"#,
        r#"{"z":0,"list":[{"b":2,"c":{"d":[1]}},3],"a":"x y"}"#
    )]
    #[case(r#"{"gone":null,"stays":null,"list":[]}"#, r#"{"list":[],"stays":null}"#)]
    #[case(r#""text""#, r#""text""#)]
    fn typed_members_come_first(#[case] object: &str, #[case] written: &str) {
        assert_eq!(OUTER.write(object), written);
    }

    #[test]
    fn blanks_of_strings_stay() {
        assert_eq!(compact("{ \"a b\" :\t[ \"c \\\" d\" , 1 ]\n}"), r#"{"a b":["c \" d",1]}"#);
    }
}
