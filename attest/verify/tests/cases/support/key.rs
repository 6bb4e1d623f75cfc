//! Attestation keys in software, with the public areas a TPM would give them.

use super::sized;
use merestone_evidence::sha256;
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{Pkcs1v15Sign, RsaPrivateKey};

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.
pub(crate) const ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 16 | 1 << 18;

#[derive(Clone)]
pub(crate) enum Kind {
    P256(SigningKey),
    Rsa(Box<RsaPrivateKey>),
}

#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) attributes: u32,
    pub(crate) curve: u16,
    pub(crate) hash: u16,
}

impl Key {
    pub(crate) fn p256() -> Self {
        Self::p256_from(7)
    }

    pub(crate) fn p256_from(seed: u8) -> Self {
        let key = SigningKey::from_slice(&[seed; 32]).unwrap();
        Self {
            kind: Kind::P256(key),
            attributes: ATTRIBUTES,
            curve: 3,
            hash: 0x000b,
        }
    }

    pub(crate) fn rsa() -> Self {
        let der = include_bytes!("test-only-rsa-2048.pk8");
        let key = RsaPrivateKey::from_pkcs8_der(der).unwrap();
        Self {
            kind: Kind::Rsa(Box::new(key)),
            attributes: ATTRIBUTES,
            curve: 0,
            hash: 0x000b,
        }
    }

    pub(crate) fn public(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let words = |out: &mut Vec<u8>, words: &[u16]| {
            for word in words {
                out.extend(word.to_be_bytes());
            }
        };
        match &self.kind {
            Kind::P256(key) => {
                words(&mut out, &[0x0023, 0x000b]);
                out.extend(self.attributes.to_be_bytes());
                words(
                    &mut out,
                    &[0, 0x0010, 0x0018, self.hash, self.curve, 0x0010],
                );
                let point = key.verifying_key().to_sec1_point(false);
                sized(&mut out, &point.as_bytes()[1..33]);
                sized(&mut out, &point.as_bytes()[33..]);
            }
            Kind::Rsa(key) => {
                words(&mut out, &[0x0001, 0x000b]);
                out.extend(self.attributes.to_be_bytes());
                words(&mut out, &[0, 0x0010, 0x0014, self.hash, 2048]);
                out.extend(0_u32.to_be_bytes());
                sized(&mut out, &key.n_bytes());
            }
        }
        out
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        [[0, 0x0b].as_slice(), &sha256(&self.public()).0].concat()
    }

    pub(crate) fn qualified_name(&self, hierarchy: u32) -> Vec<u8> {
        let inner = [hierarchy.to_be_bytes().as_slice(), &self.name()].concat();
        [[0, 0x0b].as_slice(), &sha256(&inner).0].concat()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let digest = sha256(message).0;
        let mut out = Vec::new();
        match &self.kind {
            Kind::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
                out.extend([0x00, 0x18, 0x00, 0x0b]);
                sized(&mut out, &signature.to_bytes()[..32]);
                sized(&mut out, &signature.to_bytes()[32..]);
            }
            Kind::Rsa(key) => {
                let scheme = Pkcs1v15Sign::new::<sha2::Sha256>();
                out.extend([0x00, 0x14, 0x00, 0x0b]);
                sized(&mut out, &key.sign(scheme, &digest).unwrap());
            }
        }
        out
    }
}
