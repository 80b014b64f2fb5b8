//! The Kubernetes API as checks, stages and the install graph use it: objects are JSON values, every request is bounded,
//! and what the API server says is kept word for word.
//!
//! `kube` brings TLS, credentials and WebSockets; paths, warnings, refusals and waits are read here, because they are
//! what a verdict rests on.

mod address;
mod apply;
mod clock;
mod condition;
mod connect;
mod discovery;
mod events;
mod failure;
mod forward;
mod object;
mod pods;
mod read;
mod request;
mod wait;
mod watch;

use std::sync::{Arc, Once};

pub use address::{AddressAsk, AddressError, AddressKind, Reached, Tried};
pub use apply::{Apply, RUN_LABEL};
pub use clock::{Backoff, Deadline};
pub use condition::WaitCondition;
pub use connect::ConnectError;
pub use discovery::Kind;
pub use events::Event;
pub use failure::{ApiFailure, FailureKind};
pub use forward::{Forward, PodPort};
pub use object::{ObjectRef, name_of};
pub(crate) use object::{items, text};
pub use pods::Logs;
pub(crate) use pods::is_ready;
pub use read::Propagation;
pub use request::{ApiResponse, Bounds};
pub use wait::{Target, WaitError, Waited};

/// Installs ring as the TLS provider of this process, once; without it `kube` panics at the first client, depending on
/// who came first. Safe to call any number of times, from any thread.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("another part of this process has installed a TLS provider already; it is kept");
        }
    });
}

/// A cluster that answered, as one context of one kubeconfig reaches it. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    kinds: discovery::Kinds,
    bounds: Bounds,
    about: Arc<About>,
    /// Whether addresses of its objects mean this process: others are those of somebody else's network.
    on_loopback: bool,
}

#[derive(Debug)]
struct About {
    context: String,
    server: String,
    version: String,
}

impl Cluster {
    pub fn context(&self) -> &str {
        &self.about.context
    }

    pub fn server(&self) -> &str {
        &self.about.server
    }

    /// `gitVersion` of the API server, for example `v1.34.10`.
    pub fn version(&self) -> &str {
        &self.about.version
    }

    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// For a cluster that is rehearsed in this process: no address outside loopback is ever asked.
    pub fn on_loopback(self) -> Self {
        Self { on_loopback: true, ..self }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("about", &self.about).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ring_is_installed_once_and_again() {
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(super::init)).collect();
        for thread in threads {
            thread.join().expect("init does not panic");
        }
        super::init();
        let provider = rustls::crypto::CryptoProvider::get_default().expect("a provider is installed");
        let ring = rustls::crypto::ring::default_provider();
        assert_eq!(format!("{:?}", provider.key_provider), format!("{:?}", ring.key_provider));
    }
}
