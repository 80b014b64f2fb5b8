//! Failures: what the API answers when it refuses, in the shape of a Kubernetes Status.

use serde_json::{Value, json};

use crate::{hooks::Denial, kind::Kind, resource::Resource};

pub type Result<T, E = Failure> = std::result::Result<T, E>;

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub reason: &'static str,
    /// The message without the field.
    pub message: String,
    /// `spec.rules[0].matches`; `<nil>` where it is the object itself.
    pub field: String,
}

impl Cause {
    pub(crate) fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: field.into() }
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The HTTP status code.
    pub code: u16,
    /// The API's reason, `NotFound`; empty where the API has none.
    pub(crate) reason: &'static str,
    pub message: String,
    pub(crate) details: Option<Box<Details>>,
}

/// What a refusal is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    pub name: String,
    pub group: String,
    /// The resource, or for invalid objects the kind.
    pub kind: String,
    pub causes: Vec<Cause>,
}

impl Failure {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    pub(crate) fn with(self, details: Details) -> Self {
        Self { details: Some(Box::new(details)), ..self }
    }

    fn about(self, resource: &Resource, name: &str) -> Self {
        let (kind, group) = (resource.plural.clone(), resource.kind.group.to_string());
        self.with(Details { name: name.to_owned(), group, kind, causes: Vec::new() })
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// 404 for a path that the server does not serve.
    pub(crate) fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists")).about(resource, name)
    }

    /// 409 for an object that has changed or that is going.
    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let said = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", said).about(resource, name)
    }

    /// 409 for a resource version that is not the newest.
    pub(crate) fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{resource} {name:?} is forbidden: {why}")).about(resource, name)
    }

    pub(crate) fn denied(Denial { webhook, message }: &Denial) -> Self {
        Self::new(403, "Forbidden", format!("admission webhook {webhook:?} denied the request: {message}"))
    }

    /// 410 for a resource version that the history no longer holds.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
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

    /// 415 with what would be read.
    pub(crate) fn unsupported_media(why: &str, accepted: &str) -> Self {
        let said = format!("{why} - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", said)
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, causes: Vec<Cause>) -> Self {
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
        let (name_of_kind, group) = (kind.kind.to_string(), kind.group.to_string());
        Self::new(422, "Invalid", format!("{kind} {name:?} is invalid: {said}")).with(Details {
            name: name.to_owned(),
            group,
            kind: name_of_kind,
            causes,
        })
    }

    pub(crate) fn invalid_option(options: &'static str, cause: Cause) -> Self {
        Self::invalid(&Kind::of("meta.k8s.io", options), "", vec![cause])
    }

    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    pub(crate) fn status(&self) -> Value {
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
            status["details"] = json!({});
            for (key, text) in [("name", &details.name), ("group", &details.group), ("kind", &details.kind)] {
                if !text.is_empty() {
                    status["details"][key] = json!(text);
                }
            }
            let cause = |c: &Cause| json!({"reason": c.reason, "message": c.message, "field": c.field});
            if !details.causes.is_empty() {
                status["details"]["causes"] = details.causes.iter().map(cause).collect();
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_is_said_plainly_and_many_in_brackets() {
        let cause = |field: &str| Cause::new(reason::REQUIRED, field, "Required value");
        let one = Failure::invalid(&Kind::new("g.io", "Gateway"), "a", vec![cause("spec.x")]);
        assert_eq!(one.message, "Gateway.g.io \"a\" is invalid: spec.x: Required value");
        let two = Failure::invalid(&Kind::new("", "Pod"), "a", vec![cause("x"), cause("y"), cause("y")]);
        assert_eq!(two.message, "Pod \"a\" is invalid: [x: Required value, y: Required value]");
        assert_eq!(two.status()["details"]["causes"][1]["field"], "y");
    }

    #[test]
    fn resources_of_a_group_are_dotted() {
        let resource = |group: &str, plural: &str| {
            let definition = json!({"spec": {"group": group, "names": {"kind": "K", "plural": plural},
                "versions": [{"name": "v1", "storage": true}]}});
            Resource::read(&definition, false).unwrap()
        };
        let gateways = resource("gateway.networking.k8s.io", "gateways");
        assert_eq!(Failure::not_found(&gateways, "x").message, "gateways.gateway.networking.k8s.io \"x\" not found");
        assert_eq!(Failure::not_found(&resource("", "pods"), "x").status()["code"], json!(404));
    }
}
