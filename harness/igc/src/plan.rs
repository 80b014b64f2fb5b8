//! From the options of the command line to a run folder with a plan, before anything is stood up.

use std::fs;
use std::path::{Path, PathBuf};

use cluster::gateway::{self, GatewayFolder};
use cluster::install::model::{self, ModelFile};
use cluster::install::profile::{Profile, RECORDED, Selection};
use cluster::run::{PlaceOptions, PlannedRun};
use cluster::{install::bundle::Bundle, install::component::Catalogue, place::Audience};
use rand::RngExt;
use rehearsal::hops::{Hops, PROXY};
use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::plan::{self, PlaceName, RunInfo, USUAL_MODEL};
use verdict::{change, folder::RunFolder, tests_list::TestList};

use crate::options::{E2e, Egress};
use crate::{cli, failure::Failure, places, suites::Suites};

pub const ALL: &str = "all";

/// A name for a run: when, and four letters.
pub fn run_id() -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    let word: String = (0..4).map(|_| letters[random.random_range(0..letters.len())] as char).collect();
    format!("{now}-{word}")
}

pub fn gateways(root: &Root, named: &str) -> Result<Vec<GatewayFolder>, Failure> {
    let folder = root.manifests().join("gateways");
    let names = match named {
        ALL => gateway::names(&folder).map_err(Failure::usage)?,
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
    audience: Audience,
    notes: &mut Vec<String>,
    cancel: &CancellationToken,
) -> Result<PlannedRun, Failure> {
    let requirements = suites.requirements().await?;
    let up = audience == Audience::People;
    let tests = if up { TestList::of(&requirements) } else { suites.tests().await? };
    let manifests = root.manifests();
    requirements.models_are_among(&model::names(&manifests).map_err(Failure::usage)?).map_err(Failure::usage)?;
    let model = e2e.target.model.as_deref().unwrap_or(USUAL_MODEL);
    let model = ModelFile::read(&manifests, model).map_err(Failure::usage)?;
    let folders = gateways(root, &e2e.target.gateway)?;
    let catalogue = Catalogue::read(&manifests).map_err(Failure::usage)?;
    let read = |name: &str| Profile::read(&manifests, name).map_err(Failure::usage);
    let named_profile = e2e.target.profile.as_deref().map(read).transpose()?;
    let (place, why) = places::choose(e2e.target.on, e2e.target.context.as_deref(), cancel).await?;
    let mut profile = match named_profile {
        Some(profile) => profile,
        None => read(usual_profile(place.name()))?,
    };
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
    if let Some(file) = &e2e.target.declare {
        let declared = change::read(file).map_err(Failure::usage)?;
        notes.push(format!("note: {} changes are declared by {}", declared.len(), file.display()));
        planned.iter_mut().for_each(|gateway| gateway.changes.extend(declared.iter().cloned()));
    }
    let named = place.name();
    for gateway in &mut planned {
        let Some(why) = place.lacks(&gateway.name) else { continue };
        if e2e.target.gateway != ALL {
            return Err(Failure::Usage(format!("{why}; name another place with --on")));
        }
        notes.push(format!("note: {} is left out: {why}", gateway.name));
        gateway.left_out = Some(why);
    }
    let stands = Hops::of_the_environment().map_err(Failure::usage)?.note();
    if let Some(stands) = stands.filter(|_| named.is_real()) {
        return Err(Failure::Usage(format!("{PROXY} is for rehearsals, and this is {}: {stands}", named.word())));
    }
    if up && !place.holds_all() && planned.len() > 1 {
        return Err(Failure::Usage("one cluster holds one gateway: name it with --gateway".into()));
    }
    place.preflight(&model, cancel).await?;

    let id = run_id();
    let set = e2e.target.set.iter().filter_map(|set| set.split_once('='));
    let run = RunInfo {
        id: id.clone(),
        started: jiff::Timestamp::now().to_string(),
        place: named,
        context: place.context().map(str::to_owned),
        profile: profile.name.clone(),
        set: set.map(|(component, version)| (component.trim().to_owned(), version.trim().to_owned())).collect(),
        model: model.name.parse().map_err(Failure::Usage)?,
        suites: e2e.suite.clone(),
        checks: e2e.check.clone(),
        shard: e2e.shard,
        strict: e2e.strict,
        retries: e2e.retries,
        jobs: e2e.jobs,
        ci: std::env::var_os("CI").is_some_and(|v| !v.is_empty() && v != "false"),
        allow_empty: e2e.allow_empty,
        command: cli::typed(),
        declare: e2e.target.declare.as_ref().map(|file| file.display().to_string()),
        model_by_hand: e2e.target.model.is_some(),
        trials: vec![],
    };
    let plan = plan::build(&requirements, planned, run, &tests).map_err(Failure::usage)?;

    let folder = RunFolder::create(&e2e.target.out.clone().unwrap_or_else(|| runs(root)), &id)?;
    folder.write_plan(&plan)?;
    let options = PlaceOptions {
        bundle: e2e.target.bundle.as_deref().map(fs::canonicalize).transpose()?,
        node_image: e2e.target.node_image.clone(),
        igc_image: e2e.target.igc_image.clone(),
        close_egress: e2e.target.egress != Some(Egress::Open),
        egress_asked: e2e.target.egress.is_some(),
        keep: e2e.keep || up,
        install_missing: up,
        why: why.clone(),
    };
    options.write(&folder)?;
    folder.point_latest()?;
    let runs = plan.checks.iter().filter(|c| c.runs()).count();
    let names: Vec<&str> = plan.gateways.iter().map(|g| g.name.as_str()).collect();
    let checks = if up { String::new() } else { format!("{runs} of {} checks of ", plan.checks.len()) };
    notes.push(format!("run {id} on {} ({why}): {checks}{}", named.word(), names.join(", ")));
    Ok(PlannedRun { manifests, folder, plan, options })
}

/// The profile of a run that names none: real gateways in their newest versions, and a rehearsal, which has no gateway, in those
/// whose goldens were recorded.
fn usual_profile(place: PlaceName) -> &'static str {
    if place.is_real() { "current" } else { RECORDED }
}

pub fn runs(root: &Root) -> PathBuf {
    root.target().join("igc")
}

pub fn run_or_last(root: &Root, named: Option<&Path>) -> Result<RunFolder, Failure> {
    RunFolder::open(named.unwrap_or(&runs(root).join("latest"))).map_err(Failure::usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_names_of_runs() {
        run_id().parse::<cluster::name::RunName>().unwrap();
        assert_ne!(run_id(), run_id());
    }
}
