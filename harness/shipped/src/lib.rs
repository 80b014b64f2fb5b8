//! The root of a run's data: manifests, goldens and cases of fidelity, in a folder that was named, in the checkout around
//! the current directory, or else as they were packed into this program.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The variable that names the root, as `igc --root` does.
pub const VARIABLE: &str = "IGC_ROOT";

const GATEWAYS: &str = "manifests/gateways";

const ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shipped.tar.gz"));

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    absolute: PathBuf,
    /// From the current directory where it is below it, as people type it; empty where it is the current directory.
    typed: PathBuf,
    unpacked: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("--root {}: it has no {GATEWAYS}; name a checkout of this project, or leave it out", path.display())]
    None { path: PathBuf },
    #[error("failed to unpack manifests and goldens into {}: {source}", path.display())]
    Unpack { path: PathBuf, source: io::Error },
    #[error("failed to find the current directory: {0}")]
    Here(io::Error),
}

impl Root {
    /// The folder that was named; else the nearest one at or above the current directory; else what is packed.
    pub fn find(named: Option<&Path>) -> Result<Self, RootError> {
        let here = env::current_dir().and_then(fs::canonicalize).map_err(RootError::Here)?;
        let is_root = |folder: &Path| folder.join(GATEWAYS).is_dir();
        let (absolute, unpacked) = match named {
            Some(path) => match fs::canonicalize(path) {
                Ok(folder) if is_root(&folder) => (folder, false),
                _ => return Err(RootError::None { path: path.to_owned() }),
            },
            None => match here.ancestors().find(|folder| is_root(folder)) {
                Some(folder) => (folder.to_owned(), false),
                None => (unpack(&cache())?, true),
            },
        };
        let typed = absolute.strip_prefix(&here).unwrap_or(&absolute).to_owned();
        Ok(Self { absolute, typed, unpacked })
    }

    pub fn of_the_environment() -> Result<Self, RootError> {
        Self::find(env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from).as_deref())
    }

    /// For programs that are started.
    pub fn absolute(&self) -> &Path {
        &self.absolute
    }

    /// For messages, and to open files: as short as the current directory allows.
    pub fn path(&self) -> &Path {
        &self.typed
    }

    /// What stands in a run: components, gateways, models, profiles.
    pub fn manifests(&self) -> PathBuf {
        self.typed.join("manifests")
    }

    /// What was accepted of each gateway: observations, known failures, differences.
    pub fn goldens(&self) -> PathBuf {
        self.typed.join("golden")
    }

    pub fn is_checkout(&self) -> bool {
        self.absolute.join("Cargo.toml").is_file()
    }

    /// Whether it is only what this program brings along: nothing that people change belongs there.
    pub fn is_packed(&self) -> bool {
        self.unpacked
    }

    /// What is left behind: below the root, or below the current directory where the root is only unpacked.
    pub fn target(&self) -> PathBuf {
        if self.unpacked { PathBuf::from("target") } else { self.typed.join("target") }
    }
}

/// Where packed files are put: in the user's cache, else in a folder of the user's own among temporary files.
fn cache() -> PathBuf {
    let named = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    let usable = |folder: &PathBuf| fs::create_dir_all(folder).is_ok() && tempfile::tempfile_in(folder).is_ok();
    let own = || env::temp_dir().join(format!("igc-{}", rustix::process::geteuid().as_raw()));
    cache.map(|cache| cache.join("igc")).filter(usable).unwrap_or_else(own)
}

/// Unpacks once: the folder is called by what is in it, and is there whole or not at all.
fn unpack(cache: &Path) -> Result<PathBuf, RootError> {
    let folder = cache.join(env!("SHIPPED_HASH"));
    let failed = |source| RootError::Unpack { path: folder.clone(), source };
    fs::create_dir_all(cache).map_err(failed)?;
    is_own(cache).map_err(failed)?;
    if !folder.is_dir() {
        let fresh = tempfile::tempdir_in(cache).map_err(failed)?;
        tar::Archive::new(flate2::read::GzDecoder::new(ARCHIVE)).unpack(fresh.path()).map_err(failed)?;
        let renamed = fs::rename(fresh.keep(), &folder);
        // Another process was quicker: its files are the same.
        if renamed.is_err() && !folder.is_dir() {
            return renamed.map(|()| folder.clone()).map_err(failed);
        }
    }
    fs::canonicalize(&folder).map_err(failed)
}

fn is_own(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(folder)?;
    if metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "others can write into {}; set XDG_CACHE_HOME to a folder of yours",
        folder.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_the_checkout_has() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpack(cache.path()).unwrap();
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for file in ["manifests/profiles/current.yaml", "golden/agentgateway/baseline.yaml"] {
            assert_eq!(fs::read(folder.join(file)).unwrap(), fs::read(checkout.join(file)).unwrap(), "{file}");
        }
        assert!(folder.join("harness/rehearsal/fidelity").is_dir());
        assert_eq!(unpack(cache.path()).unwrap(), folder, "it is there already");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_others_can_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let cache = tempfile::tempdir().unwrap();
        fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = unpack(cache.path()).unwrap_err().to_string();
        assert!(error.contains("others can write into"), "{error}");
    }

    #[test]
    fn a_root_is_named_or_around_the_current_directory() {
        let checkout = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
        assert_eq!(Root::find(None).unwrap().absolute(), checkout, "tests run in the checkout");
        let named = tempfile::tempdir().unwrap();
        let error = Root::find(Some(named.path())).unwrap_err().to_string();
        assert!(error.contains("it has no manifests/gateways"), "{error}");
        fs::create_dir_all(named.path().join(GATEWAYS)).unwrap();
        let root = Root::find(Some(named.path())).unwrap();
        assert_eq!((root.absolute(), root.is_checkout()), (&*fs::canonicalize(named.path()).unwrap(), false));
        assert_eq!(root.target(), root.path().join("target"));
    }
}
