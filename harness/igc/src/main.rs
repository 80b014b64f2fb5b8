//! igc: the program that binds the rooms. `cargo xtask` calls it; in a container image it is the model or
//! the endpoint picker.

mod differ;
mod down;
mod failure;
mod fidelity;
mod job;
mod merge;
mod model_server;
mod mutants;
mod pages;
mod picker_server;
mod plan;
mod planned;
mod replay;
mod report;
mod request;
mod review;
mod standing;
mod terminal;
mod up;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

/// What is logged where IGC_LOG says nothing. An answer of an API server that is no good is said where it was asked for.
const LOG: &str = "warn,kube_client::client::builder=off";

/// Conformance of inference gateways: the program behind `cargo xtask`.
#[derive(Debug, Parser)]
#[command(name = "igc", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write down what a run will check; prints the run's folder
    Plan {
        /// Output of the suites' test binary with `--list --format terse`. Without it the place is only stood up: it stays,
        /// and what a cluster lacks is installed
        #[arg(long)]
        tests: Option<PathBuf>,
        #[command(flatten)]
        e2e: options::E2e,
    },
    /// Stand a gateway of a planned run up
    Up {
        /// The run's folder
        #[arg(long)]
        run: PathBuf,
        /// Which gateway; all of the plan where none is named
        #[arg(long)]
        gateway: Option<String>,
        /// The static igc program that the model's image is made of
        #[arg(long)]
        program: Option<PathBuf>,
        /// Print how to reach it; a rehearsal stands until Ctrl-C
        #[arg(long)]
        stay: bool,
    },
    /// Collect evidence and take a gateway of a run down
    Down {
        /// The run's folder
        #[arg(long)]
        run: PathBuf,
        /// Which gateway; all of the plan where none is named
        #[arg(long)]
        gateway: Option<String>,
        /// The run was interrupted: be quick
        #[arg(long)]
        interrupted: bool,
    },
    /// Judge a run's records against its plan and say what came of it
    Report(options::Report),
    /// Make one report of several runs
    Merge(options::Merge),
    /// Look at observations that differ from their goldens, accept them with a reason
    Review(options::Review),
    /// Show what gateways do differently under the same checks
    Differ(options::Differ),
    /// Play recordings of real gateways in the rehearsal, and say where it differs
    Fidelity {
        /// A rehearsed run of all checks, whose goldens of real places are counted as cases
        #[arg(long)]
        run: Option<PathBuf>,
        #[command(flatten)]
        options: options::Fidelity,
    },
    /// Print the manifest that runs the suites inside a cluster
    Job(options::Job),
    /// Judge runs that were kept again, without a cluster
    Replay {
        /// The suites' test binary
        #[arg(long)]
        suites: PathBuf,
        #[command(flatten)]
        options: options::Replay,
    },
    /// Try the checks on gateways that are wrong on purpose
    Mutants {
        /// The suites' test binary
        #[arg(long)]
        suites: PathBuf,
        /// Its output with `--list --format terse`
        #[arg(long)]
        tests: PathBuf,
        #[command(flatten)]
        options: options::Mutants,
    },
    /// Remove everything of every run
    Sweep(options::Down),
    /// List what a run needs, what is here, and how to get what is not
    Doctor(options::Doctor),
    /// Serve as a model: OpenAI endpoints, a record of every request
    Model(model_server::Args),
    /// Serve as an endpoint picker: ext_proc for an InferencePool, a record of every request
    Picker(picker_server::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("IGC_LOG").unwrap_or_else(|_| LOG.into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let cancel = cancelled_by_signals();
    let result = match cli.command {
        Command::Plan { tests, e2e } => plan::plan(tests.as_deref(), &e2e, &cancel).await,
        Command::Up { run, gateway, program, stay } => {
            up::up(&run, gateway.as_deref(), program.as_deref(), stay, &cancel).await
        }
        Command::Down { run, gateway, interrupted } => down::down(&run, gateway.as_deref(), interrupted).await,
        Command::Report(options) => report::report(&options),
        Command::Merge(options) => merge::merge(&options),
        Command::Review(options) => review::review(&options),
        Command::Differ(options) => differ::differ(&options),
        Command::Fidelity { run, options } => fidelity::fidelity(run.as_deref(), &options).await,
        Command::Mutants { suites, tests, options } => mutants::mutants(&suites, &tests, &options, &cancel).await,
        Command::Replay { suites, options } => replay::replay(&suites, &options, &cancel).await,
        Command::Job(options) => job::job(&options),
        Command::Sweep(options) => down::sweep(&options.out, options.context.as_deref(), &cancel).await,
        Command::Doctor(options) => up::doctor(options.format, &cancel).await,
        Command::Model(args) => model_server::serve(args, cancel.clone()).await,
        Command::Picker(args) => picker_server::serve(args, cancel.clone()).await,
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(if cancel.is_cancelled() { 130 } else { failure.code() })
        }
    }
}

/// A token that Ctrl-C and SIGTERM cancel.
fn cancelled_by_signals() -> CancellationToken {
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        token.cancel();
    });
    cancel
}
