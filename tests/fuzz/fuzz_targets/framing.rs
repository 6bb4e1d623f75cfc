//! The bytes of a client of the gateway: wherever they are cut they read the same, and the HTTP
//! library beside the reading sees the same requests with the same bodies, so that no request
//! has two readings.
//!
//! The first byte says what the others are: a connection with the byte before it where it is
//! cut, or a body that names a model.
#![no_main]

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use merestone_agent::gateway::doors::{Read, model, requests};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::{Builder as Workers, Runtime};

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut workers = Workers::new_current_thread();
        workers.enable_time().build().expect("a runtime")
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([what, cut], rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    match what % 2 {
        0 => connection(*cut, rest),
        _ => named(*cut, rest),
    }
});

fn connection(cut: u8, bytes: &[u8]) {
    let single = read(bytes, std::iter::repeat_n(1, bytes.len()));
    let cut = usize::from(cut);
    for read in [
        read(bytes, std::iter::empty()),
        read(bytes, [cut, cut].into_iter()),
        read(
            bytes,
            std::iter::repeat_n(cut.max(1), bytes.len() / cut.max(1)),
        ),
    ] {
        assert_eq!(read.fault, single.fault);
        assert!(read.ends.iter().all(|end| single.ends.contains(end)));
    }
    if let Some((at, _)) = single.fault {
        assert!(at < bytes.len() && single.ends.iter().all(|end| *end <= at));
    }
    let ours = told(bytes, &single);
    let passed = single.fault.map_or(bytes.len(), |(at, _)| at);
    let theirs = runtime().block_on(seen(bytes.get(..passed).unwrap_or_default()));
    assert!(theirs.len() <= ours.len(), "{theirs:?} {ours:?}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
}

/// An end is told once more where nothing follows it.
fn read(bytes: &[u8], pieces: impl Iterator<Item = usize>) -> Read {
    let mut read = requests(bytes, pieces);
    read.ends.dedup();
    read.ends.retain(|end| *end > 0);
    read
}

/// Method, target and body.
type Told = (Vec<u8>, Vec<u8>, Vec<u8>);

/// What the requests are, of which only the ends were told.
fn told(bytes: &[u8], read: &Read) -> Vec<Told> {
    let mut from = 0;
    let mut all = Vec::new();
    for end in &read.ends {
        let mut rest = &bytes[from..*end];
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            rest = after;
        }
        let head = rest.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = rest.split_at(head.expect("a request has a head") + 4);
        let mut words = head.split(|byte| matches!(byte, b' ' | b'\r'));
        let mut word = || words.next().unwrap_or_default().to_vec();
        let (method, target) = (word(), word());
        // As the library spells it: `http://b` is `http://b/`.
        let spelt = Uri::try_from(target.as_slice()).map(|target| target.to_string());
        let target = spelt.map_or(target, String::into_bytes);
        let text = head.to_ascii_lowercase();
        let chunked = text
            .windows(20)
            .any(|part| part == b"\r\ntransfer-encoding:");
        let body = if chunked {
            unchunked(body)
        } else {
            body.to_vec()
        };
        all.push((method, target, body));
        from = *end;
    }
    all
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let end = body
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a chunk's size");
        let digits = body[..end]
            .split(|byte| matches!(byte, b';' | b'\r'))
            .next();
        let digits = std::str::from_utf8(digits.unwrap_or_default()).expect("digits");
        let size = usize::from_str_radix(digits, 16).expect("a number");
        if size == 0 {
            return all;
        }
        all.extend_from_slice(&body[end + 1..end + 1 + size]);
        body = &body[end + 1 + size + 2..];
    }
}

/// What the library makes of the same bytes: requests whose bodies are whole.
async fn seen(bytes: &[u8]) -> Vec<Told> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let held = Rc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let held = Rc::clone(&held);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let target = parts.uri.to_string().into_bytes();
            let method = parts.method.as_str().as_bytes().to_vec();
            held.borrow_mut().push((method, target, body.to_vec()));
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serving = Builder::new().serve_connection(TokioIo::new(server), service);
    let writing = async {
        client.write_all(bytes).await.ok();
        client.shutdown().await.ok();
        client
    };
    let both = async { tokio::join!(serving, writing) };
    let done = tokio::time::timeout(Duration::from_secs(10), both).await;
    assert!(done.is_ok(), "the library neither ends nor fails");
    drop(done);
    seen.take()
}

/// The first byte where the body is cut; events where it is odd.
fn named(cut: u8, bytes: &[u8]) {
    let at = usize::from(cut >> 1).min(bytes.len());
    let (first, second) = bytes.split_at(at);
    let is_events = cut & 1 == 1;
    let found = model(is_events, first, second);
    assert_eq!(found, model(is_events, bytes, &[]));
    if let Some(name) = found {
        assert!((1..=128).contains(&name.len()) && !name.chars().any(char::is_control));
    }
}
