//! Framing: what a reply says of its own length, encoding, end and connection.

use super::Difference;
use crate::history::{Ended, Exchange, ModelRecord, Outcome};

/// `None` where nothing came back and nothing can be said of it.
pub(super) fn differences(
    exchange: &Exchange,
    record: Option<&ModelRecord>,
    own_answer: bool,
) -> Option<Vec<Difference>> {
    let broke = exchange.connection.as_ref().and_then(|c| Some((c.after.as_deref()?, c.broke.as_deref()?)));
    let of_connection = broke.map(|(after, broke)| {
        let expected = format!("that of exchange {after} can be used again, as its reply leaves it open");
        Difference::of("connection", expected, broke)
    });
    let response = match &exchange.outcome {
        Outcome::Response(response) => response,
        Outcome::Failed { .. } if of_connection.is_some() => return of_connection.map(|difference| vec![difference]),
        Outcome::Failed { error, .. } => {
            let record = record.filter(|record| record.finished)?;
            let written = format!("the {} that the model wrote", record.status);
            return Some(vec![Difference::of("reply", written, format!("none: {error}"))]);
        }
    };
    let mut differences = Vec::new();
    if let Some(surplus) = exchange.connection.as_ref().and_then(|c| c.surplus.as_deref()) {
        differences.push(Difference::of("surplus", "nothing after the end of the reply", surplus));
    }
    let lengths: Vec<&str> = response
        .headers
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case("content-length"))
        .map(|(_, v)| v.trim())
        .collect();
    if !lengths.is_empty() && response.header("transfer-encoding").is_some() {
        differences.push(Difference::of(
            "header content-length",
            "absent beside a transfer-encoding",
            lengths.join(", "),
        ));
    }
    let bodiless = exchange.request.method == "HEAD" || matches!(response.status, 204 | 304);
    let received = response.body.bytes.to_string();
    let truncated = response.ended == Ended::Truncated;
    if let Some(length) = lengths.iter().find(|length| {
        **length != received && !bodiless && (response.ended == Ended::Complete || truncated && whole(record))
    }) {
        let got = format!("{received} bytes of body");
        differences.push(Difference::of("header content-length", *length, got));
    } else if truncated && whole(record) {
        let sent = record.and_then(|r| r.sent.as_ref()).map_or(0, |sent| sent.bytes);
        let got = format!("it broke off after {received} bytes");
        differences.push(Difference::of("end", format!("all {sent} bytes that the model sent"), got));
    }
    let broken = record.filter(|record| !record.finished && record.sent.is_some() && !own_answer);
    if let Some(record) = broken.filter(|_| response.ended == Ended::Complete && !bodiless) {
        let sent = record.sent.as_ref().map_or(0, |sent| sent.bytes);
        let got = format!("a clean end after {received} bytes");
        differences.push(Difference::of(
            "end",
            format!("a broken end, as the model broke off after {sent} bytes"),
            got,
        ));
    }
    differences.extend(of_connection);
    Some(differences)
}

fn whole(record: Option<&ModelRecord>) -> bool {
    record.is_some_and(|record| record.finished)
}
