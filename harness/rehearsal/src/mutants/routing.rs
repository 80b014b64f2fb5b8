//! How the choice of a route is wrong, and what a proxy says where it cannot serve.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use serde_json::json;

use super::{Mutants, mutant, unfaithful};
use crate::dataplane::{
    interceptor::RouteInterceptor,
    local_reply::{Failure, LocalReply},
    routing::{Entry, Extraction, RequestHead, Table},
    upstream::KEEP_ALIVE,
};

impl RouteInterceptor for Mutants {
    fn forwarded_headers(&self, received: &HeaderMap, forwarded: &mut HeaderMap) {
        if self.could_be(&[unfaithful::MIXES_UP_CONCURRENT_REPLIES]) {
            self.enter();
        }
        if self.is(mutant::ADDS_HOP_BY_HOP_HEADER) {
            for name in [KEEP_ALIVE, HeaderName::from_static("proxy-connection"), HeaderName::from_static("x-igc-hop")]
            {
                if let Some(value) = received.get(&name) {
                    forwarded.insert(name, value.clone());
                }
            }
        }
    }

    fn matched(
        &self,
        table: &Table,
        request: &RequestHead<'_>,
        chosen: Result<Arc<Entry>, Failure>,
    ) -> Result<Arc<Entry>, Failure> {
        match chosen {
            Err(Failure::NoHost | Failure::NoListener) if self.is(mutant::IGNORES_HOST) => {
                let mut others = table.entries().filter(|e| !e.rule.backends.is_empty() && e.matches.covers(request));
                others.next().cloned().ok_or(Failure::NoHost)
            }
            Err(Failure::NoRoute) if self.could_be(&[mutant::PASSES_UNKNOWN_PATHS]) => {
                let mut others =
                    table.entries().filter(|e| !e.rule.backends.is_empty() && e.id.host.covers(request.host));
                others.find(|_| self.is(mutant::PASSES_UNKNOWN_PATHS)).cloned().ok_or(Failure::NoRoute)
            }
            chosen => chosen,
        }
    }

    fn routed(&self, table: &Table, entry: Arc<Entry>) -> Arc<Entry> {
        if self.is(mutant::SENDS_ONE_IN_FIFTY_ELSEWHERE) && self.is_one_in(50) {
            let mut others = table.entries().filter(|e| !e.rule.backends.is_empty());
            return others.find(|e| e.id.host == entry.id.host && e.id != entry.id).cloned().unwrap_or(entry);
        }
        entry
    }

    fn serves_path(&self, served: bool) -> bool {
        served || self.is(mutant::PASSES_UNKNOWN_PATHS)
    }

    fn model(&self, extraction: &Extraction, request: &RequestHead<'_>, mut model: Option<String>) -> Option<String> {
        if model.as_ref().is_none_or(String::is_empty) && self.is(mutant::DEFAULTS_TO_FIRST_MODEL) {
            let mut models = extraction.models.iter().filter(|(host, ..)| host.covers(request.host));
            model = models.next().map(|(_, model, ..)| model.clone());
        }
        let named = request.headers.contains_key(extraction.header);
        model.filter(|_| {
            !(self.is(mutant::DROPS_MODEL_HEADER_REWRITE) || named && self.is(mutant::TRUSTS_CLIENT_MODEL_HEADER))
        })
    }

    fn local_reply(&self, failure: &Failure, mut reply: LocalReply) -> LocalReply {
        let refusal = matches!(failure, Failure::OverWindow(_) | Failure::OverBucket(_));
        let unmarked = || matches!(failure, Failure::OverBucket(_)) && self.is(mutant::LEAVES_ANSWERS_UNMARKED);
        if refusal
            && (self.is(mutant::REFUSES_WITHOUT_HEADERS)
                || self.is(unfaithful::LEAVES_MARKS_OUT)
                || unmarked() && self.is_one_in(2))
        {
            reply.headers.retain(|(name, _)| !name.starts_with("x-ratelimit-"));
        }
        if refusal && self.is(mutant::REFUSES_WITH_200) {
            reply.status = 200;
        }
        if let Failure::MalformedJson { words, .. } | Failure::UnreadableRequest(words) = failure {
            if self.is(mutant::MALFORMED_AS_500) {
                reply.status = 500;
            } else if self.is_mended() {
                let said = json!({"error": {"message": words, "type": "invalid_request_error"}});
                reply = LocalReply::typed(400, "application/json", said.to_string());
            }
        }
        reply
    }
}
