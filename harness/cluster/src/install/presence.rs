//! Which components a cluster has already, detected by the object that shows each, with version and stand-in.

use serde_json::Value;

use super::{
    component::{Detection, VersionFrom},
    profile::Selection,
};
use crate::{
    api::{ApiFailure, Cluster, items},
    programs::engine::full_name,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    pub version: Option<String>,
    /// What stands in for it: the image that runs in its place.
    pub stand_in: Option<String>,
}

/// Looks for the components of a selection by name, `None` for those that are not there.
pub async fn detect(cluster: &Cluster, selection: &Selection) -> Result<Vec<(String, Option<Presence>)>, ApiFailure> {
    let mut detected = Vec::new();
    for (name, selected) in &selection.components {
        let detection = &selected.component.present;
        let object = cluster.get(&detection.object).await?;
        detected.push((name.clone(), object.map(|object| read(detection, &object))));
    }
    Ok(detected)
}

fn read(detection: &Detection, object: &Value) -> Presence {
    match &detection.version {
        None => Presence::default(),
        Some(VersionFrom::Annotation(key)) => {
            let version = object["metadata"]["annotations"][key].as_str().map(str::to_owned);
            Presence { version, stand_in: None }
        }
        Some(VersionFrom::Image(name)) => {
            let containers = items(object, "/spec/template/spec/containers");
            let containers = containers.chain(items(object, "/spec/template/spec/initContainers"));
            let images: Vec<&str> = containers.filter_map(|container| container["image"].as_str()).collect();
            match images.iter().find_map(|image| tag_of(image, name)) {
                Some(tag) => Presence { version: Some(tag), stand_in: None },
                None => Presence { version: None, stand_in: images.first().map(|image| (*image).to_owned()) },
            }
        }
    }
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

    fn seen(version: impl Into<Option<VersionFrom>>, object: Value) -> Presence {
        let version = version.into();
        read(&Detection { object: ObjectRef::new("apps/v1", "Deployment", "n", "d"), version }, &object)
    }

    fn deployment(images: &[&str]) -> Value {
        let containers: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    fn found(version: Option<&str>, stand_in: Option<&str>) -> Presence {
        Presence { version: version.map(str::to_owned), stand_in: stand_in.map(str::to_owned) }
    }

    #[rstest]
    #[case::plain(&["quay.io/jetstack/cert-manager-controller:v1.20.2"], found(Some("v1.20.2"), None))]
    #[case::mirrored(&["registry.corp:5000/x/cert-manager-controller:v1.20.2"], found(Some("v1.20.2"), None))]
    #[case::with_digest(&["quay.io/jetstack/cert-manager-controller:v1.20.2@sha256:00"], found(Some("v1.20.2"), None))]
    #[case::second_container(&["quay.io/a/proxy:1", "quay.io/jetstack/cert-manager-controller:v1"], found(Some("v1"), None))]
    #[case::stand_in(&["example/certs:1"], found(None, Some("example/certs:1")))]
    #[case::longer_name(&["quay.io/jetstack/cert-manager-controller-arm:v1"], found(None, Some("quay.io/jetstack/cert-manager-controller-arm:v1")))]
    #[case::nothing(&[], found(None, None))]
    fn by_image(#[case] images: &[&str], #[case] expected: Presence) {
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
