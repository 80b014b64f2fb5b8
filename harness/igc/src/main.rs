//! igc: the program of a run. It plans, brings the place up, starts the suites' binary, reports and takes down; in a
//! container image it is the model or the endpoint picker too.

/// In the place of std's, which panics where its reader has gone (`igc list | head`): a run has more to do than to print.
macro_rules! print {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        _ = write!(std::io::stdout(), $($words)*);
    }};
}
macro_rules! println {
    ($format:literal $($words:tt)*) => { print!("{}\n", format_args!($format $($words)*)) };
}

mod cli;
mod differ;
mod down;
mod e2e;
mod explain;
mod failure;
mod fidelity;
mod job;
mod list;
mod live;
mod log;
mod matrix;
mod merge;
mod model_server;
mod mutants;
mod options;
mod pages;
mod picker_server;
mod places;
mod plan;
#[cfg(test)]
mod readme;
mod rehearsed;
mod replay;
mod report;
mod review;
mod standing;
mod suites;
mod terminal;
mod tidy;
mod up;
#[cfg(test)]
mod workflows;

use std::{io::IsTerminal, process::ExitCode};

use shipped::Root;
use tokio_util::sync::CancellationToken;
use verdict::front;

use crate::cli::{Cli, Command};
use crate::{failure::Failure, log::Log};

/// What is logged where IGC_LOG says nothing. An answer of an API server that is no good is said where it was asked for.
const LOGGED: &str = "warn,kube_client::client::builder=off";

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::of_the_command_line();
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("IGC_LOG").unwrap_or_else(|_| LOGGED.into()))
        .with_writer(move || writer.clone())
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let cancel = CancellationToken::new();
    match command(cli, log, &cancel).await {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(if cancel.is_cancelled() { 130 } else { failure.code() })
        }
    }
}

async fn command(cli: Cli, log: Log, cancel: &CancellationToken) -> Result<u8, Failure> {
    let root = || Root::find(cli.root.as_deref()).map_err(Failure::usage);
    // What has nothing to take down ends at once on Ctrl-C, as any program does.
    match cli.command {
        Command::Report(options) => return report::report(&root()?, &options),
        Command::Merge(options) => return merge::merge(&root()?, &options),
        Command::Review(options) => return review::review(&root()?, &options),
        Command::Differ(options) => return differ::differ(&root()?, &options),
        Command::Matrix(options) => return matrix::matrix(&root()?, &options),
        Command::Job(options) => return job::job(&root()?, &options),
        Command::List(options) => return list::list(&root()?, &options).await,
        Command::Explain(options) => return explain::explain(&root()?, &options).await,
        Command::Tidy(options) => return tidy::tidy(&root()?, &options).await,
        Command::Completions { shell } => {
            let name = front::name().replace(' ', "-");
            let mut completions = Vec::new();
            clap_complete::generate(shell, &mut cli::tree(), name, &mut completions);
            print!("{}", String::from_utf8_lossy(&completions));
            return Ok(0);
        }
        _ => {}
    }
    let terminated = cancel_by_signals(cancel);
    match cli.command {
        Command::E2e { e2e, output } => e2e::e2e(&root()?, &e2e, &output, log, cancel).await,
        Command::Up(options) => e2e::up(&root()?, &options, log, cancel, &terminated).await,
        Command::Fidelity(options) => e2e::fidelity(&root()?, &options, log, cancel).await,
        Command::Mutants(options) => mutants::mutants(&root()?, &options, cancel).await,
        Command::Replay(options) => replay::replay(&root()?, &options, cancel).await,
        Command::Down(options) => down::sweep(&root()?, &options, cancel).await,
        Command::Doctor(options) => up::doctor(options.format, cancel).await,
        Command::Model(args) => model_server::serve(args, cancel.clone()).await,
        Command::Picker(args) => picker_server::serve(args, cancel.clone()).await,
        _ => Ok(0),
    }
}

/// Ctrl-C and SIGTERM cancel the token from now on, and end nothing by themselves; SIGTERM, which is what `down` sends,
/// cancels the returned one as well.
fn cancel_by_signals(cancel: &CancellationToken) -> CancellationToken {
    let cancel = cancel.clone();
    let terminated = CancellationToken::new();
    let by_sigterm = terminated.clone();
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => by_sigterm.cancel() }
        cancel.cancel();
    });
    terminated
}
