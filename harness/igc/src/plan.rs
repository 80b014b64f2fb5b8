//! `igc plan`: from the words of the command line to a run folder with a plan, before anything is stood up.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use cluster::{
    gateway::{self, GatewayFolder},
    install::{
        bundle::Bundle,
        component::Catalogue,
        model::ModelFile,
        profile::{Profile, Selection},
    },
    place::{child::Programs, engine::Engine},
};
use options::{E2e, Egress, Model, On};
use rand::RngExt;
use rehearsal::hops::{Hops, PROXY};
use tokio_util::sync::CancellationToken;
use verdict::{
    folder::RunFolder,
    plan::{self, ModelKind, Place, RunInfo, Shard},
    requirements::Requirements,
    tests_list::TestList,
};

use crate::{failure::Failure, request::Request};

/// The project's manifests; `igc` is started in the checkout.
pub fn manifests() -> PathBuf {
    PathBuf::from("manifests")
}

/// What was accepted of each gateway: observations, known failures, differences. In the same checkout.
pub fn goldens() -> PathBuf {
    PathBuf::from("golden")
}

/// What is built: the places and what is missing, for those who ask for more.
const PLACES: &str = "the places that exist are rehearsal, kind and context";

/// The place of a run and why it is that one; refusals say what exists.
async fn place(e2e: &E2e, cancel: &CancellationToken) -> Result<(Place, String), Failure> {
    let programs = Programs::from_env();
    match e2e.place.on {
        On::Container => Err(Failure::Usage(format!("--on container is not built yet; {PLACES}"))),
        On::Rehearsal => Ok((Place::Rehearsal, "asked for; no gateway is tested".into())),
        On::Context if e2e.place.context.is_none() => {
            Err(Failure::Usage("--on context needs --context NAME: a cluster is never guessed".into()))
        }
        On::Context => {
            let kubeconfig = user_kubeconfig()?;
            cluster::api::init();
            let cluster =
                cluster::api::Cluster::connect(&kubeconfig, e2e.place.context.as_deref()).await.map_err(|error| {
                    if error.is_usage() { Failure::usage(&error) } else { Failure::Environment(error.to_string()) }
                })?;
            Ok((Place::Context, format!("context {} at {}", cluster.context(), cluster.server())))
        }
        On::Kind | On::Auto => {
            let missing = missing_for_kind(&programs, cancel).await;
            match (missing, e2e.place.on) {
                (None, On::Auto) => Ok((Place::Kind, "a container engine, kind and helm answer".into())),
                (None, _) => Ok((Place::Kind, "asked for".into())),
                (Some(why), On::Auto) => {
                    let why = why.lines().next().unwrap_or_default().to_owned();
                    Ok((
                        Place::Rehearsal,
                        format!("no gateway is tested, because {why}; `cargo xtask doctor` says what to install"),
                    ))
                }
                (Some(why), _) => {
                    Err(Failure::Environment(format!("--on kind: {why}\n`cargo xtask doctor` lists what is missing")))
                }
            }
        }
    }
}

/// What place kind lacks on this machine, in words.
async fn missing_for_kind(programs: &Programs, cancel: &CancellationToken) -> Option<String> {
    if let Err(error) = Engine::find(programs, cancel).await {
        return Some(error.to_string());
    }
    ["kind", "helm"].iter().find_map(|program| programs.find(program).err().map(|error| error.to_string()))
}

/// The kubeconfig of the user, only read.
pub fn user_kubeconfig() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let path = named
        .or_else(home)
        .ok_or_else(|| Failure::Usage("neither KUBECONFIG nor HOME is set: there is no kubeconfig".into()))?;
    // A list of files is kubectl's own; one of them has to be chosen here.
    match std::env::split_paths(&path).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one.clone()),
        several => Err(Failure::Usage(format!(
            "KUBECONFIG names {} files; set it to the one that has the context",
            several.len()
        ))),
    }
}

fn model(model: Model) -> ModelKind {
    match model {
        Model::Echo => ModelKind::Echo,
        Model::LlmDSim => ModelKind::LlmDSim,
        Model::VllmCpu => ModelKind::VllmCpu,
    }
}

/// A name for a run: when, and four letters.
pub fn run_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    let word: String = (0..4).map(|_| letters[random.random_range(0..letters.len())] as char).collect();
    format!("{now}-{word}")
}

fn gateways(e2e: &E2e) -> Result<Vec<GatewayFolder>, Failure> {
    let folder = manifests().join("gateways");
    let names = match e2e.place.gateway.as_str() {
        "all" => gateway::names(&folder).map_err(Failure::usage)?,
        one => vec![one.to_owned()],
    };
    names.iter().map(|name| GatewayFolder::read(&folder, name).map_err(Failure::usage)).collect()
}

/// Plans a run and prints its folder. Without a list of tests nothing is to be checked: it is only stood up, and stays.
pub async fn plan(tests: Option<&Path>, e2e: &E2e, cancel: &CancellationToken) -> Result<u8, Failure> {
    let requirements = Requirements::read(Path::new("suites/requirements.yaml")).map_err(Failure::usage)?;
    let up = tests.is_none();
    let tests = match tests {
        Some(tests) => {
            let listed = fs::read_to_string(tests);
            let listed = listed.map_err(|e| Failure::Usage(format!("failed to read {}: {e}", tests.display())))?;
            TestList::parse(&listed).map_err(Failure::usage)?
        }
        None => TestList::of(&requirements),
    };
    let folders = gateways(e2e)?;
    let catalogue = Catalogue::read(&manifests()).map_err(Failure::usage)?;
    let mut profile = Profile::read(&manifests(), &e2e.place.profile).map_err(Failure::usage)?;
    profile.set(&e2e.place.set, &catalogue).map_err(Failure::usage)?;
    let bundle =
        e2e.place.bundle.as_deref().map(Bundle::open).transpose().map_err(|e| Failure::Environment(e.to_string()))?;

    let mut planned = Vec::new();
    for folder in folders {
        let selection = Selection::of(&catalogue, &profile, &folder.components).map_err(Failure::usage)?;
        for untried in selection.untried() {
            eprintln!("note: {untried}");
        }
        planned.push(selection.plan(&folder, bundle.as_ref()).map_err(|e| Failure::Environment(e.to_string()))?);
    }
    let (place, why) = place(e2e, cancel).await?;
    let stands = Hops::of_the_environment().map_err(Failure::usage)?.note();
    if let Some(stands) = stands.filter(|_| place.is_real()) {
        return Err(Failure::Usage(format!("{PROXY} is for rehearsals, and this is {}: {stands}", place.word())));
    }
    if up && place.is_real() && planned.len() > 1 {
        return Err(Failure::Usage("one cluster holds one gateway: name it with --gateway".into()));
    }
    let model = model(e2e.place.model);
    preflight(model, place, cancel).await?;

    let id = run_id();
    let run = RunInfo {
        id: id.clone(),
        started: jiff::Timestamp::now().to_string(),
        place,
        context: e2e.place.context.clone(),
        profile: profile.name.clone(),
        set: e2e
            .place
            .set
            .iter()
            .filter_map(|s| s.split_once('='))
            .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
            .collect::<BTreeMap<_, _>>(),
        model,
        suites: e2e.suite.clone(),
        checks: e2e.check.clone(),
        shard: e2e.shard.map(|s| Shard { index: s.index, of: s.of }),
        strict: e2e.strict,
        retries: e2e.retries,
        jobs: e2e.jobs,
        ci: std::env::var_os("CI").is_some_and(|v| !v.is_empty() && v != "false"),
        allow_empty: e2e.allow_empty,
        command: ["cargo", "xtask", "e2e"].map(str::to_owned).into_iter().chain(e2e.to_words()).collect(),
        trials: vec![],
    };
    let plan = plan::build(&requirements, planned, run, &tests).map_err(Failure::usage)?;

    let folder = RunFolder::create(&e2e.place.out, &id)?;
    folder.write_plan(&plan)?;
    Request {
        bundle: e2e.place.bundle.as_deref().map(fs::canonicalize).transpose()?,
        node_image: e2e.place.node_image.clone(),
        igc_image: e2e.place.igc_image.clone(),
        close_egress: e2e.place.egress != Some(Egress::Open),
        egress_asked: e2e.place.egress.is_some(),
        keep: e2e.keep || up,
        install_missing: up,
        why: why.clone(),
    }
    .write(&folder)?;
    folder.point_latest()?;
    let runs = plan.checks.iter().filter(|c| c.runs()).count();
    let names: Vec<&str> = plan.gateways.iter().map(|g| g.name.as_str()).collect();
    let checks = if up { String::new() } else { format!("{runs} of {} checks of ", plan.checks.len()) };
    eprintln!("run {id} on {} ({why}): {checks}{}", place.word(), names.join(", "));
    println!("{}", folder.path().display());
    Ok(0)
}

/// Refuses a model that this machine cannot hold.
async fn preflight(model: ModelKind, place: Place, cancel: &CancellationToken) -> Result<(), Failure> {
    if place != Place::Kind {
        return Ok(());
    }
    let file = ModelFile::read(&manifests(), model.word()).map_err(Failure::usage)?;
    let engine = Engine::find(&Programs::from_env(), cancel).await?;
    file.fits(engine.info.processors, engine.info.memory)
        .map_err(|why| Failure::Environment(format!("--model {}: {why}", model.word())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_names_of_runs() {
        run_id().parse::<cluster::place::name::RunName>().unwrap();
        assert_ne!(run_id(), run_id());
    }
}
