//! Checkpoints: the text of a note that names a tree.

use base64ct::{Base64, Encoding as _};
use merestone_evidence::{Digest, SessionId};

/// Why the text of a note is no checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckpointError {
    /// Fewer than three lines, or an empty one.
    #[error("a checkpoint is three lines or more, none of them empty")]
    Lines,
    /// The second line.
    #[error("a checkpoint's second line is the size of the tree, in decimal digits")]
    Size,
    /// The third line.
    #[error("a checkpoint's third line is the tree's root, 32 bytes in base64")]
    Root,
    /// An empty tree has one root.
    #[error("a checkpoint of no leaves has another root than the empty tree")]
    Empty,
}

/// What one of our own checkpoints names beside the tree: the epoch whose quote seals it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// The session.
    pub session: SessionId,
    /// Digest of the epoch statement.
    pub epoch: Digest,
}

/// A tree at one size.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
    /// Lines after the root; no witness vouches for them.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// Reads the text of a note.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = lines.split('\n');
        let mut line = || {
            let line = lines.next().ok_or(CheckpointError::Lines)?;
            (!line.is_empty())
                .then_some(line)
                .ok_or(CheckpointError::Lines)
        };
        let (origin, size, root) = (line()?, line()?, line()?);
        let size = decimal(size).ok_or(CheckpointError::Size)?;
        let mut digest = Digest::ZERO;
        let decoded = Base64::decode(root, &mut digest.0).map(<[u8]>::len);
        if decoded != Ok(32) {
            return Err(CheckpointError::Root);
        }
        if size == 0 && digest != merestone_evidence::empty_root() {
            return Err(CheckpointError::Empty);
        }
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Lines);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root: digest,
            extensions,
        })
    }

    /// The text to sign.
    #[must_use]
    pub fn text(&self) -> String {
        let root = Base64::encode_string(&self.root.0);
        let mut text = format!("{}\n{}\n{root}\n", self.origin, self.size);
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// What one of our own names beside the tree; `None` where it does not, or ambiguously.
    #[must_use]
    pub fn sealed(&self) -> Option<Sealed> {
        let mut sealed = Sealed {
            session: SessionId::default(),
            epoch: Digest::ZERO,
        };
        hex::decode_to_slice(self.extension("session")?, &mut sealed.session.0).ok()?;
        hex::decode_to_slice(self.extension("epoch")?, &mut sealed.epoch.0).ok()?;
        Some(sealed)
    }

    fn extension(&self, name: &str) -> Option<&str> {
        let lines = self.extensions.iter();
        let mut found =
            lines.filter_map(|line| line.split_once(' ').filter(|(word, _)| *word == name));
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }
}

impl Sealed {
    /// As extension lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        vec![
            format!("session {}", hex::encode(self.session.0)),
            format!("epoch {}", self.epoch),
        ]
    }
}

/// Digits without leading zeroes.
fn decimal(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_shortest = text == "0" || !text.starts_with('0');
    (is_plain && is_shortest)
        .then(|| text.parse().ok())
        .flatten()
}
