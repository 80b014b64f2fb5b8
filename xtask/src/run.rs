//! Children: run one to its end, pass Ctrl-C on, and never leave one behind.

use std::{
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How long a child may take to end after Ctrl-C before it is killed.
const GRACE: Duration = Duration::from_secs(4);

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code (128 + signal where a signal ended it).
    Code(u8),
    /// Because the user said so.
    Interrupted,
}

/// Listens for Ctrl-C and SIGTERM from its making on.
#[derive(Clone, Debug)]
pub struct Interrupts(Arc<AtomicBool>);

impl Interrupts {
    /// Takes the signals over from the default, which would end this program at once.
    pub fn listen() -> Result<Self> {
        let said = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&said)).context("failed to listen for Ctrl-C")?;
        }
        Ok(Self(said))
    }

    /// Whether the user has asked to stop.
    pub fn said(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Runs the command to its end; on an interrupt asks it to stop, then kills it.
    pub fn run(&self, command: &mut Command) -> Result<Ended> {
        if self.said() {
            return Ok(Ended::Interrupted);
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        let status = self.wait(child).with_context(|| format!("failed to wait for {name}"))?;
        Ok(if self.said() { Ended::Interrupted } else { Ended::Code(code(status)) })
    }

    fn wait(&self, mut child: Child) -> Result<ExitStatus> {
        let pid = Pid::from_child(&child);
        let (done, ended) = mpsc::channel();
        let waiter = std::thread::spawn(move || done.send(child.wait()));
        let mut asked: Option<Instant> = None;
        let status = loop {
            // The signal's flag has no way to wake this thread: look at it five times a second.
            match ended.recv_timeout(Duration::from_millis(200)) {
                Ok(status) => break status?,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("the waiting thread ended without an answer")
                }
                Err(mpsc::RecvTimeoutError::Timeout) => match asked {
                    None if self.said() => {
                        _ = kill_process(pid, Signal::INT); // gone already is fine
                        asked = Some(Instant::now());
                    }
                    Some(when) if when.elapsed() > GRACE => _ = kill_process(pid, Signal::KILL),
                    _ => {}
                },
            }
        };
        _ = waiter.join();
        Ok(status)
    }
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn codes_and_interrupts_are_told_apart() {
        let interrupts = Interrupts(Arc::new(AtomicBool::new(false)));
        assert_eq!(interrupts.run(&mut shell("exit 3")).unwrap(), Ended::Code(3));
        assert_eq!(interrupts.run(&mut shell("kill -9 $$")).unwrap(), Ended::Code(137));
        interrupts.0.store(true, Ordering::SeqCst);
        assert_eq!(interrupts.run(&mut shell("exit 0")).unwrap(), Ended::Interrupted, "nothing starts after Ctrl-C");
    }

    #[test]
    fn an_interrupt_reaches_a_child_that_would_run_for_ever() {
        let interrupts = Interrupts(Arc::new(AtomicBool::new(false)));
        let child = shell("trap 'exit 7' INT; echo; while :; do read line || :; done")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let mut first = [0];
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut first).unwrap(); // the trap is set
        let stdin = child.stdin.take();
        interrupts.0.store(true, Ordering::SeqCst);
        assert_eq!(code(interrupts.wait(child).unwrap()), 7);
        drop(stdin);
    }
}
