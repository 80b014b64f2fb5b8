//! The words of the command line, so that `cargo xtask e2e` and `igc plan` cannot disagree about them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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
    /// Checks at a time
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub jobs: u32,
    /// Tries after a false one; a check that is then true is `flaky`, never `pass`
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10))]
    pub retries: u32,
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

/// The words that stand for an enum's value on the command line.
fn word(value: impl ValueEnum) -> String {
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
        words.extend(["--jobs".to_owned(), self.jobs.to_string(), "--retries".to_owned(), self.retries.to_string()]);
        words
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::E2e;

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
        "--model", "echo", "--egress", "open", "--out", "o", "--bundle", "b", "--node-image", "n", "--suite", "s*", "--check", "c",
        "--strict", "--allow-empty", "--keep", "--jobs", "7", "--retries", "2"])]
    fn words_survive_a_round_trip(#[case] given: &[&str]) {
        let given: Vec<String> = given.iter().map(|w| (*w).to_owned()).collect();
        let parsed = parse(&given);
        assert_eq!(format!("{parsed:?}"), format!("{:?}", parse(&parsed.to_words())));
        for word in &given {
            assert!(parsed.to_words().contains(word), "{word} was lost");
        }
    }
}
