//! [`Unverified`] → [`KeyTrusted`]: the key in the file is one that the policy pins, or that an
//! authority which the policy pins vouches for.
//!
//! A pinned key that no authority vouches for may live anywhere; the verdict says so.

use crate::enrolment::{Vouched, vouch};
use crate::frame::Unverified;
use crate::refusal::Refusal;
use crate::tpm::Public;
use crate::trust::Trust;
use crate::verdict::{CheckId, Tally};

/// A file with a key that is believed and that can sign only what its TPM says.
#[derive(Debug)]
pub struct KeyTrusted<'s> {
    pub(crate) unverified: Unverified<'s>,
    pub(crate) public: Public,
    pub(crate) name: Vec<u8>,
    pub(crate) vouched: Vec<Vouched>,
}

impl<'s> KeyTrusted<'s> {
    pub(crate) fn check(
        unverified: Unverified<'s>,
        trust: &Trust,
        tally: &mut Tally,
    ) -> Option<Self> {
        let bundle = &unverified.bundle;
        let vouched = vouch(bundle, trust, tally)?;
        let pinned = trust.nodes.get(&bundle.node);
        match (pinned, vouched.as_slice()) {
            (Some(_), _) => tally.pass(
                CheckId::TrustNode,
                format!("a key is pinned for node {:?}", bundle.node),
            ),
            (None, [_, ..]) => tally.pass(
                CheckId::TrustNode,
                format!("a pinned authority vouches for node {:?}", bundle.node),
            ),
            (None, []) => {
                let node = bundle.node.clone();
                tally.fail(CheckId::TrustNode, &Refusal::UnknownNode { node });
                return None;
            }
        }
        // The Name needs no parsing, so bytes of a stranger are not even read.
        let name = Public::name_of(&bundle.ak_public);
        if let Some(pinned) = pinned.filter(|pinned| **pinned != name) {
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
            vouched,
        })
    }
}
