//! Bursts against servers that answer when enough requests have arrived, and not before.

use std::{sync::Arc, sync::atomic::AtomicUsize, sync::atomic::Ordering::SeqCst};

use crate::served::request;
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::Barrier};
use wire::{Call, Client, Tcp, burst};

/// Answers when `together` requests are there. Gives a client and the most requests that were there at a time.
async fn server(together: usize) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = Client::new(Arc::new(Tcp::to(listener.local_addr().expect("an address"))), "burst");
    let most = Arc::new(AtomicUsize::new(0));
    let (there, barrier, noted) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(together)), Arc::clone(&most));
    tokio::spawn(async move {
        loop {
            let (mut stream, _peer) = listener.accept().await.expect("a connection");
            let (there, barrier, noted) = (Arc::clone(&there), Arc::clone(&barrier), Arc::clone(&noted));
            tokio::spawn(async move {
                request(&mut stream).await;
                noted.fetch_max(there.fetch_add(1, SeqCst) + 1, SeqCst);
                barrier.wait().await;
                there.fetch_sub(1, SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("the client reads");
            });
        }
    });
    (client, most)
}

#[tokio::test]
async fn an_open_burst_does_not_wait_for_answers() {
    let (client, most) = server(8).await; // the first is answered when the last is there
    let burst = burst::open(&client, "x", 2_000.0, 8, |i| Call::get(&format!("/{i}"))).await;
    assert_eq!(most.load(SeqCst), 8);
    assert!(burst.exchanges.iter().all(|e| e.status() == Some(200)));
    let targets: Vec<_> = burst.exchanges.iter().map(|e| e.request.target.clone()).collect();
    assert_eq!(targets, (0..8).map(|i| format!("/{i}")).collect::<Vec<_>>());
    let gaps: Vec<f64> = burst.intended_ms.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.iter().all(|gap| (gap - 0.5).abs() < 1e-6), "{gaps:?}");
    for (exchange, intended) in burst.exchanges.iter().zip(&burst.intended_ms) {
        assert!(exchange.sent_ms >= *intended, "sent before its time");
    }
    // the first waited for the last, which was sent 3.5 ms later at the earliest
    assert!(burst.latencies().max_us >= 3_500, "{:?}", burst.latencies());
    assert!(burst.seconds >= 0.003_5 && burst.rate() > 0.0);
}
