//! Forwards as kubectl asks for them, SPDY streams in a WebSocket; and kubectl itself, where there is one.

use std::process::Stdio;

use futures::{SinkExt, StreamExt};
use rstest::rstest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::client::IntoClientRequest, tungstenite::protocol::Message};

use crate::{pods::world, world::World};

const PATH: &str = "/api/v1/namespaces/default/pods/p/portforward";
const QUESTION: &[u8] = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n";

struct Client {
    socket: WebSocketStream<TcpStream>,
    read: Vec<u8>,
    begun: bool,
}

/// A frame of the server: what kind (0 for data), on which stream, flags, and what follows.
type Frame = (u16, u32, u8, Vec<u8>);
const DATA: u16 = 0;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;

impl Client {
    async fn connect(world: &World) -> Self {
        let stream = TcpStream::connect(world.server.address()).await.unwrap();
        let mut request = format!("{}{PATH}", world.server.url().replace("http", "ws")).into_client_request().unwrap();
        let protocol = "SPDY/3.1+portforward.k8s.io";
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        let (socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
        Self { socket, read: Vec::new(), begun: false }
    }

    async fn write(&mut self, head: u32, flags: u8, payload: &[u8]) {
        let length = u32::from(flags) << 24 | u32::try_from(payload.len()).unwrap();
        let frame = [&head.to_be_bytes()[..], &length.to_be_bytes(), payload].concat();
        // Frames need not be messages: this one comes in two.
        for half in frame.chunks(frame.len().div_ceil(2)) {
            self.socket.send(Message::binary(half.to_vec())).await.unwrap();
        }
    }

    async fn control(&mut self, kind: u16, payload: &[u8]) {
        self.write(0x8003_0000 | u32::from(kind), 0, payload).await;
    }

    async fn data(&mut self, stream: u32, bytes: &[u8], last: bool) {
        self.write(stream, u8::from(last), bytes).await;
    }

    /// Opens a stream, its headers in stored blocks of zlib.
    async fn open(&mut self, stream: u32, kind: &str, port: &str, id: &str) {
        let headers = [("StreamType", kind), ("port", port), ("requestID", id)];
        let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            block.extend(text.as_bytes());
        }
        let mut payload = [&stream.to_be_bytes()[..], &[0; 6]].concat();
        if !std::mem::replace(&mut self.begun, true) {
            payload.extend([0x78, 0x01]);
        }
        let length = u16::try_from(block.len()).unwrap();
        payload.push(0);
        payload.extend(length.to_le_bytes());
        payload.extend((!length).to_le_bytes());
        payload.extend(block);
        self.control(1, &payload).await;
    }

    async fn next(&mut self) -> Frame {
        loop {
            if let Some(head) = self.read.get(..8) {
                let word = u32::from_be_bytes(head[..4].try_into().unwrap());
                let length = (u32::from_be_bytes(head[4..].try_into().unwrap()) & 0xff_ffff) as usize;
                let flags = head[4];
                if self.read.len() >= 8 + length {
                    let payload: Vec<u8> = self.read.drain(..8 + length).skip(8).collect();
                    if word >> 31 == 0 {
                        return (DATA, word, flags, payload);
                    }
                    let stream = u32::from_be_bytes(payload[..4].try_into().unwrap());
                    return ((word & 0xffff) as u16, stream, flags, payload);
                }
            }
            self.read.extend(self.socket.next().await.unwrap().unwrap().into_data());
        }
    }

    /// What comes on a stream until its end.
    async fn rest(&mut self, stream: u32, others: &mut Vec<Frame>) -> String {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                (DATA, of, flags, bytes) if of == stream => {
                    all.extend(bytes);
                    if flags & 1 != 0 {
                        return String::from_utf8(all).unwrap();
                    }
                }
                other => others.push(other),
            }
        }
    }
}

#[tokio::test]
async fn connections_are_pairs_of_streams() {
    let world = world().await;
    let mut client = Client::connect(&world).await;
    client.control(PING, &9_u32.to_be_bytes()).await;
    assert_eq!(client.next().await.0, PING);
    for (error, data, id) in [(1, 3, "0"), (5, 7, "1")] {
        client.open(error, "error", "8080", id).await;
        client.data(error, b"", true).await;
        client.open(data, "data", "8080", id).await;
        client.data(data, QUESTION, true).await;
        let mut others = Vec::new();
        let answer = client.rest(data, &mut others).await;
        assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n") && answer.contains("GET /x"), "{answer}");
        let kinds: Vec<(u16, u32)> = others.iter().map(|(kind, stream, ..)| (*kind, *stream)).collect();
        assert_eq!(kinds, [(SYN_REPLY, error), (SYN_REPLY, data), (DATA, error)]);
        assert_eq!((others[2].2, others[2].3.len()), (1, 0), "no error");
    }
}

#[rstest]
#[case("9090", "failed to connect to 10.244.0.7:9090: ")]
#[case("nope", "no port \"nope\" in pod \"p\"")]
#[tokio::test]
async fn a_port_that_is_closed_is_told_on_the_error_stream(#[case] port: &str, #[case] said: &str) {
    let world = world().await;
    let mut client = Client::connect(&world).await;
    client.open(1, "error", port, "0").await;
    client.open(3, "data", port, "0").await;
    let why = client.rest(1, &mut Vec::new()).await;
    assert!(why.contains(said), "{why}");
    assert_eq!(client.rest(3, &mut Vec::new()).await, "");
}

#[tokio::test]
async fn a_stream_without_its_other_half_is_refused() {
    let world = world().await;
    let mut client = Client::connect(&world).await;
    client.open(1, "data", "8080", "0").await;
    let (kind, stream, ..) = client.next().await;
    assert_eq!((kind, stream), (RST_STREAM, 1));
}

/// The client gives up on an answer: its error stream ends, and the pod's connection with it.
#[tokio::test]
async fn a_stream_that_is_reset_ends() {
    let world = world().await;
    let mut client = Client::connect(&world).await;
    client.open(1, "error", "8080", "0").await;
    client.open(3, "data", "8080", "0").await;
    client.control(RST_STREAM, &[3_u32.to_be_bytes(), 5_u32.to_be_bytes()].concat()).await;
    assert_eq!(client.rest(1, &mut Vec::new()).await, "");
}

#[tokio::test]
async fn other_ways_of_forwarding_are_refused() {
    let world = world().await;
    // As kubectl did before 1.31.
    let upgrade =
        [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "portforward.k8s.io")];
    let answer = world.send_as("POST", PATH, &upgrade, "").await;
    assert_eq!(answer.code(), 400, "{}", answer.json());
    let absent = PATH.replace("/p/", "/q/");
    assert_eq!(world.send_as("POST", &absent, &upgrade, "").await.code(), 404);
}

#[tokio::test]
async fn kubectl_forwards() {
    let world = world().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    world.server.write_kubeconfig(&kubeconfig).unwrap();
    world.store.update_status(&apiserver::kinds::POD, "default", "p", |s| s["phase"] = "Running".into()).unwrap();
    let Some(kubectl) = testtools::in_path("kubectl", &["kubectl"]) else { return };
    let mut kubectl = tokio::process::Command::new(&kubectl)
        .args(["port-forward", "pod/p", ":8080", "--kubeconfig"])
        .arg(&kubeconfig)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut line, mut said) = (String::new(), BufReader::new(kubectl.stdout.take().unwrap())); // open: it says more
    said.read_line(&mut line).await.unwrap();
    let port =
        line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{line}"));
    for _ in 0..2 {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        stream.write_all(QUESTION).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n"), "{answer}");
    }
}
