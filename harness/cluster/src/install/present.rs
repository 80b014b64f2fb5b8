//! What is there already: components of a cluster, seen by the object that shows them, with version and stand-in.

use serde_json::Value;

use super::{
    component::{Present, VersionFrom},
    profile::Selection,
};
use crate::{
    api::{ApiFailure, Cluster},
    programs::engine::full_name,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its version, where the object tells it.
    pub version: Option<String>,
    /// What stands in for it: the image that runs in its place.
    pub stand_in: Option<String>,
}

/// Looks for the components of a selection: name -> what was found, `None` for those that are not there.
pub async fn look(cluster: &Cluster, selection: &Selection) -> Result<Vec<(String, Option<Found>)>, ApiFailure> {
    let mut seen = Vec::new();
    for (name, selected) in &selection.components {
        let present = &selected.component.present;
        let object = cluster.get(&present.object).await?;
        seen.push((name.clone(), object.map(|object| read(present, &object))));
    }
    Ok(seen)
}

fn read(present: &Present, object: &Value) -> Found {
    match &present.version {
        None => Found { version: None, stand_in: None },
        Some(VersionFrom::Annotation(key)) => Found { version: annotation(object, key), stand_in: None },
        Some(VersionFrom::Image(name)) => {
            let containers = |list: &str| {
                object
                    .pointer(&format!("/spec/template/spec/{list}"))
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default()
            };
            let images: Vec<String> = ["containers", "initContainers"]
                .into_iter()
                .flat_map(containers)
                .filter_map(|container| container.get("image").and_then(Value::as_str).map(str::to_owned))
                .collect();
            match images.iter().find_map(|image| tag_of(image, name)) {
                Some(tag) => Found { version: Some(tag), stand_in: None },
                None => Found { version: None, stand_in: images.first().cloned() },
            }
        }
    }
}

fn annotation(object: &Value, key: &str) -> Option<String> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str().map(str::to_owned)
}

/// The tag of an image whose last word is this name.
fn tag_of(image: &str, name: &str) -> Option<String> {
    let full = full_name(image);
    let full = full.split('@').next().unwrap_or_default();
    let last = full.rsplit('/').next().unwrap_or_default();
    let (word, tag) = last.split_once(':').unwrap_or((last, ""));
    (word == name).then(|| tag.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::api::ObjectRef;

    fn seen(version: impl Into<Option<VersionFrom>>, object: Value) -> Found {
        let version = version.into();
        read(&Present { object: ObjectRef::new("apps/v1", "Deployment", "n", "d"), version }, &object)
    }

    fn deployment(images: &[&str]) -> Value {
        let containers: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    fn found(version: Option<&str>, stand_in: Option<&str>) -> Found {
        Found { version: version.map(str::to_owned), stand_in: stand_in.map(str::to_owned) }
    }

    #[rstest]
    #[case::plain(&["quay.io/jetstack/cert-manager-controller:v1.20.2"], found(Some("v1.20.2"), None))]
    #[case::mirrored(&["registry.corp:5000/x/cert-manager-controller:v1.20.2"], found(Some("v1.20.2"), None))]
    #[case::with_digest(&["quay.io/jetstack/cert-manager-controller:v1.20.2@sha256:00"], found(Some("v1.20.2"), None))]
    #[case::second_container(&["quay.io/a/proxy:1", "quay.io/jetstack/cert-manager-controller:v1"], found(Some("v1"), None))]
    #[case::stand_in(&["example/certs:1"], found(None, Some("example/certs:1")))]
    #[case::longer_name(&["quay.io/jetstack/cert-manager-controller-arm:v1"], found(None, Some("quay.io/jetstack/cert-manager-controller-arm:v1")))]
    #[case::nothing(&[], found(None, None))]
    fn by_image(#[case] images: &[&str], #[case] expected: Found) {
        assert_eq!(seen(VersionFrom::Image("cert-manager-controller".into()), deployment(images)), expected);
    }

    #[test]
    fn by_annotation() {
        let object = json!({"metadata": {"annotations": {"gateway.networking.k8s.io/bundle-version": "v1.5.1"}}});
        let key = || VersionFrom::Annotation("gateway.networking.k8s.io/bundle-version".into());
        assert_eq!(seen(key(), object), found(Some("v1.5.1"), None));
        assert_eq!(seen(key(), json!({})), found(None, None));
        assert_eq!(seen(None, deployment(&["quay.io/a/b:v1"])), found(None, None), "nothing tells it");
    }
}
