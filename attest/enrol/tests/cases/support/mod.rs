//! A vendor, a host and an authority, all in software.

pub(crate) mod x509;

use crate::evidence::key::Key;
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use merestone_enrol::{Accepted, EnrolError, Policy, Terms, accept, challenge};
use merestone_evidence::{
    Blob, Digest, EnrolAnswer, EnrolAnswerKind, EnrolPending, EnrolRequest, EnrolRequestKind,
    TpmInfo, decode, encode, sha256,
};
use merestone_verify::ek::{Anchors, Certificate, Rules};
use sha2::Sha256;
use x509::{Made, Spec};

/// Ten minutes before the evidence of the verifier's tests begins.
pub(crate) const ENROLLED: u64 = crate::evidence::START - 600_000;
pub(crate) const DAY: u64 = 24 * 60 * 60 * 1000;

/// A vendor with a root, an intermediate and one TPM's certificate.
pub(crate) struct Vendor {
    pub(crate) root: Made,
    pub(crate) between: Made,
    pub(crate) leaf: Made,
}

impl Vendor {
    pub(crate) fn new() -> Self {
        let root = Spec::authority("Vendor Root", 1).sign(None);
        let between = Spec::authority("Vendor Intermediate", 2).sign(Some(&root));
        let leaf = Spec::leaf(3).sign(Some(&between));
        Self {
            root,
            between,
            leaf,
        }
    }

    pub(crate) fn anchors(&self) -> Anchors {
        Anchors {
            roots: vec![Certificate::read(&self.root.der).unwrap()],
            intermediates: Vec::new(),
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            anchors: self.anchors(),
            rules: Rules::default(),
            vendors: Vec::new(),
            max_challenge_age_s: 30 * 24 * 60 * 60,
            valid_days: 365,
        }
    }
}

/// `TPMT_PUBLIC` of a P-256 endorsement key, template L-2.
pub(crate) fn ek_public(key: &p256::ecdsa::SigningKey) -> Vec<u8> {
    let mut out = vec![0x00, 0x23, 0x00, 0x0b];
    out.extend(0x0003_00b2_u32.to_be_bytes());
    out.extend([0x00, 0x20]);
    out.extend([0x83; 32]);
    for word in [0x0006_u16, 128, 0x0043, 0x0010, 0x0003, 0x0010] {
        out.extend(word.to_be_bytes());
    }
    let point = key.verifying_key().to_sec1_point(false);
    for coordinate in [&point.as_bytes()[1..33], &point.as_bytes()[33..]] {
        out.extend([0x00, 0x20]);
        out.extend(coordinate);
    }
    out
}

pub(crate) fn request(vendor: &Vendor, ak: &Key) -> EnrolRequest {
    EnrolRequest {
        kind: EnrolRequestKind,
        created_ms: ENROLLED,
        node: crate::evidence::NODE.into(),
        ek_certificates: vec![
            Blob::from(vendor.leaf.der.clone()),
            Blob::from(vendor.between.der.clone()),
        ],
        ek_public: ek_public(&vendor.leaf.key),
        ak_public: ak.public(),
        ak_name: ak.name(),
        nv: Vec::new(),
        site: None,
        tpm: TpmInfo {
            manufacturer: "TEST".into(),
            firmware: "1.0".into(),
            software: true,
        },
        geotag: None,
    }
}

/// Random numbers that are the same in every run.
pub(crate) fn counted(seed: u8) -> impl FnMut(&mut [u8]) {
    let mut state = u64::from(seed) + 1;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = u8::try_from(state >> 56).unwrap();
        }
    }
}

pub(crate) fn authority(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// What a TPM that opened the challenge would answer.
pub(crate) fn answer_to(challenge: &[u8], pending: &[u8]) -> EnrolAnswer {
    let pending: EnrolPending = decode(pending).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&pending.secret.unwrap()).unwrap();
    mac.update(&EnrolAnswer::proven(&sha256(challenge)));
    EnrolAnswer {
        kind: EnrolAnswerKind,
        created_ms: ENROLLED,
        serial: pending.serial,
        challenge: sha256(challenge),
        proof: Digest(mac.finalize().into_bytes().into()),
    }
}

/// The whole way, as an honest host goes it.
pub(crate) fn enrol(
    vendor: &Vendor,
    request: &EnrolRequest,
    terms: Terms,
    key: &SigningKey,
    seed: u8,
) -> Result<Accepted, EnrolError> {
    let request = encode(request);
    let policy = vendor.policy();
    let made = challenge(&request, &policy, ENROLLED, &mut counted(seed))?;
    let answer = encode(&answer_to(&made.challenge, &made.pending));
    accept(
        &answer,
        &request,
        &made.pending,
        &policy,
        terms,
        key,
        ENROLLED,
    )
}
