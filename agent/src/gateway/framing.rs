//! Where one request ends and the next begins, read strictly and beside the
//! HTTP library, so that no request has two readings.
//!
//! The library is lenient where a lone server may be: of `Content-Length`
//! beside `Transfer-Encoding` it believes the second. In front of another
//! server such a request is a request smuggled in, so this reading refuses
//! what has two meanings, and keeps no byte of a body.

/// Longest head, and longest line of a chunked body.
pub(super) const MOST_HEAD_BYTES: usize = 64 << 10;
/// Empty lines before a request that are let pass (RFC 9112 §2.2).
const MOST_EMPTY_LINES: usize = 4;

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// `Content-Length` and `Transfer-Encoding`.
    BothLengths,
    /// `Content-Length` twice, or not a plain number.
    Length,
    /// `Transfer-Encoding` that is not `chunked` alone, or in HTTP/1.0.
    Transfer,
    /// A line that does not end in CR LF, or has a CR inside.
    Line,
    /// A folded field, or one without a proper name.
    Field,
    /// No `Host`, or several.
    Host,
    /// A request line that is not `METHOD SP target SP HTTP/1.x`, or whose
    /// target has a fragment.
    Request,
    /// A chunk's size that is not a plain hexadecimal number.
    Chunk,
    /// A head, or the trailers, of more than 64 KiB.
    Large,
}

impl Shape {
    /// The word in the metric.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::BothLengths => "both_lengths",
            Self::Length => "length",
            Self::Transfer => "transfer_encoding",
            Self::Line => "line",
            Self::Field => "field",
            Self::Host => "host",
            Self::Request => "request_line",
            Self::Chunk => "chunk",
            Self::Large => "large",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Start,
    Fields,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
}

/// What the fields of a head have said so far.
#[derive(Debug, Default)]
struct Head {
    is_http_11: bool,
    length: Option<u64>,
    is_chunked: bool,
    hosts: usize,
}

/// The reading of one connection's bytes.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    head: Head,
    line: Vec<u8>,
    /// Bytes of this head or these trailers.
    bytes: usize,
    empty: usize,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self {
            state: State::Start,
            head: Head::default(),
            line: Vec::new(),
            bytes: 0,
            empty: 0,
        }
    }

    /// Reads on; on a fault, how many of `bytes` came before the byte that
    /// made it one. That byte is never the last of a head that was sound.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), (usize, Shape)> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Body(left) => at += self.skip(left, rest, State::Body, State::Start),
                State::ChunkData(left) => {
                    at += self.skip(left, rest, State::ChunkData, State::ChunkEnd);
                }
                _ => match rest.iter().position(|byte| *byte == b'\n') {
                    None => {
                        self.hold(rest).map_err(|shape| (at, shape))?;
                        at = bytes.len();
                    }
                    Some(end) => {
                        let line = rest.get(..end).unwrap_or_default();
                        self.hold(line)
                            .and_then(|()| self.line())
                            .map_err(|shape| (at + end, shape))?;
                        at += end + 1;
                    }
                },
            }
        }
        Ok(())
    }

    /// Whether a request has ended here and none has begun.
    #[cfg(fuzzing)]
    pub(super) fn is_between(&self) -> bool {
        self.state == State::Start && self.line.is_empty() && self.empty == 0
    }

    fn skip(&mut self, left: u64, rest: &[u8], more: fn(u64) -> State, done: State) -> usize {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left - here as u64;
        self.state = if left == 0 { done } else { more(left) };
        here
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), Shape> {
        self.bytes += part.len();
        if self.bytes > MOST_HEAD_BYTES + (MOST_HEAD_BYTES >> 1) {
            // The library has given up on it before, with a better answer.
            return Err(Shape::Large);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    /// A line is whole but for its LF.
    fn line(&mut self) -> Result<(), Shape> {
        let line = std::mem::take(&mut self.line);
        let outcome = match line.strip_suffix(b"\r") {
            Some(plain) if !plain.contains(&b'\r') => self.plain(plain),
            _ => Err(Shape::Line),
        };
        self.line = line;
        self.line.clear();
        outcome
    }

    fn plain(&mut self, line: &[u8]) -> Result<(), Shape> {
        match (self.state, line) {
            (State::Start, []) => {
                self.empty += 1;
                if self.empty > MOST_EMPTY_LINES {
                    return Err(Shape::Request);
                }
            }
            (State::Start, line) => {
                self.head = Head {
                    is_http_11: request_line(line)?,
                    ..Head::default()
                };
                self.state = State::Fields;
            }
            (State::Fields, []) => {
                self.state = self.body()?;
                self.bytes = 0;
                self.empty = 0;
            }
            (State::Fields, line) => self.field(line)?,
            (State::ChunkSize, line) => {
                self.bytes = 0;
                self.state = match chunk_size(line)? {
                    0 => State::Trailers,
                    size => State::ChunkData(size),
                };
            }
            (State::ChunkEnd, []) => self.state = State::ChunkSize,
            (State::Trailers, []) => {
                self.state = State::Start;
                self.bytes = 0;
            }
            (State::Trailers, line) => {
                let (name, _) = name_and_value(line)?;
                if is(name, "content-length") || is(name, "transfer-encoding") || is(name, "host") {
                    return Err(Shape::Field);
                }
            }
            (State::ChunkEnd | State::Body(_) | State::ChunkData(_), _) => {
                return Err(Shape::Chunk);
            }
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Shape> {
        let (name, value) = name_and_value(line)?;
        if is(name, "content-length") {
            if self.head.is_chunked {
                return Err(Shape::BothLengths);
            }
            if self.head.length.is_some() {
                return Err(Shape::Length);
            }
            self.head.length = Some(number(value, 10, 19).ok_or(Shape::Length)?);
        } else if is(name, "transfer-encoding") {
            if self.head.length.is_some() {
                return Err(Shape::BothLengths);
            }
            if self.head.is_chunked || !self.head.is_http_11 || !is(value, "chunked") {
                return Err(Shape::Transfer);
            }
            self.head.is_chunked = true;
        } else if is(name, "host") {
            self.head.hosts += 1;
        }
        Ok(())
    }

    fn body(&self) -> Result<State, Shape> {
        let Head {
            is_http_11,
            length,
            is_chunked,
            hosts,
        } = self.head;
        if hosts > 1 || (is_http_11 && hosts == 0) {
            return Err(Shape::Host);
        }
        Ok(match length {
            _ if is_chunked => State::ChunkSize,
            None | Some(0) => State::Start,
            Some(length) => State::Body(length),
        })
    }
}

fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

/// Whether it says HTTP/1.1, of a line that is one.
fn request_line(line: &[u8]) -> Result<bool, Shape> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Shape::Request);
    };
    let is_graphic = target.iter().all(u8::is_ascii_graphic);
    if !is_token(method) || target.is_empty() || !is_graphic || target.contains(&b'#') {
        return Err(Shape::Request);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Shape::Request),
    }
}

fn name_and_value(line: &[u8]) -> Result<(&[u8], &[u8]), Shape> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = colon
        .and_then(|colon| Some((line.get(..colon)?, line.get(colon + 1..)?)))
        .ok_or(Shape::Field)?;
    if is_token(name) {
        Ok((name, value.trim_ascii()))
    } else {
        Err(Shape::Field)
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_char)
}

fn chunk_size(line: &[u8]) -> Result<u64, Shape> {
    let end = line.iter().position(|byte| *byte == b';');
    let digits = line.get(..end.unwrap_or(line.len())).unwrap_or_default();
    number(digits, 16, 15).ok_or(Shape::Chunk)
}

/// Digits and nothing else: no sign, no space, no underscore.
fn number(text: &[u8], radix: u32, most: usize) -> Option<u64> {
    if text.is_empty() || text.len() > most {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        sum.checked_mul(u64::from(radix))?
            .checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "POST / HTTP/1.1\r\nHost: a\r\n";

    #[expect(
        clippy::panic_in_result_fn,
        reason = "the outcome is what is asserted about"
    )]
    fn read(text: &str) -> Result<State, Shape> {
        // In one piece and byte by byte: the same.
        let mut whole = Framing::new();
        let outcome = whole.feed(text.as_bytes()).map_err(|(_, shape)| shape);
        let mut single = Framing::new();
        let mut bytes = text.as_bytes().chunks(1);
        let bytewise = bytes.try_for_each(|byte| single.feed(byte));
        assert_eq!(outcome, bytewise.map_err(|(_, shape)| shape), "{text:?}");
        if outcome.is_ok() {
            assert_eq!(whole.state, single.state, "{text:?}");
        }
        outcome.map(|()| whole.state)
    }

    #[test]
    fn sound_requests_end_where_they_end() {
        for sound in [
            format!("{HOST}\r\n"),
            format!("{HOST}Content-Length: 3\r\n\r\nabc"),
            format!("{HOST}transfer-encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"),
            format!("\r\n{HOST}\r\n{HOST}Content-Length: 1\r\n\r\nx{HOST}\r\n"),
            "GET / HTTP/1.0\r\n\r\n".to_owned(),
        ] {
            assert_eq!(read(&sound), Ok(State::Start), "{sound:?}");
        }
        assert_eq!(
            read(&format!("{HOST}Content-Length: 3\r\n\r\nab")),
            Ok(State::Body(1))
        );
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
        let both_turned = "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n";
        for (fields, shape) in [
            (both, Shape::BothLengths),
            (both_turned, Shape::BothLengths),
            (
                "Content-Length: 4\r\nContent-Length: 4\r\n\r\n",
                Shape::Length,
            ),
            ("Content-Length: 4, 4\r\n\r\n", Shape::Length),
            ("Content-Length: +4\r\n\r\n", Shape::Length),
            ("Content-Length: 0x4\r\n\r\n", Shape::Length),
            ("Content-Length: \r\n\r\n", Shape::Length),
            (
                "Content-Length: 99999999999999999999\r\n\r\n",
                Shape::Length,
            ),
            ("Transfer-Encoding: xchunked\r\n\r\n", Shape::Transfer),
            ("Transfer-Encoding: gzip, chunked\r\n\r\n", Shape::Transfer),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
                Shape::Transfer,
            ),
            ("Transfer-Encoding : chunked\r\n\r\n", Shape::Field),
            (" Transfer-Encoding: chunked\r\n\r\n", Shape::Field),
            ("X: y\r\n folded\r\n\r\n", Shape::Field),
            ("X: y\nTransfer-Encoding: chunked\r\n\r\n", Shape::Line),
            ("X: y\rTransfer-Encoding: chunked\r\n\r\n", Shape::Line),
            ("Host: b\r\n\r\n", Shape::Host),
            ("Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n", Shape::Line),
            (
                "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n",
                Shape::Chunk,
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n",
                Shape::Chunk,
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
                Shape::Chunk,
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
                Shape::Field,
            ),
        ] {
            assert_eq!(read(&format!("{HOST}{fields}")), Err(shape), "{fields:?}");
        }
        for (whole, shape) in [
            ("GET / HTTP/1.1\r\n\r\n", Shape::Host),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Shape::Request),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Shape::Request),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Shape::Request),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Shape::Request),
            (
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                Shape::Transfer,
            ),
        ] {
            assert_eq!(read(whole), Err(shape), "{whole:?}");
        }
    }

    #[test]
    fn the_fault_is_found_before_the_head_is_whole() {
        let text =
            format!("{HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        let (at, _) = Framing::new().feed(text.as_bytes()).unwrap_err();
        assert!(at < text.find("\r\n\r\n").unwrap() + 2);
    }
}
