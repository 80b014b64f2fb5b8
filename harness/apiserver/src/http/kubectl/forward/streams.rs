//! Streams of SPDY, as kubectl forwards (`portforward.k8s.io`): a pair for each connection, one for bytes and one for
//! errors, held together by a request id.

use std::{collections::HashMap, future::Future};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::Pod;
use super::spdy::{self, Frame, FrameReader, FrameWriter, Headers};

/// Frames that wait for the client, and chunks that wait for a pod.
const BACKLOG: usize = 16;

struct Connection {
    bytes: Option<mpsc::Sender<Vec<u8>>>,
    leave: CancellationToken,
}

/// Forwards until the client leaves.
pub(super) async fn forward(io: impl AsyncRead + AsyncWrite + Send + 'static, pod: Pod) {
    let (reader, mut writer) = tokio::io::split(io);
    let (tell, mut told) = mpsc::channel::<Vec<u8>>(BACKLOG);
    let all = CancellationToken::new();
    let reading = async {
        if let Err(error) = read(FrameReader::of(reader), &pod, tell, &all).await {
            tracing::debug!(%error, "a forward ended");
        }
    };
    let writing = async {
        while let Some(frame) = told.recv().await {
            if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = reading => {}, () = writing => {} }
    all.cancel();
}

/// Reads what the client says and hands it to the connections.
async fn read(
    mut frames: FrameReader<impl AsyncRead + Unpin>,
    pod: &Pod,
    tell: mpsc::Sender<Vec<u8>>,
    all: &CancellationToken,
) -> std::io::Result<()> {
    let mut writer = FrameWriter::default();
    let mut errors: HashMap<String, u32> = HashMap::new();
    let mut connections: HashMap<u32, Connection> = HashMap::new();
    loop {
        let answer = match frames.next().await? {
            Frame::GoAway => return Ok(()),
            Frame::Ping(number) => Some(spdy::ping(number)),
            Frame::Reset(stream) => {
                if let Some(connection) = connections.remove(&stream) {
                    connection.leave.cancel();
                }
                None
            }
            Frame::Data { stream, bytes, last } => {
                if let Some(connection) = connections.get_mut(&stream) {
                    if let Some(sender) = &connection.bytes
                        && !bytes.is_empty()
                    {
                        let _ = sender.send(bytes).await; // a pod that reads no more is no reason to stop
                    }
                    if last {
                        connection.bytes = None;
                    }
                }
                None
            }
            Frame::Open { stream, headers } => {
                let (kind, id) = (of(&headers, "streamtype"), of(&headers, "requestid").to_owned());
                match (kind, errors.remove(&id)) {
                    ("error", None) => {
                        errors.insert(id, stream);
                        Some(writer.reply(stream))
                    }
                    ("data", Some(error)) => {
                        let (bytes, received) = mpsc::channel(BACKLOG);
                        let leave = all.child_token();
                        let carried =
                            carry(pod.clone(), of(&headers, "port").to_owned(), stream, received, tell.clone());
                        tokio::spawn(end(carried, leave.clone(), stream, error, tell.clone()));
                        connections.insert(stream, Connection { bytes: Some(bytes), leave });
                        Some(writer.reply(stream))
                    }
                    _ => Some(spdy::refuse(stream)),
                }
            }
        };
        if let Some(answer) = answer
            && tell.send(answer).await.is_err()
        {
            return Ok(());
        }
    }
}

fn of<'h>(headers: &'h Headers, name: &str) -> &'h str {
    headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
}

/// Sees a connection to its end, and closes both of its streams: with a word of what went wrong, where something did.
async fn end(
    carried: impl Future<Output = Result<(), String>>,
    leave: CancellationToken,
    stream: u32,
    error: u32,
    tell: mpsc::Sender<Vec<u8>>,
) {
    let outcome = tokio::select! { outcome = carried => outcome, () = leave.cancelled() => Ok(()) };
    let why = outcome.err().unwrap_or_default();
    for frame in [spdy::data(error, why.as_bytes(), true), spdy::data(stream, &[], true)] {
        let _ = tell.send(frame).await; // the client may have left
    }
}

/// Carries bytes between the client and a port of the pod until the pod ends.
async fn carry(
    pod: Pod,
    port: String,
    stream: u32,
    mut received: mpsc::Receiver<Vec<u8>>,
    tell: mpsc::Sender<Vec<u8>>,
) -> Result<(), String> {
    let (mut from_pod, mut to_pod) = TcpStream::into_split(pod.dial(&port).await?);
    let inwards = async {
        while let Some(bytes) = received.recv().await {
            if to_pod.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to_pod.shutdown().await; // the pod may have closed it first
    };
    let outwards = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_pod.read(&mut buffer).await {
            if tell.send(spdy::data(stream, &buffer[..length], false)).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(outwards);
    // The client's end of sending is not the end: the pod may still answer.
    tokio::select! { () = &mut outwards => {}, () = inwards => outwards.await }
    Ok(())
}
