//! Records in an append-only file: length, check, bytes.
//!
//! ```text
//! 4 bytes   length of the record, big endian, never 0
//! 8 bytes   the first bytes of its RFC 9162 leaf hash
//! n bytes   the record
//! ```
//!
//! The check finds accidents: a torn write, a page of zeroes after a power cut,
//! a bad sector. It is no protection against anyone; that is the quotes' job.

use merestone_evidence::{Digest, leaf_hash};
use std::io::{self, Read};

/// Bytes before each record.
pub(crate) const HEADER_BYTES: u64 = 12;

/// A record as read back.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Where its header begins.
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    /// Leaf hash of the data.
    pub(crate) hash: Digest,
}

/// The next frame, the clean end, or the first place that is not a frame.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(Frame),
    End,
    Broken { offset: u64, why: &'static str },
}

/// The frame around `data`.
pub(crate) fn frame(data: &[u8], hash: &Digest) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(data.len() + 12);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(check(hash));
    bytes.extend_from_slice(data);
    bytes
}

fn check(hash: &Digest) -> &[u8] {
    hash.0.get(..8).unwrap_or_default()
}

/// Reads frames one after the other, up to `limit` bytes of file.
pub(crate) struct Frames<R> {
    from: R,
    offset: u64,
    limit: u64,
    record_limit: usize,
}

impl<R: Read> Frames<R> {
    /// `from` stands at byte `offset` of the file and is read up to `limit`.
    pub(crate) const fn new(from: R, offset: u64, limit: u64, record_limit: usize) -> Self {
        Self {
            from,
            offset,
            limit,
            record_limit,
        }
    }

    /// Where the next frame begins.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn next(&mut self) -> io::Result<Next> {
        let offset = self.offset;
        let broken = |why| Ok(Next::Broken { offset, why });
        let left = self.limit.saturating_sub(offset);
        if left == 0 {
            return Ok(Next::End);
        }
        if left < HEADER_BYTES {
            return broken("the file ends inside a header");
        }
        let (mut length, mut expected) = ([0; 4], [0; 8]);
        self.from.read_exact(&mut length)?;
        self.from.read_exact(&mut expected)?;
        let length = u32::from_be_bytes(length);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes == 0 || bytes > self.record_limit {
            return broken("no record has this length");
        }
        if left - HEADER_BYTES < u64::from(length) {
            return broken("the file ends inside a record");
        }
        let mut data = vec![0; bytes];
        self.from.read_exact(&mut data)?;
        let hash = leaf_hash(&data);
        if check(&hash) != expected {
            return broken("the record does not match its check");
        }
        self.offset += HEADER_BYTES + u64::from(length);
        Ok(Next::Frame(Frame { offset, data, hash }))
    }
}
