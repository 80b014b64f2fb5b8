//! The container engine of this machine: Docker or Podman, through its command line.

use std::{collections::BTreeSet, fmt, path::Path, time::Duration};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::child::{Call, ChildError, Output, Programs};

/// How long an engine may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(15);
/// Label of every image that a run made.
pub const MADE: &str = "igc.dev/made=1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker Engine, or what answers to `docker`.
    Docker,
    Podman,
}

/// The name of its program.
impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        })
    }
}

#[derive(Clone, Debug)]
pub struct Engine {
    pub kind: EngineKind,
    pub info: EngineInfo,
    programs: Programs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    pub version: String,
    /// 1 or 2; `None` where it does not say.
    pub cgroup_version: Option<u8>,
    pub memory: u64,
    pub processors: u64,
    pub root: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no container engine: {0}")]
    Missing(ChildError),
    #[error("the container engine does not answer: {0}")]
    NotAnswering(ChildError),
    #[error("the container engine does not answer: `{kind} info` said {what}")]
    Strange { kind: EngineKind, what: String },
    #[error(transparent)]
    Call(#[from] ChildError),
}

/// Images that were asked for, by whether the engine has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    pub have: Vec<String>,
    pub missing: Vec<MissingImage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingImage {
    pub image: String,
    /// Tags of the same repository that the engine has.
    pub other_tags: Vec<String>,
}

impl fmt::Display for MissingImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.other_tags.as_slice() {
            [] => write!(f, "{}", self.image),
            tags => write!(f, "{} (of it the engine has {})", self.image, tags.join(", ")),
        }
    }
}

impl Engine {
    /// The engine that answers: Docker before Podman.
    pub async fn find(programs: &Programs, cancel: &CancellationToken) -> Result<Self, EngineError> {
        let docker = Self::ask(EngineKind::Docker, programs, cancel).await;
        match docker {
            Ok(engine) => Ok(engine),
            Err(EngineError::Call(error)) if error.is_cancelled() => Err(error.into()),
            Err(said) => match (Self::ask(EngineKind::Podman, programs, cancel).await, said) {
                (Ok(engine), _) => Ok(engine),
                (Err(EngineError::Call(podman)), EngineError::Call(docker))
                    if docker.is_missing() && podman.is_missing() =>
                {
                    Err(EngineError::Missing(docker))
                }
                (Err(EngineError::Call(podman)), EngineError::Call(docker)) if docker.is_missing() => {
                    Err(EngineError::NotAnswering(podman))
                }
                (Err(_), EngineError::Call(docker)) => Err(EngineError::NotAnswering(docker)),
                (Err(_), strange) => Err(strange),
            },
        }
    }

    async fn ask(kind: EngineKind, programs: &Programs, cancel: &CancellationToken) -> Result<Self, EngineError> {
        let said = Call::new(kind.to_string())
            .args(["info", "--format", "{{json .}}"])
            .deadline(ANSWER)
            .run(programs, cancel)
            .await?;
        let info = read_info(kind, &said.stdout).map_err(|what| EngineError::Strange { kind, what })?;
        Ok(Self { kind, info, programs: programs.clone() })
    }

    pub async fn call<A: Into<std::ffi::OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Output, ChildError> {
        Call::new(self.kind.to_string()).args(args).deadline(deadline).run(&self.programs, cancel).await
    }

    pub async fn look_up(&self, images: &[String], cancel: &CancellationToken) -> Result<Images, EngineError> {
        let listed = self.call(["images", "--format", "{{.Repository}}:{{.Tag}}"], ANSWER, cancel).await?;
        Ok(compare(images, &listed.stdout))
    }

    pub async fn save(&self, images: &[String], archive: &Path, cancel: &CancellationToken) -> Result<(), EngineError> {
        let call = Call::new(self.kind.to_string()).arg("save").arg("--output").arg(archive);
        let call = if self.kind == EngineKind::Podman {
            call.args(["--format", "docker-archive", "--multi-image-archive"])
        } else {
            call
        };
        call.args(images).deadline(Duration::from_secs(300)).run(&self.programs, cancel).await?;
        Ok(())
    }

    pub async fn made(&self, cancel: &CancellationToken) -> Result<Vec<String>, EngineError> {
        let filter = format!("label={MADE}");
        let listed = self
            .call(["images", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"], ANSWER, cancel)
            .await?;
        // An image that lost its tag goes by its number.
        let name = |line: &str| {
            let (reference, id) = line.split_once(' ')?;
            Some(if reference.contains("<none>") { id.to_owned() } else { reference.to_owned() })
        };
        Ok(listed.stdout.lines().filter_map(name).collect::<BTreeSet<_>>().into_iter().collect())
    }

    pub async fn remove(&self, images: &[String], cancel: &CancellationToken) -> Result<(), EngineError> {
        if !images.is_empty() {
            self.call([&["rmi".to_owned()], images].concat(), Duration::from_secs(60), cancel).await?;
        }
        Ok(())
    }
}

fn compare(asked: &[String], listed: &str) -> Images {
    let there: BTreeSet<String> = listed.lines().map(full_name).collect();
    let mut images = Images::default();
    for image in asked {
        let full = full_name(image);
        if there.contains(&full) {
            images.have.push(image.clone());
            continue;
        }
        let repository = full.rsplit_once(':').map_or(full.as_str(), |(repository, _)| repository);
        let tag_of = |other: &String| other.strip_prefix(repository)?.strip_prefix(':').map(str::to_owned);
        let other_tags = there.iter().filter_map(tag_of).collect();
        images.missing.push(MissingImage { image: image.clone(), other_tags });
    }
    images
}

/// A reference with all that is usually left away: `redis:8` is `docker.io/library/redis:8`.
pub fn full_name(image: &str) -> String {
    let image = image.trim();
    let (host, rest) = match image.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", image),
    };
    // Podman keeps what it built itself under `localhost/`.
    let host = if host == "localhost" { "docker.io" } else { host };
    let library = if host == "docker.io" && !rest.contains('/') { "library/" } else { "" };
    let tag = if rest.contains('@') || rest.rsplit('/').next().is_some_and(|name| name.contains(':')) {
        ""
    } else {
        ":latest"
    };
    format!("{host}/{library}{rest}{tag}")
}

fn read_info(kind: EngineKind, json: &str) -> Result<EngineInfo, String> {
    let said: Value = serde_json::from_str(json.trim())
        .map_err(|error| format!("{error} in {:?}", json.chars().take(200).collect::<String>()))?;
    let text = |pointer: &str| {
        said.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let number = |pointer: &str| said.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let (version, cgroup, memory, processors, root) = match kind {
        EngineKind::Docker => ("/ServerVersion", "/CgroupVersion", "/MemTotal", "/NCPU", "/DockerRootDir"),
        EngineKind::Podman => {
            ("/version/Version", "/host/cgroupVersion", "/host/memTotal", "/host/cpus", "/store/graphRoot")
        }
    };
    let errors = said.pointer("/ServerErrors").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(error) = errors.first() {
        return Err(error.as_str().unwrap_or("an error of the server").to_owned());
    }
    Ok(EngineInfo {
        version: text(version).ok_or("no version of its server")?,
        cgroup_version: text(cgroup).and_then(|version| version.trim_start_matches('v').parse().ok()),
        memory: number(memory),
        processors: number(processors),
        root: text(root),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::programs::fakes::Fakes;

    const DOCKER: &str = r#"{"ServerVersion":"27.3.1","CgroupVersion":"2","MemTotal":16000000000,"NCPU":8,"DockerRootDir":"/var/lib/docker"}"#;
    const PODMAN: &str = r#"{"version":{"Version":"5.2.0"},"host":{"cgroupVersion":"v2","memTotal":8000000000,"cpus":4},"store":{"graphRoot":"/var/lib/containers"}}"#;

    fn says(json: &str) -> String {
        format!("cat <<'JSON'\n{json}\nJSON")
    }

    #[rstest]
    #[case::bare("redis", "docker.io/library/redis:latest")]
    #[case::tag("redis:8", "docker.io/library/redis:8")]
    #[case::owner("kserve/agent:v1", "docker.io/kserve/agent:v1")]
    #[case::host("ghcr.io/llm-d/sim:v1", "ghcr.io/llm-d/sim:v1")]
    #[case::port("localhost:5000/a/b:1", "localhost:5000/a/b:1")]
    #[case::port_without_tag("localhost:5000/a", "localhost:5000/a:latest")]
    #[case::podman_local("localhost/igc/igc:abc", "docker.io/igc/igc:abc")]
    #[case::full("docker.io/library/redis:8", "docker.io/library/redis:8")]
    #[case::digest("redis@sha256:00", "docker.io/library/redis@sha256:00")]
    fn references(#[case] short: &str, #[case] full: &str) {
        assert_eq!(full_name(short), full);
    }

    #[test]
    fn images_are_compared_by_their_full_names_and_near_tags_are_named() {
        let asked = ["docker.io/library/redis:8.2", "docker.io/envoyproxy/ratelimit:1e50889b", "ghcr.io/a/b:1"]
            .map(str::to_owned);
        let images =
            compare(&asked, "redis:8.2\nenvoyproxy/ratelimit:3fb70258\nenvoyproxy/ratelimit-extra:1\n<none>:<none>\n");
        assert_eq!(images.have, ["docker.io/library/redis:8.2"]);
        let missing: Vec<String> = images.missing.iter().map(ToString::to_string).collect();
        assert_eq!(
            missing,
            ["docker.io/envoyproxy/ratelimit:1e50889b (of it the engine has 3fb70258)", "ghcr.io/a/b:1"]
        );
    }

    #[rstest]
    #[case::docker(says(DOCKER), EngineKind::Docker, "27.3.1", 16_000_000_000, 8)]
    #[case::podman_where_docker_does_not("echo 'Cannot connect' >&2; exit 1".to_owned(), EngineKind::Podman, "5.2.0", 8_000_000_000, 4)]
    #[tokio::test]
    async fn an_engine_that_answers(
        #[case] docker: String,
        #[case] kind: EngineKind,
        #[case] version: &str,
        #[case] memory: u64,
        #[case] processors: u64,
    ) {
        let fakes = Fakes::new().program("docker", &docker).program("podman", &says(PODMAN));
        let engine = Engine::find(&fakes.programs(), &CancellationToken::new()).await.unwrap();
        let info = engine.info;
        assert_eq!((engine.kind, info.version.as_str(), info.cgroup_version), (kind, version, Some(2)));
        assert_eq!((info.memory, info.processors), (memory, processors));
    }

    #[tokio::test]
    async fn no_engine_at_all() {
        let error = Engine::find(&Fakes::new().alone(), &CancellationToken::new()).await.unwrap_err();
        insta::assert_snapshot!(error, @"no container engine: docker is not on PATH: install Docker Engine (https://docs.docker.com/engine/install) or Podman, and start it");
    }

    #[rstest]
    #[case::refused(
        "echo 'Cannot connect to the Docker daemon.' >&2; exit 1",
        "`docker info --format '{{json .}}'` ended with exit status: 1\n    Cannot connect to the Docker daemon."
    )]
    #[case::server_error(
        r#"echo '{"ServerErrors":["Cannot connect to the Docker daemon."]}'"#,
        "`docker info` said Cannot connect to the Docker daemon."
    )]
    #[case::no_json("echo Cannot", r#"`docker info` said expected value at line 1 column 1 in "Cannot\n""#)]
    #[tokio::test]
    async fn an_engine_that_does_not_answer(#[case] script: &str, #[case] said: &str) {
        let fakes = Fakes::new().program("docker", script);
        let error = Engine::find(&fakes.alone(), &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("the container engine does not answer: {said}"));
    }

    #[tokio::test]
    async fn images_of_runs_are_listed_by_label() {
        let fakes = Fakes::new().program("docker", &format!("case $1 in info) {}\n;; images) echo 'igc/igc:ab12 1f'; echo '<none>:<none> 2f'; echo 'igc/igc:ab12 1f';; esac", says(DOCKER)));
        let engine = Engine::find(&fakes.programs(), &CancellationToken::new()).await.unwrap();
        let made = engine.made(&CancellationToken::new()).await.unwrap();
        assert_eq!(made, ["2f", "igc/igc:ab12"]);
        engine.remove(&made, &CancellationToken::new()).await.unwrap();
        engine.remove(&[], &CancellationToken::new()).await.unwrap();
        assert_eq!(
            fakes.calls()[1..],
            [
                "docker images --filter label=igc.dev/made=1 --format {{.Repository}}:{{.Tag}} {{.ID}}",
                "docker rmi 2f igc/igc:ab12"
            ]
        );
    }
}
