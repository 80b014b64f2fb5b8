//! What no compiler sees: files that nothing refers to, and scalars that YAML readers disagree on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::program;

/// What is required, and which mutants each check kills.
const REQUIREMENTS: &str = "suites/requirements.yaml";

/// `cargo xtask tidy`: prints what it finds; 1 if there was anything.
pub fn tidy() -> Result<u8> {
    let mut found = Vec::new();
    let root = program::root();
    for folder in ["manifests", "suites", "golden", ".github"] {
        for file in files_below(&root.join(folder))? {
            if matches!(file.extension().and_then(|e| e.to_str()), Some("yaml" | "yml")) {
                let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
                let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
                found.extend(ambiguous(&text).map(|(line, what)| format!("{name}:{line}: {what}")));
            }
        }
    }
    let requirements =
        fs::read_to_string(root.join(REQUIREMENTS)).with_context(|| format!("failed to read {REQUIREMENTS}"))?;
    found.extend(orphans(&root, &requirements)?);
    found.extend(toothless(&requirements).iter().map(|(line, what)| format!("{REQUIREMENTS}:{line}: {what}")));
    for line in &found {
        println!("{line}");
    }
    Ok(u8::from(!found.is_empty()))
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("failed to list {}", folder.display()))?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
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

/// Goldens of checks that are not required any more.
fn orphans(root: &Path, requirements: &str) -> Result<Vec<String>> {
    let known: Vec<&str> = requirements.lines().filter_map(|l| l.strip_prefix("- check: ")).map(str::trim).collect();
    let golden = root.join("golden");
    Ok(files_below(&golden)?
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "snap"))
        .filter_map(|file| {
            let relative = file.strip_prefix(&golden).ok()?;
            let mut parts = relative.components().skip(1).map(|c| c.as_os_str().to_string_lossy().into_owned());
            let check = format!("{}/{}", parts.next()?, parts.next()?.trim_end_matches(".snap").split('@').next()?);
            (!known.contains(&check.as_str()))
                .then(|| format!("golden/{}: no check {check} in suites/requirements.yaml", relative.display()))
        })
        .collect())
}

/// Checks that name no mutant that they kill, although somebody relies on them: (line, what to do).
fn toothless(requirements: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut check = None;
    // The line behind the last one ends the last check.
    for (number, line) in requirements.lines().chain(["- check: "]).enumerate() {
        if let Some(next) = line.strip_prefix("- check: ") {
            if let Some((begun, name)) = check.replace((number + 1, next.trim())) {
                found.push((
                    begun,
                    format!("{name} names no mutant that it kills; a check that cannot fail proves nothing"),
                ));
            }
        } else if line.trim() == "level: INFO"
            || line.trim().strip_prefix("kills: [").is_some_and(|k| !k.starts_with(']'))
        {
            check = None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{ambiguous, toothless};

    #[rstest]
    #[case::teeth("- check: a/b\n  level: MUST\n  kills: [x]\n", &[])]
    #[case::none("- check: a/b\n  level: MUST\n- check: a/c\n  level: SHOULD\n  kills: [x]\n", &[1])]
    #[case::the_last("- check: a/b\n  level: SHOULD\n  kills: []\n", &[1])]
    #[case::a_finding("- check: a/b\n  level: INFO\n", &[])]
    fn checks_without_teeth(#[case] requirements: &str, #[case] lines: &[usize]) {
        let found: Vec<usize> = toothless(requirements).into_iter().map(|(line, _)| line).collect();
        assert_eq!(found, lines);
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
