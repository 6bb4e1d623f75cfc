//! Ways in for the fuzz targets, compiled for them alone.

use super::framing::Framing;
use super::model::Sniff;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

/// Requests as their ends were read on one connection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Read {
    /// Where each request that is whole ends.
    pub ends: Vec<usize>,
    /// The first byte that is not passed on, and the word for why.
    pub fault: Option<(usize, &'static str)>,
}

/// Reads a connection's bytes, given in pieces of these lengths and the rest at once.
#[must_use]
pub fn requests(bytes: &[u8], pieces: impl Iterator<Item = usize>) -> Read {
    let mut framing = Framing::new();
    let mut read = Read::default();
    let mut at = 0;
    for length in pieces.chain([usize::MAX]) {
        let end = at + length.min(bytes.len() - at);
        let piece = bytes.get(at..end).unwrap_or_default();
        if let Err((before, shape)) = framing.feed(piece) {
            read.fault = Some((at + before, shape.word()));
            break;
        }
        at = end;
        if framing.is_between() {
            read.ends.push(at);
        }
    }
    read
}

/// The model named by a body of a kind, in two pieces.
#[must_use]
pub fn model(is_events: bool, first: &[u8], second: &[u8]) -> Option<String> {
    let kind = if is_events {
        "text/event-stream"
    } else {
        "application/json"
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let mut sniff = Sniff::of(&headers, None);
    for piece in [first, second] {
        sniff.see(&Bytes::copy_from_slice(piece));
    }
    sniff.end()
}
