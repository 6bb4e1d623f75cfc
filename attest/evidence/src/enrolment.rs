//! Enrolment: the files that are carried between a host and an authority, and what the
//! authority signs in the end.
//!
//! A request, a challenge and an answer are believed by nobody for what they say; an
//! [`Enrolment`] and [`Revocations`] count only inside a `COSE_Sign1` of a pinned authority.

use crate::canonical::{Limits, Record};
use crate::{
    Blob, Digest, EnrolAnswerKind, EnrolChallengeKind, EnrolPendingKind, EnrolRequestKind,
    EnrolmentKind, GeotagOffer, GeotagVouched, RevocationsKind, Site, TpmInfo,
};
use core::fmt;
use minicbor::{Decode, Encode};

/// The random number of one enrolment: of its challenge, and of the certificate it ends in.
#[derive(Clone, Copy, Decode, Default, Encode, Eq, Ord, PartialEq, PartialOrd)]
#[cbor(transparent)]
pub struct Serial(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A place in the TPM's own memory, by the Name that covers its attributes and policy.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct NvIndex {
    /// Its handle.
    #[n(0)]
    pub index: u32,
    /// Its Name.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub name: Vec<u8>,
}

/// What a host says of itself to an authority.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct EnrolRequest {
    /// Type string.
    #[n(0)]
    pub kind: EnrolRequestKind,
    /// When it was written.
    #[n(1)]
    pub created_ms: u64,
    /// The id that the host wants, and uses in its evidence.
    #[n(2)]
    pub node: String,
    /// Certificates of the endorsement key (X.509, DER): its own, then those of issuers that
    /// the TPM holds.
    #[n(3)]
    pub ek_certificates: Vec<Blob>,
    /// `TPMT_PUBLIC` of the endorsement key, marshalled.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub ek_public: Vec<u8>,
    /// `TPMT_PUBLIC` of the attestation key, marshalled.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub ak_public: Vec<u8>,
    /// Name of the attestation key, as the TPM says it.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub ak_name: Vec<u8>,
    /// NV indices that the host wants vouched for.
    #[n(7)]
    pub nv: Vec<NvIndex>,
    /// Where the operator says the host stands.
    #[n(8)]
    pub site: Option<Site>,
    /// The TPM, as the host read it.
    #[n(9)]
    pub tpm: TpmInfo,
    /// A geotag that the host wants vouched for.
    #[n(10)]
    pub geotag: Option<GeotagOffer>,
}

/// A secret that only the TPM of the request can open, and only for that attestation key.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct EnrolChallenge {
    /// Type string.
    #[n(0)]
    pub kind: EnrolChallengeKind,
    /// When it was written.
    #[n(1)]
    pub created_ms: u64,
    /// This enrolment.
    #[n(2)]
    pub serial: Serial,
    /// Digest of the request.
    #[n(3)]
    pub request: Digest,
    /// The node of the request.
    #[n(4)]
    pub node: String,
    /// Name of the attestation key of the request.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub ak_name: Vec<u8>,
    /// Name of the endorsement key that it is sealed to.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub ek_name: Vec<u8>,
    /// `TPMS_ID_OBJECT`: integrity and the encrypted secret.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub id_object: Vec<u8>,
    /// Contents of the `TPM2B_ENCRYPTED_SECRET`: the seed, encrypted to the endorsement key.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub encrypted_seed: Vec<u8>,
}

/// Shows that the TPM opened the challenge, without showing the secret.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct EnrolAnswer {
    /// Type string.
    #[n(0)]
    pub kind: EnrolAnswerKind,
    /// When it was written.
    #[n(1)]
    pub created_ms: u64,
    /// Which enrolment.
    #[n(2)]
    pub serial: Serial,
    /// Digest of the challenge.
    #[n(3)]
    pub challenge: Digest,
    /// HMAC-SHA-256 by the secret over [`EnrolAnswer::proven`] of the challenge's digest.
    #[n(4)]
    pub proof: Digest,
}

impl EnrolAnswer {
    /// What the proof is computed over: it fits this challenge and no other use.
    #[must_use]
    pub fn proven(challenge: &Digest) -> Vec<u8> {
        [b"merestone/enrol-proof/v1".as_slice(), &challenge.0].concat()
    }
}

/// What an authority remembers of a challenge until it is answered. It is for nobody else.
#[derive(Clone, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct EnrolPending {
    /// Type string.
    #[n(0)]
    pub kind: EnrolPendingKind,
    /// When the challenge was written.
    #[n(1)]
    pub created_ms: u64,
    /// Which enrolment.
    #[n(2)]
    pub serial: Serial,
    /// Digest of the request.
    #[n(3)]
    pub request: Digest,
    /// Digest of the challenge.
    #[n(4)]
    pub challenge: Digest,
    /// The secret; absent once it was used.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub secret: Option<[u8; 32]>,
}

impl fmt::Debug for EnrolPending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolPending")
            .field("serial", &self.serial)
            .field("is_used", &self.secret.is_none())
            .finish_non_exhaustive()
    }
}

/// What the endorsement key's certificate says of its TPM.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct EkIdentity {
    /// SHA-256 of the endorsement key's certificate.
    #[n(0)]
    pub certificate: Digest,
    /// SHA-256 of the certificate that it was traced to.
    #[n(1)]
    pub anchor: Digest,
    /// Manufacturer, as in `id:494E5443` or its text.
    #[n(2)]
    pub manufacturer: Option<String>,
    /// Model.
    #[n(3)]
    pub model: Option<String>,
    /// Version of the TPM's firmware when it was certified.
    #[n(4)]
    pub version: Option<String>,
}

/// The certificate that one takes the place of.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Replaced {
    /// Its number.
    #[n(0)]
    pub serial: Serial,
    /// SHA-256 of the whole signed file.
    #[n(1)]
    pub sha256: Digest,
}

/// What an authority signs: this key lives in this TPM, of this node, at this place.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Enrolment {
    /// Type string.
    #[n(0)]
    pub kind: EnrolmentKind,
    /// This enrolment.
    #[n(1)]
    pub serial: Serial,
    /// When it was signed.
    #[n(2)]
    pub issued_ms: u64,
    /// It holds for evidence sealed from then on.
    #[n(3)]
    pub from_ms: u64,
    /// It holds for evidence sealed before.
    #[n(4)]
    pub until_ms: u64,
    /// The node's id.
    #[n(5)]
    pub node: String,
    /// Name of the attestation key.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub ak_name: Vec<u8>,
    /// `TPMT_PUBLIC` of the attestation key, marshalled.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub ak_public: Vec<u8>,
    /// The TPM, by its endorsement key's certificate.
    #[n(8)]
    pub ek: EkIdentity,
    /// NV indices of that TPM.
    #[n(9)]
    pub nv: Vec<NvIndex>,
    /// Where the authority says the host stands.
    #[n(10)]
    pub site: Option<Site>,
    /// The certificate that this one takes the place of.
    #[n(11)]
    pub replaces: Option<Replaced>,
    /// The endorsement key's certificate and its issuers', as the authority checked them (DER).
    #[n(12)]
    pub ek_chain: Option<Vec<Blob>>,
    /// The geotag that the authority saw in that TPM.
    #[n(13)]
    pub geotag: Option<GeotagVouched>,
}

/// One certificate that is no longer to be believed.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Revocation {
    /// Its number.
    #[n(0)]
    pub serial: Serial,
    /// Evidence sealed from then on is not believed; 0: none ever.
    #[n(1)]
    pub from_ms: u64,
    /// Why.
    #[n(2)]
    pub reason: String,
}

/// An authority's list of revoked certificates; it replaces its earlier ones.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(map)]
pub struct Revocations {
    /// Type string.
    #[n(0)]
    pub kind: RevocationsKind,
    /// When it was signed.
    #[n(1)]
    pub issued_ms: u64,
    /// It grows with each list of the authority.
    #[n(2)]
    pub number: u64,
    /// Ascending by serial, each once.
    #[n(3)]
    pub revoked: Vec<Revocation>,
}

macro_rules! limits {
    ($($name:ident $kind:ident $bytes:expr, $depth:expr;)*) => {$(
        impl Record for $name {
            const LIMITS: Limits = Limits { bytes: $bytes, depth: $depth };
            const KIND: &'static str = $kind::TEXT;
        }
    )*};
}

limits! {
    EnrolRequest EnrolRequestKind 64 << 10, 4;
    EnrolChallenge EnrolChallengeKind 8 << 10, 2;
    EnrolAnswer EnrolAnswerKind 1 << 10, 2;
    EnrolPending EnrolPendingKind 1 << 10, 2;
    Enrolment EnrolmentKind 64 << 10, 4;
    Revocations RevocationsKind 1 << 20, 4;
}
