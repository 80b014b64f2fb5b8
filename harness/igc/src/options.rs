//! The options of the commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use globset::{Glob, GlobSet, GlobSetBuilder};
use verdict::plan::Shard;

use crate::failure::Failure;

/// Checks at a time where nothing is said.
const JOBS: u32 = 4;

/// The model of a run that names none: the one that the guides use.
pub const USUAL_MODEL: &str = "llm-d-sim";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// kind where a container engine, kind and helm answer, else the rehearsal.
    #[default]
    Auto,
    /// The embedded stand-in: no gateway is tested.
    Rehearsal,
    /// A gateway's data plane from its image (not built yet).
    Container,
    /// A kind cluster of our own, deleted at the end.
    Kind,
    /// A cluster that is there; needs --context.
    Context,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Egress {
    /// No; proven in every run.
    Closed,
    /// Yes; the report says so.
    Open,
}

/// What stands where: the options that `e2e` and `up` share.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Target {
    /// Where to run
    #[arg(long, value_enum, default_value_t, value_name = "PLACE")]
    pub on: On,
    /// The kubeconfig context to use with --on context; there is no default, on purpose
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Gateway under test, a folder of manifests/gateways, or "all"
    #[arg(long, default_value = "all", value_name = "NAME|all")]
    pub gateway: String,
    /// Set of versions, a file of manifests/profiles
    #[arg(long, default_value = "current", value_name = "NAME")]
    pub profile: String,
    /// Another version of one component, for example --set envoy-ai-gateway=v1.0.0
    #[arg(long = "set", value_name = "COMPONENT=VERSION")]
    pub set: Vec<String>,
    /// What serves tokens in guide suites and token arithmetic, a file of manifests/models
    #[arg(long, default_value = USUAL_MODEL, value_name = "MODEL")]
    pub model: String,
    /// Whether pods can reach the outside while checks run; closed where that can be had [default: closed]
    #[arg(long, value_enum, value_name = "closed|open")]
    pub egress: Option<Egress>,
    /// Folder that receives the run's folder [default: target/igc]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Install from this folder of charts, definitions and images instead of registries
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Node image of the kind cluster
    #[arg(long, value_name = "REF")]
    pub node_image: Option<String>,
    /// Image of the igc program that the cluster can pull, where this machine cannot make one
    #[arg(long, value_name = "REF")]
    pub igc_image: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct E2e {
    #[command(flatten)]
    pub target: Target,
    /// Only suites that match, for example 'tokens' or 'guide-*'; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub suite: Vec<String>,
    /// Only checks that match, for example 'routing/host' or 'tokens/exact@70'; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub check: Vec<String>,
    /// A false SHOULD breaks the run as well
    #[arg(long)]
    pub strict: bool,
    /// Do not refuse filters that select nothing that can run
    #[arg(long)]
    pub allow_empty: bool,
    /// Leave the cluster, and the namespaces of checks that did not pass
    #[arg(long)]
    pub keep: bool,
    /// Only one part of the checks, so that several machines share a run: the second of three is 2/3; `merge` joins them
    #[arg(long, value_name = "K/N")]
    pub shard: Option<Shard>,
    /// Checks at a time
    #[arg(long, default_value_t = JOBS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub jobs: u32,
    /// Tries after a false one; a check that is then true is `flaky`, never `pass`
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10))]
    pub retries: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line on standard output: events, what did not pass, and last the run as a whole.
    JsonLines,
}

#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct Output {
    /// Only the last line of the report
    #[arg(long, short)]
    pub quiet: bool,
    /// List known failures too, in place of their count
    #[arg(long, short, conflicts_with = "quiet")]
    pub verbose: bool,
    /// For whom: text for people, json-lines for programs (events, what did not pass, last the run as a whole)
    #[arg(long, value_enum, default_value_t, value_name = "text|json-lines")]
    pub format: OutputFormat,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Report {
    /// The run's folder [default: target/igc/latest]
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Write report.json, report.xml (JUnit), report.md and report.html into it
    #[arg(long)]
    pub write: bool,
    /// Print the JSON schema of report.json instead
    #[arg(long)]
    pub schema: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Merge {
    /// Folders of runs: shards of a cell, cells of a matrix, clusters of a fleet
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// What `cargo xtask matrix` printed: a cell of it without a run is an error
    #[arg(long, value_name = "FILE")]
    pub matrix: Option<PathBuf>,
    /// Folder that receives the merged run's folder [default: target/igc]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Review {
    /// The run's folder [default: target/igc/latest]
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Only list; that is also what happens where there is no terminal to ask
    #[arg(long, conflicts_with_all = ["accept", "reject"])]
    pub list: bool,
    /// Accept those that match, for example 'routing/*'
    #[arg(long, value_name = "GLOB", requires = "reason", conflicts_with = "reject")]
    pub accept: Option<String>,
    /// Reject those that match: what was accepted stays, and the next run shows the difference again
    #[arg(long, value_name = "GLOB")]
    pub reject: Option<String>,
    /// Why the new observation is right; kept in the golden
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Job {
    /// Image that `.ci/Containerfile` makes, as the cluster can pull it
    #[arg(long, value_name = "REF")]
    pub image: String,
    /// Gateway that stands in the cluster, a folder of manifests/gateways
    #[arg(long, value_name = "NAME")]
    pub gateway: String,
    /// What the cluster is called in reports, so that those of a fleet are told apart
    #[arg(long, default_value = "in-cluster", value_name = "NAME")]
    pub cluster: String,
    /// Set of versions, a file of manifests/profiles
    #[arg(long, default_value = "current", value_name = "NAME")]
    pub profile: String,
    /// Only suites that match; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub suite: Vec<String>,
    /// Namespace of the Job
    #[arg(long, default_value = "igc-runner", value_name = "NAME")]
    pub namespace: String,
    /// As a plugin of Sonobuoy
    #[arg(long)]
    pub sonobuoy: bool,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Down {
    /// The folder of runs, to find processes that still live [default: target/igc]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Remove the namespaces of runs in this cluster of your kubeconfig instead
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Doctor {
    /// How to print what was found
    #[arg(long, value_enum, default_value_t, value_name = "text|json")]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Fidelity {
    /// Files of cases, or folders of them; all cases of the project and all goldens of real places where none is given
    #[arg(value_name = "FILE-OR-FOLDER")]
    pub paths: Vec<PathBuf>,
    /// Only list the cases
    #[arg(long)]
    pub list: bool,
    /// Only cases that match, for example 'budget/*'; may be given several times
    #[arg(long = "case", value_name = "GLOB")]
    pub cases: Vec<String>,
    /// How to print what came of it
    #[arg(long, value_enum, default_value_t, value_name = "text|json")]
    pub format: Format,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Mutants {
    /// Only mutants that match, for example 'charges-*'; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Checks at a time [default: one for each processor]
    #[arg(long, default_value_t = processors(), hide_default_value = true, value_name = "N")]
    pub jobs: u32,
    /// Folder that receives mutants.json, the kill table and the records of every try [default: target/mutants]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Each mutant only until one check has killed it
    #[arg(long)]
    pub once: bool,
    /// Also every check that does not name a mutant, once, to see which fail for it; takes long
    #[arg(long, conflicts_with = "once")]
    pub broad: bool,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Replay {
    /// Folders of runs, or folders of them; the last run where none is given
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Only checks that match, for example 'routing/*'; may be given several times
    #[arg(long = "check", value_name = "GLOB")]
    pub checks: Vec<String>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Differ {
    /// A run's folder: what it observed counts in place of what was accepted before, and its transcripts are shown
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Only checks that match, for example 'routing/*'; may be given several times
    #[arg(long = "check", value_name = "GLOB")]
    pub checks: Vec<String>,
    /// Show declared differences too
    #[arg(long)]
    pub declared: bool,
    /// How to print what came of it
    #[arg(long, value_enum, default_value_t, value_name = "text|json")]
    pub format: Format,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Matrix {
    /// Where each cell runs; the same on every machine, so that it cannot be auto
    #[arg(long, value_enum, default_value = "kind", value_name = "PLACE")]
    pub on: On,
    /// Only this gateway; may be given several times [default: every folder of manifests/gateways]
    #[arg(long, value_name = "NAME")]
    pub gateway: Vec<String>,
    /// Only this profile; may be given several times [default: every file of manifests/profiles]
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
    /// Only this model; may be given several times [default: those that fit on a small machine]
    #[arg(long, value_name = "MODEL")]
    pub model: Vec<String>,
    /// Parts of each cell, for as many machines
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub shards: u32,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct List {
    /// Only this gateway, a folder of manifests/gateways, or "all"
    #[arg(long, default_value = "all", value_name = "NAME|all")]
    pub gateway: String,
    /// How to print the checks
    #[arg(long, value_enum, default_value_t, value_name = "text|json")]
    pub format: Format,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Explain {
    /// The check, suite/name
    #[arg(value_name = "CHECK")]
    pub check: String,
    /// The folder of runs, to find its last verdicts [default: target/igc]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Tidy {
    /// Write the generated files that are not current
    #[arg(long)]
    pub write: bool,
}

fn processors() -> u32 {
    std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
}

/// What the values of an option select; all where there are none.
pub fn globs(option: &str, values: &[String]) -> Result<GlobSet, Failure> {
    let mut set = GlobSetBuilder::new();
    let all = ["*".to_owned()];
    for value in if values.is_empty() { &all } else { values } {
        set.add(Glob::new(value).map_err(|e| Failure::Usage(format!("{option} {value:?} is no glob: {e}")))?);
    }
    set.build().map_err(Failure::usage)
}

/// The options of a command line with these arguments.
pub fn parsed<O: Args>(arguments: &[&str]) -> Result<O, clap::Error> {
    let command = O::augment_args(clap::Command::new("igc").no_binary_name(true));
    O::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

impl Default for Target {
    fn default() -> Self {
        parsed(&[]).unwrap_or_else(|error| error.exit())
    }
}

impl Default for E2e {
    fn default() -> Self {
        parsed(&[]).unwrap_or_else(|error| error.exit())
    }
}

/// How an enum's value is written on the command line.
pub fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}
