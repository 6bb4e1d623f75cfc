//! An answer → a signed enrolment certificate.

use crate::geotag::geotag;
use crate::sign::sign;
use crate::{EnrolError, Policy, check_request};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use merestone_evidence::{
    Blob, EnrolAnswer, EnrolPending, Enrolment, EnrolmentKind, NvIndex, Replaced, Site, decode,
    encode, sha256,
};
use merestone_verify::enrolment::Kind;
use sha2::Sha256;

/// What the authority itself adds.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Where the host stands, by the authority's own knowledge.
    pub site: Option<Site>,
    /// NV indices of the request to vouch for: the activation says nothing about them, so only
    /// those that the authority knows.
    pub nv: Vec<u32>,
    /// The certificate holds from then on; absent: from now on.
    pub from_ms: Option<u64>,
    /// It holds until then; absent: for as long as authority.toml says.
    pub until_ms: Option<u64>,
    /// The certificate that it takes the place of.
    pub replaces: Option<Replaced>,
    /// Vouch for the geotag of the request: you, or whom you trust, wrote it on site.
    pub geotag: bool,
    /// Leave the endorsement certificates out of it; their digest stays.
    pub without_ek_chain: bool,
}

/// An enrolment that came to its end.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The signed certificate.
    pub certificate: Vec<u8>,
    /// What takes the place of the pending file: the same without the secret.
    pub pending: Vec<u8>,
    /// What was signed.
    pub claims: Enrolment,
}

/// Checks an answer and signs the certificate.
///
/// The caller must have put [`Accepted::pending`] on the disk before it hands the certificate
/// out, or a secret could count twice.
pub fn accept(
    answer: &[u8],
    request: &[u8],
    pending: &[u8],
    policy: &Policy,
    terms: Terms,
    key: &SigningKey,
    now_ms: u64,
) -> Result<Accepted, EnrolError> {
    let form = |what| move |source| EnrolError::Form { what, source };
    let pending: EnrolPending = decode(pending).map_err(form("pending challenge"))?;
    let answer: EnrolAnswer = decode(answer).map_err(form("answer"))?;
    if answer.serial != pending.serial {
        return Err(EnrolError::Other { what: "number" });
    }
    if answer.challenge != pending.challenge {
        return Err(EnrolError::Other { what: "challenge" });
    }
    if sha256(request) != pending.request {
        return Err(EnrolError::Other { what: "request" });
    }
    let serial = pending.serial;
    let secret = pending.secret.ok_or_else(|| EnrolError::Used {
        serial: serial.to_string(),
    })?;
    let age_s = now_ms.saturating_sub(pending.created_ms) / 1000;
    if age_s > policy.max_challenge_age_s {
        let limit_s = policy.max_challenge_age_s;
        return Err(EnrolError::Old { age_s, limit_s });
    }
    shows(&secret, &answer)?;
    // Again: the authority may have taken a root away meanwhile.
    let checked = check_request(request, policy, now_ms)?;
    let from_ms = terms.from_ms.unwrap_or(now_ms);
    let lasts_ms = policy.valid_days.saturating_mul(24 * 60 * 60 * 1000);
    let until_ms = terms
        .until_ms
        .unwrap_or_else(|| from_ms.saturating_add(lasts_ms));
    if until_ms <= from_ms {
        return Err(EnrolError::Validity);
    }
    let nv = vouched_nv(&checked.request.nv, &terms.nv)?;
    let geotag = terms.geotag.then(|| geotag(&checked.request)).transpose()?;
    let chain = || checked.ek.chain.iter().cloned().map(Blob::from).collect();
    let claims = Enrolment {
        kind: EnrolmentKind,
        serial,
        issued_ms: now_ms,
        from_ms,
        until_ms,
        node: checked.request.node.clone(),
        ak_name: checked.request.ak_name.clone(),
        ak_public: checked.request.ak_public.clone(),
        ek: checked.identity(),
        nv,
        site: terms.site,
        replaces: terms.replaces,
        ek_chain: (!terms.without_ek_chain).then(chain),
        geotag: geotag.map(|(vouched, _tag)| vouched),
    };
    let certificate = sign(Kind::Enrolment, key, &encode(&claims))?;
    let pending = encode(&EnrolPending {
        secret: None,
        ..pending
    });
    Ok(Accepted {
        certificate,
        pending,
        claims,
    })
}

fn vouched_nv(offered: &[NvIndex], wanted: &[u32]) -> Result<Vec<NvIndex>, EnrolError> {
    let mut found = Vec::new();
    for &index in wanted {
        let one = offered.iter().find(|nv| nv.index == index);
        found.push(one.ok_or(EnrolError::NoIndex { index })?.clone());
    }
    Ok(found)
}

/// Whether the answer shows the secret; compared in constant time.
fn shows(secret: &[u8; 32], answer: &EnrolAnswer) -> Result<(), EnrolError> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret).map_err(|_any_length| EnrolError::Secret)?;
    mac.update(&EnrolAnswer::proven(&answer.challenge));
    mac.verify_slice(&answer.proof.0)
        .map_err(|_differs| EnrolError::Secret)
}
