//! cargo xtask: the front door. It parses, plans and calls cargo and `igc`; it links neither kube nor tokio.

mod ci;
mod e2e;
mod program;
mod run;
mod tidy;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// End-to-end conformance of inference gateways in front of KServe.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
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
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Stand the stack up, run the suites, judge, report, take it down
    #[command(after_help = "\
Examples:
  cargo xtask e2e --on kind --gateway envoy-ai-gateway --suite 'guide-002'
  cargo xtask e2e --on kind --bundle /path/to/bundle --node-image my/node:v1.34.0
  cargo xtask e2e --on context --context my-cluster --check 'routing/*'

The report is in target/igc/latest/ as report.json, report.xml (JUnit) and on the terminal.")]
    E2e(options::E2e),
    /// Stand the stack up and leave it: prints how to reach it. A rehearsal stays in the foreground until Ctrl-C
    #[command(after_help = "\
Examples:
  cargo xtask up --on kind --gateway envoy-ai-gateway
  cargo xtask up --on rehearsal --gateway agentgateway     a world for kubectl and curl
  cargo xtask down")]
    Up(options::Where),
    /// Remove everything of every run: clusters, images, processes of runs that were killed
    #[command(
        after_help = "Examples:\n  cargo xtask down\n  cargo xtask down --context my-cluster   namespaces of runs in that cluster"
    )]
    Down(program::Forward),
    /// List what a run needs, what is here, and how to get what is not
    #[command(after_help = "Example:\n  cargo xtask doctor --format json")]
    Doctor(program::Forward),
    /// Show a run's report again
    #[command(after_help = "Example:\n  cargo xtask report target/igc/latest")]
    Report(program::Forward),
    /// Look at observations that differ from their goldens, accept them with a reason
    #[command(after_help = "\
Examples:
  cargo xtask review --list
  cargo xtask review --accept 'routing/*' --reason 'first recording, read against guide 002'")]
    Review(program::Forward),
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
    /// Everything that a commit must pass: format, clippy, tests, tidy, examples of the README
    Ci,
    /// Look for what no compiler sees: goldens and baseline entries without a check, scalars that YAML readers disagree on
    Tidy,
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  cargo xtask completions bash > ~/.local/share/bash-completion/completions/cargo-xtask"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::E2e(options) => e2e::e2e(&options),
        Task::Up(options) => e2e::up(&options),
        Task::Down(words) => program::forward("sweep", &words),
        Task::Doctor(words) => program::forward("doctor", &words),
        Task::Report(words) => program::forward("report", &words),
        Task::Review(words) => program::forward("review", &words),
        Task::Fidelity(options) => e2e::fidelity(options),
        Task::Ci => ci::ci(),
        Task::Tidy => tidy::tidy(),
        Task::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "cargo-xtask", &mut std::io::stdout());
            Ok(0)
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}
