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
  cargo xtask doctor                                     # what this machine has and lacks
  cargo xtask e2e                                        # kind where this machine has it, else the rehearsal
  cargo xtask e2e --on kind --gateway envoy-ai-gateway   # one gateway in a kind cluster
  cargo xtask e2e --suite tokens --keep                  # one suite, and keep the cluster
  cargo xtask down                                       # remove everything that runs have left

Exit codes: 0 everything held, 1 failures, 2 usage, 3 environment or harness, 130 interrupted."
)]
pub struct Cli {
    /// Folder that holds manifests/ and golden/ [default: the checkout, else those packed into igc]
    #[arg(long, global = true, env = shipped::VARIABLE, hide_env = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install the stack, run the suites, judge, report, and remove the stack
    #[command(after_help = "\
Examples:
  cargo xtask e2e --on kind --gateway envoy-ai-gateway --suite 'guide-002'
  cargo xtask e2e --on kind --bundle /path/to/bundle --node-image my/node:v1.34.0
  cargo xtask e2e --on context --context my-cluster --check 'routing/*'
  cargo xtask e2e --on rehearsal --quiet                # prints the last line only
  cargo xtask e2e --on rehearsal --format json-lines    # for programs

The report is printed, and written to target/igc/latest as report.html, report.json,
report.xml (JUnit) and report.md. NO_COLOR turns colours off.")]
    E2e {
        #[command(flatten)]
        e2e: options::E2e,
        #[command(flatten)]
        output: options::Output,
    },
    /// Install the stack, leave it running, and print how to reach it
    #[command(after_help = "\
Examples:
  cargo xtask up --on kind --gateway envoy-ai-gateway
  cargo xtask up --on rehearsal --gateway agentgateway   # for kubectl and curl; runs until Ctrl-C
  cargo xtask down                                       # removes it")]
    Up(options::Target),
    /// Remove what runs have left: clusters, images, processes
    #[command(
        after_help = "Examples:\n  cargo xtask down\n  cargo xtask down --context my-cluster   # the namespaces of runs in that cluster"
    )]
    Down(options::Down),
    /// Check what a run needs on this machine, and say how to get what is missing
    #[command(after_help = "Example:\n  cargo xtask doctor --format json")]
    Doctor(options::Doctor),
    /// List the checks, and which gateways support what they need
    #[command(after_help = "\
Examples:
  cargo xtask list --gateway agentgateway
  cargo xtask list --format json   # an array of checks")]
    List(options::List),
    /// Explain a check: its requirement, how it is driven and judged, its mutants, its last verdicts
    #[command(after_help = "Example:\n  cargo xtask explain routing/host")]
    Explain(options::Explain),
    /// Print the report of a run again
    #[command(after_help = "\
Examples:
  cargo xtask report                        # the last run
  cargo xtask report target/igc/20261121-120305-k3f9 --quiet
  cargo xtask report --format json-lines    # what did not pass, for programs
  cargo xtask report --schema               # the JSON schema of report.json")]
    Report(options::Report),
    /// Print a CI matrix as JSON: gateway x profile x model, each cell in shards
    #[command(after_help = "\
Examples:
  cargo xtask matrix    # every gateway and profile on kind, with the models that fit on a small machine
  cargo xtask matrix --gateway agentgateway --profile current --model echo --shards 2

`words` of a cell are the arguments of its run, for example:
  cargo xtask e2e --on kind --gateway agentgateway --profile current --model echo --shard 1/2
A GitHub workflow reads the matrix with fromJSON; .github/workflows/nightly.yml is an example.")]
    Matrix(options::Matrix),
    /// Merge several runs into one report: shards of a run, cells of a matrix, clusters of a fleet
    #[command(after_help = "\
Examples:
  cargo xtask merge target/igc/20261121-120305-k3f9 target/igc/20261121-121010-a0b1
  cargo xtask merge runs/* --matrix matrix.json   # every cell of the matrix must have a run

The merged folder holds report.{html,json,xml,md} and the evidence of all runs.
Exit codes: 0 everything held, 1 a run has failures, 2 usage, 3 a run is broken or missing.")]
    Merge(options::Merge),
    /// Print the manifest of a Job, or of a Sonobuoy plugin, that runs the suites inside a cluster
    #[command(after_help = "\
Examples:
  cargo xtask job --image registry.example/igc:1 --gateway agentgateway > job.yaml
  kubectl apply -f job.yaml
  kubectl wait -n igc-runner --for=condition=Ready pod -l app.kubernetes.io/name=igc --timeout=1h
  kubectl exec -n igc-runner job/igc -c results -- cat /tmp/sonobuoy/results/igc.tar.gz > run.tar.gz

  cargo xtask job --image registry.example/igc:1 --gateway agentgateway --sonobuoy > plugin.yaml
  sonobuoy run --plugin plugin.yaml

The service account of the Job has no more rights than the checks use. `merge` joins the runs of
several clusters; --cluster tells them apart.")]
    Job(options::Job),
    /// Review observations that differ from their goldens: accept them with a reason, or reject them
    #[command(after_help = "\
Examples:
  cargo xtask review    # one by one, side by side
  cargo xtask review --list
  cargo xtask review --accept 'routing/*' --reason 'first recording, read against guide 002'
  cargo xtask review --reject 'tokens/exact@budget-70'")]
    Review(options::Review),
    /// Compare what gateways do under the same checks, and list undeclared differences
    #[command(after_help = "\
Examples:
  cargo xtask differ                                        # the accepted goldens of each gateway
  cargo xtask differ target/igc/latest --check 'routing/*'  # what this run observed, with transcripts
  cargo xtask differ --declared --format json

A difference that is right is declared in golden/<gateway>/differences.yaml, with a reason and a link.
Exit codes: 0 all are declared, 1 one is not declared or is gone, 2 usage.")]
    Differ(options::Differ),
    /// Play recordings of real gateways in the rehearsal, and list where it differs
    #[command(after_help = "\
Examples:
  cargo xtask fidelity                       # every recording, and the goldens of real gateways
  cargo xtask fidelity my-recording.yaml     # cases of your own
  cargo xtask fidelity --list --case 'budget/*'

harness/rehearsal/fidelity/README.md says how to write a case.
Exit codes: 0 all agree or are accepted, 1 one differs or an accepted difference is gone,
2 usage or a malformed case, 3 a case could not be played.")]
    Fidelity(options::Fidelity),
    /// Judge recorded runs again without a cluster, and show which verdicts change
    #[command(after_help = "\
Examples:
  cargo xtask replay target/igc/20261121-120305-k3f9 --check 'routing/*'
  cargo xtask replay target/igc    # every run in the folder

Exit codes: 0 every verdict is the recorded one, 1 one is not, or a history was not judged, 2 usage,
3 environment or harness.")]
    Replay(options::Replay),
    /// Run the checks against mutants, gateways that are wrong on purpose, and list the survivors
    #[command(after_help = "\
Examples:
  cargo xtask mutants                                   # all; writes target/mutants/mutants.json
  cargo xtask mutants --only 'charges-*' --jobs 2
  cargo xtask mutants --only buffers-streams --broad    # also by checks that do not name it

A mutant is killed on a gateway when a check passes without it and fails with it, on the clause that it breaks or by an
invariant; it counts as killed only where it is on every gateway that supports what it breaks.
Exit codes: 0 every mutant is killed and every check kills one itself, 1 not so, 2 usage,
3 environment or harness.")]
    Mutants(options::Mutants),
    /// Find what no compiler sees: outdated generated files, goldens without a check, checks without a mutant
    #[command(after_help = "\
Examples:
  cargo xtask tidy
  cargo xtask tidy --write   # rewrites the generated files")]
    Tidy(options::Tidy),
    /// Print the completions of a shell
    #[command(
        after_help = "Example:\n  cargo xtask completions bash > ~/.local/share/bash-completion/completions/cargo-xtask"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Serve as a model (OpenAI API) that records every request
    Model(model_server::Args),
    /// Serve as an endpoint picker (ext_proc for an InferencePool) that records every request
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
