//! [`Unverified`] → [`KeyTrusted`]: the key in the file is the one that the policy pins.
//!
//! It does not vouch that the key lives in a TPM of a known vendor: that is the enrolment's job.

use crate::frame::Unverified;
use crate::refusal::Refusal;
use crate::tpm::Public;
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally};

/// A file with a key that the policy pins and that can sign only what its TPM says.
#[derive(Debug)]
pub struct KeyTrusted {
    pub(crate) unverified: Unverified,
    pub(crate) public: Public,
    pub(crate) name: Vec<u8>,
}

impl KeyTrusted {
    pub(crate) fn check(unverified: Unverified, trust: &Trust, tally: &mut Tally) -> Option<Self> {
        let bundle = &unverified.bundle;
        let Some(pinned) = trust.nodes.get(&bundle.node) else {
            let node = bundle.node.clone();
            tally.fail(CheckId::TrustNode, &Refusal::UnknownNode { node });
            return None;
        };
        tally.pass(
            CheckId::TrustNode,
            format!("a key is pinned for node {:?}", bundle.node),
        );
        tally.skip(
            CheckId::EkChain,
            "no endorsement certificate is in this format yet",
        );
        tally.skip(
            CheckId::Enrolment,
            "that the pinned key lives in a TPM rests on whoever wrote the trust policy",
        );
        // The Name needs no parsing, so bytes of a stranger are not even read.
        let name = Public::name_of(&bundle.ak_public);
        if name != *pinned {
            let (got, want) = (hex::encode(&name), hex::encode(pinned));
            tally.fail(CheckId::AkName, &Refusal::KeyName { got, want });
            return None;
        }
        tally.pass(CheckId::AkName, hex::encode(&name));
        let public = match Public::parse(&bundle.ak_public) {
            Ok(public) => public,
            Err(error) => {
                tally.fail(CheckId::AkAttributes, &error.into());
                return None;
            }
        };
        let faults = public.attributes.faults();
        if !faults.is_empty() {
            let (got, wrong) = (format!("{:?}", public.attributes), faults.join(", "));
            tally.fail(
                CheckId::AkAttributes,
                &Refusal::KeyAttributes { got, wrong },
            );
            return None;
        }
        tally.pass(
            CheckId::AkAttributes,
            "restricted signing key that its tpm made and keeps",
        );
        Some(Self {
            unverified,
            public,
            name,
        })
    }
}
