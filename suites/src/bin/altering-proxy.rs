//! A proxy that stands on a hop of a rehearsed world and alters what passes, for the tests of [`rehearsal::hops`]:
//! `altering-proxy [WHAT BY]... --forward HOST:PORT` writes BY for WHAT, which has as many bytes, in both directions.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

type Alterations = Arc<Vec<(String, String)>>;

fn main() -> io::Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let usage = || io::Error::other("usage: altering-proxy [WHAT BY]... --forward HOST:PORT");
    let to = words.pop().filter(|_| words.pop().is_some_and(|flag| flag == "--forward")).ok_or_else(usage)?;
    let pairs: Alterations = Arc::new(words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect());
    if !words.len().is_multiple_of(2) || pairs.iter().any(|(what, by)| what.len() != by.len()) {
        return Err(usage());
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening {}", listener.local_addr()?);
    thread::spawn(|| {
        _ = io::copy(&mut io::stdin(), &mut io::sink()); // it ends where who started it is gone
        std::process::exit(0);
    });
    for client in listener.incoming() {
        let client = client?;
        if let Ok(server) = TcpStream::connect(&to) {
            for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
                let pairs = Arc::clone(&pairs);
                thread::spawn(move || pass(from, to, &pairs));
            }
        }
    }
    Ok(())
}

/// Passes on what comes, altered, until one side has ended.
fn pass(mut from: TcpStream, mut to: TcpStream, pairs: &Alterations) {
    let mut piece = vec![0; 64 * 1024];
    _ = to.set_nodelay(true);
    while let Ok(read) = from.read(&mut piece) {
        if read == 0 {
            break;
        }
        for (what, by) in pairs.iter() {
            alter(&mut piece[..read], what.as_bytes(), by.as_bytes());
        }
        if to.write_all(&piece[..read]).is_err() {
            _ = from.shutdown(Shutdown::Read);
            break;
        }
    }
    _ = to.shutdown(Shutdown::Write);
}

fn alter(bytes: &mut [u8], what: &[u8], by: &[u8]) {
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(what.len()).position(|window| window == what) {
        bytes[at + found..at + found + what.len()].copy_from_slice(by);
        at += found + what.len();
    }
}
