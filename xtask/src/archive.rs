//! The release archive: the programs, static where Linux runs them, with their licence, a list of what they are made of, and
//! a checksum.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::program::{self, cargo, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What writes the bill of materials, and how it is installed.
const SBOM: &str = "cyclonedx";
const INSTALL_SBOM: &str = "cargo install cargo-cyclonedx --version 0.5.9 --locked";

/// Leaves `igc-VERSION-TARGET` as a folder and as `.tar.gz`, and the archive's checksum as `.tar.gz.sha256`.
pub fn archive(folder: &Path) -> Result<u8> {
    if !output(cargo().args([SBOM, "--version"])).is_ok_and(|said| said.contains("cyclonedx")) {
        bail!("cargo-cyclonedx, which writes the archive's bill of materials, is not installed: {INSTALL_SBOM}");
    }
    let target = host()?;
    let name = format!("igc-{VERSION}-{target}");
    let content = folder.join(&name);
    fs::create_dir_all(&content).with_context(|| format!("failed to make {}", content.display()))?;
    let linked = if target.ends_with("linux-gnu") { "-C target-feature=+crt-static" } else { "" };
    // With a target, the flags are not those of build scripts and macros, which cannot be static.
    let words = ["--release", "--locked", "--target", target.as_str()];
    let built = program::built(cargo().env("RUSTFLAGS", linked), &words)?;
    program::copy(&built, &content)?;
    bill_of_materials(&target, &content.join("igc.cdx.json"))?;
    for file in ["LICENSE", "CHANGELOG.md", "README.md"] {
        fs::copy(root().join(file), content.join(file)).with_context(|| format!("failed to copy {file}"))?;
    }
    let packed = format!("{name}.tar.gz");
    output(Command::new("tar").current_dir(folder).args(["-czf", &packed, &name]))?;
    fs::write(folder.join(format!("{packed}.sha256")), checksum(folder, &packed)?)?;
    eprintln!("{}", folder.join(&packed).display());
    Ok(0)
}

/// The tool writes a file beside the manifest of each crate: those of others than `igc` and the suites are not wanted.
fn bill_of_materials(target: &str, to: &Path) -> Result<()> {
    let words = ["--format", "json", "--spec-version", "1.5", "--target", target, "--override-filename", "igc.cdx"];
    output(cargo().arg(SBOM).args(words)).context("failed to write the bill of materials")?;
    let written = manifests().into_iter().map(|folder| folder.join("igc.cdx.json")).filter(|file| file.is_file());
    let ours = root().join("harness/igc/igc.cdx.json");
    let bill = fs::read_to_string(&ours).with_context(|| format!("failed to read {}", ours.display()));
    for file in written {
        fs::remove_file(&file).with_context(|| format!("failed to remove {}", file.display()))?;
    }
    // The tool names a crate of the workspace by its path on this machine; the archive does not publish that path.
    let bill = bill?.replace(&format!("file://{}/", root().display()), "file:///");
    fs::write(to, bill).with_context(|| format!("failed to write {}", to.display()))
}

/// The folders of the workspace's crates.
fn manifests() -> Vec<PathBuf> {
    let rooms = fs::read_dir(root().join("harness")).into_iter().flatten().flatten().map(|entry| entry.path());
    rooms.chain(["suites", "xtask"].map(|name| root().join(name))).collect()
}

/// The target that this toolchain builds for.
fn host() -> Result<String> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// A line as `sha256sum --check` reads it; macOS has the same under another name.
fn checksum(folder: &Path, file: &str) -> Result<String> {
    let sum = |program: &str, words: &[&str]| output(Command::new(program).current_dir(folder).args(words).arg(file));
    sum("sha256sum", &[]).or_else(|_| sum("shasum", &["-a", "256"]))
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("failed to start {name}"))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!("{name} {} failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
