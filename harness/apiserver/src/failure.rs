//! Failures: what the API answers when it refuses, in the shape of a Kubernetes Status.

use serde_json::{Value, json};

use super::hooks::Denial;

pub(crate) mod reason {
    pub const INVALID: &str = "FieldValueInvalid";
    pub const TYPE: &str = "FieldValueTypeInvalid";
    pub const REQUIRED: &str = "FieldValueRequired";
    pub const UNSUPPORTED: &str = "FieldValueNotSupported";
    pub const TOO_LONG: &str = "FieldValueTooLong";
    pub const TOO_MANY: &str = "FieldValueTooMany";
    pub const DUPLICATE: &str = "FieldValueDuplicate";
    pub const FORBIDDEN: &str = "FieldValueForbidden";
}

/// One cause of an invalid object or of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub reason: &'static str,
    /// The message without the field.
    pub message: String,
    pub field: String,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: u16,
    /// The API's reason, `NotFound`; empty where the API has none.
    pub reason: &'static str,
    pub message: String,
    /// What `details` of the Status holds.
    pub details: Option<Box<Details>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// The resource, or for invalid objects the kind.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
}

/// `plural.group`, or `plural` for the core group, as messages name a resource.
pub(crate) fn dotted(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl Failure {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, plural: &str, group: &str, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: plural.to_owned(),
            ..Details::default()
        }));
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404 for an object.
    pub fn not_found(plural: &str, group: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", dotted(plural, group))).about(plural, group, name)
    }

    /// 404 for a path that the server does not serve.
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 409 for a name that is taken.
    pub fn already_exists(plural: &str, group: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", dotted(plural, group)))
            .about(plural, group, name)
    }

    /// 409 for an object that has changed or that is going.
    pub fn conflict(plural: &str, group: &str, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", dotted(plural, group)),
        )
        .about(plural, group, name)
    }

    /// 409 for a resource version that is not the newest.
    pub(crate) fn modified(plural: &str, group: &str, name: &str) -> Self {
        Self::conflict(
            plural,
            group,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn forbidden(plural: &str, group: &str, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{} {name:?} is forbidden: {why}", dotted(plural, group)))
            .about(plural, group, name)
    }

    /// 403 in the words of a webhook.
    pub(crate) fn denied(Denial { webhook, message }: &Denial) -> Self {
        Self::new(403, "Forbidden", format!("admission webhook {webhook:?} denied the request: {message}"))
    }

    /// 410 for a resource version that the history no longer holds.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 410 for the rest of a list that began too long ago.
    pub(crate) fn expired_list() -> Self {
        let said = "The provided continue parameter is too old to display a consistent list result. You must start a new list \
                    without the continue parameter.";
        Self::new(410, "Expired", said)
    }

    /// 413 for an object that the store behind an API server does not take.
    pub(crate) fn too_large() -> Self {
        Self::new(413, "RequestEntityTooLarge", "etcdserver: request is too large")
    }

    /// 422 with one cause for each wrong field.
    pub fn invalid(kind: &str, group: &str, name: &str, causes: Vec<Cause>) -> Self {
        let mut lines: Vec<String> = Vec::new();
        for cause in &causes {
            let line = format!("{}: {}", cause.field, cause.message);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let said = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut failure = Self::new(422, "Invalid", format!("{} {name:?} is invalid: {said}", dotted(kind, group)))
            .about(kind, group, name);
        if let Some(details) = &mut failure.details {
            details.causes = causes;
        }
        failure
    }

    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    pub fn is_conflict(&self) -> bool {
        self.code == 409
    }

    /// The Status object that goes over the wire.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            let mut shown = serde_json::Map::new();
            for (key, text) in
                [("name", &details.name), ("group", &details.group), ("kind", &details.kind), ("uid", &details.uid)]
            {
                if !text.is_empty() {
                    shown.insert(key.to_owned(), json!(text));
                }
            }
            if !details.causes.is_empty() {
                let causes: Vec<Value> = details
                    .causes
                    .iter()
                    .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
                    .collect();
                shown.insert("causes".to_owned(), Value::Array(causes));
            }
            status["details"] = Value::Object(shown);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_is_said_plainly_and_many_in_brackets() {
        let cause =
            |field: &str| Cause { reason: "FieldValueRequired", message: "Required value".into(), field: field.into() };
        let one = Failure::invalid("Gateway", "g.io", "a", vec![cause("spec.x")]);
        assert_eq!(one.message, "Gateway.g.io \"a\" is invalid: spec.x: Required value");
        let two = Failure::invalid("Pod", "", "a", vec![cause("x"), cause("y"), cause("y")]);
        assert_eq!(two.message, "Pod \"a\" is invalid: [x: Required value, y: Required value]");
        assert_eq!(two.status()["details"]["causes"][1]["field"], "y");
    }

    #[test]
    fn resources_of_a_group_are_dotted() {
        assert_eq!(
            Failure::not_found("gateways", "gateway.networking.k8s.io", "x").message,
            "gateways.gateway.networking.k8s.io \"x\" not found"
        );
        assert_eq!(Failure::not_found("pods", "", "x").status()["code"], json!(404));
    }
}
