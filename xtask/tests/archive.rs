//! `cargo xtask archive`, with a cargo that builds nothing: what is asked of it, and what becomes of what it makes.

use std::path::Path;
use std::{fs, process::Command};

use tempfile::TempDir;

/// A folder with a `cargo` in it that writes its calls down, and makes files where the real one would.
fn fake(cyclonedx: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display();
    let script = format!(
        r#"#!/bin/sh
echo "$* RUSTFLAGS=$RUSTFLAGS" >> {here}/calls
case "$1 $2" in
"cyclonedx --version") {cyclonedx};;
cyclonedx*) for crate in harness/igc suites; do echo "{{\"at\": \"path+file://$PWD/$crate\"}}" > $crate/igc.cdx.json; done;;
build*)
  echo '{{"target":{{"name":"igc"}},"executable":"{here}/built-igc"}}'
  echo '{{"target":{{"name":"suites"}},"executable":"{here}/built-suites"}}';;
esac
"#
    );
    testtools::script(&folder.path().join("cargo"), &script).unwrap();
    for (name, content) in [("built-igc", "igc"), ("built-suites", "suites")] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// `cargo xtask archive TO` with that cargo: exit code and standard error.
fn archive(fake: &TempDir, to: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.env("CARGO", fake.path().join("cargo")).arg("archive").arg(to).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn said(folder: &Path, command: &str) -> String {
    let output = Command::new("sh").current_dir(folder).args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_archive_holds_what_a_release_is_made_of() {
    let (fake, to) = (fake("echo cargo-cyclonedx 0.5.9"), tempfile::tempdir().unwrap());
    let (code, stderr) = archive(&fake, to.path());
    assert_eq!(code, Some(0), "{stderr}");

    let name = stderr.trim().rsplit('/').next().unwrap().strip_suffix(".tar.gz").unwrap();
    let target = name.strip_prefix(concat!("igc-", env!("CARGO_PKG_VERSION"), "-")).unwrap();
    let mut files: Vec<String> =
        said(to.path(), "tar -tzf igc-*.tar.gz").lines().map(|file| file.replace(name, "NAME")).collect();
    files.sort();
    let expected = ["", "CHANGELOG.md", "LICENSE", "README.md", "igc", "igc.cdx.json", "suites"]
        .map(|file| format!("NAME/{file}"));
    assert_eq!(files, expected);
    for program in ["igc", "suites"] {
        assert_eq!(said(to.path(), &format!("tar -xzOf igc-*.tar.gz {name}/{program}")), program);
    }
    said(to.path(), "sha256sum --check *.sha256 || shasum -a 256 --check *.sha256");
    let bill = fs::read_to_string(to.path().join(name).join("igc.cdx.json")).unwrap();
    assert_eq!(bill.trim(), r#"{"at": "path+file:///harness/igc"}"#, "it tells nothing of this machine");
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for left in ["harness/igc/igc.cdx.json", "suites/igc.cdx.json"] {
        assert!(!checkout.join(left).exists(), "{left} is left in the checkout");
    }

    let calls = fs::read_to_string(fake.path().join("calls")).unwrap();
    let build = calls.lines().find(|call| call.starts_with("build ")).unwrap();
    assert!(build.contains(&format!("--release --locked --target {target}")), "{build}");
    let is_static = build.ends_with("RUSTFLAGS=-C target-feature=+crt-static");
    assert_eq!(is_static, target.ends_with("linux-gnu"), "{build}");
}

#[test]
fn without_the_writer_of_the_bill_nothing_is_built() {
    let (fake, to) = (fake("exit 101"), tempfile::tempdir().unwrap());
    let (code, stderr) = archive(&fake, to.path());
    assert_eq!(code, Some(3));
    assert!(stderr.contains("cargo install cargo-cyclonedx --version"), "{stderr}");
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(fake.path().join("calls")).unwrap().lines().count(), 1);
}
