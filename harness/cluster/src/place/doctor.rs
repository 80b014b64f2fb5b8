//! The doctor: what a run needs of this machine, what was found, and how to get what is missing.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use verdict::front;

use crate::programs::{
    child::{Call, ChildError, Programs, how_to_get},
    engine::{Engine, EngineInfo, EngineKind},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Ok,
    /// A run may work, or a part of what igc does is not possible.
    Warn,
    /// No run on kind without it.
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub name: &'static str,
    pub state: State,
    pub found: String,
    pub needed: String,
    /// How to get it; empty when it is met.
    pub advice: String,
}

#[derive(Clone, Debug)]
pub struct Facts {
    pub engine: Result<(EngineKind, EngineInfo), String>,
    pub kind: Result<String, String>,
    pub helm: Result<String, String>,
    pub curl: bool,
    pub disk: Option<(PathBuf, u64)>,
    pub inotify: Option<u64>,
}

/// Contexts of the user's kubeconfig, or why they cannot be read; `None` where there is no kubeconfig.
pub type Contexts = Option<Result<Vec<String>, String>>;

const GIB: u64 = 1 << 30;

pub(super) async fn probe(programs: &Programs, cancel: &CancellationToken) -> Facts {
    let engine = Engine::find(programs, cancel).await;
    let kind = version_of(programs, "kind", &["version"], cancel);
    let helm = version_of(programs, "helm", &["version", "--template", "{{.Version}}"], cancel);
    let (kind, helm) = tokio::join!(kind, helm);
    let root = engine.as_ref().ok().and_then(|engine| engine.info.root.clone()).map(PathBuf::from);
    let place = root.filter(|root| root.exists()).unwrap_or_else(|| PathBuf::from("."));
    Facts {
        disk: free_bytes(&place).map(|free| (place, free)),
        engine: engine.map(|engine| (engine.kind, engine.info)).map_err(|error| error.to_string()),
        kind,
        helm,
        curl: programs.find("curl").is_ok(),
        inotify: fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")
            .ok()
            .and_then(|text| text.trim().parse().ok()),
    }
}

async fn version_of(
    programs: &Programs,
    program: &str,
    args: &[&str],
    cancel: &CancellationToken,
) -> Result<String, String> {
    let call = Call::new(program).args(args.iter().copied()).deadline(Duration::from_secs(10));
    match call.run(programs, cancel).await {
        Ok(said) => Ok(version_word(&said.stdout).unwrap_or_else(|| said.stdout.trim()).to_owned()),
        Err(ChildError::NotFound { .. }) => Err("not on PATH".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn free_bytes(place: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(place).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

pub(super) fn kubeconfig() -> Contexts {
    match kube::config::Kubeconfig::read() {
        Ok(config) => Some(Ok(config.contexts.into_iter().map(|context| context.name).collect())),
        Err(error) => {
            let named = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
            let usual = std::env::home_dir().is_some_and(|home| home.join(".kube/config").exists());
            (named || usual).then(|| Err(error.to_string()))
        }
    }
}

impl Line {
    fn new(name: &'static str, state: State, found: String, needed: &str, advice: &str) -> Self {
        let advice = if state == State::Ok { String::new() } else { advice.to_owned() };
        Self { name, state, found, needed: needed.to_owned(), advice }
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut say =
        |name, state, found, needed: &str, advice: &str| lines.push(Line::new(name, state, found, needed, advice));

    let engine_needed = "Docker 20.10 or Podman 4.0";
    match &facts.engine {
        Err(why) => say("container engine", State::Missing, why.clone(), engine_needed, how_to_get("docker")),
        Ok((kind, info)) => {
            let least = if *kind == EngineKind::Docker { (20, 10) } else { (4, 0) };
            let state = if at_least(&info.version, least) { State::Ok } else { State::Warn };
            let found = format!("{kind} {}", info.version);
            say("container engine", state, found, engine_needed, "a newer engine: kind does not support this one");
        }
    }
    for (name, found, needed, least) in [("kind", &facts.kind, "0.20", (0, 20)), ("helm", &facts.helm, "3.13", (3, 13))]
    {
        match found {
            Err(why) => say(name, State::Missing, why.clone(), needed, how_to_get(name)),
            Ok(version) if at_least(version, least) => say(name, State::Ok, version.clone(), needed, ""),
            Ok(version) => say(name, State::Warn, version.clone(), needed, how_to_get(name)),
        }
    }
    if let Ok((_, info)) = &facts.engine {
        let advice = "give the engine more memory, or stop what else it runs; vllm-cpu needs more still";
        say("memory", enough(info.memory, 6 * GIB, 4 * GIB), gib(info.memory), "6 GiB", advice);
        let (state, found) = match info.cgroup_version {
            Some(2) => (State::Ok, "v2".to_owned()),
            Some(version) => (State::Warn, format!("v{version}")),
            None => (State::Warn, "not said".to_owned()),
        };
        let advice =
            "kubelet 1.35 and newer refuse v1: boot with unified cgroups, or keep --node-image at Kubernetes 1.34";
        say("cgroup version", state, found, "v2", advice);
    }
    if let Some((place, free)) = &facts.disk {
        let found = format!("{} free at {}", gib(*free), place.display());
        let advice =
            format!("free some: `{}`, then the engine's own clean-up (docker system prune)", front::command("down"));
        say("disk", enough(*free, 12 * GIB, 6 * GIB), found, "12 GiB free", &advice);
    }
    if let Some(instances) = facts.inotify {
        let advice = "sysctl fs.inotify.max_user_instances=1024: kubelets and gateways watch many files, and die with \"too many open files\"";
        say("inotify instances", enough(instances, 512, 0), instances.to_string(), "512", advice);
    }
    let (state, found) = if facts.curl { (State::Ok, "found") } else { (State::Warn, "not on PATH") };
    say("curl", state, found.to_owned(), "only without --bundle", how_to_get("curl"));
    lines
}

pub(super) fn contexts(contexts: Contexts) -> Line {
    let (state, found) = match contexts {
        Some(Ok(contexts)) if contexts.is_empty() => (State::Warn, "no context in it".to_owned()),
        Some(Ok(contexts)) => (State::Ok, format!("contexts: {}", contexts.join(", "))),
        Some(Err(error)) => (State::Warn, error.clone()),
        None => (State::Warn, "none".to_owned()),
    };
    Line::new(
        "kubeconfig",
        state,
        found,
        "only for --on context",
        "nothing is needed for kind, which gets a kubeconfig of its own; KUBECONFIG or ~/.kube/config for a cluster that is there",
    )
}

fn enough(amount: u64, needed: u64, least: u64) -> State {
    match amount {
        _ if amount >= needed => State::Ok,
        _ if amount >= least => State::Warn,
        _ => State::Missing,
    }
}

fn gib(bytes: u64) -> String {
    let tenths = bytes / (GIB / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// The first word of a text that begins like a version.
fn version_word(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether the first version in a text is this one or newer; a text without one is not.
fn at_least(text: &str, least: (u32, u32)) -> bool {
    let version = version_word(text).unwrap_or_default().trim_start_matches('v');
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), minor) => (major, minor.unwrap_or_default()) >= least,
        (None, _) => false,
    }
}

pub struct Table<'l>(pub &'l [Line]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&Line) -> &str| {
            self.0
                .iter()
                .map(|line| of(line).lines().next().unwrap_or_default().chars().count())
                .max()
                .unwrap_or_default()
        };
        let (name, found) = (width(|line| line.name), width(|line| &line.found).min(48));
        for line in self.0 {
            let state = match line.state {
                State::Ok => "ok     ",
                State::Warn => "warn   ",
                State::Missing => "MISSING",
            };
            let mut said = line.found.lines();
            writeln!(
                f,
                "{state}  {:name$}  {:found$}  needed: {}",
                line.name,
                said.next().unwrap_or_default(),
                line.needed
            )?;
            for more in said.map(str::trim).chain((!line.advice.is_empty()).then_some(line.advice.as_str())) {
                writeln!(f, "         {:name$}  {more}", "")?;
            }
        }
        Ok(())
    }
}

pub fn worst(lines: &[Line]) -> State {
    lines.iter().map(|line| line.state).max_by_key(|state| *state as u8).unwrap_or(State::Ok)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::programs::fakes::Fakes;

    fn healthy() -> Facts {
        let info = EngineInfo {
            version: "27.3.1".into(),
            cgroup_version: Some(2),
            memory: 16 * GIB,
            processors: 8,
            root: None,
        };
        Facts {
            engine: Ok((EngineKind::Docker, info)),
            kind: Ok("v0.33.0".into()),
            helm: Ok("v3.22.0".into()),
            curl: true,
            disk: Some(("/var/lib/docker".into(), 100 * GIB)),
            inotify: Some(1024),
        }
    }

    #[test]
    fn a_healthy_machine() {
        let mut lines = judge(&healthy());
        lines.push(contexts(Some(Ok(vec!["kind-a".into()]))));
        assert_eq!(worst(&lines), State::Ok);
        insta::assert_snapshot!(Table(&lines), @"
        ok       container engine   docker 27.3.1                      needed: Docker 20.10 or Podman 4.0
        ok       kind               v0.33.0                            needed: 0.20
        ok       helm               v3.22.0                            needed: 3.13
        ok       memory             16.0 GiB                           needed: 6 GiB
        ok       cgroup version     v2                                 needed: v2
        ok       disk               100.0 GiB free at /var/lib/docker  needed: 12 GiB free
        ok       inotify instances  1024                               needed: 512
        ok       curl               found                              needed: only without --bundle
        ok       kubeconfig         contexts: kind-a                   needed: only for --on context
        ");
    }

    #[test]
    fn a_bare_machine() {
        let facts = Facts {
            engine: Err("no container engine: docker is not on PATH".into()),
            kind: Err("not on PATH".into()),
            helm: Err("`helm version` ended with exit status: 1\n    broken".into()),
            curl: false,
            disk: Some((".".into(), GIB)),
            inotify: Some(128),
        };
        let mut lines = judge(&facts);
        lines.push(contexts(None));
        assert_eq!(worst(&lines), State::Missing);
        insta::assert_snapshot!(Table(&lines), @r#"
        MISSING  container engine   no container engine: docker is not on PATH  needed: Docker 20.10 or Podman 4.0
                                    install Docker Engine (https://docs.docker.com/engine/install) or Podman, and start it
        MISSING  kind               not on PATH                                 needed: 0.20
                                    install kind (https://kind.sigs.k8s.io/docs/user/quick-start#installation): go install sigs.k8s.io/kind@latest
        MISSING  helm               `helm version` ended with exit status: 1    needed: 3.13
                                    broken
                                    install Helm 3.13 or newer (https://helm.sh/docs/intro/install)
        MISSING  disk               1.0 GiB free at .                           needed: 12 GiB free
                                    free some: `igc down`, then the engine's own clean-up (docker system prune)
        warn     inotify instances  128                                         needed: 512
                                    sysctl fs.inotify.max_user_instances=1024: kubelets and gateways watch many files, and die with "too many open files"
        warn     curl               not on PATH                                 needed: only without --bundle
                                    install curl, or give --bundle DIR with the definitions in it
        warn     kubeconfig         none                                        needed: only for --on context
                                    nothing is needed for kind, which gets a kubeconfig of its own; KUBECONFIG or ~/.kube/config for a cluster that is there
        "#);
        insta::assert_json_snapshot!(lines[0], @r#"
        {
          "name": "container engine",
          "state": "missing",
          "found": "no container engine: docker is not on PATH",
          "needed": "Docker 20.10 or Podman 4.0",
          "advice": "install Docker Engine (https://docs.docker.com/engine/install) or Podman, and start it"
        }
        "#);
    }

    fn engine_with(change: impl FnOnce(&mut EngineInfo)) -> Facts {
        let mut facts = healthy();
        if let Ok((_, info)) = &mut facts.engine {
            change(info);
        }
        facts
    }

    #[rstest]
    #[case::memory(engine_with(|info| info.memory = 6 * GIB - 1), "memory", State::Warn)]
    #[case::less_memory(engine_with(|info| info.memory = 3 * GIB), "memory", State::Missing)]
    #[case::cgroup_v1(engine_with(|info| info.cgroup_version = Some(1)), "cgroup version", State::Warn)]
    #[case::cgroup_unknown(engine_with(|info| info.cgroup_version = None), "cgroup version", State::Warn)]
    #[case::old_docker(engine_with(|info| info.version = "19.03.15".into()), "container engine", State::Warn)]
    #[case::debian_docker(engine_with(|info| info.version = "20.10.24+dfsg1".into()), "container engine", State::Ok)]
    #[case::old_kind(Facts { kind: Ok("v0.11.1".into()), ..healthy() }, "kind", State::Warn)]
    #[case::helm_4(Facts { helm: Ok("v4.0.1".into()), ..healthy() }, "helm", State::Ok)]
    #[case::helm_nonsense(Facts { helm: Ok("who knows".into()), ..healthy() }, "helm", State::Warn)]
    #[case::inotify(Facts { inotify: Some(128), ..healthy() }, "inotify instances", State::Warn)]
    #[case::full_disk(Facts { disk: Some((".".into(), 7 * GIB)), ..healthy() }, "disk", State::Warn)]
    fn one_thing(#[case] facts: Facts, #[case] name: &str, #[case] state: State) {
        let lines = judge(&facts);
        let line = lines.iter().find(|line| line.name == name).unwrap();
        assert_eq!((line.state, line.advice.is_empty()), (state, state == State::Ok), "{line:?}");
        assert!(lines.iter().filter(|line| line.name != name).all(|line| line.state == State::Ok));
    }

    #[rstest]
    #[case::broken(Some(Err("line 3".into())), State::Warn)]
    #[case::no_context(Some(Ok(vec![])), State::Warn)]
    #[case::none(None, State::Warn)]
    #[case::one(Some(Ok(vec!["kind-a".into()])), State::Ok)]
    fn kubeconfigs(#[case] found: Contexts, #[case] state: State) {
        let line = contexts(found);
        assert_eq!((line.state, line.advice.is_empty()), (state, state == State::Ok), "{line:?}");
    }

    #[tokio::test]
    async fn versions_are_asked_of_the_programs() {
        let fakes = Fakes::new()
            .program("kind", "echo kind v0.33.0 go1.26.8 linux/amd64")
            .program("helm", "echo broken >&2; exit 3");
        let facts = probe(&fakes.alone(), &CancellationToken::new()).await;
        assert_eq!(facts.kind.as_deref(), Ok("v0.33.0"));
        assert!(facts.helm.unwrap_err().contains("broken"));
        assert!(facts.engine.unwrap_err().contains("docker is not on PATH"));
        assert!(!facts.curl);
    }
}
