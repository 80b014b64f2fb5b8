//! The records, as a reader gets them over HTTP.

use picker::Options;
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use verdict::history::{PickerRecord, Reason};

use crate::served::{Served, request, soon};

/// Status, head and body of an answer.
async fn get(served: &Served, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(served.admin).await.unwrap();
    let sent = format!("{method} {path} HTTP/1.1\r\nhost: picker\r\nconnection: close\r\n\r\n");
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

#[rstest]
#[case::elsewhere("GET", "/", 404, "there are /igc/records, /igc/marker and /healthz")]
#[case::not_read("POST", "/igc/records", 405, "only GET")]
#[case::since_what("GET", "/igc/records?since=x", 400, "since: a number expected")]
#[case::marker_without_name("GET", "/igc/marker", 400, "a marker is named by the header or query x-igc-exchange")]
#[case::health("GET", "/healthz", 200, "ok")]
#[tokio::test]
async fn questions(#[case] method: &str, #[case] path: &str, #[case] status: u16, #[case] says: &str) {
    let served = Served::of(Options::default()).await;
    let (answered, _, body) = get(&served, method, path).await;
    assert_eq!((answered, body.as_str()), (status, says));
}

#[tokio::test]
async fn records_are_read_in_order_with_what_is_missing() {
    let served = Served::of(Options { keep_records: 2, ..Options::default() }).await;
    let connection = served.connect().await;
    let open = connection.stream().await;
    open.send(request("GET", &[("x-igc-exchange", "open")], false));
    soon(async {
        while served.picker.page(0).open == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    for exchange in ["one", "two"] {
        let mut stream = connection.stream().await;
        stream.send(request("GET", &[("x-igc-exchange", exchange)], true));
        stream.response().await;
        stream.close().await;
    }
    soon(served.picker.wait(|records| records.len() == 2)).await;
    assert_eq!(get(&served, "GET", "/igc/marker?x-igc-exchange=marker").await.0, 200);

    let (status, head, body) = get(&served, "GET", "/igc/records?since=2").await;
    assert_eq!(status, 200);
    for line in ["content-type: application/json", "x-igc-next: 0", "x-igc-open: 1", "x-igc-dropped: 1"] {
        assert!(head.contains(line), "{line} in {head}");
    }
    let records: Vec<PickerRecord> = serde_json::from_str(&body).unwrap();
    let shown: Vec<_> = records.iter().map(|r| (r.exchange.as_deref().unwrap(), r.reason)).collect();
    assert_eq!(shown, [("two", Reason::Turn), ("marker", Reason::Marker)]);
    assert_eq!(records, served.picker.records());
}
