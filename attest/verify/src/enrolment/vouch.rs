//! Bytes of a bundle → [`Vouched`]: pinned authorities say that this key is that node's.

use super::{Authority, EnrolmentError, Kind, open};
use crate::ek::EkTrusted;
use crate::refusal::Refusal;
use crate::tpm::Public;
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Bundle, Digest, Enrolment, decode};
use std::collections::BTreeMap;

/// More certificates for one key than monthly renewal makes in five years.
const MAX_CERTIFICATES: usize = 64;

/// A certificate that a pinned authority signed for this node and key. When it is valid is
/// another question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Vouched {
    pub(crate) claims: Enrolment,
    pub(crate) signer: Digest,
    pub(crate) sha256: Digest,
}

/// What becomes of the certificates in a file. `None`: the evidence stops here.
pub(crate) fn vouch(bundle: &Bundle, trust: &Trust, tally: &mut Tally) -> Option<Vec<Vouched>> {
    let is_pinned = trust.nodes.contains_key(&bundle.node);
    let held = bundle.enrolments.as_deref().unwrap_or_default();
    let Some(authority) = &trust.authority else {
        let more = if held.is_empty() {
            ""
        } else {
            "; the file has enrolment certificates, and the policy names no authority"
        };
        tally.skip(
            CheckId::EkChain,
            format!("the trust policy pins the key itself and names no authority{more}"),
        );
        tally.skip(
            CheckId::Enrolment,
            "that the pinned key lives in a TPM rests on whoever wrote the trust policy",
        );
        return Some(Vec::new());
    };
    if bundle.enrolments.is_none() {
        let detail = "no enrolment certificate is in the file";
        if is_pinned && !authority.required {
            tally.skip(CheckId::EkChain, detail);
            tally.skip(
                CheckId::Enrolment,
                format!("{detail}; the trust policy pins the key itself"),
            );
            return Some(Vec::new());
        }
        tally.missing(CheckId::EkChain, detail);
        tally.missing(CheckId::Enrolment, detail);
        return None;
    }
    match certificates(bundle, authority) {
        Ok(vouched) => {
            tally.pass(CheckId::Enrolment, described(&vouched));
            ek_chain(&vouched, authority, tally).then_some(vouched)
        }
        Err(error) => {
            tally.fail(CheckId::Enrolment, &Refusal::Enrolment(error));
            None
        }
    }
}

fn certificates(bundle: &Bundle, authority: &Authority) -> Result<Vec<Vouched>, EnrolmentError> {
    let held = bundle.enrolments.as_deref().unwrap_or_default();
    if held.is_empty() || held.len() > MAX_CERTIFICATES {
        return Err(EnrolmentError::Count {
            got: held.len(),
            limit: MAX_CERTIFICATES,
        });
    }
    let mut all = Vec::new();
    for (at, message) in held.iter().enumerate() {
        let number = at + 1;
        let opened = open(Kind::Enrolment, message, &authority.keys)
            .map_err(|source| EnrolmentError::Signature { number, source })?;
        let claims: Enrolment =
            decode(&opened.payload).map_err(|source| EnrolmentError::Form { number, source })?;
        fits(&claims, bundle)?;
        all.push(Vouched {
            claims,
            signer: opened.signer,
            sha256: opened.sha256,
        });
    }
    related(&all)?;
    Ok(all)
}

/// Of this node and this key, and in itself without contradiction.
fn fits(claims: &Enrolment, bundle: &Bundle) -> Result<(), EnrolmentError> {
    let serial = claims.serial;
    let contradiction = |why| Err(EnrolmentError::Contradiction { serial, why });
    if Public::name_of(&claims.ak_public) != claims.ak_name {
        return contradiction("its key's name is not the digest of its key");
    }
    if claims.from_ms >= claims.until_ms {
        return contradiction("it ends before it begins");
    }
    if claims.node != bundle.node {
        return Err(EnrolmentError::Node {
            serial,
            got: claims.node.clone(),
            want: bundle.node.clone(),
        });
    }
    if claims.ak_public != bundle.ak_public {
        return Err(EnrolmentError::Key {
            serial,
            got: hex::encode(&claims.ak_name),
            want: hex::encode(Public::name_of(&bundle.ak_public)),
        });
    }
    Ok(())
}

/// No number twice, and what a certificate says of its predecessor is so where it is there.
fn related(all: &[Vouched]) -> Result<(), EnrolmentError> {
    let mut numbers = BTreeMap::new();
    for one in all {
        let serial = one.claims.serial;
        if numbers.insert(serial, one.sha256).is_some() {
            let why = "two certificates have this number";
            return Err(EnrolmentError::Contradiction { serial, why });
        }
    }
    for one in all {
        let Some(replaced) = &one.claims.replaces else {
            continue;
        };
        let other = numbers.get(&replaced.serial);
        if other.is_some_and(|sha256| *sha256 != replaced.sha256) {
            let serial = one.claims.serial;
            let why = "the certificate that it replaces is another one than that in the file";
            return Err(EnrolmentError::Contradiction { serial, why });
        }
    }
    Ok(())
}

fn described(vouched: &[Vouched]) -> String {
    let one = |vouched: &Vouched| {
        let ek = &vouched.claims.ek;
        let tpm = [&ek.manufacturer, &ek.model, &ek.version];
        let tpm: Vec<_> = tpm.into_iter().flatten().map(String::as_str).collect();
        let tpm = if tpm.is_empty() {
            "a TPM without a name".to_owned()
        } else {
            format!("TPM {}", tpm.join(" "))
        };
        let serial = vouched.claims.serial;
        format!(
            "{serial} by authority {}: the key lives in {tpm}",
            vouched.signer
        )
    };
    vouched.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Traces every endorsement certificate again, where the policy says to whom.
fn ek_chain(vouched: &[Vouched], authority: &Authority, tally: &mut Tally) -> bool {
    let Some(anchors) = &authority.anchors else {
        tally.skip(
            CheckId::EkChain,
            "the authority's word: the trust policy names no roots of TPM vendors",
        );
        return true;
    };
    let mut traced: Vec<EkTrusted> = Vec::new();
    for one in vouched {
        let serial = one.claims.serial;
        let Some(chain) = &one.claims.ek_chain else {
            tally.missing(
                CheckId::EkChain,
                format!("enrolment {serial} carries no endorsement certificate to trace"),
            );
            return true;
        };
        let offered: Vec<&[u8]> = chain.iter().map(|der| der.as_slice()).collect();
        // At the time it was looked at: vendors' certificates end before their chips do.
        let outcome = anchors
            .trace(&offered, authority.rules, one.claims.issued_ms / 1000)
            .map_err(|source| EnrolmentError::Ek { serial, source })
            .and_then(|ek| {
                if ek.certificate == one.claims.ek.certificate {
                    Ok(ek)
                } else {
                    Err(EnrolmentError::EkDigest { serial })
                }
            });
        match outcome {
            Ok(ek) => traced.push(ek),
            Err(error) => {
                let is_over = error.grade() == crate::Grade::Untrusted;
                tally.fail(CheckId::EkChain, &Refusal::Enrolment(error));
                return !is_over;
            }
        }
    }
    let names: Vec<_> = traced.iter().map(|ek| ek.anchor_name.as_str()).collect();
    tally.pass(
        CheckId::EkChain,
        format!(
            "leads to {}; revocation lists of vendors are not looked at",
            names.join("; ")
        ),
    );
    true
}
