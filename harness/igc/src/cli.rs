//! The command tree: what is typed behind `igc`, or behind the program that is its front.

use std::{env, path::PathBuf};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use verdict::front;

use crate::{model_server, options, picker_server};

/// The front by which help and examples are written.
const CARGO_XTASK: &str = "cargo xtask";

/// End-to-end conformance of inference gateways in front of KServe.
#[derive(Debug, Parser)]
#[command(
    name = "igc",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  cargo xtask doctor                                         what this machine has and lacks
  cargo xtask e2e                                            everything, wherever it can run
  cargo xtask e2e --on kind --gateway envoy-ai-gateway       one gateway in a kind cluster
  cargo xtask e2e --suite 'tokens' --keep                    one suite, and keep the cluster
  cargo xtask down                                           remove everything of every run

Exit codes: 0 held, 1 failures, 2 usage, 3 environment or harness error, 130 interrupted."
)]
pub struct Cli {
    /// Folder with manifests and goldens [default: the checkout around the current directory, else what is packed into igc]
    #[arg(long, global = true, env = shipped::VARIABLE, hide_env = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stand the stack up, run the suites, judge, report, take it down
    #[command(after_help = "\
Examples:
  cargo xtask e2e --on kind --gateway envoy-ai-gateway --suite 'guide-002'
  cargo xtask e2e --on kind --bundle /path/to/bundle --node-image my/node:v1.34.0
  cargo xtask e2e --on context --context my-cluster --check 'routing/*'

  cargo xtask e2e --on rehearsal --quiet                     only the last line
  cargo xtask e2e --on rehearsal --format json-lines         what happens, for programs

The report is in target/igc/latest/ as report.html, report.json, report.xml (JUnit), report.md and on the terminal.
NO_COLOR turns colours off.")]
    E2e {
        #[command(flatten)]
        e2e: options::E2e,
        #[command(flatten)]
        output: options::Output,
    },
    /// Stand the stack up and leave it: prints how to reach it. A rehearsal stays in the foreground until Ctrl-C
    #[command(after_help = "\
Examples:
  cargo xtask up --on kind --gateway envoy-ai-gateway
  cargo xtask up --on rehearsal --gateway agentgateway     a world for kubectl and curl
  cargo xtask down")]
    Up(options::Target),
    /// Remove everything of every run: clusters, images, processes of runs that were killed
    #[command(
        after_help = "Examples:\n  cargo xtask down\n  cargo xtask down --context my-cluster   namespaces of runs in that cluster"
    )]
    Down(options::Down),
    /// List what a run needs, what is here, and how to get what is not
    #[command(after_help = "Example:\n  cargo xtask doctor --format json")]
    Doctor(options::Doctor),
    /// List the checks, and which gateway declares what they need
    #[command(after_help = "\
Examples:
  cargo xtask list --gateway agentgateway
  cargo xtask list --format json                             an array of checks, for programs")]
    List(options::List),
    /// Show what one check demands, how it is driven and judged, which mutants it kills, and what came of it lately
    #[command(after_help = "Example:\n  cargo xtask explain routing/host")]
    Explain(options::Explain),
    /// Show a run's report again
    #[command(after_help = "\
Examples:
  cargo xtask report                                         the last run
  cargo xtask report target/igc/20261121-120305-k3f9 --quiet
  cargo xtask report --format json-lines                     what did not pass, for programs
  cargo xtask report --schema                                what report.json is made of")]
    Report(options::Report),
    /// Print the cells of a nightly matrix as JSON: gateway x profile x model, and parts of them
    #[command(after_help = "\
Examples:
  cargo xtask matrix                                         every gateway, profile and quick model, on kind
  cargo xtask matrix --gateway agentgateway --profile current --model echo --shards 2
  cargo xtask e2e --on kind --gateway agentgateway --profile current --model echo --shard 1/2   one cell's `words`

A workflow reads it with fromJSON; .github/workflows/nightly.yml does.")]
    Matrix(options::Matrix),
    /// Make one report of several runs: parts of a run, cells of a matrix, clusters of a fleet
    #[command(after_help = "\
Examples:
  cargo xtask merge target/igc/20261121-120305-k3f9 target/igc/20261121-121010-a0b1
  cargo xtask merge runs/* --matrix matrix.json              every cell of the matrix must have a run

The merged folder holds report.{html,json,xml,md} and the evidence of all runs. Its exit code is 1 where one of them has
failures, 3 where one is broken or missing.")]
    Merge(options::Merge),
    /// Print the manifest that runs the suites inside a cluster with the least rights, also as a plugin of Sonobuoy
    #[command(after_help = "\
Examples:
  cargo xtask job --image registry.example/igc:1 --gateway agentgateway --cluster blue | kubectl apply -f -
  kubectl wait -n igc-runner --for=condition=Ready pod -l app.kubernetes.io/name=igc --timeout=1h
  kubectl exec -n igc-runner job/igc -c results -- cat /tmp/sonobuoy/results/igc.tar.gz | tar -xz -C runs
  cargo xtask merge runs/2*                                  the clusters of a fleet as one report
  cargo xtask job --image registry.example/igc:1 --gateway agentgateway --sonobuoy > igc.yaml
  sonobuoy run --plugin igc.yaml")]
    Job(options::Job),
    /// Look at observations that differ from their goldens, accept them with a reason
    #[command(after_help = "\
Examples:
  cargo xtask review                                         one by one, side by side
  cargo xtask review --list
  cargo xtask review --accept 'routing/*' --reason 'first recording, read against guide 002'
  cargo xtask review --reject 'tokens/exact@budget-70'")]
    Review(options::Review),
    /// Show what gateways do differently under the same checks, and which of it nobody has declared
    #[command(after_help = "\
Examples:
  cargo xtask differ                                         what was accepted of each gateway, in golden/
  cargo xtask differ target/igc/latest --check 'routing/*'   and what this run observed, with its transcripts
  cargo xtask differ --declared --format json

A difference that is right is declared in golden/<gateway>/differences.yaml, with reason and link. Exit codes: 0 all are
declared, 1 some are not or are stale, 2 usage.")]
    Differ(options::Differ),
    /// Play recordings of real gateways in the rehearsal, and say where it differs
    #[command(after_help = "\
Examples:
  cargo xtask fidelity                                       all recordings, and goldens of real places
  cargo xtask fidelity my-recording.yaml --format json       cases of your own; how to write them is in
                                                             harness/rehearsal/fidelity/README.md
  cargo xtask fidelity --list --case 'budget/*'

Exit codes: 0 agrees or accepted, 1 differs or an accepted difference is stale, 2 usage or a bad case, 3 a case could
not be played.")]
    Fidelity(options::Fidelity),
    /// Judge recorded runs again without a cluster, and show what a changed judge would change
    #[command(after_help = "\
Examples:
  cargo xtask replay target/igc/20261121-120305-k3f9 --check 'routing/*'
  cargo xtask replay target/igc                              every run that is kept

Exit codes: 0 every verdict as recorded, 1 not so or a history was not judged, 2 usage, 3 environment or harness error.")]
    Replay(options::Replay),
    /// Try every check on gateways that are wrong on purpose: each mutant has to be killed, each check has to kill
    #[command(after_help = "\
Examples:
  cargo xtask mutants                                        all; what came of it is in target/mutants/mutants.json
  cargo xtask mutants --only 'charges-*' --jobs 2
  cargo xtask mutants --only buffers-streams --broad         and which other checks fail for it

Exit codes: 0 all are killed and no check is toothless, 1 not so, 2 usage, 3 environment or harness error.")]
    Mutants(options::Mutants),
    /// Look for what no compiler sees: generated files that are not current, goldens without a check, checks without a mutant
    #[command(after_help = "\
Examples:
  cargo xtask tidy
  cargo xtask tidy --write                                   write suites/requirements.yaml as the checks have it")]
    Tidy(options::Tidy),
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  cargo xtask completions bash > ~/.local/share/bash-completion/completions/cargo-xtask"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Serve as a model: OpenAI endpoints, a record of every request
    Model(model_server::Args),
    /// Serve as an endpoint picker: ext_proc for an InferencePool, a record of every request
    Picker(picker_server::Args),
}

impl Cli {
    /// What was typed. Help, and what is no command, end the program here.
    pub fn of_the_command_line() -> Self {
        let matches = tree().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The words of this command, to be typed again.
pub fn typed() -> Vec<String> {
    front::name().split(' ').map(str::to_owned).chain(env::args().skip(1)).collect()
}

/// The command tree, with the commands of the front, and examples as they are typed here.
pub fn tree() -> clap::Command {
    let (name, said) = (front::name(), env::var(front::VARIABLE).unwrap_or_default());
    let as_typed = |command: clap::Command| match command.get_after_help().map(ToString::to_string) {
        Some(help) => command.after_help(help.replace(CARGO_XTASK, &name)),
        None => command,
    };
    let mut tree = as_typed(Cli::command().mut_subcommands(as_typed)).bin_name(&name);
    for (command, about) in said.lines().filter_map(|line| line.split_once('\t')) {
        let command: &'static str = command.to_owned().leak(); // clap keeps names for as long as the program runs
        tree = tree.subcommand(clap::Command::new(command).about(about.to_owned()));
    }
    tree
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{CARGO_XTASK, Cli};

    #[test]
    fn the_command_line_is_sound_and_every_command_has_an_example() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        // What runs in containers is not typed by people.
        let others = ["help", "model", "picker"];
        for command in cli.get_subcommands().filter(|c| !others.contains(&c.get_name())) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("{CARGO_XTASK} {}", command.get_name());
            assert!(help.contains(&example), "{} has no example: {help}", command.get_name());
        }
    }
}
