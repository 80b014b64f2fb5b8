//! kind through its command line: a cluster of our own, with a kubeconfig of its own.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    child::{Call, ChildError, Programs},
    engine::{Engine, EngineError, EngineKind, MissingImage},
};
use crate::{
    api::RUN_LABEL,
    name::{ClusterName, RunName},
};

/// The node image where none is given. Its tag says which Kubernetes.
pub const NODE_IMAGE: &str = "kindest/node:v1.34.0";

const CREATE: Duration = Duration::from_secs(300);
const LOAD: Duration = Duration::from_secs(300);
const DELETE: Duration = Duration::from_secs(120);
const ASK: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Kind {
    programs: Programs,
    engine: Engine,
}

#[derive(Clone, Debug)]
pub struct KindRequest {
    pub run: RunName,
    /// Image of its nodes; [`NODE_IMAGE`] where none is given.
    pub node_image: Option<String>,
    /// Node ports that are reachable on a free port of this machine's loopback.
    pub node_ports: Vec<u16>,
    /// The run folder: kubeconfig, configuration and evidence go there.
    pub run_folder: PathBuf,
}

#[derive(Clone, Debug)]
pub struct KindCluster {
    pub name: ClusterName,
    pub kubeconfig: PathBuf,
    pub context: String,
    pub ports: Vec<(u16, u16)>,
}

#[derive(Debug, thiserror::Error)]
pub enum KindError {
    #[error(transparent)]
    Call(#[from] ChildError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the kind cluster {name} did not come up from node image {image}: {source}\n  {evidence}")]
    NotUp { name: ClusterName, image: String, source: Box<ChildError>, evidence: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("no free port on 127.0.0.1 for a node port: {0}")]
    NoPort(io::Error),
    #[error("the kind cluster {0} is still there after it was deleted; try `kind delete cluster --name {0}`")]
    Stays(ClusterName),
}

impl KindError {
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::NotUp { source, .. } => source.is_cancelled(),
            Self::Call(error) | Self::Engine(EngineError::Call(error)) => error.is_cancelled(),
            _ => false,
        }
    }
}

impl Kind {
    pub fn new(programs: &Programs, engine: &Engine) -> Result<Self, KindError> {
        programs.find("kind")?;
        Ok(Self { programs: programs.clone(), engine: engine.clone() })
    }

    fn call(&self, deadline: Duration) -> Call {
        let call = Call::new("kind").deadline(deadline).without("KUBECONFIG");
        match self.engine.kind {
            EngineKind::Docker => call,
            EngineKind::Podman => call.env("KIND_EXPERIMENTAL_PROVIDER", "podman"),
        }
    }

    /// Makes a cluster. Its API server answers when this returns; its nodes may not be Ready yet.
    ///
    /// When it fails or is cancelled, its logs are kept in the run folder (not after a cancellation) and it is deleted.
    pub async fn create(&self, request: &KindRequest, cancel: &CancellationToken) -> Result<KindCluster, KindError> {
        let name = request.run.cluster();
        let image = request.node_image.as_deref().unwrap_or(NODE_IMAGE);
        let kubeconfig = request.run_folder.join("kubeconfig");
        let config = request.run_folder.join("kind.yaml");
        // Ports are held until kind is about to ask for them.
        let held = free_ports(&request.node_ports).map_err(KindError::NoPort)?;
        let ports: Vec<(u16, u16)> = held.iter().map(|(node_port, _, port)| (*node_port, *port)).collect();
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| KindError::File { path, source }
        };
        fs::create_dir_all(&request.run_folder).map_err(file_error(&request.run_folder))?;
        fs::write(&config, configuration(&request.run, &ports)).map_err(file_error(&config))?;
        drop(held);
        let created = self
            .call(CREATE)
            .args(["create", "cluster", "--retain", "--name", &name.to_string(), "--image", image, "--config"])
            .arg(&config)
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .run(&self.programs, cancel)
            .await;
        match created {
            Ok(_) => Ok(KindCluster { context: format!("kind-{name}"), name, kubeconfig, ports }),
            Err(source) => {
                let evidence = if source.is_cancelled() {
                    "no logs: interrupted".to_owned()
                } else {
                    self.keep_logs(&name, &request.run_folder).await
                };
                self.delete(&name, Some(&kubeconfig)).await?;
                Err(KindError::NotUp { name, image: image.to_owned(), source: Box::new(source), evidence })
            }
        }
    }

    /// Gives the cluster's nodes those of these images that the engine has; the others are returned.
    pub async fn load(
        &self,
        name: &ClusterName,
        images: &[String],
        cancel: &CancellationToken,
    ) -> Result<Vec<MissingImage>, KindError> {
        let images = self.engine.look_up(images, cancel).await?;
        if !images.have.is_empty() {
            match self.engine.kind {
                EngineKind::Docker => {
                    let call = self.call(LOAD).args(["load", "docker-image", "--name", &name.to_string()]);
                    call.args(&images.have).run(&self.programs, cancel).await?;
                }
                EngineKind::Podman => {
                    let folder =
                        tempfile::tempdir().map_err(|source| KindError::File { path: std::env::temp_dir(), source })?;
                    let archive = folder.path().join("images.tar");
                    self.engine.save(&images.have, &archive, cancel).await?;
                    self.load_archive(name, &archive, cancel).await?;
                }
            }
        }
        Ok(images.missing)
    }

    pub async fn load_archive(
        &self,
        name: &ClusterName,
        archive: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), KindError> {
        let call = self.call(LOAD).args(["load", "image-archive", "--name", &name.to_string()]);
        call.arg(archive).run(&self.programs, cancel).await?;
        Ok(())
    }

    /// Names of the cluster's nodes, which are the names of their containers.
    pub async fn nodes(&self, name: &ClusterName, cancel: &CancellationToken) -> Result<Vec<String>, KindError> {
        let said =
            self.call(ASK).args(["get", "nodes", "--name", &name.to_string()]).run(&self.programs, cancel).await?;
        Ok(said.stdout.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// Writes the logs of the cluster's nodes into the run folder, and says where they are or why there are none.
    pub async fn keep_logs(&self, name: &ClusterName, run_folder: &Path) -> String {
        let folder = run_folder.join("evidence").join("kind");
        let kept =
            self.call(Duration::from_secs(60)).args(["export", "logs", "--name", &name.to_string()]).arg(&folder);
        match kept.run(&self.programs, &CancellationToken::new()).await {
            Ok(_) => format!("logs of its nodes: {}", folder.display()),
            Err(error) => format!("no logs of its nodes: {error}"),
        }
    }

    /// The clusters of runs. Others are not named, and so never touched.
    pub async fn clusters(&self, cancel: &CancellationToken) -> Result<Vec<ClusterName>, KindError> {
        let said = self.call(ASK).args(["get", "clusters"]).run(&self.programs, cancel).await?;
        Ok(said.stdout.lines().filter_map(|line| ClusterName::parse(line.trim())).collect())
    }

    /// Deletes a cluster of a run, also one that is half made. Nothing cancels this.
    pub async fn delete(&self, name: &ClusterName, kubeconfig: Option<&Path>) -> Result<(), KindError> {
        let never = CancellationToken::new();
        // The engine may still be starting a node that kind asked for before it was stopped: that one is found by the second try.
        for _ in 0..2 {
            let call = self.call(DELETE).args(["delete", "cluster", "--name", &name.to_string()]);
            let kubeconfig = kubeconfig.unwrap_or(Path::new("/dev/null"));
            call.arg("--kubeconfig").arg(kubeconfig).run(&self.programs, &never).await?;
            if !self.clusters(&never).await?.contains(name) {
                return Ok(());
            }
        }
        Err(KindError::Stays(name.clone()))
    }
}

fn free_ports(node_ports: &[u16]) -> io::Result<Vec<(u16, TcpListener, u16)>> {
    let free_port = |node_port: &u16| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        Ok((*node_port, listener, port))
    };
    node_ports.iter().map(free_port).collect()
}

/// kind's configuration, as JSON, which is YAML.
fn configuration(run: &RunName, ports: &[(u16, u16)]) -> String {
    let mappings: Vec<_> = ports
        .iter()
        .map(|(node_port, port)| json!({"containerPort": node_port, "hostPort": port, "listenAddress": "127.0.0.1", "protocol": "TCP"}))
        .collect();
    let config = json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "labels": {RUN_LABEL: run.to_string()}, "extraPortMappings": mappings}],
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::fakes::Fakes;

    const DOCKER: &str =
        r#"case $1 in info) echo '{"ServerVersion":"27"}';; images) echo redis:8; echo kserve/agent:v1;; esac"#;

    async fn kind_of(fakes: &Fakes) -> Kind {
        let engine = Engine::find(&fakes.programs(), &CancellationToken::new()).await.unwrap();
        Kind::new(&fakes.programs(), &engine).unwrap()
    }

    fn request(folder: &Path) -> KindRequest {
        KindRequest {
            run: "20261121-120305-k3f9".parse().unwrap(),
            node_image: None,
            node_ports: vec![30080],
            run_folder: folder.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_cluster_has_its_own_kubeconfig_and_a_loopback_port() {
        let fakes = Fakes::new().program("docker", DOCKER).program("kind", "");
        let run = tempfile::tempdir().unwrap();
        let cluster = kind_of(&fakes).await.create(&request(run.path()), &CancellationToken::new()).await.unwrap();
        assert_eq!(cluster.context, "kind-igc-20261121-120305-k3f9");
        assert_eq!(cluster.kubeconfig, run.path().join("kubeconfig"));
        let [(30080, port)] = cluster.ports[..] else { panic!("{:?}", cluster.ports) };
        let written: serde_json::Value =
            serde_json::from_slice(&fs::read(run.path().join("kind.yaml")).unwrap()).unwrap();
        assert_eq!(written["nodes"][0]["extraPortMappings"][0]["hostPort"], port);
        assert_eq!(written["nodes"][0]["extraPortMappings"][0]["listenAddress"], "127.0.0.1");
        assert_eq!(written["nodes"][0]["labels"]["igc.dev/run"], "20261121-120305-k3f9");
        let call = fakes.calls().pop().unwrap().replace(&run.path().display().to_string(), "RUN");
        insta::assert_snapshot!(call, @"kind create cluster --retain --name igc-20261121-120305-k3f9 --image kindest/node:v1.34.0 --config RUN/kind.yaml --kubeconfig RUN/kubeconfig");
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_come_up_leaves_logs_and_nothing_else() {
        let script = "case $1$2 in createcluster) echo 'ERROR: failed to create cluster: could not find a log line' >&2; exit 1;; esac";
        let fakes = Fakes::new().program("docker", DOCKER).program("kind", script);
        let run = tempfile::tempdir().unwrap();
        let error = kind_of(&fakes).await.create(&request(run.path()), &CancellationToken::new()).await.unwrap_err();
        let text = error.to_string().replace(&run.path().display().to_string(), "RUN");
        insta::assert_snapshot!(text, @r"
        the kind cluster igc-20261121-120305-k3f9 did not come up from node image kindest/node:v1.34.0: `kind create cluster --retain --name igc-20261121-120305-k3f9 --image kindest/node:v1.34.0 --config RUN/kind.yaml --kubeconfig RUN/kubeconfig` ended with exit status: 1
            ERROR: failed to create cluster: could not find a log line
          logs of its nodes: RUN/evidence/kind
        ");
        let calls: Vec<String> = fakes
            .calls()
            .iter()
            .filter_map(|call| call.strip_prefix("kind "))
            .map(|call| call.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(calls, ["create cluster", "export logs", "delete cluster", "get clusters"]);
    }

    #[tokio::test]
    async fn kind_is_missing() {
        let fakes = Fakes::new().program("docker", "echo '{\"ServerVersion\":\"27\"}'");
        let engine = Engine::find(&fakes.alone(), &CancellationToken::new()).await.unwrap();
        let error = Kind::new(&fakes.alone(), &engine).unwrap_err();
        insta::assert_snapshot!(error, @"kind is not on PATH: install kind (https://kind.sigs.k8s.io/docs/user/quick-start#installation): go install sigs.k8s.io/kind@latest");
    }

    #[tokio::test]
    async fn only_images_that_the_engine_has_are_loaded() {
        let fakes = Fakes::new().program("docker", DOCKER).program("kind", "");
        let name = ClusterName::parse("igc-20261121-120305-k3f9").unwrap();
        let images = ["docker.io/library/redis:8".to_owned(), "ghcr.io/a/b:1".to_owned()];
        let kind = kind_of(&fakes).await;
        let missing = kind.load(&name, &images, &CancellationToken::new()).await.unwrap();
        assert_eq!(missing.len(), 1);
        assert_eq!(
            fakes.calls().pop().unwrap(),
            "kind load docker-image --name igc-20261121-120305-k3f9 docker.io/library/redis:8"
        );
        kind.load(&name, &images[1..], &CancellationToken::new()).await.unwrap();
        assert!(fakes.calls().pop().unwrap().starts_with("docker images"), "nothing to load, so kind is not called");
    }

    #[tokio::test]
    async fn foreign_clusters_are_not_seen_and_a_cluster_that_stays_is_said() {
        let fakes = Fakes::new()
            .program("docker", DOCKER)
            .program("kind", "[ $1 = get ] && printf 'igc\\nigc-foo\\nigc-20261121-120305-k3f9\\nkind\\n' || true");
        let kind = kind_of(&fakes).await;
        let clusters = kind.clusters(&CancellationToken::new()).await.unwrap();
        assert_eq!(clusters.iter().map(ToString::to_string).collect::<Vec<_>>(), ["igc-20261121-120305-k3f9"]);
        let error = kind.delete(&clusters[0], None).await.unwrap_err();
        insta::assert_snapshot!(error, @"the kind cluster igc-20261121-120305-k3f9 is still there after it was deleted; try `kind delete cluster --name igc-20261121-120305-k3f9`");
    }
}
