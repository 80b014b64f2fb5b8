//! What the API server says to a manifest: asked over HTTP as kubectl asks, compared in any of the ways it is printed.

use std::sync::Arc;

use apiserver::{Kind, Store};
use serde_json::{Map, Value, json};
use verdict::history::Outcome;
use wire::{Call, Client, Tcp};

use super::{
    case::{Admitted, Apply, Refusal},
    compare::Differences,
    rules::Cover,
};
use crate::dialects::object;

pub(super) struct Api<'a> {
    client: Client,
    store: &'a Store,
    applied: Vec<(String, Value)>,
}

#[derive(Clone, Debug)]
pub(super) struct ApiResponse {
    pub code: u16,
    /// The object, or the Status.
    pub body: Value,
    pub warnings: Vec<String>,
}

impl ApiResponse {
    pub(super) fn is_accepted(&self) -> bool {
        (200..300).contains(&self.code)
    }

    fn broken(why: String) -> Self {
        Self { code: 0, body: json!({"message": why}), warnings: vec![] }
    }

    /// The causes of an invalid object, as kubectl lists them.
    fn causes(&self) -> Vec<String> {
        object::list(&self.body, "/details/causes")
            .map(|cause| format!("{}: {}", object::text(cause, "/field"), object::text(cause, "/message")))
            .collect()
    }

    /// As kubectl prints it.
    pub(super) fn text(&self) -> String {
        let message = object::text(&self.body, "/message");
        match (object::text(&self.body, "/reason"), self.causes().as_slice()) {
            ("Invalid", [one]) => format!("{} is invalid: {one}", self.named()),
            ("Invalid", many) if !many.is_empty() => format!("{} is invalid: \n* {}", self.named(), many.join("\n* ")),
            ("", _) => message.to_owned(),
            (reason, _) => format!("Error from server ({reason}): {message}"),
        }
    }

    fn named(&self) -> String {
        format!("The {} {:?}", object::text(&self.body, "/details/kind"), object::text(&self.body, "/details/name"))
    }

    /// Whether it says no in these words: all that kubectl prints, the Status's message, or the causes alone.
    fn says(&self, recorded: &[String]) -> bool {
        let wanted = stripped(&recorded.join("\n"));
        let message = object::text(&self.body, "/message");
        [self.text(), message.to_owned(), self.causes().join("\n")].iter().any(|words| stripped(words) == wanted)
    }
}

/// Words without what kubectl puts around them: who said it, what it was doing, bullets and line ends.
fn stripped(words: &str) -> String {
    let mut rest = words.trim().trim_start_matches("error: ");
    rest = rest.strip_suffix("ensure CRDs are installed first").unwrap_or(rest);
    if let Some((_, after)) = rest.strip_prefix("Error from server (").and_then(|r| r.split_once("): ")) {
        rest = after;
    }
    for opening in [
        "resource mapping not found for name: ",
        "error when creating ",
        "error when applying patch",
        "error when patching ",
    ] {
        if let Some((_, after)) = rest.strip_prefix(opening).and_then(|r| r.split_once("\": ")) {
            rest = after;
        }
    }
    if let Some((_, after)) = rest.strip_prefix("The ").and_then(|r| r.split_once(" is invalid: ")) {
        rest = after;
    }
    let lines: Vec<&str> = rest.lines().map(|l| l.trim().trim_start_matches("* ").trim()).collect();
    lines.into_iter().filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
}

impl<'a> Api<'a> {
    pub(super) fn new(address: &str, store: &'a Store) -> Self {
        let client = Client::keeping_connections(Arc::new(Tcp::to(address)), "fidelity-api");
        Self { client, store, applied: Vec::new() }
    }

    /// Creates the namespaces of manifests that are not there: a recording does not show where they come from.
    pub(super) async fn make_namespaces(&self, manifests: &[Value], default: &str) -> Result<(), String> {
        let named = manifests.iter().map(object::namespace).chain([default]);
        for name in named.filter(|n| !n.is_empty()) {
            if self.store.get(&crate::kinds::NAMESPACE, "", name).is_none() {
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                self.store.create(namespace).map_err(|failure| format!("make namespace {name}: {failure}"))?;
            }
        }
        Ok(())
    }

    /// Gives a manifest to the API server as `kubectl apply` does: creates it, or patches what was applied before.
    pub(super) async fn apply(&mut self, manifest: &Value, namespace: &str, how: &Apply) -> ApiResponse {
        let (group, version) = match object::text(manifest, "/apiVersion").split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", object::text(manifest, "/apiVersion")),
        };
        let kind = Kind::new(group, object::text(manifest, "/kind"));
        let Some((plural, namespaced)) = self.store.served_as(&kind, version) else {
            let written = object::text(manifest, "/apiVersion");
            return ApiResponse::broken(format!("no matches for kind {:?} in version {written:?}", kind.kind));
        };
        let mut manifest = manifest.clone();
        let home = match object::namespace(&manifest) {
            "" if namespaced => namespace.to_owned(),
            written => written.to_owned(),
        };
        if namespaced {
            manifest["metadata"]["namespace"] = json!(home);
        }
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let collection = match (namespaced, home.as_str()) {
            (true, home) => format!("{root}/namespaces/{home}/{plural}"),
            (false, _) => format!("{root}/{plural}"),
        };
        let name = object::name(&manifest).to_owned();
        let dry_run = if how.dry_run { "&dryRun=All" } else { "" };
        let query =
            format!("?fieldManager=kubectl-client-side-apply&fieldValidation={}{dry_run}", how.validation.word());
        let one = format!("{collection}/{name}");
        let answer = if self.store.get(&kind, if namespaced { &home } else { "" }, &name).is_some() {
            let before = self.applied.iter().rev().find(|(path, _)| *path == one).map(|(_, m)| m);
            let patch = merge_patch(before.unwrap_or(&Value::Null), &manifest);
            let media = "application/merge-patch+json";
            self.send(Call::new("PATCH", &format!("{one}{query}")).body(patch.to_string(), media)).await
        } else {
            self.send(Call::post(&format!("{collection}{query}")).json(&manifest)).await
        };
        if answer.is_accepted() && !how.dry_run {
            self.applied.push((one, manifest));
        }
        answer
    }

    pub(super) async fn patch(&self, kind: &Kind, namespace: &str, name: &str, patch: &Value) -> ApiResponse {
        let Some(path) = self.store.path(kind, namespace, name) else {
            return ApiResponse::broken(format!("the server does not serve {kind}"));
        };
        let call = Call::new("PATCH", &format!("{path}?fieldManager=kubectl-patch&fieldValidation=Strict"));
        self.send(call.body(patch.to_string(), "application/merge-patch+json")).await
    }

    async fn send(&self, call: Call) -> ApiResponse {
        match self.client.send("api", call).await.outcome {
            Outcome::Failed { stage, error } => ApiResponse::broken(format!("failed to {stage}: {error}")),
            Outcome::Response(response) => ApiResponse {
                code: response.status,
                body: response.json().unwrap_or_default(),
                warnings: response
                    .headers
                    .iter()
                    .filter(|(name, _)| name.eq_ignore_ascii_case("warning"))
                    .map(|(_, value)| {
                        let text = value.strip_prefix("299 - \"").unwrap_or(value);
                        text.strip_suffix('"').unwrap_or(text).replace("\\\"", "\"")
                    })
                    .collect(),
            },
        }
    }
}

/// What kubectl patches: what is new, and null for what it applied before and does not name any more.
fn merge_patch(before: &Value, now: &Value) -> Value {
    let (Some(now), Some(before)) = (now.as_object(), before.as_object()) else { return now.clone() };
    let gone = before.keys().filter(|k| !now.contains_key(*k)).map(|k| (k.clone(), Value::Null));
    let kept =
        now.iter().map(|(key, value)| (key.clone(), merge_patch(before.get(key).unwrap_or(&Value::Null), value)));
    Value::Object(gone.chain(kept).collect::<Map<_, _>>())
}

/// Compares an answer with what was recorded; without a word about it, it was accepted.
pub(super) fn compare(recorded: Option<&Admitted>, answer: &ApiResponse, found: &mut Differences) {
    let plain = Admitted { accepted: Some(true), ..Admitted::default() };
    let recorded = recorded.unwrap_or(&plain);
    let here = || if answer.is_accepted() { "accepted".to_owned() } else { answer.text() };
    let refused = recorded.refused.is_some() || recorded.accepted == Some(false) || recorded.reason.is_some();
    let accepted =
        recorded.accepted == Some(true) || (!refused && recorded.code.is_none_or(|c| (200..300).contains(&c)));
    if accepted != answer.is_accepted() {
        let words = match &recorded.refused {
            Some(Refusal::Said(words)) => words.join("\n"),
            Some(Refusal::Rule(rule)) => format!("refused: {rule}"),
            None if accepted => "accepted".to_owned(),
            None => "refused".to_owned(),
        };
        found.differ("admission", words, here());
    } else {
        match &recorded.refused {
            Some(Refusal::Said(words)) if !answer.says(words) => found.differ("admission", words.join("\n"), here()),
            Some(Refusal::Rule(rule)) if !rule.is_empty() && !rule.holds(Some(&answer.text())) => {
                found.differ("admission", rule.to_string(), here());
            }
            _ => {}
        }
    }
    if let Some(code) = recorded.code.filter(|code| *code != answer.code) {
        found.differ("admission code", code.to_string(), answer.code.to_string());
    }
    if let Some(reason) = recorded.reason.as_deref().filter(|r| *r != object::text(&answer.body, "/reason")) {
        found.differ("admission reason", reason.to_owned(), object::text(&answer.body, "/reason").to_owned());
    }
    if let Some(object) = recorded.object.as_ref().filter(|_| answer.is_accepted()) {
        found.json("object", object, Some(&answer.body), Cover::Part);
    }
    let bare = |warning: &String| warning.trim().trim_start_matches("Warning: ").to_owned();
    if let Some(warnings) = &recorded.warnings {
        let wanted: Vec<String> = warnings.iter().map(bare).collect();
        if wanted != answer.warnings {
            found.differ("warnings", wanted.join("\n"), answer.warnings.join("\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("The Pod \"t\" is invalid: spec.x: Required value", "spec.x: Required value")]
    #[case("The Pod \"t\" is invalid: \n* a: b\n* <nil>: c", "a: b\n<nil>: c")]
    #[case(
        "Error from server (BadRequest): error when creating \"STDIN\": strict decoding error: x",
        "strict decoding error: x"
    )]
    #[case(
        "error: resource mapping not found for name: \"p\" namespace: \"d\" from \"STDIN\": no matches for kind \"P\"\nensure CRDs are installed first",
        "no matches for kind \"P\""
    )]
    #[case("plain", "plain")]
    fn what_kubectl_puts_around_is_no_difference(#[case] printed: &str, #[case] bare: &str) {
        assert_eq!(stripped(printed), bare);
    }

    #[rstest]
    #[case(json!(null), json!({"a": 1}), json!({"a": 1}))]
    #[case(json!({"a": 1, "b": 2}), json!({"a": 3}), json!({"a": 3, "b": null}))]
    #[case(json!({"s": {"x": 1, "l": [1]}}), json!({"s": {"l": [2]}}), json!({"s": {"x": null, "l": [2]}}))]
    fn what_was_applied_before_is_taken_back(#[case] before: Value, #[case] now: Value, #[case] patch: Value) {
        assert_eq!(merge_patch(&before, &now), patch);
    }
}
