//! A client of an HTTP/1.1 server that keeps every byte of a body.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, request after request.
pub(crate) struct Client(BufReader<TcpStream>);

/// An answer as it came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// Without the chunks that it may have come in.
    pub(crate) body: Vec<u8>,
    /// From the first piece of the body to the last.
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = fields.filter(|(one, _)| one.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }
}

impl Client {
    /// In the network namespace that the caller is in.
    pub(crate) fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("sets it");
        Some(Self(BufReader::new(stream)))
    }

    /// Asks, with more fields where there are any, each ended by CRLF.
    pub(crate) fn ask(&mut self, line: &str, more: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nHost: test\r\n{more}Content-Length: {length}\r\n\r\n");
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes()).expect("writes the head");
        stream.write_all(body).expect("writes the body");
        let mut answer = Answer {
            status: 0,
            head: self.head(),
            body: Vec::new(),
            took: Duration::ZERO,
        };
        let status = answer.head.split(' ').nth(1);
        answer.status = status.and_then(|text| text.parse().ok()).expect("a status");
        let length = answer.field("content-length").map(str::parse);
        if let Some(length) = length {
            answer.body = self.exact(length.expect("a length"));
            return answer;
        }
        let mut began = None;
        loop {
            let size = self.line();
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
            let began = began.get_or_insert_with(Instant::now);
            let chunk = self.exact(size.saturating_add(2));
            if size == 0 {
                answer.took = began.elapsed();
                return answer;
            }
            answer.body.extend(chunk.into_iter().take(size));
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("reads a line");
        assert!(line.ends_with('\n'), "cut off after {line:?}");
        line
    }

    fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &self.line();
        }
        head
    }

    fn exact(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("reads a body");
        bytes
    }
}
