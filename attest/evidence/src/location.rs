//! What others say of the place: measurements of landmarks, documents of clouds. An epoch seals
//! their digest, so that the quote over it comes after them.

use crate::canonical::{Limits, Record};
use crate::{Blob, Digest, LandmarkKind, LocationKind, SessionId};
use minicbor::{Decode, Encode};

/// What a cloud signed of the instance that asked.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct CloudDocument {
    /// `aws`, `azure` or `gcp`.
    #[n(0)]
    pub provider: String,
    /// The document, or the token, in the bytes that the cloud gave.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub document: Vec<u8>,
    /// The signature over it, where it stands apart.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: Option<Vec<u8>>,
}

/// One round of measurements; the digest of its bytes is in an epoch statement.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct LocationEvidence {
    /// Type string.
    #[n(0)]
    pub kind: LocationKind,
    /// The session that was measured.
    #[n(1)]
    pub session: SessionId,
    /// `COSE_Sign1` over a [`LandmarkStatement`] each.
    #[n(2)]
    pub landmarks: Vec<Blob>,
    /// Documents of clouds.
    #[n(3)]
    pub clouds: Vec<CloudDocument>,
}

impl Record for LocationEvidence {
    const LIMITS: Limits = Limits {
        bytes: 128 << 10,
        depth: 4,
    };
    const KIND: &'static str = LocationKind::TEXT;
}

/// What a landmark measured: how long answers of the session's key took at least.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct LandmarkStatement {
    /// Type string.
    #[n(0)]
    pub kind: LandmarkKind,
    /// The session whose key answered.
    #[n(1)]
    pub session: SessionId,
    /// The key that answered.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub session_key: [u8; 32],
    /// SHA-256 over every challenge and its answer, in order.
    #[n(3)]
    pub transcript: Digest,
    /// Challenges sent.
    #[n(4)]
    pub sent: u32,
    /// Challenges that the key answered rightly and in time.
    #[n(5)]
    pub answered: u32,
    /// The shortest time from a challenge to its answer, in nanoseconds.
    #[n(6)]
    pub rtt_min_ns: u64,
    /// First challenge, by the landmark's clock.
    #[n(7)]
    pub began_ms: u64,
    /// Last answer, by the landmark's clock.
    #[n(8)]
    pub ended_ms: u64,
    /// Where the landmark says it stands, in ten-millionths of a degree north.
    #[n(9)]
    pub latitude_e7: i32,
    /// And east.
    #[n(10)]
    pub longitude_e7: i32,
}

impl Record for LandmarkStatement {
    const LIMITS: Limits = Limits {
        bytes: 512,
        depth: 2,
    };
    const KIND: &'static str = LandmarkKind::TEXT;
}

/// What a session key signs when it answers a challenge; it begins like nothing else that the key
/// signs, and only the last 64 bytes are somebody else's.
#[must_use]
pub fn answer_message(session: SessionId, landmark: &Digest, challenge: &[u8; 32]) -> Vec<u8> {
    [
        b"merestone/landmark-answer/v1\0".as_slice(),
        &session.0,
        &landmark.0,
        challenge,
    ]
    .concat()
}

/// What Azure's document has to have as its nonce, which may have ten digits.
#[must_use]
pub fn cloud_nonce(session: &Digest) -> String {
    let (head, _) = session.0.split_at(8);
    let number = head
        .iter()
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    format!("{:010}", number % 10_000_000_000)
}

/// What Google's token has to have as its audience.
#[must_use]
pub fn cloud_audience(session: &Digest) -> String {
    format!("merestone:{session}")
}
