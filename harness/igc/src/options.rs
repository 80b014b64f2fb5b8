//! The options of the commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use globset::{Glob, GlobSet, GlobSetBuilder};
use verdict::plan::Shard;

use crate::failure::Failure;

/// Checks at a time where nothing is said.
const JOBS: u32 = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum On {
    /// kind where a container engine, kind and Helm answer, else the rehearsal.
    #[default]
    Auto,
    /// The embedded stand-in; no gateway is tested.
    Rehearsal,
    /// A gateway's data plane from its image (not built yet).
    Container,
    /// A new kind cluster, deleted at the end.
    Kind,
    /// An existing cluster; needs --context.
    Context,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Egress {
    /// They cannot; each run proves it.
    Closed,
    /// They can; the report says so.
    Open,
}

/// What stands where: the options that `e2e` and `up` share.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Target {
    /// The place of the run
    #[arg(long, value_enum, default_value_t, value_name = "PLACE")]
    pub on: On,
    /// Kubeconfig context for --on context; there is no default, so that no cluster is touched by mistake
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Gateway under test: a folder of manifests/gateways, or "all"
    #[arg(long, default_value = "all", value_name = "NAME|all")]
    pub gateway: String,
    /// Versions of all components, a file of manifests/profiles [default: recorded for rehearsals, else current]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Version of one component in place of the profile's, for example envoy-ai-gateway=v1.0.0; repeatable
    #[arg(long = "set", value_name = "COMPONENT=VERSION")]
    pub set: Vec<String>,
    /// Model that the guides' suites use, and where it is given the token suites, too: a file of manifests/models
    /// [default: llm-d-sim, and echo for the token suites]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Changes that what stands around the gateway makes (a company's proxy, tracing), in the form of `changes` of a
    /// gateway.yaml; the report names the file
    #[arg(long, value_name = "FILE")]
    pub declare: Option<PathBuf>,
    /// Whether pods can reach the internet while checks run [default: closed where the place can close it]
    #[arg(long, value_enum, value_name = "closed|open")]
    pub egress: Option<Egress>,
    /// Folder in which the run's folder is made [default: target/igc]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Install from this folder of charts, definitions and images, not from registries
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Node image of the kind cluster
    #[arg(long, value_name = "REF")]
    pub node_image: Option<String>,
    /// Image of igc that the cluster can pull [default: one made of this program and loaded into kind]
    #[arg(long, value_name = "REF")]
    pub igc_image: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct E2e {
    #[command(flatten)]
    pub target: Target,
    /// Only suites that match, for example tokens or 'guide-*'; repeatable
    #[arg(long, value_name = "GLOB")]
    pub suite: Vec<String>,
    /// Only checks that match, for example routing/host or 'tokens/exact@*'; repeatable
    #[arg(long, value_name = "GLOB")]
    pub check: Vec<String>,
    /// A SHOULD that is false breaks the run, too
    #[arg(long)]
    pub strict: bool,
    /// Accept filters that select nothing that can run
    #[arg(long)]
    pub allow_empty: bool,
    /// Keep the cluster, and the namespaces of checks that did not pass
    #[arg(long)]
    pub keep: bool,
    /// Only one part of the checks, to share a run among machines: 2/3 is the second of three; `merge` joins them
    #[arg(long, value_name = "K/N")]
    pub shard: Option<Shard>,
    /// Checks that run at the same time
    #[arg(long, default_value_t = JOBS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub jobs: u32,
    /// How often a check that is false is run again; true at last is `flaky`, never `pass`
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10))]
    pub retries: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object per line: events, checks that did not pass, and the run at the end.
    JsonLines,
}

#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct Output {
    /// Only the last line of the report
    #[arg(long, short)]
    pub quiet: bool,
    /// List known failures in place of their count
    #[arg(long, short, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Format of the output
    #[arg(long, value_enum, default_value_t, value_name = "text|json-lines")]
    pub format: OutputFormat,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Report {
    /// The run's folder [default: target/igc/latest]
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Write report.json, report.xml (JUnit), report.md and report.html into the run's folder
    #[arg(long)]
    pub write: bool,
    /// Print the JSON schema of report.json and nothing else
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
    /// Output of the command `matrix`: a cell without a run is an error
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
    /// Only list them, which is also what happens without a terminal
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
    /// Image of the programs that the cluster can pull; .ci/Containerfile builds it
    #[arg(long, value_name = "REF")]
    pub image: String,
    /// Gateway that is installed in the cluster: a folder of manifests/gateways
    #[arg(long, value_name = "NAME")]
    pub gateway: String,
    /// Name of the cluster in reports, which tells those of a fleet apart
    #[arg(long, default_value = "in-cluster", value_name = "NAME")]
    pub cluster: String,
    /// Versions of all components: a file of manifests/profiles
    #[arg(long, default_value = "current", value_name = "NAME")]
    pub profile: String,
    /// Only suites that match; repeatable
    #[arg(long, value_name = "GLOB")]
    pub suite: Vec<String>,
    /// Namespace of the Job
    #[arg(long, default_value = "igc-runner", value_name = "NAME")]
    pub namespace: String,
    /// Print a Sonobuoy plugin in place of a Job
    #[arg(long)]
    pub sonobuoy: bool,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Down {
    /// Folder of runs, in which the processes of killed runs are recorded [default: target/igc]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Remove the namespaces of runs in this cluster of your kubeconfig, and nothing else
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Doctor {
    /// Format of the output
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
    /// Files of cases, or folders of them [default: all cases of the project, and the goldens of real gateways]
    #[arg(value_name = "FILE-OR-FOLDER")]
    pub paths: Vec<PathBuf>,
    /// Only list the cases
    #[arg(long)]
    pub list: bool,
    /// Only cases that match, for example 'budget/*'; repeatable
    #[arg(long = "case", value_name = "GLOB")]
    pub cases: Vec<String>,
    /// Format of the output
    #[arg(long, value_enum, default_value_t, value_name = "text|json")]
    pub format: Format,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Mutants {
    /// Only mutants that match, for example 'charges-*'; repeatable
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Checks that run at the same time [default: one per processor]
    #[arg(long, default_value_t = processors(), hide_default_value = true, value_name = "N")]
    pub jobs: u32,
    /// Folder for mutants.json, the kill table and the records of every check [default: target/mutants]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Stop trying a mutant on a gateway when one check has killed it there
    #[arg(long)]
    pub once: bool,
    /// Try the checks that do not name a mutant, too, to see which of them it breaks; takes long
    #[arg(long, conflicts_with = "once")]
    pub broad: bool,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Replay {
    /// Folders of runs, or folders that hold some [default: target/igc/latest]
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Only checks that match, for example 'routing/*'; repeatable
    #[arg(long = "check", value_name = "GLOB")]
    pub checks: Vec<String>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Differ {
    /// A run's folder: its observations replace the goldens, and its transcripts are shown
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Only checks that match, for example 'routing/*'; repeatable
    #[arg(long = "check", value_name = "GLOB")]
    pub checks: Vec<String>,
    /// Show declared differences, too
    #[arg(long)]
    pub declared: bool,
    /// Format of the output
    #[arg(long, value_enum, default_value_t, value_name = "text|json")]
    pub format: Format,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Matrix {
    /// The place of every cell; auto is refused, because it depends on the machine
    #[arg(long, value_enum, default_value = "kind", value_name = "PLACE")]
    pub on: On,
    /// Only this gateway; repeatable [default: every folder of manifests/gateways]
    #[arg(long, value_name = "NAME")]
    pub gateway: Vec<String>,
    /// Only this profile; repeatable [default: every file of manifests/profiles]
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
    /// Only this model; repeatable [default: those that fit on a small machine]
    #[arg(long, value_name = "MODEL")]
    pub model: Vec<String>,
    /// Into how many shards each cell is divided
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub shards: u32,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct List {
    /// Only this gateway: a folder of manifests/gateways, or "all"
    #[arg(long, default_value = "all", value_name = "NAME|all")]
    pub gateway: String,
    /// Format of the output
    #[arg(long, value_enum, default_value_t, value_name = "text|json")]
    pub format: Format,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Explain {
    /// The check: suite/name, or invariant/NAME
    #[arg(value_name = "CHECK")]
    pub check: String,
    /// Folder of runs, from which its last verdicts are read [default: target/igc]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Tidy {
    /// Rewrite the generated files that are outdated
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
        set.add(Glob::new(value).map_err(|e| Failure::Usage(format!("{option} {value:?} is not a glob: {e}")))?);
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
