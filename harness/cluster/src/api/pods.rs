//! Pods: what they answer through the API server, which are ready, what they wrote, and commands in them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, uri::PathAndQuery};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    ApiFailure, Bounds, Cluster, FailureKind,
    clock::Deadline,
    object::name_of,
    request::{encode, request, unanswered},
};

#[derive(Clone, Debug, PartialEq)]
pub struct PodAnswer {
    pub status: StatusCode,
    /// Its headers, less those of the way.
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// Of the container that runs, or ran last.
    Current,
    /// Of the one before, after a restart.
    Previous,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Exit code; `None` when the API server did not say one.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// The most that is kept of a command's output.
const OUTPUT: u64 = 1024 * 1024;

/// The path of a pod's port in the API server's proxy.
fn proxied(doing: &str, namespace: &str, pod: &str, port: u16, path_and_query: &str) -> Result<String, ApiFailure> {
    let target: PathAndQuery = path_and_query
        .parse()
        .ok()
        .filter(|_| path_and_query.starts_with('/'))
        .ok_or_else(|| ApiFailure::new(doing, FailureKind::Manifest("the path is none".to_owned())))?;
    Ok(format!("/api/v1/namespaces/{}/pods/{}:{port}/proxy{target}", encode(namespace), encode(pod)))
}

impl Cluster {
    /// GET of a pod's port through the API server's proxy, within the bounds of every request (30 s, 64 MiB).
    pub async fn pod_get(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path_and_query: &str,
    ) -> Result<PodAnswer, ApiFailure> {
        self.pod_get_within(namespace, pod, port, path_and_query, self.bounds).await
    }

    /// The same, bounded as `bounds` says.
    /// An answer of the pod, whatever its status, is no error.
    pub async fn pod_get_within(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path_and_query: &str,
        bounds: Bounds,
    ) -> Result<PodAnswer, ApiFailure> {
        let doing = format!("read {path_and_query} from pod {namespace}/{pod}, port {port}");
        let path = proxied(&doing, namespace, pod, port, path_and_query)?;
        self.pod_answer(doing, request("GET", &path, None), bounds).await
    }

    /// POST without a body to a pod's port through the API server's proxy, within the bounds of every request.
    pub async fn pod_post(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path_and_query: &str,
    ) -> Result<PodAnswer, ApiFailure> {
        let doing = format!("post {path_and_query} to pod {namespace}/{pod}, port {port}");
        let path = proxied(&doing, namespace, pod, port, path_and_query)?;
        self.pod_answer(doing, request("POST", &path, None), self.bounds).await
    }

    async fn pod_answer(
        &self,
        doing: String,
        request: Request<Vec<u8>>,
        bounds: Bounds,
    ) -> Result<PodAnswer, ApiFailure> {
        let answer = self.ask_within(&doing, request, bounds).await?;
        // The API server speaks for a pod that it does not find or cannot reach, and does so in Status objects.
        let spoken = serde_json::from_slice::<Value>(&answer.body)
            .ok()
            .filter(|body| !answer.status.is_success() && body.get("kind").and_then(Value::as_str) == Some("Status"));
        match spoken {
            Some(status) => Err(ApiFailure::new(doing, FailureKind::of_status(answer.status.as_u16(), &status))),
            None => Ok(PodAnswer { status: answer.status, headers: answer.headers, body: answer.body }),
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

    /// Runs a command in a container and waits for its end, without input. Output is kept up to 1 MiB each.
    /// A command that does not end in time may go on running; an exit code other than 0 is no error.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        argv: &[&str],
        within: Duration,
    ) -> Result<Exec, ApiFailure> {
        let doing = format!("run {argv:?} in container {container} of pod {namespace}/{pod}");
        let failed = |kind| ApiFailure::new(doing.clone(), kind);
        let run = async {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let params = AttachParams { container: Some(container.to_owned()), ..AttachParams::default() };
            let mut process = pods.exec(pod, argv.iter().copied(), &params).await.map_err(|error| match error {
                kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(status)) => {
                    FailureKind::of_answer(status, b"")
                }
                other => unanswered(&other),
            })?;
            let (stdout, stderr) = (process.stdout(), process.stderr());
            let status = process.take_status();
            let status = async { if let Some(status) = status { status.await } else { None } };
            let (stdout, stderr, status) = tokio::join!(kept(stdout), kept(stderr), status);
            let code = status.and_then(|status| match status.status.as_deref() {
                Some("Success") => Some(0),
                _ => {
                    let causes = status.details?.causes?;
                    causes.into_iter().find(|c| c.reason.as_deref() == Some("ExitCode"))?.message?.parse().ok()
                }
            });
            Ok(Exec { code, stdout, stderr })
        };
        match Deadline::within(within).bound(run).await {
            Some(done) => done.map_err(failed),
            None => Err(failed(FailureKind::Unanswered(format!("not ended within {:.1} s", within.as_secs_f64())))),
        }
    }
}

/// Reads to the end, keeps the beginning: a writer that is not read would never end.
async fn kept(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        // What breaks off is kept as far as it came; the exit code tells the rest.
        if (&mut stream).take(OUTPUT).read_to_end(&mut kept).await.is_ok() {
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    }
    kept
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().any(|condition| {
        condition.get("type").and_then(Value::as_str) == Some("Ready")
            && condition.get("status").and_then(Value::as_str) == Some("True")
    });
    let leaving = pod.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    ready && !leaving
}
