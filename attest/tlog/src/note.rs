//! Signed notes: text, an empty line, and lines of signatures.
//!
//! A note that was read is not believed: [`Note::signed_by`] asks one pinned key at a time.
//! What is read is written again to the byte, so there is no second spelling of a note.

use crate::key::{Signer, VerifierKey};
use base64ct::{Base64, Encoding as _};

/// Bytes of a note: sixteen signatures of the largest kind known, and room.
pub const MAX_NOTE: usize = 128 << 10;
const MAX_SIGNATURES: usize = 64;
const DASH: &str = "\u{2014} ";

/// Why bytes are no signed note, or one that must not be believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoteError {
    /// More bytes than any note has.
    #[error("a note of {got} bytes, at most {limit} are read")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes read.
        limit: usize,
    },
    /// Not UTF-8, or a control character.
    #[error("a note is utf-8 text without control characters")]
    Text,
    /// No text, no empty line, or no signatures.
    #[error("a note is text, an empty line, and lines of signatures that end with a newline")]
    Form,
    /// A line that is no signature.
    #[error("signature line {line} is none")]
    Line {
        /// Which, from 1.
        line: usize,
    },
    /// More signatures than are read.
    #[error("a note of {got} signatures, at most {limit} are read")]
    TooMany {
        /// Lines given.
        got: usize,
        /// Lines read.
        limit: usize,
    },
    /// A key that is believed did not sign what its line says.
    #[error("the signature of {name} does not hold")]
    Signature {
        /// Whose.
        name: String,
    },
}

/// One line of a note: whose signature, and its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// Id of the key.
    pub id: [u8; 4],
    /// The signature; its form depends on the key.
    pub bytes: Vec<u8>,
}

impl NoteSignature {
    fn parse(line: &str) -> Option<Self> {
        let (name, data) = line.strip_prefix(DASH)?.split_once(' ')?;
        let data = Base64::decode_vec(data).ok()?;
        let (id, bytes) = data.split_first_chunk::<4>()?;
        let is_one = crate::is_key_name(name) && !bytes.is_empty();
        is_one.then(|| Self {
            name: name.to_owned(),
            id: *id,
            bytes: bytes.to_vec(),
        })
    }

    fn line(&self) -> String {
        let data = Base64::encode_string(&[&self.id[..], &self.bytes].concat());
        format!("{DASH}{} {data}\n", self.name)
    }
}

/// A note as read or as made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Reads a note, and believes nothing of it.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLong {
                got: bytes.len(),
                limit: MAX_NOTE,
            });
        }
        let whole = core::str::from_utf8(bytes).map_err(|_utf8| NoteError::Text)?;
        if whole.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::Text);
        }
        let (text, lines) = whole.rsplit_once("\n\n").ok_or(NoteError::Form)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let got = lines.split('\n').count();
        if got > MAX_SIGNATURES {
            return Err(NoteError::TooMany {
                got,
                limit: MAX_SIGNATURES,
            });
        }
        let signatures = lines.split('\n').zip(1..).map(|(line, number)| {
            NoteSignature::parse(line).ok_or(NoteError::Line { line: number })
        });
        Ok(Self {
            signatures: signatures.collect::<Result<_, _>>()?,
            text: format!("{text}\n"),
        })
    }

    /// A note of `text`, which ends with a newline, signed once.
    #[must_use]
    pub fn sign(text: String, signer: &Signer) -> Self {
        let signatures = vec![signer.sign(&text, 0)];
        Self { text, signatures }
    }

    /// The text, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines of signatures, of whomever.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// The same text with the lines of these keys alone; they are not checked here.
    #[must_use]
    pub fn only(&self, keys: &[VerifierKey]) -> Self {
        let lines = self.signatures.iter();
        let kept = lines.filter(|one| keys.iter().any(|key| key.claims(one)));
        Self {
            text: self.text.clone(),
            signatures: kept.cloned().collect(),
        }
    }

    /// Adds a signature; an older one of the same key makes way.
    pub fn add(&mut self, signature: NoteSignature) {
        self.signatures
            .retain(|other| (&other.name, other.id) != (&signature.name, signature.id));
        self.signatures.push(signature);
    }

    /// Takes over signatures of another note of the very same text, of keys not here yet;
    /// says whether it had that text.
    pub fn merge(&mut self, other: &Self) -> bool {
        if self.text != other.text {
            return false;
        }
        for signature in &other.signatures {
            let is_here =
                |mine: &NoteSignature| (&mine.name, mine.id) == (&signature.name, signature.id);
            if self.signatures.len() < MAX_SIGNATURES && !self.signatures.iter().any(is_here) {
                self.signatures.push(signature.clone());
            }
        }
        true
    }

    /// The bytes of the note.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let lines: String = self.signatures.iter().map(NoteSignature::line).collect();
        format!("{}\n{lines}", self.text).into_bytes()
    }

    /// Whether a key signed: `None` where no line claims to be its. A line that does and is not
    /// spoils the note. A cosignature gives its time in seconds, the latest of several.
    pub fn signed_by(&self, key: &VerifierKey) -> Result<Option<u64>, NoteError> {
        let claimed = self.signatures.iter().filter(|one| key.claims(one));
        let mut times = claimed.map(|one| {
            key.check(&self.text, &one.bytes)
                .ok_or_else(|| NoteError::Signature {
                    name: one.name.clone(),
                })
        });
        times.try_fold(None, |latest, time| Ok(latest.max(Some(time?))))
    }
}
