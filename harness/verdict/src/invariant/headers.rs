//! Headers on the way: none lost, none added, none changed, lines of one name in their order.

use std::collections::BTreeMap;

use super::{Declared, Difference};
use crate::change::{Direction, Rule, of_any_intermediary};

/// The lines of each name, in order.
fn by_name<'a>(headers: &[&'a (String, String)]) -> BTreeMap<String, Vec<&'a str>> {
    let mut lines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, value) in headers {
        lines.entry(name.to_ascii_lowercase()).or_default().push(value.trim());
    }
    lines
}

/// Headers that the lines of `Connection` name: they belong to it alone (RFC 9110, section 7.6.1).
fn of_the_connection(lines: &BTreeMap<String, Vec<&str>>) -> Vec<String> {
    let listed = lines.get("connection").into_iter().flatten().flat_map(|line| line.split(','));
    listed.map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// Whether two lists of lines say the same: line by line, or, where an intermediary has joined lines into one, element by
/// element (RFC 9110, section 5.3, which leaves out `Set-Cookie`).
fn same(name: &str, sent: &[&str], got: &[&str]) -> bool {
    if sent.len() == got.len() || name == "set-cookie" {
        return sent == got;
    }
    let elements = |lines: &[&str]| -> Vec<String> {
        lines.iter().flat_map(|line| line.split(',')).map(|element| element.trim().to_owned()).collect()
    };
    elements(sent) == elements(got)
}

fn words(lines: Option<&Vec<&str>>) -> String {
    match lines.map(Vec::as_slice) {
        None => "absent".to_owned(),
        Some([line]) => format!("{line:?}"),
        Some(lines) => format!("{lines:?}"),
    }
}

impl Declared<'_> {
    pub(super) fn headers(
        &self,
        direction: Direction,
        sent: &[&(String, String)],
        got: &[&(String, String)],
    ) -> Vec<Difference> {
        let (sent, got) = (by_name(sent), by_name(got));
        let (of_sent, of_got) = (of_the_connection(&sent), of_the_connection(&got));
        let names = sent.keys().chain(got.keys().filter(|name| !sent.contains_key(*name)));
        names
            .filter(|name| !of_any_intermediary(direction, name) || *name == "date" && sent.contains_key(*name))
            .filter(|name| !of_sent.contains(name) && !of_got.contains(name))
            .filter(|name| !self.header_is_explained(direction, name, sent.get(*name), got.get(*name)))
            .map(|name| Difference::of(format!("header {name}"), words(sent.get(name)), words(got.get(name))))
            .collect()
    }

    fn header_is_explained(
        &self,
        direction: Direction,
        name: &str,
        sent: Option<&Vec<&str>>,
        got: Option<&Vec<&str>>,
    ) -> bool {
        match (sent, got) {
            (Some(sent), Some(got)) if same(name, sent, got) => true,
            (None, Some(got)) => self.explained(|change| {
                change.is_about_header(direction, name)
                    && matches!(change.rule, Rule::Add | Rule::Set | Rule::Append)
                    && got.iter().all(|value| change.allows(value))
            }),
            (Some(_), None) => {
                self.explained(|change| change.is_about_header(direction, name) && change.rule == Rule::Remove)
            }
            (Some(sent), Some(got)) => self.explained(|change| {
                change.is_about_header(direction, name)
                    && match change.rule {
                        Rule::Set => got.iter().all(|value| change.allows(value)),
                        Rule::Append => appended(sent, got).is_some_and(|value| change.allows(&value)),
                        Rule::Add | Rule::Remove | Rule::Rewrite => false,
                    }
            }),
            (None, None) => true,
        }
    }
}

/// What is behind the values that were sent, as a line of its own or an element of the last line.
fn appended(sent: &[&str], got: &[&str]) -> Option<String> {
    let (sent, got) = (sent.join(","), got.join(","));
    Some(got.strip_prefix(&sent)?.strip_prefix(',')?.trim().to_owned())
}
