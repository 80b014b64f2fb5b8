//! Pods: what they answer through the API server, which are ready, what they wrote, and commands in them.

use http::uri::PathAndQuery;
use serde_json::Value;

use super::{
    ApiFailure, Cluster, FailureKind,
    object::{items, name_of},
    request::{ApiResponse, encode, request},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    Current,
    /// Of the one before, after a restart.
    Previous,
}

fn proxied(namespace: &str, pod: &str, port: u16) -> String {
    format!("/api/v1/namespaces/{}/pods/{}:{port}/proxy", encode(namespace), encode(pod))
}

impl Cluster {
    /// GET of a pod's port through the API server's proxy. A response of the pod, whatever its status, is no error.
    pub async fn pod_get(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<ApiResponse, ApiFailure> {
        let doing = format!("read {path} from pod {namespace}/{pod}, port {port}");
        self.pod_request(doing, "GET", &proxied(namespace, pod, port), path).await
    }

    /// POST without a body, like [`Self::pod_get`].
    pub async fn pod_post(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<ApiResponse, ApiFailure> {
        let doing = format!("post {path} to pod {namespace}/{pod}, port {port}");
        self.pod_request(doing, "POST", &proxied(namespace, pod, port), path).await
    }

    async fn pod_request(
        &self,
        doing: String,
        method: &str,
        proxy: &str,
        path: &str,
    ) -> Result<ApiResponse, ApiFailure> {
        if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
            return Err(ApiFailure::new(doing, FailureKind::Manifest("the path is none".to_owned())));
        }
        let response = self.ask(&doing, request(method, &format!("{proxy}{path}"), None)).await?;
        // The API server speaks for a pod that it does not find or cannot reach, and does so in Status objects.
        let spoken = serde_json::from_slice::<Value>(&response.body)
            .ok()
            .filter(|body| !response.status.is_success() && body["kind"] == "Status");
        match spoken {
            Some(status) => Err(ApiFailure::new(doing, FailureKind::of_status(response.status.as_u16(), &status))),
            None => Ok(response),
        }
    }

    /// The names of the pods with these labels that are ready and not on their way out, sorted.
    pub async fn ready_pods(&self, namespace: &str, selector: &str) -> Result<Vec<String>, ApiFailure> {
        let pods = self.list("v1", "Pod", Some(namespace), selector).await?;
        let mut names: Vec<String> =
            pods.iter().filter(|pod| is_ready(pod)).map(|pod| name_of(pod).to_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// The last lines that a container wrote, and at most so many bytes of them.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        which: Logs,
        lines: usize,
        bytes: usize,
    ) -> Result<String, ApiFailure> {
        let doing = format!("read logs of container {container} in pod {namespace}/{pod}");
        let previous = which == Logs::Previous;
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/log?container={}&tailLines={lines}&limitBytes={bytes}&previous={previous}",
            encode(namespace),
            encode(pod),
            encode(container)
        );
        let answer = self.ask(&doing, request("GET", &path, None)).await?;
        if !answer.status.is_success() {
            return Err(ApiFailure::new(doing, FailureKind::of_answer(answer.status, &answer.body)));
        }
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    let ready =
        items(pod, "/status/conditions").any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    ready && pod["metadata"]["deletionTimestamp"].is_null()
}
