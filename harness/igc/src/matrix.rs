//! The cells of a nightly matrix: every gateway, profile and model that the folders of manifests name.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context;
use cluster::install::model::ModelFile;
use serde::Serialize;
use shipped::Root;
use verdict::plan::{Shard, USUAL_MODEL};

use crate::failure::Failure;
use crate::options::{Matrix, On, value_name};

#[derive(Debug, Serialize)]
pub struct Cells {
    include: Vec<Cell>,
}

#[derive(Debug, Serialize)]
struct Cell {
    name: String,
    on: String,
    gateway: String,
    profile: String,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<Shard>,
    /// What stands behind `igc e2e`.
    words: String,
}

/// Processors and bytes of memory of the machine that a cell is for: models that are larger are asked for by name.
const RUNNER: (u64, u64) = (2, 7 << 30);

pub fn matrix(root: &Root, options: &Matrix) -> Result<u8, Failure> {
    println!("{}", serde_json::to_string(&cells(options, &root.manifests())?)?);
    Ok(0)
}

/// Every cell that is asked for. A name that is not there is refused: a typing error must not make a matrix small.
pub fn cells(options: &Matrix, manifests: &Path) -> Result<Cells, Failure> {
    if options.on == On::Auto {
        return Err(Failure::Usage("--on auto depends on the machine; name a place".into()));
    }
    let gateways = named("--gateway", &options.gateway, &manifests.join("gateways"))?;
    let profiles = named("--profile", &options.profile, &manifests.join("profiles"))?;
    let models = match options.model.as_slice() {
        [] => small(manifests)?,
        asked => named("--model", asked, &manifests.join("models"))?,
    };
    let mut include = Vec::new();
    for gateway in &gateways {
        for profile in &profiles {
            for model in &models {
                let shards = (1..=options.shards).map(|index| Shard { index, of: options.shards });
                include.extend(shards.map(|shard| cell(options, gateway, profile, model, shard)));
            }
        }
    }
    Ok(Cells { include })
}

fn cell(options: &Matrix, gateway: &str, profile: &str, model: &str, shard: Shard) -> Cell {
    let on = value_name(options.on);
    let mut name = format!("{gateway}-{profile}-{model}");
    let mut words = format!("--on {on} --gateway {gateway} --profile {profile}");
    // The usual one is not given by hand: it serves what it serves in a run without options.
    if model != USUAL_MODEL {
        words += &format!(" --model {model}");
    }
    if shard.of > 1 {
        name += &format!("-{}of{}", shard.index, shard.of);
        words += &format!(" --shard {shard}");
    }
    let [gateway, profile, model] = [gateway, profile, model].map(str::to_owned);
    Cell { name, on, gateway, profile, model, shard: (shard.of > 1).then_some(shard), words }
}

/// The models that fit on a runner, the one that a run has without being asked for first.
fn small(manifests: &Path) -> Result<Vec<String>, Failure> {
    let mut models = ModelFile::all(manifests).map_err(Failure::usage)?;
    models.retain(|model| model.fits(RUNNER.0, RUNNER.1).is_ok());
    let mut names: Vec<String> = models.into_iter().map(|model| model.name).collect();
    names.sort_by_key(|name| name != USUAL_MODEL);
    Ok(names)
}

/// What is asked for, or all that the folder has.
fn named(option: &str, asked: &[String], folder: &Path) -> Result<Vec<String>, Failure> {
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry?.path();
        let is_one = path.is_dir() || path.extension().is_some_and(|e| e == "yaml");
        there.extend(path.file_stem().filter(|_| is_one).map(|name| name.to_string_lossy().into_owned()));
    }
    if let Some(unknown) = asked.iter().find(|name| !there.contains(*name)) {
        let there = there.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Failure::Usage(format!("{option} {unknown}: {} has {there}", folder.display())));
    }
    Ok(if asked.is_empty() { there.into_iter().collect() } else { asked.to_vec() })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rstest::rstest;

    use super::*;
    use crate::options::parsed;

    fn manifests() -> PathBuf {
        Root::find(None).unwrap().manifests()
    }

    fn of(arguments: &[&str]) -> Result<Vec<(String, String)>, Failure> {
        let cells = cells(&parsed(arguments).map_err(Failure::usage)?, &manifests())?;
        Ok(cells.include.into_iter().map(|c| (c.name, c.words)).collect())
    }

    #[test]
    fn every_gateway_is_in_every_profile_with_every_small_model() {
        let cells = of(&[]).unwrap();
        let folders = |name: &str| named("", &[], &manifests().join(name)).unwrap().len();
        assert_eq!(cells.len(), folders("gateways") * folders("profiles") * 2, "{cells:?}");
        assert!(!cells.iter().any(|(name, _)| name.contains("vllm")), "it does not fit on a runner: {cells:?}");
    }

    #[test]
    fn a_cell_says_how_it_is_run() {
        let common = "--on rehearsal --gateway agentgateway --profile current --model echo";
        let of_part =
            |part: &str| (format!("agentgateway-current-echo-{part}of2"), format!("{common} --shard {part}/2"));
        let arguments: Vec<&str> = common.split(' ').chain(["--shards", "2"]).collect();
        assert_eq!(of(&arguments).unwrap(), [of_part("1"), of_part("2")]);
        let usual = of(&["--gateway", "agentgateway", "--profile", "current", "--model", USUAL_MODEL]).unwrap();
        assert_eq!(usual[0].1, "--on kind --gateway agentgateway --profile current", "it is not given by hand");
    }

    #[rstest]
    #[case::gateway(&["--gateway", "agentgatway"], "--gateway agentgatway: ")]
    #[case::profile(&["--profile", "curent"], "has current, guide, recorded")]
    #[case::model(&["--model", "ecko"], "models has echo, llm-d-sim, vllm-cpu")]
    #[case::no_parts(&["--shards", "0"], "0 is not in 1..=32")]
    #[case::auto(&["--on", "auto"], "name a place")]
    fn what_is_not_there_is_refused(#[case] words: &[&str], #[case] said: &str) {
        let message = of(words).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
}
