//! A connection that a reply leaves open, and what it shows to the next call.

use std::{sync::Arc, time::Duration, time::Instant};

use futures::future::join;
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, yield_now};
use verdict::history::{Connection, Exchange};
use wire::{Call, Client, Tcp};

use crate::served::request;

/// What the server does with a request on a connection.
#[derive(Clone, Copy)]
enum Does {
    /// Writes these bytes.
    Says(&'static str),
    /// Writes the first when it is asked, and the second before it waits for the next request.
    SaysThen(&'static str, &'static str),
    /// Closes without an answer.
    Closes,
    /// Says nothing, and holds the connection.
    Holds,
}
use Does::{Closes, Holds, Says, SaysThen};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

/// Serves connections one after the other as it is said, and closes each after that; the ids that it was asked with.
async fn server(connections: Vec<Vec<Does>>) -> (Client, JoinHandle<Vec<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let dial = Arc::new(Tcp::to(listener.local_addr().expect("an address")));
    let serving = tokio::spawn(async move {
        let mut asked = Vec::new();
        for requests in connections {
            let (mut stream, _peer) = listener.accept().await.expect("a connection");
            let mut ids = Vec::new();
            for does in requests {
                let head = request(&mut stream).await;
                ids.extend(head.lines().find_map(|l| l.strip_prefix("x-igc-exchange: ")).map(str::to_owned));
                match does {
                    Says(reply) => stream.write_all(reply.as_bytes()).await.expect("the client reads"),
                    SaysThen(reply, more) => {
                        stream.write_all(reply.as_bytes()).await.expect("the client reads");
                        pass_the_time().await;
                        stream.write_all(more.as_bytes()).await.expect("the client reads");
                    }
                    Closes => {}
                    Holds => drop(stream.read_to_end(&mut Vec::new()).await),
                }
            }
            asked.push(ids);
        }
        asked
    });
    (Client::opened_at(dial, "t", Instant::now()), serving)
}

/// Lets everything happen that is on its way on loopback.
async fn pass_the_time() {
    for _ in 0..500 {
        yield_now().await;
    }
}

async fn in_turn(client: &Client, calls: impl IntoIterator<Item = Call>) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    for call in calls {
        exchanges.push(client.send("x", call).await);
        pass_the_time().await;
    }
    exchanges
}

fn three() -> Vec<Call> {
    vec![Call::get("/"); 3]
}

fn reused(after: &str) -> Option<Connection> {
    Some(Connection { after: Some(after.to_owned()), reused: true, ..Connection::default() })
}

fn broke(after: &str, how: &str) -> Option<Connection> {
    Some(Connection { after: Some(after.to_owned()), broke: Some(how.to_owned()), ..Connection::default() })
}

fn surplus(words: &str) -> Option<Connection> {
    Some(Connection { surplus: Some(words.to_owned()), ..Connection::default() })
}

const SILENTLY: &str = "it was closed while it was idle";

#[rstest]
#[case::twice_and_no_more(three(), vec![vec![Says(OK), Says(OK)], vec![Says(OK)]], [None, reused("t-0"), None])]
#[case::chunked(three(), vec![vec![Says(CHUNKED), Says(OK)], vec![Says(OK)]], [None, reused("t-0"), None])]
#[case::closes_silently(three(), vec![vec![Says(OK)], vec![Says(OK), Says(OK)]], [None, broke("t-0", SILENTLY), reused("t-1")])]
#[case::says_close(three(), vec![vec![Says(CLOSE)], vec![Says(CLOSE)], vec![Says(OK)]], [None, None, None])]
#[case::until_the_end(three(), vec![vec![Says("HTTP/1.1 200 OK\r\n\r\nok")], vec![Says(OK), Says(OK)]], [None, None, reused("t-1")])]
#[case::surplus(three(), vec![vec![Says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok")], vec![Says(OK), Says(OK)]],
    [surplus(r#"1 bytes after the end of the reply: "k""#), None, reused("t-1")])]
#[case::surplus_after_close(three(), vec![vec![Says("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nok")], vec![Says(OK), Says(OK)]],
    [surplus(r#"1 bytes after the end of the reply: "k""#), None, reused("t-1")])]
#[case::surplus_after_chunks(three(), vec![vec![Says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\r\n")], vec![Says(OK), Says(OK)]],
    [surplus(r#"2 bytes after the end of the reply: "\r\n""#), None, reused("t-1")])]
#[case::surplus_on_the_second(three(), vec![vec![Says(OK), Says("HTTP/1.1 204 No Content\r\n\r\nok")], vec![Says(OK)]],
    [None, Some(Connection { surplus: Some(r#"2 bytes after the end of the reply: "ok""#.into()), ..reused("t-0").unwrap() }), None])]
#[case::surplus_later(three(), vec![vec![SaysThen(OK, "more")], vec![Says(OK), Says(OK)]],
    [None, broke("t-0", r#"4 bytes after the end of the reply: "more""#), reused("t-1")])]
#[case::an_interim_response_is_none(three(), vec![vec![Says("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Says(OK)], vec![Says(OK)]],
    [None, reused("t-0"), None])]
#[case::bounded([Call::get("/").max_bytes(1), Call::get("/"), Call::get("/")], vec![vec![Says(OK)], vec![Says(OK), Says(OK)]], [None, None, reused("t-1")])]
#[case::asked_to_close([Call::get("/").header("connection", "close"), Call::get("/"), Call::get("/")], vec![vec![Says(OK)], vec![Says(OK), Says(OK)]], [None, None, reused("t-1")])]
#[case::head_with_a_body([Call::new("HEAD", "/"), Call::get("/"), Call::get("/")], vec![vec![Says(OK)], vec![Says(OK), Says(OK)]],
    [surplus(r#"2 bytes after the end of the reply: "ok""#), None, reused("t-1")])]
#[tokio::test]
async fn what_a_connection_shows(
    #[case] calls: impl IntoIterator<Item = Call>,
    #[case] connections: Vec<Vec<Does>>,
    #[case] shown: [Option<Connection>; 3],
) {
    let (client, _serving) = server(connections).await;
    let exchanges = in_turn(&client, calls).await;
    assert_eq!(exchanges.iter().map(Exchange::status).collect::<Vec<_>>().iter().flatten().count(), 3, "{exchanges:?}");
    assert_eq!(exchanges.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["t-0", "t-1", "t-2"]);
    assert_eq!(exchanges.into_iter().map(|e| e.connection).collect::<Vec<_>>(), shown);
}

#[tokio::test]
async fn a_call_that_a_kept_connection_fails_is_sent_again_as_another() {
    let (client, serving) = server(vec![vec![Says(OK), Closes], vec![Says(OK)]]).await;
    let exchanges = in_turn(&client, [Call::get("/"), Call::get("/")]).await;
    assert_eq!(serving.await.expect("served"), [vec!["t-0", "t-1"], vec!["t-2"]]);
    assert_eq!((exchanges[1].id.as_str(), exchanges[1].status()), ("t-2", Some(200)));
    let sent = exchanges[1].request.headers.iter().find(|(name, _)| name == "x-igc-exchange");
    assert_eq!(sent.map(|(_, id)| id.as_str()), Some("t-2"));
    let shown = exchanges[1].connection.as_ref().expect("something");
    assert_eq!((shown.after.as_deref(), shown.tried.as_deref(), shown.reused), (Some("t-0"), Some("t-1"), false));
    assert!(shown.broke.as_ref().is_some_and(|how| how.starts_with("failed to read the response head: ")), "{shown:?}");
}

#[tokio::test]
async fn a_call_that_a_new_connection_fails_is_not_sent_again() {
    let (client, serving) = server(vec![vec![Closes], vec![Says(OK)]]).await;
    let exchanges = in_turn(&client, [Call::get("/"), Call::get("/")]).await;
    assert_eq!(exchanges.iter().map(Exchange::status).collect::<Vec<_>>(), [None, Some(200)]);
    assert_eq!(serving.await.expect("served"), [["t-0"], ["t-1"]]);
}

#[tokio::test]
async fn a_call_whose_reply_breaks_off_is_not_sent_again() {
    let (client, serving) = server(vec![vec![Says(OK), Says("HTTP/1.1 2")]]).await;
    let exchanges = in_turn(&client, [Call::get("/"), Call::get("/")]).await;
    assert_eq!((exchanges[1].status(), &exchanges[1].connection), (None, &reused("t-0")));
    assert_eq!(serving.await.expect("served"), [["t-0", "t-1"]]);
}

#[tokio::test]
async fn a_call_that_nobody_answers_is_not_sent_again() {
    let (client, serving) = server(vec![vec![Says(OK), Holds]]).await;
    let call = Call::get("/").timeout(Duration::from_millis(50));
    let exchanges = in_turn(&client, [Call::get("/"), call]).await;
    assert_eq!((exchanges[1].status(), &exchanges[1].connection), (None, &reused("t-0")));
    assert_eq!(serving.await.expect("served"), [["t-0", "t-1"]]);
}

#[tokio::test]
async fn calls_that_overlap_leave_no_connection() {
    let (client, serving) = server(vec![vec![SaysThen(OK, "")], vec![Says(OK)], vec![Says(OK)]]).await;
    join(client.send("x", Call::get("/")), client.send("x", Call::get("/"))).await;
    assert_eq!(client.send("x", Call::get("/")).await.connection, None);
    assert_eq!(serving.await.expect("served").len(), 3);
}
