//! `review`: observations of a run that differ from their goldens; each is shown beside the accepted one, with what the
//! difference means, and is accepted with a reason or rejected.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use shipped::Root;
use verdict::golden::{self, Comparison, Golden, Recording};
use verdict::history::{Key, check_and_case};
use verdict::record::{Record, Verdict};
use verdict::render::{Colour, Lines, inert, side_by_side};
use verdict::{folder::RunFolder, front, plan::Filter};

use crate::{failure::Failure, options, plan::run_or_last, terminal};

const LINE: usize = 1_000;

struct Pending {
    file: PathBuf,
    new: golden::Pending,
    old: Option<Old>,
    /// What became of the check in this run.
    record: Option<Record>,
}

struct Old {
    recording: Recording,
    observation: Value,
    compared: bool,
}

impl Pending {
    fn all(goldens: &Path, run: &RunFolder) -> Result<Vec<Self>, Failure> {
        let records = run.read_records()?.records;
        let mut all = Vec::new();
        for file in golden::pending(run)? {
            let new = golden::Pending::read(&file)?;
            let accepted = Golden::find(goldens, &new.gateway, &new.title)?;
            let compared = golden::compare(&accepted, &new.observation, &new.recording);
            let old = accepted.nearest(&new.recording).map(|seen| Old {
                recording: seen.recording.clone(),
                observation: seen.observation.clone(),
                compared: matches!(compared, Comparison::Same | Comparison::Changed { .. }),
            });
            let is_ours = |key: &Key| key.gateway == new.gateway && key.title() == new.title;
            let record = records.iter().filter(|r| is_ours(&r.key)).max_by_key(|r| r.key.attempt).cloned();
            all.push(Self { file, new, old, record });
        }
        Ok(all)
    }

    /// `<gateway>/<suite>/<check>[@case]`.
    fn name(&self) -> String {
        format!("{}/{}", self.new.gateway, self.new.title)
    }

    fn state(&self) -> &'static str {
        if self.old.as_ref().is_some_and(|old| old.compared) { "changed" } else { "new" }
    }

    fn meaning(&self) -> String {
        let golden::Pending { gateway, recording, sentence, .. } = &self.new;
        let mut lines = vec![format!("{:<8} {}", self.state(), self.name()), format!("must hold: {sentence}")];
        lines.extend(self.record.as_ref().map(|r| format!("judged:    {}: {}", r.verdict.word(), r.reason)));
        lines.extend(self.old.as_ref().map(|old| format!("accepted:  {}", circumstances(gateway, &old.recording))));
        lines.push(format!("observed:  {}", circumstances(gateway, recording)));
        let old = self.old.as_ref().map(|old| &old.recording);
        let means = match (old, &self.record) {
            (_, Some(record)) if record.verdict != Verdict::Pass => format!(
                "the requirement does not hold; accepting says only that this is what {gateway} does, a known failure belongs into golden/{gateway}/baseline.yaml"
            ),
            (None, _) => "nothing was accepted for it yet; read it against the requirement".to_owned(),
            (Some(old), _) if old.place.is_real() && !recording.place.is_real() => {
                "the rehearsal does not do what a real gateway did; what that left is not replaced by it".to_owned()
            }
            (Some(old), _) if old.place != recording.place => {
                format!("accepted on {}, observed on {}", old.place.word(), recording.place.word())
            }
            (Some(old), _) => match moved(old, recording) {
                moved if moved.is_empty() => {
                    "no version differs: the behaviour moved by itself, or the check drives otherwise than before"
                        .to_owned()
                }
                moved => format!("the requirement holds as before, in another way, with {}", moved.join(", ")),
            },
        };
        lines.push(format!("means:     {means}"));
        lines.iter().map(|line| inert(line, LINE, Lines::Joined) + "\n").collect()
    }

    fn sides(&self, width: usize, colour: Colour) -> String {
        let new = golden::yaml(&self.new.observation);
        match &self.old {
            Some(old) => side_by_side(&golden::yaml(&old.observation), &new, width, colour),
            None => inert(&new, 20_000, Lines::Kept),
        }
    }
}

fn circumstances(gateway: &str, recording: &Recording) -> String {
    let Recording { version, profile, recorded, .. } = recording;
    let reason = recording.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    let (place, model) = (recording.place.word(), recording.model.word());
    format!("{gateway} {version} on {place}, model {model}, profile {profile}, {recorded}{reason}")
}

fn moved(old: &Recording, new: &Recording) -> Vec<String> {
    let changed = new.versions.iter().filter_map(|(name, version)| {
        let before = old.versions.get(name).map_or("none", String::as_str);
        (before != version).then(|| format!("{name} {before} -> {version}"))
    });
    changed.collect()
}

/// Goes through what is pending: with globs by itself, before a terminal one by one, else as a list.
pub fn review(root: &Root, options: &options::Review) -> Result<u8, Failure> {
    let folder = run_or_last(root, options.run.as_deref())?;
    let goldens = root.goldens();
    let pending = Pending::all(&goldens, &folder)?;
    if root.is_packed() && options.accept.is_some() {
        return Err(Failure::Usage(
            "goldens that are packed into igc cannot change; name a checkout with --root".into(),
        ));
    }
    if let Some(glob) = &options.accept {
        let reason = options.reason.as_deref().unwrap_or_default();
        return each("--accept", glob, &pending, &folder, |one| {
            let place = golden::Pending::accept(&one.file, &goldens, reason)?;
            Ok(format!("accepted {}", place.display()))
        });
    }
    if let Some(glob) = &options.reject {
        return each("--reject", glob, &pending, &folder, |one| {
            golden::Pending::reject(&one.file)?;
            Ok(format!("rejected {}", one.name()))
        });
    }
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    if options.list || root.is_packed() || !stdin.is_terminal() || !stdout.is_terminal() {
        list(&pending, stdout.lock())?;
        return Ok(0);
    }
    ask(&goldens, &pending, stdin.lock(), stdout.lock(), terminal::width(), terminal::colour())?;
    Ok(0)
}

fn each(
    option: &'static str,
    glob: &str,
    pending: &[Pending],
    run: &RunFolder,
    act: impl Fn(&Pending) -> Result<String, golden::GoldenError>,
) -> Result<u8, Failure> {
    let filter = Filter::checks(option, &[glob.to_owned()]).map_err(Failure::usage)?;
    let mut selected = pending.iter().filter(|one| {
        let (check, case) = check_and_case(&one.new.title);
        filter.selects(check, case)
    });
    let Some(first) = selected.next() else {
        let (count, run) = (pending.len(), run.path().display());
        return Err(Failure::Usage(format!(
            "{option} {glob:?} matches none of the {count} pending observations of {run}"
        )));
    };
    for one in [first].into_iter().chain(selected) {
        println!("{}", act(one)?);
    }
    Ok(0)
}

fn list(pending: &[Pending], mut out: impl Write) -> Result<(), Failure> {
    for one in pending {
        write!(out, "{}", one.meaning())?;
        if let Some(old) = &one.old {
            for line in golden::difference(&old.observation, &one.new.observation).lines() {
                writeln!(out, "  {}", inert(line, LINE, Lines::Joined))?;
            }
        }
        writeln!(out)?;
    }
    let count = pending.len();
    let accept = front::command("review --accept '<suite>/<check>' --reason '...'");
    writeln!(out, "{count} to review; accept with: {accept}")?;
    Ok(())
}

fn ask(
    goldens: &Path,
    pending: &[Pending],
    mut said: impl BufRead,
    mut out: impl Write,
    width: usize,
    colour: Colour,
) -> Result<(), Failure> {
    'all: for (at, one) in pending.iter().enumerate() {
        write!(out, "\n{} of {}  {}\n{}\n", at + 1, pending.len(), one.meaning(), one.sides(width, colour))?;
        loop {
            let Some(answer) = prompt("[a]ccept, [r]eject, [s]kip, [q]uit? ", &mut said, &mut out)? else { break 'all };
            match answer.as_str() {
                "a" | "accept" => {
                    let Some(reason) = prompt("why is it right? ", &mut said, &mut out)? else { break 'all };
                    match golden::Pending::accept(&one.file, goldens, &reason) {
                        Ok(place) => {
                            writeln!(out, "accepted {}", place.display())?;
                            break;
                        }
                        Err(error) => writeln!(out, "{error}")?,
                    }
                }
                "r" | "reject" => {
                    golden::Pending::reject(&one.file)?;
                    writeln!(out, "rejected {}", one.name())?;
                    break;
                }
                "s" | "skip" => break,
                "q" | "quit" => break 'all,
                _ => {}
            }
        }
    }
    writeln!(out, "{} were to review", pending.len())?;
    Ok(())
}

/// What is answered to a question; nothing where nobody answers any more.
fn prompt(question: &str, said: &mut impl BufRead, out: &mut impl Write) -> Result<Option<String>, Failure> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut line = String::new();
    Ok((said.read_line(&mut line)? > 0).then(|| line.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;
    use verdict::plan::PlaceName;

    use super::*;

    fn recording(version: &str, place: PlaceName) -> Recording {
        Recording {
            place,
            version: version.into(),
            versions: [("gw".to_owned(), version.to_owned())].into(),
            model: "echo".parse().unwrap(),
            profile: "current".into(),
            recorded: "2026-11-21".into(),
            run: "r".into(),
            reason: None,
        }
    }

    fn observation(status: u16) -> Value {
        json!({"exchanges": {"wrong-host": [{"status": status}]}})
    }

    fn old(version: &str, place: PlaceName) -> Old {
        Old { recording: recording(version, place), observation: observation(404), compared: true }
    }

    fn record(verdict: Verdict) -> Record {
        let key = Key { gateway: "gw".into(), check: "routing/host".into(), case: "-".into(), attempt: 1 };
        Record { verdict, reason: "because".into(), ..Record::new(key) }
    }

    fn pending(folder: &Path, old: Option<Old>, verdict: Verdict) -> Pending {
        let file = folder.join("golden/gw/routing/host.snap.new");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "an observation").unwrap();
        let new = golden::Pending {
            gateway: "gw".into(),
            title: "routing/host".into(),
            sentence: "a hostname selects its route".into(),
            recording: recording("v2.0.0", PlaceName::Kind),
            observation: observation(200),
        };
        Pending { file, new, old, record: Some(record(verdict)) }
    }

    #[rstest]
    #[case::another_version(
        Some(old("v1.0.0", PlaceName::Kind)),
        Verdict::Pass,
        "in another way, with gw v1.0.0 -> v2.0.0"
    )]
    #[case::the_same_version(Some(old("v2.0.0", PlaceName::Kind)), Verdict::Pass, "no version differs")]
    #[case::another_place(
        Some(old("v2.0.0", PlaceName::Rehearsal)),
        Verdict::Pass,
        "accepted on rehearsal, observed on kind"
    )]
    #[case::first(None, Verdict::Pass, "nothing was accepted for it yet")]
    #[case::false_as_well(Some(old("v1.0.0", PlaceName::Kind)), Verdict::Fail, "belongs into golden/gw/baseline.yaml")]
    fn it_is_said_what_a_difference_means(#[case] old: Option<Old>, #[case] verdict: Verdict, #[case] said: &str) {
        let folder = tempfile::tempdir().unwrap();
        let meaning = pending(folder.path(), old, verdict).meaning();
        assert!(meaning.contains(said), "{meaning}");
        assert!(meaning.contains("must hold: a hostname selects its route"), "{meaning}");
    }

    #[test]
    fn a_rehearsal_that_drifts_is_told_from_a_gateway_that_moved() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = pending(folder.path(), Some(old("v2.0.0", PlaceName::Kind)), Verdict::Pass);
        one.new.recording.place = PlaceName::Rehearsal;
        assert!(one.meaning().contains("does not do what a real gateway did"), "{}", one.meaning());
    }

    /// What is printed when somebody says this of one changed observation, and whether it is still pending.
    fn asked(said: &str) -> (String, bool) {
        let folder = tempfile::tempdir().unwrap();
        let one = pending(folder.path(), Some(old("v1.0.0", PlaceName::Kind)), Verdict::Pass);
        let (file, mut out) = (one.file.clone(), Vec::new());
        ask(&folder.path().join("golden"), &[one], said.as_bytes(), &mut out, 60, Colour::Plain).unwrap();
        (String::from_utf8(out).unwrap(), file.exists())
    }

    #[test]
    fn both_sides_are_shown_before_anything_is_asked() {
        insta::assert_snapshot!(asked("what\ns\n").0);
    }

    #[rstest]
    #[case::skipped("s\n", true)]
    #[case::quit("q\n", true)]
    #[case::nobody_answers("", true)]
    #[case::rejected("r\n", false)]
    #[case::accepted_without_a_reason("a\n\nq\n", true)]
    fn only_what_is_said_is_done(#[case] said: &str, #[case] pending: bool) {
        assert_eq!(asked(said).1, pending);
    }
}
