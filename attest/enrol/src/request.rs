//! A request, checked: everything but that the TPM holds both keys.

use crate::{EnrolError, Policy};
use merestone_evidence::{Digest, EkIdentity, EnrolRequest, decode, sha256};
use merestone_verify::ek::{EkKey, EkTrusted};
use merestone_verify::tpm::{EkPublic, Public, PublicError};
use std::fmt::Write as _;

/// Longest id of a node.
const MAX_NODE: usize = 64;

/// A request whose keys are of the right kind, and whose TPM is a known vendor's.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The request.
    pub request: EnrolRequest,
    /// Its digest.
    pub digest: Digest,
    /// The endorsement key, traced to a pinned vendor.
    pub ek: EkTrusted,
}

impl Checked {
    /// What a certificate says of the TPM.
    #[must_use]
    pub fn identity(&self) -> EkIdentity {
        let named = self.ek.identity.as_ref();
        EkIdentity {
            certificate: self.ek.certificate,
            anchor: self.ek.anchor,
            manufacturer: named.map(merestone_verify::ek::Identity::vendor),
            model: named.map(|identity| identity.model.clone()),
            version: named.map(|identity| identity.version.clone()),
        }
    }

    pub(crate) const fn ek_key(&self) -> &EkKey {
        &self.ek.key
    }
}

/// Checks a request against what the authority believes.
pub fn check_request(bytes: &[u8], policy: &Policy, now_ms: u64) -> Result<Checked, EnrolError> {
    let request: EnrolRequest = decode(bytes).map_err(|source| EnrolError::Form {
        what: "request",
        source,
    })?;
    let is_id = !request.node.is_empty()
        && request.node.len() <= MAX_NODE
        && request
            .node
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if !is_id {
        return Err(EnrolError::Node { got: request.node });
    }
    attestation_key(&request)?;
    let ek = endorsement_key(&request, policy, now_ms)?;
    Ok(Checked {
        digest: sha256(bytes),
        request,
        ek,
    })
}

fn attestation_key(request: &EnrolRequest) -> Result<(), EnrolError> {
    let name = Public::name_of(&request.ak_public);
    if name != request.ak_name {
        return Err(EnrolError::AkName {
            got: hex(&request.ak_name),
            want: hex(&name),
        });
    }
    let public = Public::parse(&request.ak_public)?;
    let wrong = public.attributes.faults();
    if !wrong.is_empty() {
        let wrong = wrong.join(", ");
        return Err(EnrolError::AkAttributes { wrong });
    }
    // A signature could never be checked against a point off the curve.
    if !public.key.is_key() {
        return Err(PublicError::Unsupported {
            what: "a key that is no point of its curve, or no modulus,",
            got: 0,
        }
        .into());
    }
    Ok(())
}

fn endorsement_key(
    request: &EnrolRequest,
    policy: &Policy,
    now_ms: u64,
) -> Result<EkTrusted, EnrolError> {
    let public = EkPublic::parse(&request.ek_public)?;
    let offered: Vec<&[u8]> = request
        .ek_certificates
        .iter()
        .map(|der| der.as_slice())
        .collect();
    let ek = policy
        .anchors
        .trace(&offered, policy.rules, now_ms / 1000)?;
    if ek.key != public.key {
        return Err(EnrolError::EkKey);
    }
    if !policy.vendors.is_empty() {
        let got = ek
            .identity
            .as_ref()
            .map(merestone_verify::ek::Identity::vendor)
            .unwrap_or_default();
        if !policy.vendors.contains(&got) {
            let want = policy.vendors.clone();
            return Err(EnrolError::Vendor { got, want });
        }
    }
    Ok(ek)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
