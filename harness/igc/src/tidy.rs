//! What no compiler sees: files that nothing refers to, and scalars that YAML readers disagree on.

use std::fs;
use std::path::Path;

use anyhow::Context;
use cluster::gateway::{self, GatewayFolder};
use shipped::Root;
use verdict::requirements::{Requirement, Requirements};
use verdict::{folder::files_below, front, plan::Level};

use crate::{failure::Failure, options, suites::Suites};

const REQUIREMENTS: &str = "suites/requirements.yaml";
const CAPABILITIES: &str = "docs/capabilities.md";

/// Prints what it finds; 1 if there was anything. What is generated is written where that is asked for.
pub async fn tidy(root: &Root, options: &options::Tidy) -> Result<u8, Failure> {
    if !root.is_checkout() {
        return Err(Failure::Usage("tidy needs a checkout; run it inside one, or name it with --root".into()));
    }
    let requirements = Suites::find(root)?.requirements().await?;
    let mut found = generated(&root.path().join(REQUIREMENTS), &requirements.to_yaml()?, options.write)?;
    let page = verdict::capability::reference();
    found.extend(generated(&root.path().join(CAPABILITIES), &page, options.write)?);
    for folder in ["manifests", "suites", "golden", ".github"] {
        for file in files_below(&root.path().join(folder))? {
            if matches!(file.extension().and_then(|e| e.to_str()), Some("yaml" | "yml")) {
                let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
                found.extend(ambiguous(&text).map(|(line, what)| format!("{}:{line}: {what}", file.display())));
            }
        }
    }
    // What a folder declares is refused where it is read: a misspelled key, a pattern that matches every name.
    let gateways = root.manifests().join("gateways");
    for name in gateway::names(&gateways).map_err(Failure::usage)? {
        found.extend(GatewayFolder::read(&gateways, &name).err().map(|error| error.to_string()));
    }
    found.extend(orphans(&root.goldens(), &requirements)?);
    found.extend(toothless(&requirements));
    for line in &found {
        println!("{line}");
    }
    Ok(u8::from(!found.is_empty()))
}

fn generated(file: &Path, text: &str, write: bool) -> Result<Vec<String>, Failure> {
    if fs::read_to_string(file).is_ok_and(|there| there == text) {
        return Ok(vec![]);
    }
    if write {
        fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))?;
        return Ok(vec![]);
    }
    Ok(vec![format!("{}: it is not current; `{}` writes it", file.display(), front::command("tidy --write"))])
}

/// Scalars that kubectl and this project's reader take for different things: (line, what to do).
fn ambiguous(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines().enumerate().filter_map(|(number, line)| {
        let line = line.split(" #").next().unwrap_or(line);
        let (_, value) = line.split_once(": ")?;
        let value = value.trim();
        let word = matches!(value, "y" | "Y" | "n" | "N" | "yes" | "Yes" | "no" | "No" | "on" | "On" | "off" | "Off");
        let octal = value.len() > 1 && value.starts_with('0') && value.bytes().all(|b| b.is_ascii_digit());
        (word || octal).then(|| {
            (number + 1, format!("{value} is read differently by kubectl: quote it, or write it as a decimal number"))
        })
    })
}

fn orphans(goldens: &Path, requirements: &Requirements) -> Result<Vec<String>, Failure> {
    Ok(files_below(goldens)?
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "snap"))
        .filter_map(|file| {
            let relative = file.strip_prefix(goldens).ok()?;
            let mut parts = relative.components().skip(1).map(|c| c.as_os_str().to_string_lossy().into_owned());
            let check = format!("{}/{}", parts.next()?, parts.next()?.trim_end_matches(".snap").split('@').next()?);
            requirements.get(&check).is_none().then(|| format!("{}: no check is called {check}", file.display()))
        })
        .collect())
}

fn toothless(requirements: &Requirements) -> impl Iterator<Item = String> {
    let is_toothless = |r: &&Requirement| r.level != Level::Info && r.kills.is_empty();
    requirements
        .checks
        .iter()
        .filter(is_toothless)
        .map(|r| format!("{} names no mutant that it kills; a check that cannot fail proves nothing", r.check))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;
    use verdict::requirements::Requirements;

    use super::{ambiguous, generated, orphans, toothless};

    #[rstest]
    #[case::teeth("- {check: a/b, level: MUST, sentence: s, source: t, kills: [x]}", &[])]
    #[case::none("- {check: a/b, level: MUST, sentence: s, source: t}\n- {check: a/c, level: SHOULD, sentence: s, source: t, kills: [x]}", &["a/b"])]
    #[case::the_last("- {check: a/b, level: SHOULD, sentence: s, source: t, kills: []}", &["a/b"])]
    #[case::a_finding("- {check: a/b, level: INFO, sentence: s, source: t}", &[])]
    fn checks_without_teeth(#[case] checks: &str, #[case] expected: &[&str]) {
        let requirements = Requirements::parse(&format!("checks:\n{checks}")).unwrap();
        let found: Vec<String> = toothless(&requirements).collect();
        let named: Vec<&str> = found.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(named, expected);
    }

    #[test]
    fn a_golden_without_its_check_is_found() {
        let goldens = tempfile::tempdir().unwrap();
        let suite = goldens.path().join("gw/a");
        fs::create_dir_all(&suite).unwrap();
        for name in ["b.snap", "b@c.snap", "gone.snap"] {
            fs::write(suite.join(name), "").unwrap();
        }
        let requirements = Requirements::parse("checks: [{check: a/b, level: INFO, sentence: s, source: t}]").unwrap();
        let found = orphans(goldens.path(), &requirements).unwrap();
        assert!(found.len() == 1 && found[0].ends_with("gone.snap: no check is called a/gone"), "{found:?}");
    }

    #[test]
    fn a_generated_file_is_current_or_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.yaml");
        assert_eq!(generated(&file, "new", false).unwrap().len(), 1, "it is not there");
        assert_eq!(generated(&file, "new", true).unwrap().len(), 0);
        assert_eq!(generated(&file, "new", false).unwrap().len(), 0);
        assert_eq!(generated(&file, "newer", false).unwrap().len(), 1, "it is old");
    }

    #[rstest]
    #[case::word("a: on", true)]
    #[case::octal("mode: 0644", true)]
    #[case::quoted("a: \"on\"", false)]
    #[case::zero("a: 0", false)]
    #[case::decimal("port: 80", false)]
    #[case::comment("a: b # say yes: no", false)]
    fn scalars(#[case] line: &str, #[case] found: bool) {
        assert_eq!(ambiguous(line).next().is_some(), found, "{line}");
    }
}
