//! Bundles: a folder that an install takes charts, definitions and images from, where no registry can be reached.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use crate::{api::items, programs::engine::full_name};

#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("bundle {}: {problem}; a bundle is a folder with charts/NAME-VERSION(.tgz), crds/PROJECT/VERSION/*.yaml and images/*.tar", folder.display())]
    NotABundle { folder: PathBuf, problem: String },
    #[error("bundle {} has no chart {name} {version}; {}{}", folder.display(), it_has(.has), choose(.component))]
    NoChart {
        folder: PathBuf,
        name: String,
        version: String,
        /// Versions of the chart, or names of all charts where it has none.
        has: Vec<String>,
        component: Option<String>,
    },
    #[error("bundle {} has no definitions crds/{wanted}; {}{}", folder.display(), it_has(.has), choose(.component))]
    NoCrds { folder: PathBuf, wanted: String, has: Vec<String>, component: Option<String> },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

fn choose(component: &Option<String>) -> String {
    component.as_ref().map(|component| format!("; choose one with --set {component}=VERSION")).unwrap_or_default()
}

impl BundleError {
    /// The same error, which also says how to choose another version of this component.
    pub(crate) fn of_component(mut self, name: &str) -> Self {
        if let Self::NoChart { component, .. } | Self::NoCrds { component, .. } = &mut self {
            *component = Some(name.to_owned());
        }
        self
    }
}

fn it_has(names: &[String]) -> String {
    if names.is_empty() { "it has none at all".to_owned() } else { format!("it has {}", names.join(", ")) }
}

/// What counts of `Chart.yaml`; charts may say more.
#[derive(Debug, Deserialize)]
struct ChartFile {
    #[serde(default)]
    description: String,
}

impl Bundle {
    /// Opens a folder that has charts and definitions.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let not = |problem: String| BundleError::NotABundle { folder: folder.to_owned(), problem };
        fs::read_dir(folder).map_err(|error| not(error.to_string()))?;
        for part in ["charts", "crds"] {
            fs::read_dir(folder.join(part)).map_err(|error| not(format!("{part}: {error}")))?;
        }
        Ok(Self { folder: folder.canonicalize().map_err(|error| not(error.to_string()))? })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn chart(&self, name: &str, version: &str) -> Result<PathBuf, BundleError> {
        let charts = self.folder.join("charts");
        let archive = charts.join(format!("{name}-{version}.tgz"));
        let unpacked = charts.join(format!("{name}-{version}"));
        if unpacked.join("Chart.yaml").is_file() {
            return Ok(unpacked);
        }
        if archive.is_file() {
            return Ok(archive);
        }
        let all = names(&charts);
        let versions: Vec<String> =
            all.iter().filter_map(|file| version_of(file, name)).map(|version| format!("{name} {version}")).collect();
        let has = if versions.is_empty() {
            all.iter().map(|file| file.trim_end_matches(".tgz").to_owned()).collect()
        } else {
            versions
        };
        Err(BundleError::NoChart {
            folder: self.folder.clone(),
            name: name.to_owned(),
            version: version.to_owned(),
            has,
            component: None,
        })
    }

    pub fn crds(&self, wanted: &str) -> Result<Vec<PathBuf>, BundleError> {
        let folder = self.folder.join("crds").join(wanted);
        let files: Vec<PathBuf> =
            names(&folder).into_iter().filter(|name| name.ends_with(".yaml")).map(|name| folder.join(name)).collect();
        if !files.is_empty() {
            return Ok(files);
        }
        let crds = self.folder.join("crds");
        let has = names(&crds).into_iter().flat_map(|project| {
            names(&crds.join(&project)).into_iter().map(move |version| format!("{project}/{version}"))
        });
        Err(BundleError::NoCrds {
            folder: self.folder.clone(),
            wanted: wanted.to_owned(),
            has: has.collect(),
            component: None,
        })
    }

    /// Whether a chart says of itself that it stands in for something: the words of its description.
    pub fn stand_in(&self, name: &str, version: &str) -> Option<String> {
        let file = self.folder.join("charts").join(format!("{name}-{version}")).join("Chart.yaml");
        let chart: ChartFile = serde_saphyr::from_str(&fs::read_to_string(file).ok()?).ok()?;
        let stands_in =
            ["stand-in", "stand in", "standin"].iter().any(|word| chart.description.to_lowercase().contains(word));
        stands_in.then(|| chart.description.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Archives under `images/`, with the names of the images in each.
    pub fn archives(&self) -> Result<Vec<Archive>, BundleError> {
        let folder = self.folder.join("images");
        let files = names(&folder).into_iter().filter(|name| name.ends_with(".tar")).map(|name| folder.join(name));
        files
            .map(|path| {
                let images = images_in(&path).map_err(|source| BundleError::File { path: path.clone(), source })?;
                Ok(Archive { images, path })
            })
            .collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    pub path: PathBuf,
    pub images: Vec<String>,
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The version in `NAME-VERSION(.tgz)`: versions begin with a digit, after a `v` or not.
fn version_of(file: &str, name: &str) -> Option<String> {
    let version = file.trim_end_matches(".tgz").strip_prefix(name)?.strip_prefix('-')?;
    version.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// Full names of the images in an archive of `docker save`: its `manifest.json` says them.
fn images_in(archive: &Path) -> io::Result<Vec<String>> {
    const LARGEST: u64 = 1 << 20;
    let no_archive = || io::Error::other("no manifest.json in it, so it is no archive of `docker save`");
    let mut archive = tar::Archive::new(File::open(archive)?);
    for entry in archive.entries_with_seek()? {
        let entry = entry.map_err(|_| no_archive())?;
        if entry.path_bytes().as_ref() == b"manifest.json" && entry.size() <= LARGEST {
            let manifest: Value = serde_json::from_reader(entry).map_err(io::Error::other)?;
            let images = manifest.as_array().into_iter().flatten();
            return Ok(images
                .flat_map(|image| items(image, "/RepoTags"))
                .filter_map(Value::as_str)
                .map(full_name)
                .collect());
        }
    }
    Err(no_archive())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn bundle(files: &[(&str, &str)]) -> (tempfile::TempDir, Bundle) {
        let folder = tempfile::tempdir().unwrap();
        for part in ["charts", "crds"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let bundle = Bundle::open(folder.path()).unwrap();
        (folder, bundle)
    }

    fn said(bundle: &Bundle, error: BundleError) -> String {
        error.to_string().replace(&bundle.folder.display().to_string(), "B")
    }

    #[test]
    fn charts_are_folders_or_archives() {
        let files = [
            ("charts/kserve-crd-v0.17.0/Chart.yaml", "name: kserve-crd"),
            ("charts/kserve-v1.tgz", ""),
            ("charts/kserve-crd-v0.20.0.tgz", ""),
        ];
        let (_folder, bundle) = bundle(&files);
        assert!(bundle.chart("kserve-crd", "v0.17.0").unwrap().ends_with("charts/kserve-crd-v0.17.0"));
        assert!(bundle.chart("kserve-crd", "v0.20.0").unwrap().ends_with("charts/kserve-crd-v0.20.0.tgz"));
        let error = said(&bundle, bundle.chart("kserve-crd", "v0.21.0").unwrap_err());
        insta::assert_snapshot!(error, @"bundle B has no chart kserve-crd v0.21.0; it has kserve-crd v0.17.0, kserve-crd v0.20.0");
        let error = said(&bundle, bundle.chart("redis", "1").unwrap_err());
        insta::assert_snapshot!(error, @"bundle B has no chart redis 1; it has kserve-crd-v0.17.0, kserve-crd-v0.20.0, kserve-v1");
    }

    #[test]
    fn definitions_are_files_of_a_version() {
        let (_folder, bundle) = bundle(&[
            ("crds/gateway-api/v1/b.yaml", ""),
            ("crds/gateway-api/v1/a.yaml", ""),
            ("crds/gateway-api/v1/README.md", ""),
        ]);
        let files = bundle.crds("gateway-api/v1").unwrap();
        assert_eq!(
            files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>(),
            ["a.yaml", "b.yaml"]
        );
        let error = said(&bundle, bundle.crds("gateway-api/v2").unwrap_err());
        insta::assert_snapshot!(error, @"bundle B has no definitions crds/gateway-api/v2; it has gateway-api/v1");
    }

    #[test]
    fn what_is_no_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let said =
            |folder: &Path| Bundle::open(folder).unwrap_err().to_string().replace(&folder.display().to_string(), "B");
        insta::assert_snapshot!(said(folder.path()), @"bundle B: charts: No such file or directory (os error 2); a bundle is a folder with charts/NAME-VERSION(.tgz), crds/PROJECT/VERSION/*.yaml and images/*.tar");
        insta::assert_snapshot!(said(&folder.path().join("nothing")), @"bundle B: No such file or directory (os error 2); a bundle is a folder with charts/NAME-VERSION(.tgz), crds/PROJECT/VERSION/*.yaml and images/*.tar");
    }

    #[test]
    fn a_stand_in_says_so_itself() {
        let files = [
            (
                "charts/cert-manager-v1-standin/Chart.yaml",
                "name: cert-manager\ndescription: >-\n  Stand-in for cert-manager:\n  not it.\nversion: v1-standin\n",
            ),
            ("charts/cert-manager-v1/Chart.yaml", "name: cert-manager\ndescription: A Helm chart for cert-manager\n"),
        ];
        let (_folder, bundle) = bundle(&files);
        assert_eq!(
            bundle.stand_in("cert-manager", "v1-standin").as_deref(),
            Some("Stand-in for cert-manager: not it.")
        );
        assert_eq!(bundle.stand_in("cert-manager", "v1"), None);
        assert_eq!(bundle.stand_in("cert-manager", "v2"), None);
    }

    #[test]
    fn archives_name_their_images() {
        let (folder, bundle) = bundle(&[
            ("w/layer.tar", &"x".repeat(700)),
            ("w/manifest.json", r#"[{"RepoTags":["redis:8","docker.io/kserve/agent:v1"]}]"#),
        ]);
        assert_eq!(bundle.archives().unwrap(), [], "no images is no error");
        fs::create_dir(folder.path().join("images")).unwrap();
        let tar = |name: &str, files: &[&str]| {
            let made = Command::new("tar")
                .arg("-C")
                .arg(folder.path().join("w"))
                .arg("-cf")
                .arg(folder.path().join("images").join(name))
                .args(files)
                .status();
            assert!(made.unwrap().success());
        };
        tar("good.tar", &["layer.tar", "manifest.json"]);
        assert_eq!(bundle.archives().unwrap()[0].images, ["docker.io/library/redis:8", "docker.io/kserve/agent:v1"]);
        tar("bad.tar", &["layer.tar"]);
        let error = said(&bundle, bundle.archives().unwrap_err());
        insta::assert_snapshot!(error, @"B/images/bad.tar: no manifest.json in it, so it is no archive of `docker save`");
    }
}
