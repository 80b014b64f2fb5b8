//! The hop to an endpoint picker: what it saw of a request and of its reply is what client and model saw.

use super::{Difference, Judging, body::Text};
use crate::change::{Change, Direction};
use crate::history::{Ended, Exchange, ModelRecord, Passed, PickerRecord};

impl<'h> Judging<'h> {
    pub(super) fn picks(&self, exchange: &Exchange) -> &[&'h PickerRecord] {
        self.picks.get(exchange.id.as_str()).map_or(&[], Vec::as_slice)
    }

    /// The request as the picker saw it: its head may have the declared changes already, its body has none.
    pub(super) fn picked_request(
        &self,
        exchange: &Exchange,
        record: Option<&ModelRecord>,
        pick: &PickerRecord,
    ) -> Vec<Difference> {
        let sent = &exchange.request;
        let mut differences = Vec::new();
        if pick.method != sent.method {
            differences.push(Difference::of("picker method", &sent.method, &pick.method));
        }
        let rewritten = |change: &Change| change.rewritten(&sent.target).as_deref() == Some(&pick.target);
        if pick.target != sent.target
            && record.is_none_or(|r| r.target != pick.target)
            && !self.declared.explained(rewritten)
        {
            differences.push(Difference::of("picker target", &sent.target, &pick.target));
        }
        let sent_headers: Vec<&(String, String)> = sent.headers.iter().collect();
        let got: Vec<&(String, String)> = pick.headers.iter().filter(|(name, _)| !name.starts_with(':')).collect();
        let of_headers = self.declared.headers(Direction::Request, &sent_headers, &got).into_iter();
        differences.extend(of_headers.map(|d| Difference { subject: format!("picker {}", d.subject), ..d }));
        let bodies = [Some(&sent.body), record.map(|record| &record.body)];
        let same = |body: &&crate::history::Body| body.sha256 == pick.request.sha256;
        if saw(&pick.request) && !bodies.into_iter().flatten().any(|body| same(&body)) {
            let got = format!("{} other bytes", pick.request.bytes);
            differences.push(Difference::of(
                "picker body",
                format!("the {} bytes that were sent", sent.body.bytes),
                got,
            ));
        }
        differences
    }

    /// The reply as the picker saw it, where one came to its end.
    pub(super) fn picked_reply(
        &self,
        exchange: &Exchange,
        record: Option<&ModelRecord>,
        pick: &PickerRecord,
    ) -> Vec<Difference> {
        let Some(response) = exchange.response().filter(|r| r.ended == Ended::Complete) else { return vec![] };
        let mut differences = Vec::new();
        let statuses = [Some(response.status), record.map(|record| record.status)];
        if let Some(status) = pick.status.filter(|status| !statuses.contains(&Some(*status))) {
            differences.push(Difference::of("picker status", response.status.to_string(), status.to_string()));
        }
        let sent = record.and_then(|record| record.sent.as_ref()).map(Text::of_sent);
        let same = [Some(Text::of(&response.body)), sent].into_iter().flatten().any(|text| text.is_of(&pick.response));
        if saw(&pick.response) && !same {
            let expected = format!("the {} bytes that the client got", response.body.bytes);
            differences.push(Difference::of("picker reply", expected, format!("{} other bytes", pick.response.bytes)));
        }
        differences
    }
}

/// Whether a body was shown to the picker.
fn saw(passed: &Passed) -> bool {
    passed.messages > 0 && passed.bytes > 0
}

/// A body that ends more than once on its way to the picker.
pub(super) fn ends(picks: &[&PickerRecord]) -> Option<Difference> {
    let of = |pick: &&&PickerRecord| pick.request.ends.max(pick.response.ends);
    let most = picks.iter().map(|pick| of(&pick)).max().filter(|ends| *ends > 1)?;
    Some(Difference::of("picker ends", "one end of a body", format!("{most} of them")))
}
