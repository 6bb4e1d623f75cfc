//! A bundle whose leaves stay where they are: in memory that is borrowed, or in a file.
//!
//! A bundle of a million records is bigger than the memory it is verified in. So only the
//! *skeleton* is decoded, the file with an empty list in place of the leaves; of the leaves it
//! is remembered where they begin and end, in runs of about a megabyte. Together this accepts
//! exactly the bytes that [`decode`] of the whole accepts, but for two caps: the skeleton may have
//! the bytes that [`Bundle`] may, and a leaf at most a mebibyte.
//!
//! It hashes nothing and decodes no leaf. A file can change between two readings: whoever reads
//! a run again has to hash it again.

use crate::canonical::{DecodeError, Record as _, decode};
use crate::shape::ShapeError;
use crate::{Bundle, Entry};
use std::borrow::Cow;

/// Bytes of the biggest bundle: sixteen million records of the longest usual kind.
pub const MOST_BUNDLE_BYTES: u64 = 16 << 30;
/// Bytes of the biggest leaf that is looked at at all. What an entry may have is less; between
/// the two it is refused as an entry, by its number.
const MOST_LEAF_BYTES: u64 = 1 << 20;
const _: () = assert!(MOST_LEAF_BYTES > 2 * Entry::LIMITS.bytes as u64);
/// A run ends with the leaf that reaches this.
const RUN_BYTES: u64 = 1 << 20;
/// Bytes read at a time while heads are looked for.
const WINDOW_BYTES: u64 = 256 << 10;
/// Keys of [`Bundle::span`] and of its leaves.
const SPAN: u64 = 7;
const LEAVES: u64 = 2;

/// A file that is not in memory.
pub trait Stored: Sync {
    /// Its length.
    fn size(&self) -> u64;
    /// Fills `into` with what stands from `at` on; why not, in words.
    fn fill(&self, at: u64, into: &mut [u8]) -> Result<(), String>;
}

/// Where a file's bytes are.
#[derive(Clone, Copy)]
pub enum Source<'s> {
    /// In memory.
    Memory(&'s [u8]),
    /// Elsewhere.
    Stored(&'s dyn Stored),
}

impl core::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes", self.size())
    }
}

impl<'s> Source<'s> {
    /// How many bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Stored(file) => file.size(),
        }
    }

    /// Bytes `from..to`.
    pub fn read(&self, from: u64, to: u64) -> Result<Cow<'s, [u8]>, DecodeError> {
        let unreadable = |detail: String| DecodeError::Unreadable { at: from, detail };
        let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        let short = || unreadable(format!("the file has no byte {to}"));
        let (start, end) = range
            .filter(|(start, end)| start <= end)
            .ok_or_else(short)?;
        match self {
            Self::Memory(bytes) => bytes.get(start..end).map(Cow::Borrowed).ok_or_else(short),
            Self::Stored(file) => {
                if to > file.size() {
                    return Err(short());
                }
                let mut bytes = vec![0; end - start];
                file.fill(from, &mut bytes).map_err(unreadable)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

/// Leaves that stand one after the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// Number of the first, counted from the span's start.
    pub first: u64,
    /// How many.
    pub count: u64,
    from: u64,
    to: u64,
}

/// The leaves of a bundle, where they are.
#[derive(Debug)]
pub struct Leaves<'s> {
    source: Source<'s>,
    runs: Vec<Run>,
    count: u64,
}

/// The bytes of a run.
#[derive(Debug)]
pub struct RunBytes<'s>(Cow<'s, [u8]>);

impl<'s> Leaves<'s> {
    /// How many.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether they are in memory and so the same at every reading.
    #[must_use]
    pub const fn is_borrowed(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }

    /// All of them, in order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Reads a run.
    pub fn read(&self, run: &Run) -> Result<RunBytes<'s>, DecodeError> {
        self.source.read(run.from, run.to).map(RunBytes)
    }
}

impl RunBytes<'_> {
    /// The leaves in order; fewer than the run has if the file is no longer what it was.
    pub fn leaves(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.0;
        core::iter::from_fn(move || {
            let (head, length) = byte_string(rest)?;
            let leaf = rest.get(head..head + length)?;
            rest = rest.get(head + length..)?;
            Some(leaf)
        })
    }
}

/// Bytes of the head and of the string, where `bytes` begin with a byte string.
fn byte_string(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut heads = Heads::new(Source::Memory(bytes));
    let head = heads.head().ok()??;
    let length = usize::try_from(head.value).ok()?;
    (head.major == 2).then_some((usize::try_from(heads.at).ok()?, length))
}

/// Reads all of a bundle but its leaves. The bundle's span, where there is one, has none.
pub fn open_bundle(source: Source<'_>) -> Result<(Bundle, Leaves<'_>), DecodeError> {
    let size = source.size();
    if size > MOST_BUNDLE_BYTES {
        return Err(too_long(size, MOST_BUNDLE_BYTES));
    }
    let mut heads = Heads::new(source);
    let mut leaves = Leaves {
        source,
        runs: Vec::new(),
        count: 0,
    };
    let Some(from) = heads.leaves()? else {
        // No list of leaves anywhere: a receipt, or something else altogether.
        let bundle: Bundle = decode(&skeleton(source, 0, 0, &[])?)?;
        return Ok((bundle, leaves));
    };
    leaves.count = heads.runs(&mut leaves.runs)?;
    let to = heads.at;
    let bundle = decode(&skeleton(source, from, to, &[0x80])?);
    // What stands behind the leaves was looked at `moved` bytes further ahead.
    let moved = usize::try_from(to - from).unwrap_or(usize::MAX) - 1;
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let bundle: Bundle = bundle.map_err(|error: DecodeError| error.moved(from, moved))?;
    if bundle
        .span
        .as_ref()
        .is_none_or(|span| !span.leaves.is_empty())
    {
        // A second list of leaves: no encoder writes it, so the line above refused it.
        return Err(content(
            "the leaves are not where they should be".to_owned(),
        ));
    }
    Ok((bundle, leaves))
}

fn content(detail: String) -> DecodeError {
    DecodeError::Content {
        kind: Bundle::KIND,
        detail,
    }
}

fn too_long(got: u64, limit: u64) -> DecodeError {
    let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
    DecodeError::Shape {
        kind: Bundle::KIND,
        source: ShapeError::TooLong {
            got: size(got),
            limit: size(limit),
        },
    }
}

/// The file with `instead` in the place of bytes `from..to`.
fn skeleton<'s>(
    source: Source<'s>,
    from: u64,
    to: u64,
    instead: &[u8],
) -> Result<Cow<'s, [u8]>, DecodeError> {
    let size = source.size();
    let rest = size.saturating_sub(to - from);
    if rest > Bundle::LIMITS.bytes as u64 {
        return Err(too_long(rest, Bundle::LIMITS.bytes as u64));
    }
    if from == to {
        return source.read(0, size);
    }
    let mut bytes = source.read(0, from)?.into_owned();
    bytes.extend_from_slice(instead);
    bytes.extend_from_slice(&source.read(to, size)?);
    Ok(Cow::Owned(bytes))
}

/// The beginning of an item.
struct Head {
    major: u8,
    value: u64,
    /// In the shortest form, of definite length.
    shortest: bool,
}

/// A walk from head to head that looks at nothing between them and believes nothing: what it
/// passes is decoded strictly afterwards.
struct Heads<'s> {
    source: Source<'s>,
    held: Cow<'s, [u8]>,
    /// Where `held` begins.
    from: u64,
    at: u64,
}

impl<'s> Heads<'s> {
    fn new(source: Source<'s>) -> Self {
        let held = match source {
            Source::Memory(bytes) => Cow::Borrowed(bytes),
            Source::Stored(_) => Cow::Owned(Vec::new()),
        };
        Self {
            source,
            held,
            from: 0,
            at: 0,
        }
    }

    fn byte(&mut self) -> Result<Option<u8>, DecodeError> {
        loop {
            let inside = self.at.checked_sub(self.from);
            let inside = inside.and_then(|inside| usize::try_from(inside).ok());
            if let Some(byte) = inside.and_then(|inside| self.held.get(inside)) {
                self.at += 1;
                return Ok(Some(*byte));
            }
            let size = self.source.size();
            if self.at >= size || matches!(self.source, Source::Memory(_)) {
                return Ok(None);
            }
            let to = size.min(self.at.saturating_add(WINDOW_BYTES));
            self.held = self.source.read(self.at, to)?;
            self.from = self.at;
        }
    }

    /// `None` where the bytes end, or hold what no bundle has.
    fn head(&mut self) -> Result<Option<Head>, DecodeError> {
        let Some(initial) = self.byte()? else {
            return Ok(None);
        };
        let (width, floor) = match initial & 0x1f {
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            28.. => return Ok(None),
            _ => (0, 0),
        };
        let mut value = if width == 0 {
            u64::from(initial & 0x1f)
        } else {
            0
        };
        for _ in 0..width {
            let Some(byte) = self.byte()? else {
                return Ok(None);
            };
            value = value << 8 | u64::from(byte);
        }
        Ok(Some(Head {
            major: initial >> 5,
            value,
            shortest: value >= floor,
        }))
    }

    /// A head of that kind; its value.
    fn value(&mut self, major: u8) -> Result<Option<u64>, DecodeError> {
        let head = self.head()?.filter(|head| head.major == major);
        Ok(head.map(|head| head.value))
    }

    /// Passes an item and all that is in it; each turn takes a byte at least.
    fn skip(&mut self) -> Result<Option<()>, DecodeError> {
        let mut open = 1_u64;
        while open > 0 {
            let Some(head) = self.head()? else {
                return Ok(None);
            };
            open -= 1;
            match head.major {
                2 | 3 => self.at = self.at.saturating_add(head.value),
                4 => open = open.saturating_add(head.value),
                5 => open = open.saturating_add(head.value.saturating_mul(2)),
                6 => return Ok(None),
                _ => {}
            }
        }
        Ok(Some(()))
    }

    /// Goes to the list of leaves; where it begins.
    fn leaves(&mut self) -> Result<Option<u64>, DecodeError> {
        if !self.find(SPAN)? || !self.find(LEAVES)? {
            return Ok(None);
        }
        Ok(Some(self.at))
    }

    /// Goes to the value of a key of the map that begins here.
    fn find(&mut self, wanted: u64) -> Result<bool, DecodeError> {
        let keys = self.value(5)?.unwrap_or(0);
        for _ in 0..keys {
            match self.value(0)? {
                Some(key) if key == wanted => return Ok(true),
                Some(_) if self.skip()?.is_some() => {}
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Passes the list of leaves; how many there are.
    fn runs(&mut self, runs: &mut Vec<Run>) -> Result<u64, DecodeError> {
        let wrong = |what: &str, at: u64| content(format!("{what} at byte {at}"));
        let list = self.at;
        let head = self.head()?.filter(|head| head.major == 4 && head.shortest);
        let count = head.ok_or_else(|| wrong("no list of leaves", list))?.value;
        let size = self.source.size();
        let mut run: Option<Run> = None;
        for number in 0..count {
            let from = self.at;
            let head = self.head()?.filter(|head| head.major == 2 && head.shortest);
            let length = head.ok_or_else(|| wrong("no leaf", from))?.value;
            self.at = self.at.saturating_add(length);
            if length > MOST_LEAF_BYTES || self.at > size {
                return Err(wrong(&format!("a leaf of {length} bytes"), from));
            }
            let so_far = run.get_or_insert(Run {
                first: number,
                count: 0,
                from,
                to: from,
            });
            so_far.count += 1;
            so_far.to = self.at;
            if so_far.to - so_far.from >= RUN_BYTES {
                runs.extend(run.take());
            }
        }
        runs.extend(run);
        Ok(count)
    }
}
