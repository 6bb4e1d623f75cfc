//! A receipt: what the session's key signs for one record, at once.
//!
//! The payload of a `COSE_Sign1`: a CWT claims set (RFC 8392) in the profile that [`PROFILE`]
//! names, an EAT (RFC 9711). It repeats nothing that can be looked up in the leaf, but what a
//! client holds it against: whose it is, when, which leaf, and the digests of what was asked and
//! answered. That it was signed is for the verifier to see; that the leaf is in the log is shown
//! by an inclusion proof, not by this.

use crate::canonical::{Limits, Record};
use crate::{Digest, Grade, Inference, SessionId, sha256};
use minicbor::decode::{Decode, Decoder};
use minicbor::encode::{Encode, Encoder, Write};
use sha2::{Digest as _, Sha256};

/// `eat_profile` of every receipt.
pub const PROFILE: &str = "urn:merestone:receipt:v1";

/// Most bytes of a receipt, signature and all: one that is longer is none.
pub const RECEIPT_BYTES: usize = 1024;

/// Bytes that a client's nonce may have (RFC 9711 §4.1).
pub const NONCE_BYTES: core::ops::RangeInclusive<usize> = 8..=64;

/// The keys of the claims: those of CWT and EAT, then private ones.
mod claim {
    pub(super) const ISSUED: i64 = 6;
    pub(super) const ID: i64 = 7;
    pub(super) const NONCE: i64 = 10;
    pub(super) const UEID: i64 = 256;
    pub(super) const PROFILE: i64 = 265;
    pub(super) const SESSION: i64 = -65_537;
    pub(super) const INDEX: i64 = -65_538;
    pub(super) const LEAF: i64 = -65_539;
    pub(super) const GRADE: i64 = -65_540;
    pub(super) const REQUEST: i64 = -65_541;
    pub(super) const RESPONSE: i64 = -65_542;
    pub(super) const MODEL: i64 = -65_543;
    pub(super) const MODEL_FILES: i64 = -65_544;
}

/// The claims of a receipt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// When the record was written, whole seconds since 1970 (`iat`).
    pub issued_s: u64,
    /// Its own id (`cti`).
    pub id: [u8; 16],
    /// The client's nonce, where there was one.
    pub nonce: Option<Vec<u8>>,
    /// Of which node: [`ueid`] of its attestation key.
    pub ueid: [u8; 33],
    /// Of which session.
    pub session: SessionId,
    /// The leaf it is about.
    pub index: u64,
    /// That leaf's hash (RFC 9162 §2.1.1).
    pub leaf: Digest,
    /// The record's grade.
    pub grade: Grade,
    /// Digest of the salt and the request; of bound records alone, like those below.
    pub request: Option<Digest>,
    /// Digest of the salt and the answer.
    pub response: Option<Digest>,
    /// The model's name.
    pub model: Option<String>,
    /// The digest of its weight files.
    pub model_sha256: Option<Digest>,
}

impl Record for Receipt {
    const LIMITS: Limits = Limits {
        bytes: RECEIPT_BYTES,
        depth: 1,
    };
    const KIND: &'static str = "merestone/receipt/v1";
}

/// What names a node in its receipts: type RAND of RFC 9711 §4.2.1, made from the Name of its
/// attestation key.
#[must_use]
pub fn ueid(ak_name: &[u8]) -> [u8; 33] {
    let digest = sha256(&[b"merestone/ueid/v1".as_slice(), ak_name].concat());
    let mut ueid = [1; 33];
    for (to, from) in ueid.iter_mut().skip(1).zip(digest.0) {
        *to = from;
    }
    ueid
}

/// The id of the receipt of a record: the record's own, which no two records have, but for an
/// observed one that amends what was told before under the same id.
#[must_use]
pub fn receipt_id(record: &Inference, leaf: &Digest) -> [u8; 16] {
    if !record.amends || record.grade == Grade::Bound {
        return record.id;
    }
    let parts = [b"merestone/amendment/v1".as_slice(), &record.id, &leaf.0];
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(sha256(&parts.concat()).0) {
        *to = from;
    }
    id
}

/// The digest of a request's body, as a bound record has it.
#[must_use]
pub fn request_digest(salt: &[u8; 32], body: &[u8]) -> Digest {
    salted(salt, b"request", body)
}

/// The digest of an answer's body, as a bound record has it.
#[must_use]
pub fn answer_digest(salt: &[u8; 32], body: &[u8]) -> Digest {
    salted(salt, b"answer", body)
}

fn salted(salt: &[u8; 32], what: &[u8], body: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(what);
    hasher.update(body);
    Digest(hasher.finalize().into())
}

impl<C> Encode<C> for Receipt {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let Self {
            issued_s,
            id,
            nonce,
            ueid,
            session,
            index,
            leaf,
            grade,
            request,
            response,
            model,
            model_sha256,
        } = self;
        let optional = [
            nonce.is_some(),
            request.is_some(),
            response.is_some(),
            model.is_some(),
            model_sha256.is_some(),
        ];
        let more = optional.into_iter().filter(|there| *there).count() as u64;
        encoder.map(8 + more)?;
        encoder.i64(claim::ISSUED)?.u64(*issued_s)?;
        encoder.i64(claim::ID)?.bytes(id)?;
        if let Some(nonce) = nonce {
            encoder.i64(claim::NONCE)?.bytes(nonce)?;
        }
        encoder.i64(claim::UEID)?.bytes(ueid)?;
        encoder.i64(claim::PROFILE)?.str(PROFILE)?;
        encoder.i64(claim::SESSION)?.bytes(&session.0)?;
        encoder.i64(claim::INDEX)?.u64(*index)?;
        encoder.i64(claim::LEAF)?.bytes(&leaf.0)?;
        let grade = match grade {
            Grade::Observed => 1,
            Grade::Bound => 2,
        };
        encoder.i64(claim::GRADE)?.u8(grade)?;
        if let Some(request) = request {
            encoder.i64(claim::REQUEST)?.bytes(&request.0)?;
        }
        if let Some(response) = response {
            encoder.i64(claim::RESPONSE)?.bytes(&response.0)?;
        }
        if let Some(model) = model {
            encoder.i64(claim::MODEL)?.str(model)?;
        }
        if let Some(files) = model_sha256 {
            encoder.i64(claim::MODEL_FILES)?.bytes(&files.0)?;
        }
        Ok(())
    }
}

/// What was read so far; a claim that is there twice, or out of order, does not survive being
/// encoded again.
#[derive(Default)]
struct Claims {
    issued_s: Option<u64>,
    id: Option<[u8; 16]>,
    nonce: Option<Vec<u8>>,
    ueid: Option<[u8; 33]>,
    profile: bool,
    session: Option<[u8; 16]>,
    index: Option<u64>,
    leaf: Option<[u8; 32]>,
    grade: Option<Grade>,
    request: Option<[u8; 32]>,
    response: Option<[u8; 32]>,
    model: Option<String>,
    model_sha256: Option<[u8; 32]>,
}

type Refused = minicbor::decode::Error;

fn array<const N: usize>(decoder: &mut Decoder<'_>) -> Result<[u8; N], Refused> {
    let at = decoder.position();
    let bytes = decoder.bytes()?;
    let wrong = |_length: core::array::TryFromSliceError| {
        Refused::message("a byte string of another length").at(at)
    };
    bytes.try_into().map_err(wrong)
}

impl Claims {
    fn take(&mut self, key: i64, decoder: &mut Decoder<'_>) -> Result<(), Refused> {
        let at = decoder.position();
        let refused = |why: &'static str| Err(Refused::message(why).at(at));
        match key {
            claim::ISSUED => self.issued_s = Some(decoder.u64()?),
            claim::ID => self.id = Some(array(decoder)?),
            claim::NONCE => {
                let nonce = decoder.bytes()?;
                if !NONCE_BYTES.contains(&nonce.len()) {
                    return refused("a nonce has 8 to 64 bytes");
                }
                self.nonce = Some(nonce.to_vec());
            }
            claim::UEID => self.ueid = Some(array(decoder)?),
            claim::PROFILE => {
                if decoder.str()? != PROFILE {
                    return refused("another eat_profile");
                }
                self.profile = true;
            }
            claim::SESSION => self.session = Some(array(decoder)?),
            claim::INDEX => self.index = Some(decoder.u64()?),
            claim::LEAF => self.leaf = Some(array(decoder)?),
            claim::GRADE => {
                self.grade = match decoder.u8()? {
                    1 => Some(Grade::Observed),
                    2 => Some(Grade::Bound),
                    _ => return refused("no such grade"),
                }
            }
            claim::REQUEST => self.request = Some(array(decoder)?),
            claim::RESPONSE => self.response = Some(array(decoder)?),
            claim::MODEL => self.model = Some(decoder.str()?.to_owned()),
            claim::MODEL_FILES => self.model_sha256 = Some(array(decoder)?),
            _ => return refused("a claim that this profile does not have"),
        }
        Ok(())
    }

    fn whole(self) -> Option<Receipt> {
        let Self {
            issued_s,
            id,
            nonce,
            ueid,
            profile,
            session,
            index,
            leaf,
            grade,
            request,
            response,
            model,
            model_sha256,
        } = self;
        profile.then_some(())?;
        Some(Receipt {
            issued_s: issued_s?,
            id: id?,
            nonce,
            ueid: ueid?,
            session: SessionId(session?),
            index: index?,
            leaf: Digest(leaf?),
            grade: grade?,
            request: request.map(Digest),
            response: response.map(Digest),
            model,
            model_sha256: model_sha256.map(Digest),
        })
    }
}

impl<'b, C> Decode<'b, C> for Receipt {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, Refused> {
        let at = decoder.position();
        let Some(count) = decoder.map()? else {
            return Err(Refused::message("a map of unknown length").at(at));
        };
        let mut claims = Claims::default();
        for _claim in 0..count {
            let key = decoder.i64()?;
            claims.take(key, decoder)?;
        }
        let missing = || Refused::message("a claim that this profile demands is missing").at(at);
        claims.whole().ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    fn receipt() -> Receipt {
        Receipt {
            issued_s: 1_760_000_000,
            id: [1; 16],
            nonce: Some(vec![2; 8]),
            ueid: ueid(b"name"),
            session: SessionId([3; 16]),
            index: 4,
            leaf: Digest([5; 32]),
            grade: Grade::Bound,
            request: Some(Digest([6; 32])),
            response: Some(Digest([7; 32])),
            model: Some("mini".to_owned()),
            model_sha256: Some(Digest([8; 32])),
        }
    }

    #[test]
    fn a_receipt_reads_back_and_is_deterministic() {
        let whole = receipt();
        assert_eq!(decode::<Receipt>(&encode(&whole)).unwrap(), whole);
        let bare = Receipt {
            nonce: None,
            grade: Grade::Observed,
            request: None,
            response: None,
            model: None,
            model_sha256: None,
            ..whole
        };
        let bytes = encode(&bare);
        assert_eq!(decode::<Receipt>(&bytes).unwrap(), bare);
        assert_eq!(bytes.first(), Some(&0xa8));
    }

    #[test]
    fn n44_a_claim_that_the_profile_does_not_have_is_refused() {
        // What a producer says of its own trustworthiness has no place to stand in.
        let mut bytes = encode(&receipt());
        bytes[0] += 1;
        bytes.extend([0x3a, 0x00, 0x01, 0x00, 0x08, 0xf5]);
        let error = decode::<Receipt>(&bytes).unwrap_err().to_string();
        assert!(error.contains("does not have"), "{error}");
    }

    #[test]
    fn n38_a_claim_that_is_there_twice_or_out_of_order_is_refused() {
        let mut twice = encode(&receipt());
        twice[0] += 1;
        twice.splice(1..1, [0x06, 0x00]);
        assert!(decode::<Receipt>(&twice).is_err());
        let mut swapped = encode(&receipt());
        let first: Vec<u8> = swapped.drain(1..7).collect();
        swapped.splice(18..18, first);
        assert!(decode::<Receipt>(&swapped).is_err());
    }

    #[test]
    fn digests_of_request_and_answer_are_of_different_domains() {
        let salt = [9; 32];
        assert_ne!(request_digest(&salt, b"x"), answer_digest(&salt, b"x"));
        assert_eq!(
            request_digest(&salt, b"x"),
            sha256(&[salt.as_slice(), b"requestx"].concat())
        );
    }
}
