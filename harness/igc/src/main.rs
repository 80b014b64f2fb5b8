//! igc: the program that binds the rooms. `cargo xtask` calls it; in a container image it is the model or
//! the endpoint picker.

mod down;
mod failure;
mod fidelity;
mod model_server;
mod pages;
mod picker_server;
mod plan;
mod report;
mod request;
mod review;
mod standing;
mod up;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

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
    Report {
        /// The run's folder
        #[arg(default_value = "target/igc/latest")]
        run: PathBuf,
        /// Write report.json, report.xml (JUnit), report.md and report.html into it
        #[arg(long)]
        write: bool,
        /// The run was interrupted
        #[arg(long)]
        interrupted: bool,
        /// No table, only the last line
        #[arg(long, short)]
        quiet: bool,
    },
    /// Look at observations that differ from their goldens, accept them with a reason
    Review {
        /// The run's folder
        #[arg(default_value = "target/igc/latest")]
        run: PathBuf,
        /// Only list
        #[arg(long, conflicts_with = "accept")]
        list: bool,
        /// Accept those that match, for example 'routing/*'
        #[arg(long, value_name = "GLOB", requires = "reason")]
        accept: Option<String>,
        /// Why the new observation is right; kept in the golden
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Play recordings of real gateways in the rehearsal, and say where it differs
    Fidelity {
        /// A rehearsed run of all checks, whose goldens of real places are counted as cases
        #[arg(long)]
        run: Option<PathBuf>,
        #[command(flatten)]
        options: options::Fidelity,
    },
    /// Remove everything of every run
    Sweep {
        /// The folder of runs, to find processes that still live
        #[arg(long, default_value = "target/igc")]
        out: PathBuf,
        /// Remove the namespaces of runs in this cluster of your kubeconfig instead
        #[arg(long, value_name = "NAME")]
        context: Option<String>,
    },
    /// List what a run needs, what is here, and how to get what is not
    Doctor {
        /// text or json
        #[arg(long, default_value = "text", value_parser = ["text", "json"])]
        format: String,
    },
    /// Serve as a model: OpenAI endpoints, a record of every request
    Model(model_server::Args),
    /// Serve as an endpoint picker: ext_proc for an InferencePool, a record of every request
    Picker(picker_server::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("IGC_LOG").unwrap_or_else(|_| "warn".into()))
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
        Command::Report { run, write, interrupted, quiet } => report::report(&run, write, interrupted, quiet),
        Command::Review { run, accept, reason, .. } => review::review(&run, accept.as_deref(), reason.as_deref()),
        Command::Fidelity { run, options } => fidelity::fidelity(run.as_deref(), &options).await,
        Command::Sweep { out, context } => down::sweep(&out, context.as_deref(), &cancel).await,
        Command::Doctor { format } => up::doctor(&format, &cancel).await,
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
