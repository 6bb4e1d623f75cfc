//! What a TPM holds in its own memory and signs: counters that only grow, and the place that
//! an authority wrote.
//!
//! Nothing here is believed for being here. A verifier takes values from what the TPM signed
//! ([`NvCertified`]) and the index's Name from its public area, which the Name is the digest of.

use crate::canonical::{Limits, Record};
use crate::{Digest, GeotagKind, Site, sha256};
use minicbor::{Decode, Encode};

/// What a TPM signed of one NV index (`TPM2_NV_Certify`).
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct NvCertified {
    /// `TPMS_ATTEST`, marshalled.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`, marshalled.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// One NV index of the host's TPM.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct NvHeld {
    /// Its handle.
    #[n(0)]
    pub index: u32,
    /// `TPMS_NV_PUBLIC`, marshalled: its Name is the digest of it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub public: Vec<u8>,
}

/// A counter, and where it stood before the session.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct NvCounter {
    /// The index.
    #[n(0)]
    pub held: NvHeld,
    /// Its value before the session counted anything.
    #[n(1)]
    pub value: u64,
}

/// The counters that a session counts with, or why it has none.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct NvCounters {
    /// Grows by one with each sealed epoch; kept in the TPM's working memory.
    #[n(0)]
    pub epochs: Option<NvCounter>,
    /// Grows by one when a session starts and by one when it ends.
    #[n(1)]
    pub sessions: Option<NvCounter>,
    /// Why there are none.
    #[n(2)]
    pub absent: Option<String>,
}

/// What the certification at a session's end is made for: no statement has this digest.
#[must_use]
pub fn session_end(last: &Digest) -> Digest {
    sha256(&[b"merestone/session-end/v1".as_slice(), &last.0].concat())
}

/// What a geotag's certification in a request is made for.
#[must_use]
pub fn geotag_offer(ak_name: &[u8]) -> Digest {
    sha256(&[b"merestone/geotag-offer/v1".as_slice(), ak_name].concat())
}

/// The contents of a geotag: where whoever wrote it into the TPM stood.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Geotag {
    /// Type string.
    #[n(0)]
    pub kind: GeotagKind,
    /// The place by name.
    #[n(1)]
    pub site: Site,
    /// Latitude and longitude in millionths of a degree, north and east positive.
    #[n(2)]
    pub position: Option<(i32, i32)>,
    /// When it was written.
    #[n(3)]
    pub written_ms: u64,
    /// Who wrote it, in their own words.
    #[n(4)]
    pub by: Option<String>,
}

impl Record for Geotag {
    const LIMITS: Limits = Limits {
        bytes: 512,
        depth: 3,
    };
    const KIND: &'static str = GeotagKind::TEXT;
}

/// A geotag that a host asks to have vouched for.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GeotagOffer {
    /// The index it is in.
    #[n(0)]
    pub held: NvHeld,
    /// Its contents, certified for [`geotag_offer`].
    #[n(1)]
    pub certified: NvCertified,
}

/// A geotag that an authority vouches for.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct GeotagVouched {
    /// The handle of its index.
    #[n(0)]
    pub index: u32,
    /// The index's Name, which says that it is locked.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// The contents: canonical bytes of a [`Geotag`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub content: Vec<u8>,
}
