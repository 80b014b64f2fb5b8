//! `igc differ`: the same check, two gateways, side by side; what differs is declared in `golden/<gateway>/differences.yaml`
//! or is news.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    path::Path,
};

use options::Format;
use serde_json::{Value, json};
use verdict::{
    differ::{Declared, Difference, Examination, Observations, Observed, examine},
    folder::RunFolder,
    golden::{self, Golden},
    history::Key,
    observation,
    plan::Filter,
    render::{Colour, side_by_side},
};

use crate::failure::Failure;

/// Where goldens and declared differences are, in the checkout that this program was started in.
const GOLDENS: &str = "golden";
/// How wide the two columns are where the terminal does not say.
const WIDTH: usize = 150;

/// Compares, and says what is declared nowhere. The exit code is 1 where something is not, or is declared and differs no more.
pub fn differ(options: &options::Differ) -> Result<u8, Failure> {
    let wanted = Filter::checks("--check", &options.checks).map_err(Failure::usage)?;
    let run = options.run.as_ref().map(|path| RunFolder::open(path).map_err(Failure::usage)).transpose()?;
    let mut observations = observations(Path::new(GOLDENS), run.as_ref())?;
    observations.retain(|title, _| {
        let (check, case) = title.split_once('@').unwrap_or((title, "-"));
        wanted.selects(check, case)
    });
    let mut declared = BTreeMap::new();
    for gateway in observations.values().flat_map(BTreeMap::keys) {
        if !declared.contains_key(gateway) {
            let read = Declared::find(Path::new(GOLDENS), gateway).map_err(Failure::usage)?;
            declared.insert(gateway.clone(), read);
        }
    }
    let came = examine(&observations, &declared);
    if came.compared == 0 {
        let what = options.checks.join(" --check ");
        return Err(Failure::Usage(match what.as_str() {
            "" => "no check has been observed on two gateways".to_owned(),
            _ => format!("--check {what} matches no check that has been observed on two gateways"),
        }));
    }
    let stdout = std::io::stdout();
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&came)?),
        Format::Text => {
            let plain = !stdout.is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            let width = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(WIDTH);
            let colour = if plain { Colour::Plain } else { Colour::Ansi };
            let sides = Sides { observations: &observations, transcripts: transcripts(run.as_ref())?, width, colour };
            say(&came, &sides, options.declared, stdout.lock())?;
        }
    }
    Ok(u8::from(!came.is_explained()))
}

/// What was accepted, and in its place what a run observed.
fn observations(root: &Path, run: Option<&RunFolder>) -> Result<Observations, Failure> {
    let mut all = golden::accepted(root)?;
    let accepted = all.len();
    for path in run.map(golden::pending).transpose()?.unwrap_or_default() {
        all.push((path.clone(), Golden::read(&path)?));
    }
    let mut observations = Observations::new();
    for (n, (path, golden)) in all.into_iter().enumerate() {
        let root = if n < accepted { root.to_owned() } else { run.map(|r| r.path().join(GOLDENS)).unwrap_or_default() };
        let relative = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
        let name = relative.trim_end_matches(".new").trim_end_matches(".snap");
        let Some((gateway, title)) = name.split_once('/') else { continue };
        let observed =
            Observed { version: golden.info.version, place: golden.info.place, observation: golden.observation };
        observations.entry(title.to_owned()).or_default().insert(gateway.to_owned(), observed);
    }
    Ok(observations)
}

/// What was sent and answered in a run, in its canonical form, by gateway and check: of the last attempt.
fn transcripts(run: Option<&RunFolder>) -> Result<BTreeMap<(String, String), Value>, Failure> {
    let Some(run) = run else { return Ok(BTreeMap::new()) };
    let mut keys = run.history_keys()?;
    keys.sort_by_key(|key| key.attempt);
    let last: BTreeMap<(String, String), Key> =
        keys.into_iter().map(|key| ((key.gateway.clone(), key.title()), key)).collect();
    last.into_iter().map(|(at, key)| Ok((at, observation::observe(&run.read_history(&key)?)))).collect()
}

/// What can be shown of two gateways beside each other.
struct Sides<'o> {
    observations: &'o Observations,
    transcripts: BTreeMap<(String, String), Value>,
    width: usize,
    colour: Colour,
}

impl Sides<'_> {
    /// `name version (place)` of a gateway.
    fn name(&self, check: &str, gateway: &str) -> String {
        let observed = self.observations.get(check).and_then(|o| o.get(gateway));
        observed.map_or_else(|| gateway.to_owned(), |o| format!("{gateway} {} ({})", o.version, o.place.word()))
    }

    /// Both transcripts where both are of the run, else both observations.
    fn beside(&self, difference: &Difference) -> String {
        let transcript = |gateway: &String| self.transcripts.get(&(gateway.clone(), difference.check.clone()));
        let observation = |gateway: &String| {
            self.observations.get(&difference.check).and_then(|o| o.get(gateway)).map(|o| &o.observation)
        };
        let [left, right] = &difference.gateways;
        let differing = transcript(left).zip(transcript(right)).filter(|(left, right)| left != right);
        let (left, right) = differing.or_else(|| observation(left).zip(observation(right))).unzip();
        let text = |value: Option<&Value>| golden::yaml(value.unwrap_or(&json!(null)));
        side_by_side(&text(left), &text(right), self.width, self.colour)
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
                Some(d) if declared_too => writeln!(out, "  declared    {at}: {} ({}, {})", d.reason, d.place, d.link)?,
                Some(_) => {}
            }
        }
        if news {
            for line in sides.beside(difference).lines() {
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
            "a difference that is right is declared in golden/<gateway>/differences.yaml, with reason and link"
        )?;
    }
    Ok(())
}
