//! From the options of the command line to a run folder with a plan, before anything is stood up.

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
use rand::RngExt;
use rehearsal::hops::{Hops, PROXY};
use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::{
    folder::RunFolder,
    plan::{self, ModelKind, Place, RunInfo, Shard},
    tests_list::TestList,
};

use crate::{
    cli,
    failure::Failure,
    options::{E2e, Egress, Model, On},
    request::Request,
    run::Run,
    suites::Suites,
    up::Purpose,
};

/// What is built: the places and what is missing, for those who ask for more.
const PLACES: &str = "the places that exist are rehearsal, kind and context";

/// The place of a run and why it is that one; refusals say what exists.
async fn place(e2e: &E2e, cancel: &CancellationToken) -> Result<(Place, String), Failure> {
    let programs = Programs::from_env();
    match e2e.target.on {
        On::Container => Err(Failure::Usage(format!("--on container is not built yet; {PLACES}"))),
        On::Rehearsal => Ok((Place::Rehearsal, "asked for; no gateway is tested".into())),
        On::Context if e2e.target.context.is_none() => {
            Err(Failure::Usage("--on context needs --context NAME: a cluster is never guessed".into()))
        }
        On::Context => {
            let kubeconfig = user_kubeconfig()?;
            cluster::api::init();
            let cluster =
                cluster::api::Cluster::connect(&kubeconfig, e2e.target.context.as_deref()).await.map_err(|error| {
                    if error.is_usage() { Failure::usage(&error) } else { Failure::Environment(error.to_string()) }
                })?;
            Ok((Place::Context, format!("context {} at {}", cluster.context(), cluster.server())))
        }
        On::Kind | On::Auto => {
            let missing = missing_for_kind(&programs, cancel).await;
            match (missing, e2e.target.on) {
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

/// The folders of a gateway, or of `all`.
pub fn gateways(root: &Root, named: &str) -> Result<Vec<GatewayFolder>, Failure> {
    let folder = root.manifests().join("gateways");
    let names = match named {
        "all" => gateway::names(&folder).map_err(Failure::usage)?,
        one => vec![one.to_owned()],
    };
    names.iter().map(|name| GatewayFolder::read(&folder, name).map_err(Failure::usage)).collect()
}

/// Plans a run; `notes` receives what its reader should know, also where it is refused. For people nothing is checked: it is
/// only stood up, and stays.
pub async fn plan(
    root: &Root,
    suites: &Suites,
    e2e: &E2e,
    purpose: Purpose,
    notes: &mut Vec<String>,
    cancel: &CancellationToken,
) -> Result<Run, Failure> {
    let requirements = suites.requirements().await?;
    let up = purpose == Purpose::People;
    let tests = if up { TestList::of(&requirements) } else { suites.tests().await? };
    let manifests = root.manifests();
    let folders = gateways(root, &e2e.target.gateway)?;
    let catalogue = Catalogue::read(&manifests).map_err(Failure::usage)?;
    let mut profile = Profile::read(&manifests, &e2e.target.profile).map_err(Failure::usage)?;
    profile.set(&e2e.target.set, &catalogue).map_err(Failure::usage)?;
    let bundle =
        e2e.target.bundle.as_deref().map(Bundle::open).transpose().map_err(|e| Failure::Environment(e.to_string()))?;

    let mut planned = Vec::new();
    for folder in folders {
        let selection = Selection::of(&catalogue, &profile, &folder.components).map_err(Failure::usage)?;
        for untried in selection.untried() {
            notes.push(format!("note: {untried}"));
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
    let model = model(e2e.target.model);
    preflight(&manifests, model, place, cancel).await?;

    let id = run_id();
    let run = RunInfo {
        id: id.clone(),
        started: jiff::Timestamp::now().to_string(),
        place,
        context: e2e.target.context.clone(),
        profile: profile.name.clone(),
        set: e2e
            .target
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
        command: cli::typed(),
        trials: vec![],
    };
    let plan = plan::build(&requirements, planned, run, &tests).map_err(Failure::usage)?;

    let folder = RunFolder::create(&e2e.target.out.clone().unwrap_or_else(|| runs(root)), &id)?;
    folder.write_plan(&plan)?;
    let request = Request {
        bundle: e2e.target.bundle.as_deref().map(fs::canonicalize).transpose()?,
        node_image: e2e.target.node_image.clone(),
        igc_image: e2e.target.igc_image.clone(),
        close_egress: e2e.target.egress != Some(Egress::Open),
        egress_asked: e2e.target.egress.is_some(),
        keep: e2e.keep || up,
        install_missing: up,
        why: why.clone(),
    };
    request.write(&folder)?;
    folder.point_latest()?;
    let runs = plan.checks.iter().filter(|c| c.runs()).count();
    let names: Vec<&str> = plan.gateways.iter().map(|g| g.name.as_str()).collect();
    let checks = if up { String::new() } else { format!("{runs} of {} checks of ", plan.checks.len()) };
    notes.push(format!("run {id} on {} ({why}): {checks}{}", place.word(), names.join(", ")));
    Ok(Run { root: root.clone(), folder, plan, request })
}

/// Where the folders of runs are, if nothing else is said.
pub fn runs(root: &Root) -> PathBuf {
    root.target().join("igc")
}

/// The folder of a run: the last one where none is named.
pub fn run_or_last(root: &Root, named: Option<&Path>) -> Result<RunFolder, Failure> {
    RunFolder::open(named.unwrap_or(&runs(root).join("latest"))).map_err(Failure::usage)
}

/// Refuses a model that this machine cannot hold.
async fn preflight(
    manifests: &Path,
    model: ModelKind,
    place: Place,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    if place != Place::Kind {
        return Ok(());
    }
    let file = ModelFile::read(manifests, model.word()).map_err(Failure::usage)?;
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
