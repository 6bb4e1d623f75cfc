//! The model that a request or an answer names, from JSON of at most 1 MiB.
//!
//! What is larger is not kept for it, and what is named is the client's or the
//! server's word: the digest of the weight files is another matter.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

/// Larger JSON is not read.
const MOST_JSON_BYTES: usize = 1 << 20;
/// Of a stream of events, as much as the first takes.
const MOST_EVENT_BYTES: usize = 64 << 10;
/// Longest name that the agent takes.
const MOST_NAME_BYTES: usize = 128;

#[derive(Deserialize)]
struct Naming {
    model: Option<String>,
}

/// Parts of a body kept until its model is known or it is too long.
#[derive(Debug, Default)]
pub(super) enum Sniff {
    /// Nothing is looked for.
    #[default]
    Off,
    /// A JSON text.
    Json(Vec<Bytes>, usize),
    /// A stream of events whose first is JSON.
    Events(Vec<u8>),
    /// Found.
    Found(String),
}

impl Sniff {
    /// What to look for in a body with these fields and, if known, this length.
    pub(super) fn of(headers: &HeaderMap, length: Option<u64>) -> Self {
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let kind = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let fits = length.is_none_or(|length| length <= MOST_JSON_BYTES as u64);
        match kind.as_str() {
            "application/json" if fits => Self::Json(Vec::new(), 0),
            "text/event-stream" => Self::Events(Vec::new()),
            _ => Self::Off,
        }
    }

    /// Bytes pass; a JSON body's are shared, not copied.
    pub(super) fn see(&mut self, bytes: &Bytes) {
        match self {
            Self::Off | Self::Found(_) => {}
            Self::Json(parts, length) => {
                *length += bytes.len();
                parts.push(bytes.clone());
                if *length > MOST_JSON_BYTES {
                    *self = Self::Off;
                }
            }
            Self::Events(start) => {
                start.extend_from_slice(
                    bytes
                        .get(..MOST_EVENT_BYTES.min(bytes.len()))
                        .unwrap_or_default(),
                );
                if let Some(data) = first_event(start) {
                    *self = name(data).map_or(Self::Off, Self::Found);
                } else if start.len() > MOST_EVENT_BYTES {
                    *self = Self::Off;
                }
            }
        }
    }

    /// The body is over.
    pub(super) fn end(self) -> Option<String> {
        match self {
            Self::Off | Self::Events(_) => None,
            Self::Found(name) => Some(name),
            Self::Json(parts, _) => match parts.as_slice() {
                [one] => name(one),
                parts => name(&parts.concat()),
            },
        }
    }
}

/// The data of the first event, once it is whole.
fn first_event(start: &[u8]) -> Option<&[u8]> {
    let mut lines = start.split_inclusive(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let line = line.strip_suffix(b"\n")?;
        let data = line.trim_ascii_end().strip_prefix(b"data:")?;
        Some(data.trim_ascii_start())
    })
}

fn name(json: &[u8]) -> Option<String> {
    let name = serde_json::from_slice::<Naming>(json).ok()?.model?;
    let is_plain =
        !name.is_empty() && name.len() <= MOST_NAME_BYTES && !name.chars().any(char::is_control);
    is_plain.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn found(kind: &'static str, parts: &[&'static [u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let mut sniff = Sniff::of(&headers, None);
        for part in parts {
            sniff.see(&Bytes::from_static(part));
        }
        sniff.end()
    }

    #[test]
    fn a_model_is_found_wherever_the_bytes_are_cut() {
        let parts: [&[u8]; 2] = [
            b"{\"messages\": [{\"model\": 1}], \"mo",
            b"del\": \"llama-3\"}",
        ];
        assert_eq!(
            found("application/json; charset=utf-8", &parts).as_deref(),
            Some("llama-3")
        );
        let parts: [&[u8]; 2] = [
            b": hello\n\ndata: {\"model\":",
            b" \"m\"}\r\n\r\ndata: [DONE]\n\n",
        ];
        assert_eq!(found("text/event-stream", &parts).as_deref(), Some("m"));
    }

    #[test]
    fn what_is_no_name_is_none() {
        assert_eq!(found("application/json", &[b"{\"model\": 3}"]), None);
        assert_eq!(
            found("application/json", &[b"{\"model\": \"a\\u0000\"}"]),
            None
        );
        assert_eq!(found("application/json", &[b"{\"model\": \"\"}"]), None);
        assert_eq!(found("text/plain", &[b"{\"model\": \"a\"}"]), None);
        assert_eq!(found("text/event-stream", &[b"data: [DONE]\n"]), None);
    }

    #[test]
    fn a_long_body_is_not_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(matches!(Sniff::of(&headers, Some(2 << 20)), Sniff::Off));
        let mut sniff = Sniff::of(&headers, None);
        let piece = Bytes::from(vec![b' '; 64 << 10]);
        for _ in 0..17 {
            sniff.see(&piece);
        }
        assert!(matches!(sniff, Sniff::Off));
    }
}
