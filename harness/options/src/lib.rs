//! The words of the command line, so that `cargo xtask e2e` and `igc plan` cannot disagree about them.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};

/// For the suites' test binary: checks alone, without the tests of the judges and of the suites as a whole.
pub const CHECKS_ALONE: [&str; 4] = ["--skip", "::judges::", "--skip", "unit::"];

/// Where a run happens.
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

/// What serves tokens where a check does not need our own model's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// Our own simulator, for every check.
    Echo,
    /// llm-d-inference-sim, as the guides use it.
    #[default]
    LlmDSim,
    /// vLLM on CPUs; needs several cores and 10 GiB.
    VllmCpu,
}

/// Whether pods of the cluster can reach what is outside of it while checks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Egress {
    /// No; proven in every run.
    Closed,
    /// Yes; the report says so.
    Open,
}

/// What a run is of: the options that `e2e` and `up` share.
#[derive(Clone, Debug, Args)]
pub struct Where {
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
    /// What serves tokens in guide suites and token arithmetic
    #[arg(long, value_enum, default_value_t, value_name = "MODEL")]
    pub model: Model,
    /// Whether pods can reach the outside while checks run; closed where that can be had [default: closed]
    #[arg(long, value_enum, value_name = "closed|open")]
    pub egress: Option<Egress>,
    /// Folder that receives the run's folder
    #[arg(long, default_value = "target/igc", value_name = "DIR")]
    pub out: PathBuf,
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

/// Options of `cargo xtask e2e`.
#[derive(Clone, Debug, Args)]
pub struct E2e {
    /// Where, and on what
    #[command(flatten)]
    pub place: Where,
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
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub jobs: u32,
    /// Tries after a false one; a check that is then true is `flaky`, never `pass`
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10))]
    pub retries: u32,
}

/// One part of a run that several machines share, written `2/3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, counted from 1.
    pub index: u32,
    /// Of how many.
    pub of: u32,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("it is written K/N with K from 1 to N, for example 2/3".to_owned()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// For whom a run speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Spoken {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line on standard output: events, what did not pass, and last the run as a whole.
    JsonLines,
}

/// How a run speaks.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct Output {
    /// Only the last line of the report
    #[arg(long, short)]
    pub quiet: bool,
    /// For whom: text for people, json-lines for programs (events, what did not pass, last the run as a whole)
    #[arg(long, value_enum, default_value_t, value_name = "text|json-lines")]
    pub format: Spoken,
}

impl Output {
    /// The same options as words again.
    pub fn to_words(&self) -> Vec<String> {
        let mut words = vec!["--format".to_owned(), word(self.format)];
        if self.quiet {
            words.push("--quiet".to_owned());
        }
        words
    }
}

/// Options of `cargo xtask report`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Report {
    /// The run's folder
    #[arg(default_value = "target/igc/latest", value_name = "RUN")]
    pub run: PathBuf,
    /// Write report.json, report.xml (JUnit), report.md and report.html into it
    #[arg(long)]
    pub write: bool,
    /// Print the JSON schema of report.json instead
    #[arg(long)]
    pub schema: bool,
    /// The run was interrupted
    #[arg(long, hide = true)]
    pub interrupted: bool,
    /// How it is said
    #[command(flatten)]
    pub output: Output,
}

/// Options of `cargo xtask merge`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Merge {
    /// Folders of runs: shards of a cell, cells of a matrix, clusters of a fleet
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// What `cargo xtask matrix` printed: a cell of it without a run is an error
    #[arg(long, value_name = "FILE")]
    pub matrix: Option<PathBuf>,
    /// Folder that receives the merged run's folder
    #[arg(long, default_value = "target/igc", value_name = "DIR")]
    pub out: PathBuf,
    /// How it is said
    #[command(flatten)]
    pub output: Output,
}

/// Options of `cargo xtask review`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Review {
    /// The run's folder
    #[arg(default_value = "target/igc/latest", value_name = "RUN")]
    pub run: PathBuf,
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

/// Options of `cargo xtask job`.
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

/// Options of `cargo xtask down`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Down {
    /// The folder of runs, to find processes that still live
    #[arg(long, default_value = "target/igc", value_name = "DIR")]
    pub out: PathBuf,
    /// Remove the namespaces of runs in this cluster of your kubeconfig instead
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Options of `cargo xtask doctor`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Doctor {
    /// How to print what was found
    #[arg(long, value_enum, default_value_t, value_name = "text|json")]
    pub format: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Options of `cargo xtask fidelity`.
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

impl Fidelity {
    /// The same options as words again.
    pub fn to_words(&self) -> Vec<String> {
        let mut words = vec!["--format".to_owned(), word(self.format)];
        if self.list {
            words.push("--list".to_owned());
        }
        self.cases.iter().for_each(|c| words.extend(["--case".to_owned(), c.clone()]));
        words.push("--".to_owned());
        words.extend(self.paths.iter().map(|p| p.display().to_string()));
        words
    }
}

/// Options of `cargo xtask mutants`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Mutants {
    /// Only mutants that match, for example 'charges-*'; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Checks at a time [default: one for each processor]
    #[arg(long, default_value_t = processors(), hide_default_value = true, value_name = "N")]
    pub jobs: u32,
    /// Folder that receives mutants.json, the kill table and the records of every try
    #[arg(long, default_value = "target/mutants", value_name = "DIR")]
    pub out: PathBuf,
    /// Each mutant only until one check has killed it
    #[arg(long)]
    pub once: bool,
    /// Also every check that does not name a mutant, once, to see which fail for it; takes long
    #[arg(long, conflicts_with = "once")]
    pub broad: bool,
}

/// Options of `cargo xtask replay`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Replay {
    /// Folders of runs, or folders of them; the last run where none is given
    #[arg(value_name = "RUN", default_value = "target/igc/latest")]
    pub runs: Vec<PathBuf>,
    /// Only checks that match, for example 'routing/*'; may be given several times
    #[arg(long = "check", value_name = "GLOB")]
    pub checks: Vec<String>,
}

impl Replay {
    /// The same options as words again.
    pub fn to_words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.checks.iter().flat_map(|c| ["--check".to_owned(), c.clone()]).collect();
        words.push("--".to_owned());
        words.extend(self.runs.iter().map(|run| run.display().to_string()));
        words
    }
}

/// Options of `cargo xtask differ`.
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

fn processors() -> u32 {
    std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
}

impl Mutants {
    /// Each mutant until one check has killed it: what a commit must pass.
    pub fn each_once() -> Self {
        Self { only: vec![], jobs: processors(), out: "target/mutants".into(), once: true, broad: false }
    }

    /// The same options as words again.
    pub fn to_words(&self) -> Vec<String> {
        let mut words = vec!["--jobs".to_owned(), self.jobs.to_string(), "--out".to_owned()];
        words.push(self.out.display().to_string());
        self.only.iter().for_each(|o| words.extend(["--only".to_owned(), o.clone()]));
        for (given, name) in [(self.once, "--once"), (self.broad, "--broad")] {
            if given {
                words.push(name.to_owned());
            }
        }
        words
    }
}

/// The word that stands for an enum's value on the command line.
pub fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

impl Where {
    /// The same options as words again.
    pub fn to_words(&self) -> Vec<String> {
        let mut words = vec!["--on".into(), word(self.on), "--gateway".into(), self.gateway.clone()];
        let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
        add("--profile", self.profile.clone());
        add("--model", word(self.model));
        self.egress.iter().for_each(|e| add("--egress", word(*e)));
        add("--out", self.out.display().to_string());
        self.context.iter().for_each(|c| add("--context", c.clone()));
        self.set.iter().for_each(|s| add("--set", s.clone()));
        self.bundle.iter().for_each(|b| add("--bundle", b.display().to_string()));
        self.node_image.iter().for_each(|i| add("--node-image", i.clone()));
        self.igc_image.iter().for_each(|i| add("--igc-image", i.clone()));
        words
    }
}

impl E2e {
    /// The same options as words again, for example to hand them to `igc`.
    pub fn to_words(&self) -> Vec<String> {
        let mut words = self.place.to_words();
        self.suite.iter().for_each(|s| words.extend(["--suite".to_owned(), s.clone()]));
        self.check.iter().for_each(|c| words.extend(["--check".to_owned(), c.clone()]));
        for (given, name) in [(self.strict, "--strict"), (self.allow_empty, "--allow-empty"), (self.keep, "--keep")] {
            if given {
                words.push(name.to_owned());
            }
        }
        self.shard.iter().for_each(|s| words.extend(["--shard".to_owned(), s.to_string()]));
        words.extend(["--jobs".to_owned(), self.jobs.to_string(), "--retries".to_owned(), self.retries.to_string()]);
        words
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::{E2e, Shard};

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        e2e: E2e,
    }

    fn parse(words: &[String]) -> E2e {
        Program::try_parse_from(std::iter::once("igc".to_owned()).chain(words.iter().cloned()))
            .map(|p| p.e2e)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    #[rstest]
    #[case::nothing(&[])]
    #[case::all(&["--on", "context", "--context", "x y", "--gateway", "g", "--profile", "p", "--set", "a=1", "--set", "b=2",
        "--model", "echo", "--egress", "open", "--out", "o", "--bundle", "b", "--node-image", "n", "--igc-image", "i", "--suite", "s*", "--check", "c",
        "--strict", "--allow-empty", "--keep", "--shard", "2/3", "--jobs", "7", "--retries", "2"])]
    fn words_survive_a_round_trip(#[case] given: &[&str]) {
        let given: Vec<String> = given.iter().map(|w| (*w).to_owned()).collect();
        let parsed = parse(&given);
        assert_eq!(format!("{parsed:?}"), format!("{:?}", parse(&parsed.to_words())));
        for word in &given {
            assert!(parsed.to_words().contains(word), "{word} was lost");
        }
    }

    #[rstest]
    #[case::first("1/3", true)]
    #[case::last("3/3", true)]
    #[case::counted_from_zero("0/3", false)]
    #[case::beyond("4/3", false)]
    #[case::no_parts("0/0", false)]
    #[case::one_number("2", false)]
    #[case::words("a/b", false)]
    fn parts_of_a_run(#[case] text: &str, #[case] good: bool) {
        assert_eq!(text.parse::<Shard>().map(|s| s.to_string()).ok(), good.then(|| text.to_owned()));
    }
}
