//! Large bodies and slow readers: nothing is gathered on the way.

use crate::stage::Stage;
use sha2::{Digest as _, Sha256};
use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

const GIB: u64 = 1 << 30;
const PIECE: usize = 1 << 20;
/// What a gateway may take in all, of which little is bodies.
const MOST_BYTES: u64 = 96 << 20;
/// What sockets and buffers between two ends may hold.
const MOST_HELD: u64 = 32 << 20;

/// Writes `total` zeros and gives back how many went before it stalled.
fn pour(mut stream: &std::net::TcpStream, total: u64, patience: Duration) -> u64 {
    let zeros = vec![0; PIECE];
    stream.set_write_timeout(Some(patience)).unwrap();
    let mut sent = 0;
    while sent < total {
        let piece = usize::try_from(total - sent).unwrap_or(PIECE).min(PIECE);
        match stream.write(&zeros[..piece]) {
            Ok(count) => sent += count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("{error} after {sent}"),
        }
    }
    sent
}

fn swallow(reader: &mut impl std::io::Read, total: u64) {
    let mut buffer = vec![0; PIECE];
    let mut left = reader.take(total);
    let mut seen = 0;
    loop {
        match left.read(&mut buffer).unwrap() {
            0 => break,
            count => seen += count as u64,
        }
    }
    assert_eq!(seen, total);
}

fn zeros(salt: &str, label: &str, total: u64) -> String {
    let mut hash =
        Sha256::new_with_prefix([&hex::decode(salt).unwrap(), label.as_bytes()].concat());
    let zeros = vec![0; PIECE];
    for _ in 0..total / PIECE as u64 {
        hash.update(&zeros);
    }
    hex::encode(hash.finalize())
}

#[test]
fn a_gibibyte_each_way_passes_in_flat_memory() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say(format!(
        "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n"
    ));
    let mut server = stage.server.accept();
    assert_eq!(
        server.wire.head().unwrap().length(),
        usize::try_from(GIB).ok()
    );
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(pour(&client.stream, GIB, Duration::from_secs(60)), GIB));
        swallow(&mut server.wire.0, GIB);
    });
    server.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n"));
    let head = client.wire.head().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(pour(&server.stream, GIB, Duration::from_secs(60)), GIB));
        swallow(&mut client.wire.0, GIB);
    });
    let peak = stage.gateway.peak_bytes();
    assert!(peak < MOST_BYTES, "{peak} bytes");
    let id = head.get("merestone-receipt").unwrap();
    let salt = stage.gateway.receipt(id)["salt"]
        .as_str()
        .unwrap()
        .to_owned();
    let record = stage.agent.record(id);
    assert_eq!((record.request_bytes, record.answer_bytes), (GIB, GIB));
    assert_eq!(record.request, zeros(&salt, "request", GIB));
    assert_eq!(record.answer, zeros(&salt, "answer", GIB));
}

#[test]
fn a_slow_reader_holds_the_writer_back_on_either_side() {
    let stage = Stage::new();
    let total = 256 << 20;
    let stalled = Duration::from_secs(2);
    let mut client = stage.gateway.connect();
    client.say(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n"
    ));
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    let sent = pour(&client.stream, total, stalled);
    assert!(
        sent < MOST_HELD,
        "{sent} bytes went to a server that reads nothing"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| pour(&client.stream, total - sent, Duration::from_secs(60)));
        swallow(&mut server.wire.0, total);
    });
    server.say(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"
    ));
    let sent = pour(&server.stream, total, stalled);
    assert!(
        sent < MOST_HELD,
        "{sent} bytes went to a client that reads nothing"
    );
    let head = client.wire.head().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| pour(&server.stream, total - sent, Duration::from_secs(60)));
        swallow(&mut client.wire.0, total);
    });
    let peak = stage.gateway.peak_bytes();
    assert!(peak < MOST_BYTES, "{peak} bytes");
    assert_eq!(
        stage
            .agent
            .record(head.get("merestone-receipt").unwrap())
            .answer_bytes,
        total
    );
}
