//! `differ`: the same check, two gateways, side by side; what differs is declared in `golden/<gateway>/differences.yaml`
//! or is news.

use std::collections::{BTreeMap, BTreeSet};
use std::{io::Write, path::Path};

use cluster::gateway::{self, GatewayFolder};
use serde_json::Value;
use shipped::Root;
use verdict::differ::{Capabilities, Declared, Difference, Examination, Observations, Observed, examine};
use verdict::golden::{self, Pending, Recording};
use verdict::history::{Key, check_and_case};
use verdict::{folder::RunFolder, observation, plan::Filter, render::side_by_side};

use crate::options::{self, Format};
use crate::{failure::Failure, terminal};

/// Compares, and says what is declared nowhere. The exit code is 1 where something is not, or is declared and differs no more.
pub fn differ(root: &Root, options: &options::Differ) -> Result<u8, Failure> {
    let wanted = Filter::checks("--check", &options.checks).map_err(Failure::usage)?;
    let run = options.run.as_ref().map(|path| RunFolder::open(path).map_err(Failure::usage)).transpose()?;
    let mut observations = observations(&root.goldens(), run.as_ref())?;
    observations.retain(|title, _| {
        let (check, case) = check_and_case(title);
        wanted.selects(check, case)
    });
    let (mut declared, mut capabilities) = (BTreeMap::new(), Capabilities::new());
    let observed: BTreeSet<&String> = observations.values().flat_map(BTreeMap::keys).collect();
    for gateway in &observed {
        declared.insert((*gateway).clone(), Declared::find(&root.goldens(), gateway).map_err(Failure::usage)?);
    }
    let folders = root.manifests().join("gateways");
    for gateway in gateway::names(&folders).map_err(Failure::usage)?.into_iter().filter(|name| observed.contains(name))
    {
        let folder = GatewayFolder::read(&folders, &gateway).map_err(Failure::usage)?;
        capabilities.insert(gateway, serde_json::to_value(folder.capabilities)?);
    }
    let came = examine(&observations, &declared, &capabilities);
    if came.compared == 0 {
        let what = options.checks.join(" --check ");
        return Err(Failure::Usage(match what.as_str() {
            "" => "no check has been observed on two gateways".to_owned(),
            _ => format!("--check {what} matches no check that has been observed on two gateways"),
        }));
    }
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&came)?),
        Format::Text => {
            let sides = Sides { observations: &observations, histories: histories(run.as_ref())?, run: run.as_ref() };
            say(&came, &sides, options.declared, std::io::stdout().lock())?;
        }
    }
    Ok(u8::from(!came.is_explained()))
}

fn observations(root: &Path, run: Option<&RunFolder>) -> Result<Observations, Failure> {
    let mut observations = Observations::new();
    let mut take = |gateway: String, title: String, recording: &Recording, observation: &Value| {
        let observed =
            Observed { version: recording.version.clone(), place: recording.place, observation: observation.clone() };
        observations.entry(title).or_default().insert(gateway, observed);
    };
    for (gateway, title, golden) in golden::accepted(root)? {
        if let Some(seen) = golden.latest() {
            take(gateway, title, seen.recording, seen.observation);
        }
    }
    for path in run.map(golden::pending).transpose()?.unwrap_or_default() {
        let Pending { gateway, title, recording, observation, .. } = Pending::read(&path)?;
        take(gateway, title, &recording, &observation);
    }
    Ok(observations)
}

/// The histories of a run by gateway and check: of the last attempt.
fn histories(run: Option<&RunFolder>) -> Result<BTreeMap<(String, String), Key>, Failure> {
    let mut keys = run.map(RunFolder::history_keys).transpose()?.unwrap_or_default();
    keys.sort_by_key(|key| key.attempt);
    Ok(keys.into_iter().map(|key| ((key.gateway.clone(), key.title()), key)).collect())
}

struct Sides<'o> {
    observations: &'o Observations,
    histories: BTreeMap<(String, String), Key>,
    run: Option<&'o RunFolder>,
}

impl Sides<'_> {
    /// `name version (place)` of a gateway.
    fn name(&self, check: &str, gateway: &str) -> String {
        let observed = self.observations.get(check).and_then(|o| o.get(gateway));
        observed.map_or_else(|| gateway.to_owned(), |o| format!("{gateway} {} ({})", o.version, o.place.word()))
    }

    fn transcript(&self, check: &str, gateway: &str) -> Result<Option<Value>, Failure> {
        let key = self.histories.get(&(gateway.to_owned(), check.to_owned()));
        let read = self.run.zip(key).map(|(run, key)| run.read_history(key)).transpose()?;
        Ok(read.map(|history| observation::observe(&history)))
    }

    /// Both transcripts where both are of the run, else both observations.
    fn beside(&self, difference: &Difference) -> Result<String, Failure> {
        let Difference { check, gateways: [left, right], .. } = difference;
        let transcripts = self.transcript(check, left)?.zip(self.transcript(check, right)?);
        let observation =
            |gateway: &String| self.observations.get(check).and_then(|o| o.get(gateway)).map(|o| o.observation.clone());
        let differing = transcripts.filter(|(left, right)| left != right);
        let (left, right) = differing.or_else(|| observation(left).zip(observation(right))).unzip();
        let text = |value: Option<Value>| golden::yaml(&value.unwrap_or_default());
        Ok(side_by_side(&text(left), &text(right), terminal::width(), terminal::colour()))
    }
}

fn say(came: &Examination, sides: &Sides, declared_too: bool, mut out: impl Write) -> Result<(), Failure> {
    for difference in &came.differences {
        let news = difference.undeclared().next().is_some();
        if !news && !declared_too {
            continue;
        }
        let [left, right] = difference.gateways.each_ref().map(|gateway| sides.name(&difference.check, gateway));
        writeln!(out, "{}: {left} | {right}", difference.check)?;
        for (at, declaration) in &difference.places {
            match declaration {
                None => writeln!(out, "  undeclared  {at}")?,
                Some(d) if declared_too => {
                    let link = d.link.as_ref().map(|link| format!(", {link}")).unwrap_or_default();
                    writeln!(out, "  declared    {at}: {} ({}{link})", d.reason, d.place)?;
                }
                Some(_) => {}
            }
        }
        if news {
            for line in sides.beside(difference)?.lines() {
                writeln!(out, "    {line}")?;
            }
        }
        writeln!(out)?;
    }
    for place in &came.stale {
        writeln!(out, "{place} is stale: what it declares differs no more; remove it")?;
    }
    let undeclared = came.differences.iter().filter(|d| d.undeclared().next().is_some()).count();
    writeln!(
        out,
        "{} compared: {} same, {} differ as declared, {undeclared} differ otherwise; {} stale",
        came.compared,
        came.same,
        came.differences.len() - undeclared,
        came.stale.len(),
    )?;
    if undeclared > 0 {
        writeln!(
            out,
            "a difference that is right is declared in golden/<gateway>/differences.yaml, with reason and link, unless it \
             follows from a parameter that both gateways declare otherwise (manifests/gateways/<gateway>/gateway.yaml)"
        )?;
    }
    Ok(())
}
