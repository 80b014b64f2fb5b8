//! What can go wrong when the API server is asked, and whose fault it is.

use http::StatusCode;
use serde_json::Value;

use super::object::{ObjectRef, items, text};

#[derive(Debug, thiserror::Error)]
#[error("{doing}: {kind}")]
pub struct ApiFailure {
    /// What was being done, as it fits after "failed to": `apply HTTPRoute shop/route`.
    pub doing: String,
    pub kind: FailureKind,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FailureKind {
    #[error("the API server answered {code}{}: {message}", spaced(reason))]
    Refused {
        code: u16,
        /// `reason` of the Status object; empty when there was none.
        reason: String,
        /// `message` of the Status object, or the beginning of the body.
        message: String,
    },
    #[error("{} already manages {}; igc does not force: change the manifest, or have the other manager give the field up", managers.join(" and "), fields.join(", "))]
    Conflict {
        /// The other managers, in quotes where the API server quotes them.
        managers: Vec<String>,
        fields: Vec<String>,
        message: String,
    },
    #[error(
        "the cluster has no kind {kind} in {api_version}{}; is its CustomResourceDefinition installed?",
        near(others)
    )]
    UnknownKind {
        api_version: String,
        kind: String,
        /// Kinds that this `apiVersion` does have.
        others: Vec<String>,
    },
    #[error(
        "{0} exists and was not made by igc (no label app.kubernetes.io/managed-by=igc); delete it, or use another name"
    )]
    NotOurs(ObjectRef),
    #[error("no answer from the API server: nobody listens at {0}")]
    NobodyListens(String),
    #[error("no answer from the API server: {0}")]
    Unanswered(String),
    #[error("an answer that is not understood: {0}")]
    Malformed(String),
    /// What was to be asked for makes no sense, and was not sent.
    #[error("it cannot be asked for: {0}")]
    Manifest(String),
}

fn spaced(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" {reason}") }
}

fn near(others: &[String]) -> String {
    if others.is_empty() { String::new() } else { format!(" (it has {})", others.join(", ")) }
}

impl ApiFailure {
    pub(crate) fn new(doing: impl Into<String>, kind: FailureKind) -> Self {
        Self { doing: doing.into(), kind }
    }

    /// Whether the cluster or the network is at fault, and not what was asked of them: a check that meets this is an
    /// `error`, never a `fail`.
    pub fn is_environment(&self) -> bool {
        match &self.kind {
            FailureKind::NobodyListens(_) | FailureKind::Unanswered(_) | FailureKind::Malformed(_) => true,
            FailureKind::UnknownKind { .. } | FailureKind::NotOurs(_) => true,
            FailureKind::Refused { code, message, .. } => match code {
                401 | 429 => true,
                403 => !is_denial(message),
                500.. => !is_denial(message),
                _ => false,
            },
            FailureKind::Conflict { .. } | FailureKind::Manifest(_) => false,
        }
    }

    /// Whether this user may not do it: nothing was looked at but who asks for what.
    pub fn lacks_rights(&self) -> bool {
        matches!(&self.kind, FailureKind::Refused { code: 403, message, .. } if message.contains(" is forbidden: User "))
    }

    /// Whether asking again may help: no answer, too many requests, a server that is starting, a webhook that is not up.
    pub fn is_transient(&self) -> bool {
        match &self.kind {
            FailureKind::NobodyListens(_) | FailureKind::Unanswered(_) | FailureKind::Malformed(_) => true,
            FailureKind::UnknownKind { .. } => true,
            FailureKind::Refused { code, message, .. } => matches!(code, 410 | 429 | 500..) && !is_denial(message),
            _ => false,
        }
    }

    pub fn code(&self) -> Option<u16> {
        match &self.kind {
            FailureKind::Refused { code, .. } => Some(*code),
            FailureKind::Conflict { .. } => Some(409),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }
}

/// The manifest was refused on purpose, whatever the code: webhooks and policies choose their own, and server-side apply
/// says 500 without a reason to a field that the schema does not have (seen on v1.34.10).
pub(crate) fn is_denial(message: &str) -> bool {
    ["denied the request", "denied request", "failed to create typed patch object"]
        .iter()
        .any(|words| message.contains(words))
}

impl FailureKind {
    pub(crate) fn of_answer(status: StatusCode, body: &[u8]) -> Self {
        let parsed: Option<Value> = serde_json::from_slice(body).ok();
        match parsed.filter(|parsed| text(parsed, "/kind") == "Status") {
            Some(object) => Self::of_status(status.as_u16(), &object),
            None => {
                let text = String::from_utf8_lossy(body);
                let message =
                    if text.trim().is_empty() { "no body".to_owned() } else { text.trim().chars().take(500).collect() };
                Self::Refused { code: status.as_u16(), reason: String::new(), message }
            }
        }
    }

    /// Reads a Status object; the code is the answer's where the object has none.
    pub(crate) fn of_status(code: u16, object: &Value) -> Self {
        let code =
            object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(code);
        let message = text(object, "/message").to_owned();
        let conflicts: Vec<&Value> =
            items(object, "/details/causes").filter(|cause| text(cause, "/reason") == "FieldManagerConflict").collect();
        if code == 409 && !conflicts.is_empty() {
            let mut managers: Vec<String> = conflicts.iter().map(|cause| manager_in(text(cause, "/message"))).collect();
            managers.sort();
            managers.dedup();
            let fields = conflicts.iter().map(|cause| text(cause, "/field").to_owned()).collect();
            return Self::Conflict { managers, fields, message };
        }
        Self::Refused { code, reason: text(object, "/reason").to_owned(), message }
    }
}

/// The manager in `conflict with "kubectl-client-side-apply" using apps/v1`.
fn manager_in(message: &str) -> String {
    let rest = message.strip_prefix("conflict with ").unwrap_or(message);
    rest.split(" using ").next().unwrap_or(rest).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn refused(code: u16, message: &str) -> ApiFailure {
        let kind = FailureKind::Refused { code, reason: String::new(), message: message.into() };
        ApiFailure::new("apply Pod a/b", kind)
    }

    #[rstest]
    #[case(400, "strict decoding error: unknown field \"spec.x\"", false)]
    #[case(401, "Unauthorized", true)]
    #[case(403, "pods is forbidden: User \"u\" cannot create resource", true)]
    #[case(403, "admission webhook \"w\" denied the request: no", false)]
    #[case(403, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", false)]
    #[case(404, "pods \"a\" not found", false)]
    #[case(422, "Pod \"a\" is invalid", false)]
    #[case(429, "too many requests", true)]
    #[case(500, "admission webhook \"w\" denied the request: chosen code", false)]
    #[case(500, "Internal error occurred: failed calling webhook \"w\": connection refused", true)]
    #[case(
        500,
        "failed to create typed patch object (a/b; light.dev/v1, Kind=Lamp): .spec.x: field not declared in schema",
        false
    )]
    #[case(503, "apiserver not ready", true)]
    fn tells_the_environment_from_the_asker(#[case] code: u16, #[case] message: &str, #[case] environment: bool) {
        assert_eq!(refused(code, message).is_environment(), environment);
    }

    #[rstest]
    #[case(
        403,
        "issuers.cert-manager.io is forbidden: User \"u\" cannot create resource \"issuers\" in API group",
        true
    )]
    #[case(403, "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"", false)]
    #[case(403, "admission webhook \"w\" denied the request: no", false)]
    #[case(401, "x is forbidden: User \"u\" cannot get resource", false)]
    fn tells_who_may_not_from_what_may_not_be(#[case] code: u16, #[case] message: &str, #[case] lacks: bool) {
        assert_eq!(refused(code, message).lacks_rights(), lacks);
    }

    #[rstest]
    #[case(b"", "no body")]
    #[case(b"upstream connect error", "upstream connect error")]
    #[case(b"{\"kind\":\"Pod\"}", "{\"kind\":\"Pod\"}")]
    fn an_answer_without_a_status_object_is_quoted(#[case] body: &[u8], #[case] said: &str) {
        let FailureKind::Refused { code, message, .. } = FailureKind::of_answer(StatusCode::BAD_GATEWAY, body) else {
            panic!("refused");
        };
        assert_eq!((code, message.as_str()), (502, said));
    }
}
