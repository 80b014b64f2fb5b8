//! The hops room: a program of somebody else's stands between two parts of a world, and all that they say passes through it.
//!
//! It is started as `COMMAND --forward HOST:PORT`, once for each socket that the hop leads to, says `listening HOST:PORT` on
//! its standard output, and ends with the world. Where it never says so the world is void: nothing that is seen there is
//! the gateway's doing.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::lock;

/// The variable that names the program.
pub const PROXY: &str = "IGC_MUTANT_PROXY";
/// The variable that says where it stands.
pub const BETWEEN: &str = "IGC_MUTANT_BETWEEN";

/// How long a program may take to say where it listens.
const SILENCE: Duration = Duration::from_secs(5);

/// A hop that can be led through a program. It is in plaintext then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    ClientGateway,
    GatewayPicker,
    GatewayModel,
}

impl Between {
    const ALL: [Self; 3] = [Self::ClientGateway, Self::GatewayPicker, Self::GatewayModel];

    pub fn word(self) -> &'static str {
        match self {
            Self::ClientGateway => "client-gateway",
            Self::GatewayPicker => "gateway-picker",
            Self::GatewayModel => "gateway-model",
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{PROXY} and {BETWEEN}: {0}")]
pub struct HopsError(String);

/// Which hop is led through what. Clones share it; by default no hop is.
#[derive(Clone, Default)]
pub struct Hops(Option<Arc<Seam>>);

struct Seam {
    command: String,
    between: Between,
    awake: AtomicBool,
    leads: tokio::sync::Mutex<HashMap<SocketAddr, SocketAddr>>,
    running: Mutex<Vec<Child>>,
    void: OnceLock<String>,
}

impl fmt::Debug for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hops").field(&self.0.as_ref().map(|seam| (seam.between.word(), &seam.command))).finish()
    }
}

impl Hops {
    pub fn of_the_environment() -> Result<Self, HopsError> {
        let text = |name| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
        Self::of(text(PROXY).as_deref(), text(BETWEEN).as_deref())
    }

    /// `command` is as a shell reads it.
    pub fn of(command: Option<&str>, between: Option<&str>) -> Result<Self, HopsError> {
        let (command, between) = match (command, between) {
            (None, None) => return Ok(Self::default()),
            (Some(command), Some(between)) => (command, between),
            (Some(_), None) => return Err(HopsError(format!("say where the command stands: {}", Self::names()))),
            (None, Some(_)) => return Err(HopsError("say which command stands there".to_owned())),
        };
        let known = Between::ALL.into_iter().find(|known| known.word() == between);
        let between = known.ok_or_else(|| HopsError(format!("{between:?} is no hop; there are {}", Self::names())))?;
        Ok(Self(Some(Arc::new(Seam {
            command: command.to_owned(),
            between,
            awake: AtomicBool::default(),
            leads: tokio::sync::Mutex::default(),
            running: Mutex::default(),
            void: OnceLock::new(),
        }))))
    }

    fn names() -> String {
        Between::ALL.map(Between::word).join(", ")
    }

    pub fn note(&self) -> Option<String> {
        self.0.as_ref().map(|seam| format!("{} stands between: {}", seam.between.word(), seam.command))
    }

    /// Whether this hop is in plaintext for somebody to read.
    pub fn is_plain(&self, hop: Between) -> bool {
        self.0.as_ref().is_some_and(|seam| seam.between == hop)
    }

    /// From here on the hop leads through the program; until then the world is stood up without it.
    pub fn wake(&self) {
        if let Some(seam) = &self.0 {
            seam.awake.store(true, Ordering::Relaxed);
        }
    }

    pub fn leads(&self, hop: Between) -> bool {
        self.0.as_ref().is_some_and(|seam| seam.between == hop && seam.awake.load(Ordering::Relaxed))
    }

    /// The socket to connect to instead of `to`, which is the same where the hop is not led through anything.
    pub async fn lead(&self, hop: Option<Between>, to: SocketAddr) -> io::Result<SocketAddr> {
        let Some(seam) = self.0.as_ref().filter(|_| hop.is_some_and(|hop| self.leads(hop))) else { return Ok(to) };
        let mut leads = seam.leads.lock().await;
        if let Some(listening) = leads.get(&to) {
            return Ok(*listening);
        }
        if let Some(void) = seam.void.get() {
            return Err(io::Error::other(void.clone()));
        }
        match seam.start(to).await {
            Ok(listening) => {
                leads.insert(to, listening);
                Ok(listening)
            }
            Err(why) => {
                let why = seam.void.get_or_init(|| format!("{:?} --forward {to} {why}", seam.command));
                Err(io::Error::other(why.clone()))
            }
        }
    }

    /// Why nothing that was seen in the world counts, where that is so.
    pub fn void(&self) -> Option<String> {
        let seam = self.0.as_ref()?;
        let mut running = lock(&seam.running);
        let ended = running.iter_mut().find_map(|child| child.try_wait().ok().flatten());
        let ended = ended.map(|status| format!("{:?} ended with the world still there ({status})", seam.command));
        seam.void.get().cloned().or(ended)
    }

    pub fn end(&self) {
        let Some(seam) = &self.0 else { return };
        for mut child in lock(&seam.running).drain(..) {
            _ = child.start_kill(); // gone already is fine
        }
    }
}

impl Seam {
    /// Starts the program for one socket: where it listens, or why it does not.
    async fn start(&self, to: SocketAddr) -> Result<SocketAddr, String> {
        // `env` lets the command begin with variables; what is killed is the program itself and not a shell.
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec env {} --forward {to}", self.command));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
        let mut said = child.stdout.take().map(|out| BufReader::new(out).lines()).ok_or("says nothing")?;
        let listening = match tokio::time::timeout(SILENCE, listening(&mut said)).await {
            Err(_) => Err(format!("did not say where it listens within {} s", SILENCE.as_secs())),
            Ok(None) => Err("ended before it said where it listens".to_owned()),
            Ok(Some(place)) => {
                let found = tokio::net::lookup_host(&place).await.ok().and_then(|mut all| all.next());
                found.ok_or_else(|| format!("listens at {place:?}, which is no address"))
            }
        }?;
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} }); // so that it can go on talking
        lock(&self.running).push(child);
        Ok(listening)
    }
}

async fn listening(said: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    while let Ok(Some(line)) = said.next_line().await {
        if let Some(place) = line.trim().strip_prefix("listening ") {
            return Some(place.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, None, "")]
    #[case(Some("p"), Some("gateway-model"), "")]
    #[case(Some("p"), None, "client-gateway, gateway-picker, gateway-model")]
    #[case(None, Some("gateway-model"), "which command")]
    #[case(Some("p"), Some("model-gateway"), "\"model-gateway\" is no hop")]
    fn both_variables_or_none(#[case] command: Option<&str>, #[case] between: Option<&str>, #[case] refused: &str) {
        match Hops::of(command, between) {
            Ok(hops) => assert_eq!((hops.note().is_some(), refused), (command.is_some(), "")),
            Err(error) => assert!(!refused.is_empty() && error.to_string().contains(refused), "{error}"),
        }
    }

    #[tokio::test]
    async fn a_hop_leads_through_the_program_when_it_is_awake_and_no_other_does() {
        let hops = Hops::of(Some("X=9 sh -c 'echo hello; echo listening 127.0.0.1:$X; cat' sh"), Some("gateway-model"));
        let (hops, to) = (hops.expect("hops"), SocketAddr::from(([127, 0, 0, 1], 80)));
        let asked = |hop| hops.lead(Some(hop), to);
        assert_eq!(asked(Between::GatewayModel).await.ok(), Some(to), "asleep");
        hops.wake();
        assert_eq!(asked(Between::GatewayModel).await.ok().map(|led| led.port()), Some(9));
        assert_eq!(asked(Between::ClientGateway).await.ok(), Some(to));
        assert!(hops.is_plain(Between::GatewayModel) && hops.void().is_none());
        hops.end();
    }

    #[rstest]
    #[case::it_ends("true", "ended before it said")]
    #[case::it_is_not_there("no-such-program-of-ours", "ended before it said")]
    #[case::it_listens_nowhere("sh -c 'echo listening nowhere; cat' sh", "which is no address")]
    #[tokio::test]
    async fn a_program_that_does_not_listen_makes_the_world_void(#[case] command: &str, #[case] why: &str) {
        let hops = Hops::of(Some(command), Some("client-gateway")).expect("hops");
        hops.wake();
        let to = SocketAddr::from(([127, 0, 0, 1], 80));
        assert!(hops.lead(Some(Between::ClientGateway), to).await.is_err());
        assert!(hops.void().is_some_and(|void| void.contains(why)), "{:?}", hops.void());
    }
}
