//! Children: run one to its end, and pass Ctrl-C on.

use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Listens for Ctrl-C and SIGTERM from its making on.
#[derive(Clone, Debug)]
pub struct Interrupts(Arc<AtomicBool>);

impl Interrupts {
    pub fn listen() -> Result<Self> {
        let said = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&said)).context("failed to listen for Ctrl-C")?;
        }
        Ok(Self(said))
    }

    pub fn said(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Runs the command to its end: its exit code, 130 where an interrupt ended it. An interrupt is passed on; the command is
    /// never killed, because it may have a cluster to take down.
    pub fn run(&self, command: &mut Command) -> Result<u8> {
        if self.said() {
            return Ok(130);
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        let pid = Pid::from_child(&child);
        let (done, ended) = mpsc::channel();
        let waiter = std::thread::spawn(move || done.send(child.wait()));
        let mut asked = false;
        let status = loop {
            // The signal's flag has no way to wake this thread: look at it five times a second.
            match ended.recv_timeout(Duration::from_millis(200)) {
                Ok(status) => break status.with_context(|| format!("failed to wait for {name}"))?,
                Err(mpsc::RecvTimeoutError::Disconnected) => anyhow::bail!("the thread that waits for {name} is gone"),
                Err(mpsc::RecvTimeoutError::Timeout) if self.said() && !asked => {
                    _ = kill_process(pid, Signal::INT); // gone already is fine
                    asked = true;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        };
        _ = waiter.join();
        Ok(code(status, self.said()))
    }
}

fn code(status: ExitStatus, interrupted: bool) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(255),
        (None, Some(signal)) if !interrupted && signal != signal_hook::consts::SIGINT => {
            eprintln!("error: it was ended by signal {signal}; `cargo xtask down` removes what it has left");
            u8::try_from(128 + signal).unwrap_or(255)
        }
        (None, _) => 130,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// With [`Interrupts`] that listen: a shell that is started where signals are ignored (by `nohup`) could not be interrupted.
    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn codes_and_interrupts_are_told_apart() {
        let interrupts = Interrupts::listen().unwrap();
        assert_eq!(interrupts.run(&mut shell("exit 3")).unwrap(), 3);
        assert_eq!(interrupts.run(&mut shell("kill -9 $$")).unwrap(), 137);
        assert_eq!(interrupts.run(&mut shell("kill -2 $$")).unwrap(), 130);
        interrupts.0.store(true, Ordering::SeqCst);
        assert_eq!(interrupts.run(&mut shell("exit 0")).unwrap(), 130, "nothing starts after Ctrl-C");
    }

    #[test]
    fn an_interrupt_is_passed_on_and_the_child_ends_as_it_likes() {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let script = format!("trap 'exit 7' INT; touch {}; while :; do sleep 0.05; done", ready.display());
        let interrupts = Interrupts::listen().unwrap();
        let running = interrupts.clone();
        let running = std::thread::spawn(move || running.run(&mut shell(&script)));
        let begun = Instant::now();
        while !ready.exists() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the shell did not start");
            std::thread::yield_now();
        }
        interrupts.0.store(true, Ordering::SeqCst);
        assert_eq!(running.join().unwrap().unwrap(), 7);
    }
}
