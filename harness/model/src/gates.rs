//! Gates: a scripted stream waits at one until a test has said, out of band, how many tokens may pass.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

const GATES: usize = 10_000;

/// Gates by name. A gate exists from its first use, closed.
#[derive(Debug, Default)]
pub struct Gates(Mutex<HashMap<String, watch::Sender<u64>>>);

impl Gates {
    /// Lets `tokens` tokens of the stream pass, counted from its beginning. A gate never closes again.
    /// Returns how many may pass now, or `None` where there are too many gates.
    pub fn open(&self, name: &str, tokens: u64) -> Option<u64> {
        self.with(name, |gate| {
            gate.send_modify(|open| *open = (*open).max(tokens));
            *gate.borrow()
        })
    }

    /// Completes when at least `tokens` tokens may pass.
    pub fn passed(&self, name: &str, tokens: u64) -> impl Future<Output = ()> + Send + 'static + use<> {
        let watched = self.with(name, |gate| gate.subscribe());
        async move {
            if let Some(mut watched) = watched {
                let _closed = watched.wait_for(|open| *open >= tokens).await;
            }
        }
    }

    fn with<T>(&self, name: &str, f: impl FnOnce(&watch::Sender<u64>) -> T) -> Option<T> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= GATES && !gates.contains_key(name) {
            return None;
        }
        Some(f(gates.entry(name.to_owned()).or_default()))
    }
}
