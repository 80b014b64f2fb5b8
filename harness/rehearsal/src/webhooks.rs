//! Webhooks: what the components of the installation refuse beside the schema, in their words.

use apiserver::{Denial, Kind};
use serde_json::Value;

use crate::{dialects::object::name, kinds};

pub(crate) fn validate(kind: &Kind, object: &Value) -> Result<(), Denial> {
    if *kind != kinds::INFERENCE_SERVICE || is_inference_service_name(name(object)) {
        return Ok(());
    }
    let message = format!(
        "the InferenceService {:?} is invalid: a InferenceService name must consist of lower case alphanumeric characters \
         or '-', and must start with alphabetical character. (e.g. \"my-name\" or \"abc-123\", regex used for validation is \
         '[a-z]([-a-z0-9]*[a-z0-9])?')",
        name(object)
    );
    Err(Denial { webhook: "inferenceservice.kserve-webhook-server.validator", message })
}

/// KServe's own rule, which is narrower than that of Kubernetes (KServe v0.17 inference_service_validation.go).
fn is_inference_service_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(plain)
        && name.chars().all(|c| plain(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("mock-llm", true)]
    #[case("a", true)]
    #[case("0-mock", false)]
    #[case("mock.llm", false)]
    #[case("mock-", false)]
    fn names_of_inference_services(#[case] name: &str, #[case] good: bool) {
        let judged = validate(&kinds::INFERENCE_SERVICE, &json!({"metadata": {"name": name}}));
        assert_eq!(judged.is_ok(), good);
        assert!(validate(&kinds::SERVICE, &json!({"metadata": {"name": name}})).is_ok(), "nobody else's business");
    }
}
