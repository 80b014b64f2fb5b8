//! Packs what the programs read at run time, so that they work without a checkout.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

use flate2::{Compression, write::GzEncoder};

/// Folders of the checkout that are packed. Their paths stay as they are.
const FOLDERS: [&str; 3] = ["manifests", "golden", "harness/rehearsal/fidelity"];

fn main() -> io::Result<()> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in FOLDERS {
        println!("cargo::rerun-if-changed={}", checkout.join(folder).display());
        list(&checkout.join(folder), &mut files)?;
    }
    files.sort();
    // Nothing of this machine is in it: the same files make the same archive.
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for file in files {
        let bytes = fs::read(&file)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let name = file.strip_prefix(&checkout).unwrap_or(&file);
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    let bytes = archive.into_inner()?.finish()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    println!("cargo::rustc-env=SHIPPED_HASH={:016x}", hasher.finish());
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    fs::write(out.join("shipped.tar.gz"), bytes)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
