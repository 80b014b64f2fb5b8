//! What agentgateway answers itself: always `text/plain` (docs/facts/agentgateway.md A9, recordings 03, 24, 26, 60).

use crate::dataplane::local_reply::{Failure, LocalReply};

pub(super) fn local_reply(failure: &Failure) -> LocalReply {
    match failure {
        Failure::NoListener => LocalReply::text(404, "listener not found"),
        Failure::NoHost | Failure::NoRoute => LocalReply::text(404, "route not found"),
        Failure::NoBackends => LocalReply::text(500, "no valid backends"),
        Failure::BrokenBackend => LocalReply::text(500, "backend does not exist"),
        Failure::NoService => LocalReply::text(500, "service not found"),
        Failure::NoEndpoint | Failure::ForeignDestination => LocalReply::text(503, "no healthy backends"),
        Failure::UnknownHost(_) => LocalReply::text(503, "backends required DNS resolution which failed"),
        Failure::Upstream { connecting: true, words } => {
            LocalReply::text(503, format!("upstream call failed: Connect: {words}"))
        }
        Failure::Upstream { connecting: false, words } => {
            LocalReply::text(503, format!("upstream call failed: {words}"))
        }
        Failure::PickerUnreachable => LocalReply::text(500, "ext_proc failed: failed to send request"),
        Failure::PickerSilent => LocalReply::text(500, "ext_proc failed: no more response messages"),
        Failure::UnreadableChoice(words) => {
            LocalReply::text(503, format!("processing failed: EPP returned invalid address: {words}"))
        }
        Failure::Timeout => LocalReply::text(504, "request timeout"),
        Failure::BodyTooLarge => LocalReply::text(413, "request was too large"),
        Failure::BodyUnreadable => LocalReply::text(400, "failed to read the request"),
        Failure::UnsupportedPath(path) => LocalReply::text(404, format!("unsupported path: {path}")),
        Failure::MalformedJson { words, .. } => {
            LocalReply::text(503, format!("processing failed: failed to parse request: {words}"))
        }
        Failure::UnreadableRequest(words) | Failure::UnreadableReply(words) => {
            LocalReply::text(503, format!("processing failed: {words}"))
        }
        Failure::OverBucket(denial) => LocalReply::text(429, "rate limit exceeded").with_headers(denial.headers()),
        Failure::OverWindow(_) => LocalReply::empty(429),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::limits::BucketDenial;
    use rstest::rstest;

    #[rstest]
    #[case(Failure::BrokenBackend, 500, "backend does not exist")]
    #[case(Failure::Timeout, 504, "request timeout")]
    fn failures_that_no_recording_has(#[case] failure: Failure, #[case] status: u16, #[case] body: &str) {
        assert_eq!(local_reply(&failure), LocalReply::text(status, body));
    }

    #[test]
    fn a_denial_carries_the_bucket() {
        let reply = local_reply(&Failure::OverBucket(BucketDenial { limit: 70, remaining: 0, reset: 55 }));
        assert_eq!((reply.status, &reply.body[..]), (429, &b"rate limit exceeded"[..]));
        let headers: Vec<_> = reply.headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
        assert_eq!(
            headers,
            ["x-ratelimit-limit: 70", "x-ratelimit-remaining: 0", "x-ratelimit-reset: 55", "content-type: text/plain"]
        );
    }
}
