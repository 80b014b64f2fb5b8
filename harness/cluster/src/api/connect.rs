//! From a kubeconfig and a context to a cluster that answered.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use verdict::names::{near, suggestion};

use super::{About, ApiFailure, Bounds, Cluster, clock::Deadline, discovery, failure::FailureKind, request::request};

/// How long an API server may take to say who it is.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("kubeconfig {}: {source}; name another file, or create the cluster first", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("kubeconfig {}: {problem}", path.display())]
    Malformed { path: PathBuf, problem: String },
    #[error("kubeconfig {} has no context {wanted:?}{}; it has {}", path.display(), suggestion(near), quoted(there))]
    NoContext { path: PathBuf, wanted: String, there: Vec<String>, near: Vec<String> },
    #[error("kubeconfig {} has no current context; name one of {}", path.display(), quoted(there))]
    NoCurrentContext { path: PathBuf, there: Vec<String> },
    #[error("this is not a pod with a service account ({0}); name a kubeconfig")]
    NoPod(String),
    #[error("context {context:?}: {server} does not answer as a Kubernetes API server: {problem}")]
    NotAnswering { context: String, server: String, problem: String },
    #[error(
        "context {context:?}: {server} answered {code} to its credentials: {message}; renew them, or name another context"
    )]
    Unauthorized { context: String, server: String, code: u16, message: String },
}

impl ConnectError {
    /// Whether the words of the command are wrong (a file or a context that is not there), and not the environment.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::NotAnswering { .. } | Self::Unauthorized { .. })
    }
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

impl Cluster {
    /// Connects by one kubeconfig file and nothing else, and asks the API server who it is and whether it knows us.
    ///
    /// Without a context the file's current one is taken. The file is only read. Takes at most 10 s.
    pub async fn connect(kubeconfig: &Path, context: Option<&str>) -> Result<Self, ConnectError> {
        super::init();
        let path = kubeconfig.to_owned();
        let malformed = |problem: String| ConnectError::Malformed { path: path.clone(), problem };
        // Read here, so that a missing file is told from a broken one; `kube` reads it again to resolve relative paths.
        std::fs::metadata(kubeconfig)
            .and_then(|_| std::fs::File::open(kubeconfig))
            .map_err(|source| ConnectError::Unreadable { path: path.clone(), source })?;
        let read = Kubeconfig::read_from(kubeconfig).map_err(|error| match error {
            KubeconfigError::ReadConfig(source, _) => ConnectError::Unreadable { path: path.clone(), source },
            other => malformed(other.to_string()),
        })?;
        let there: Vec<String> = read.contexts.iter().map(|context| context.name.clone()).collect();
        let chosen = match context.or(read.current_context.as_deref()).filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => return Err(ConnectError::NoCurrentContext { path, there }),
        };
        if !there.contains(&chosen) {
            let near = near(&chosen, there.iter().map(String::as_str));
            return Err(ConnectError::NoContext { path, wanted: chosen, there, near });
        }

        let deadline = Deadline::within(ANSWER);
        let options = KubeConfigOptions { context: Some(chosen.clone()), ..KubeConfigOptions::default() };
        let own_proxy = read.clusters.iter().any(|c| c.cluster.as_ref().is_some_and(|c| c.proxy_url.is_some()));
        let mut config =
            kube::Config::from_custom_kubeconfig(read, &options).await.map_err(|error| malformed(error.to_string()))?;
        if !own_proxy && config.cluster_url.host().is_some_and(|host| past_proxy(host, &no_proxy())) {
            config.proxy_url = None;
        }
        Self::of(config, chosen, malformed, deadline).await
    }

    pub async fn connect_in_pod() -> Result<Self, ConnectError> {
        super::init();
        let mut config = kube::Config::incluster().map_err(|error| ConnectError::NoPod(error.to_string()))?;
        config.proxy_url = None; // the API server is next door
        Self::of(config, "in-pod".to_owned(), ConnectError::NoPod, Deadline::within(ANSWER)).await
    }

    async fn of(
        mut config: kube::Config,
        chosen: String,
        malformed: impl Fn(String) -> ConnectError,
        deadline: Deadline,
    ) -> Result<Self, ConnectError> {
        config.default_retry = false; // retries are ours, and are seen
        config.connect_timeout = Some(ANSWER / 2);
        if config.cluster_url.scheme_str() == Some("http") && config.proxy_url.is_none() {
            config.root_cert.get_or_insert_default(); // none is asked for; reading the system's takes longer than all else
        }
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let not_answering =
            |problem: String| ConnectError::NotAnswering { context: chosen.clone(), server: server.clone(), problem };
        // Programs that fetch credentials run here, and block.
        let built = deadline.bound(tokio::task::spawn_blocking(move || kube::Client::try_from(config))).await;
        let client = match built {
            None => return Err(not_answering(format!("no credentials within {} s", ANSWER.as_secs()))),
            Some(Err(stopped)) => return Err(not_answering(format!("no credentials: {stopped}"))),
            Some(Ok(Err(error))) => return Err(malformed(error.to_string())),
            Some(Ok(Ok(client))) => client,
        };
        let about = About { context: chosen.clone(), server: server.clone(), version: String::new() };
        let bounds = Bounds::default();
        let mut cluster =
            Self { client, kinds: discovery::Kinds::default(), bounds, about: Arc::new(about), on_loopback: false };

        let asked = deadline.bound(cluster.introduce()).await;
        let version = match asked {
            None => return Err(not_answering(format!("no answer within {} s", ANSWER.as_secs()))),
            Some(Err(ApiFailure { kind: FailureKind::Refused { code: code @ (401 | 403), message, .. }, .. })) => {
                return Err(ConnectError::Unauthorized { context: chosen, server, code, message });
            }
            Some(Err(failure)) => return Err(not_answering(failure.kind.to_string())),
            Some(Ok(version)) => version,
        };
        cluster.about = Arc::new(About { context: chosen, server, version });
        Ok(cluster)
    }

    /// Asks for the version (which anyone may) and for the core kinds (which only known users may).
    async fn introduce(&self) -> Result<String, ApiFailure> {
        let doing = "read the API server's version";
        let malformed = |said: &str| ApiFailure::new(doing, FailureKind::Malformed(said.to_owned()));
        let answer = self.ask(doing, request("GET", "/version", None)).await?;
        // A proxy may refuse this path to known users; then the next question decides.
        let version = if answer.status == StatusCode::FORBIDDEN {
            "unknown".to_owned()
        } else {
            let version = answer.json(doing)?["gitVersion"].as_str().map(str::to_owned);
            version.ok_or_else(|| malformed("the version has no gitVersion"))?
        };
        if self.ask_kinds("v1").await?.is_empty() {
            return Err(malformed("it serves no core kinds"));
        }
        Ok(version)
    }
}

fn no_proxy() -> String {
    std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")).unwrap_or_default()
}

/// Whether a proxy of the environment is passed by: loopback (kind), private addresses, and what NO_PROXY names.
/// `kube` itself reads HTTPS_PROXY but not NO_PROXY.
fn past_proxy(host: &str, no_proxy: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let near = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => host == "localhost",
    };
    near || no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let domain = entry.trim_start_matches('*').trim_start_matches('.');
        entry == "*" || host == domain || host.ends_with(&format!(".{domain}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.1", "", true)]
    #[case("[::1]", "", true)]
    #[case("10.96.0.1", "", true)]
    #[case("api.example.com", "", false)]
    #[case("api.example.com", "localhost, .example.com", true)]
    #[case("api.example.com", "*.example.com", true)]
    #[case("badexample.com", "example.com", false)]
    #[case("203.0.113.7", "*", true)]
    fn passes_a_proxy_by(#[case] host: &str, #[case] no_proxy: &str, #[case] past: bool) {
        assert_eq!(past_proxy(host, no_proxy), past);
    }
}
