//! Whether a reply is an answer that the gateway declares as its own.

use crate::{
    change::{Answer, Change, Direction, of_any_intermediary, whole},
    excerpt::excerpt,
    history::Exchange,
};

impl Answer {
    /// What of an exchange's reply is not this answer, but for headers that these changes explain; nothing where it is.
    pub fn differs(&self, exchange: &Exchange, changes: &[&Change]) -> Option<String> {
        let Some(response) = exchange.response() else { return Some(exchange.outcome_words()) };
        if response.status != self.status {
            return Some(format!("status {}", response.status));
        }
        let is = |pattern: &str, text: &str| whole(pattern).is_ok_and(|regex| regex.is_match(text));
        let written: Vec<(String, &str)> = response
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
            .filter(|(name, _)| !of_any_intermediary(Direction::Reply, name))
            .collect();
        for (name, value) in &written {
            match self.headers.get(name) {
                None if changes.iter().any(|change| change.gives(name, value)) => {}
                None => return Some(format!("header {name}: {value}")),
                Some(pattern) if !is(pattern, value) => return Some(format!("header {name}: {value}")),
                Some(_) => {}
            }
        }
        if let Some(missing) = self.headers.keys().find(|wanted| written.iter().all(|(name, _)| name != *wanted)) {
            return Some(format!("no header {missing}"));
        }
        let text = response.body.text.as_deref().unwrap_or("bytes that are no text");
        let same = self.body.as_deref().map_or(response.body.bytes == 0, |pattern| is(pattern, text));
        (!same).then(|| format!("body {:?}", excerpt(text, 200)))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{
        change::Rule,
        history::{Body, Outcome, Request, Response},
    };

    #[rstest]
    #[case::whole(404, &[("content-type", "text/plain"), ("Date", "d")], "no route", "")]
    #[case::other_status(503, &[("content-type", "text/plain")], "no route", "status 503")]
    #[case::other_body(404, &[("content-type", "text/plain")], "no route!", "body \"no route!\"")]
    #[case::empty(404, &[("content-type", "text/plain")], "", "body \"\"")]
    #[case::other_type(404, &[("content-type", "text/html")], "no route", "header content-type: text/html")]
    #[case::one_more(404, &[("content-type", "text/plain"), ("server", "x")], "no route", "header server: x")]
    #[case::one_less(404, &[], "no route", "no header content-type")]
    fn an_answer_is_compared_whole(
        #[case] status: u16,
        #[case] headers: &[(&str, &str)],
        #[case] body: &str,
        #[case] differs: &str,
    ) {
        let declared = Answer {
            status: 404,
            headers: [("content-type".to_owned(), "text/plain".to_owned())].into(),
            body: Some("no route".into()),
            source: "s".into(),
        };
        assert_eq!(declared.problem(), None);
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let response = Response { status, headers, body: Body::of(body.as_bytes()), ..Response::default() };
        let exchange = Exchange {
            id: "e".into(),
            label: "l".into(),
            sent_ms: 0.0,
            request: Request::default(),
            outcome: Outcome::Response(response),
            connection: None,
        };
        assert_eq!(declared.differs(&exchange, &[]).unwrap_or_default(), differs);
        let marks = Change::header(Direction::Reply, "server", Rule::Add, "x");
        let explained = if differs == "header server: x" { "" } else { differs };
        assert_eq!(declared.differs(&exchange, &[&marks]).unwrap_or_default(), explained);
    }
}
