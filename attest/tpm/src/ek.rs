//! The endorsement key: its certificates in the TPM's memory, and the one thing it is used for,
//! opening a secret that an authority sealed to it (credential activation).
//!
//! The key itself is never kept: it is made from the hierarchy's seed and the template whenever
//! it is asked for, and flushed. It signs nothing and decrypts nothing but such a secret.

use crate::{EsysTpm, TpmError, ak::hex};
use sha2::{Digest as _, Sha256};
use tss_esapi::{
    Context,
    abstraction::{
        AsymmetricAlgorithmSelection, DefaultKey, ek::create_ek_public_from_default_template_2, nv,
    },
    attributes::SessionAttributesBuilder,
    constants::{CapabilityType, SessionType},
    handles::{AuthHandle, KeyHandle, NvIndexHandle, NvIndexTpmHandle, SessionHandle, TpmHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        ecc::EccCurve,
        key_bits::RsaKeyBits,
        resource_handles::{Hierarchy, NvAuth},
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        CapabilityData, Digest, EncryptedSecret, IdObject, Nonce, Public, SymmetricDefinition,
    },
    traits::{Marshall as _, UnMarshall as _},
};

/// First index of the chain of issuers (TCG EK Credential Profile 2.5, 2.2.1.5.2).
const CHAIN_FIRST: u32 = 0x01C0_0100;
const CHAIN_LAST: u32 = 0x01C0_01FF;
/// Most indices of a chain that are read.
const CHAIN_MOST: u32 = 32;

/// The two kinds of endorsement key, by the low-range templates L-1 and L-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EkKind {
    /// RSA, 2048 bits.
    Rsa2048,
    /// P-256.
    EccP256,
}

impl EkKind {
    /// NV index of its certificate, and of its template where the vendor has one of its own.
    const fn indices(self) -> (u32, u32) {
        match self {
            Self::Rsa2048 => (0x01C0_0002, 0x01C0_0004),
            Self::EccP256 => (0x01C0_000A, 0x01C0_000C),
        }
    }

    const fn algorithm(self) -> AsymmetricAlgorithmSelection {
        match self {
            Self::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
            Self::EccP256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
        }
    }

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::EccP256 => "ecc-p256",
        }
    }
}

/// An endorsement key and what certifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsement {
    /// Which kind.
    pub kind: EkKind,
    /// `TPMT_PUBLIC`, marshalled.
    pub public: Vec<u8>,
    /// Its certificate (DER), then those of issuers that the TPM holds.
    pub certificates: Vec<Vec<u8>>,
}

impl EsysTpm {
    /// The endorsement key with its certificates; `None` takes the first kind that the TPM holds
    /// a certificate of.
    pub fn endorsement(&mut self, wanted: Option<EkKind>) -> Result<Endorsement, TpmError> {
        let (context, _key) = self.link.esys()?;
        let kinds = wanted.map_or(vec![EkKind::EccP256, EkKind::Rsa2048], |one| vec![one]);
        let mut found = None;
        for kind in kinds {
            if let Some(bytes) = read(context, kind.indices().0)? {
                found = Some((kind, bytes));
                break;
            }
        }
        let Some((kind, bytes)) = found else {
            return Err(TpmError::NoEkCertificate {
                kind: wanted.map_or("rsa-2048 or ecc-p256", EkKind::name),
            });
        };
        // An index is often longer than the certificate in it.
        let first = certificates(&bytes).into_iter().next();
        let first = first.ok_or(TpmError::Answer {
            what: "an endorsement certificate",
            why: format!("{} bytes that are none", bytes.len()),
        })?;
        let mut all = vec![first];
        all.extend(chain(context)?);
        let (handle, public) = create(context, kind)?;
        flush(context, handle)?;
        Ok(Endorsement {
            kind,
            public,
            certificates: all,
        })
    }

    /// Open a secret that was sealed to the endorsement key named `ek_name` and to this
    /// attestation key.
    pub fn activate(
        &mut self,
        ek_name: &[u8],
        id_object: &[u8],
        encrypted_seed: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let doing = TpmError::command("open the challenge");
        let id_object = IdObject::try_from(id_object.to_vec()).map_err(&doing)?;
        let seed = EncryptedSecret::try_from(encrypted_seed.to_vec()).map_err(&doing)?;
        let (context, ak) = self.link.esys()?;
        let ak = *ak;
        for kind in [EkKind::EccP256, EkKind::Rsa2048] {
            // A TPM without one of the algorithms can still have the other.
            let Ok((handle, public)) = create(context, kind) else {
                continue;
            };
            if name_of(&public) != ek_name {
                flush(context, handle)?;
                continue;
            }
            let opened = open(context, ak, handle, id_object, seed);
            let flushed = flush(context, handle);
            return opened.and_then(|secret| flushed.map(|()| secret));
        }
        Err(TpmError::OtherEk { name: hex(ek_name) })
    }

    /// The Name of an NV index.
    pub fn nv_name(&mut self, index: u32) -> Result<Vec<u8>, TpmError> {
        let reading = TpmError::command("read an NV index's public area");
        let handle = NvIndexTpmHandle::new(index).map_err(&reading)?;
        let (context, _key) = self.link.esys()?;
        let mut object = context
            .tr_from_tpm_public(TpmHandle::NvIndex(handle))
            .map_err(&reading)?;
        let public = context.nv_read_public(NvIndexHandle::from(object));
        context.tr_close(&mut object).map_err(&reading)?;
        let (_, name) = public.map_err(&reading)?;
        Ok(name.value().to_vec())
    }
}

fn open(
    context: &mut Context,
    ak: KeyHandle,
    ek: KeyHandle,
    id_object: IdObject,
    seed: EncryptedSecret,
) -> Result<Vec<u8>, TpmError> {
    let opening = TpmError::command("open the challenge (endorsement authorization)");
    let session = policy_session(context).map_err(&opening)?;
    let secret = permit(context, session).and_then(|()| {
        context.execute_with_sessions(
            (Some(AuthSession::Password), Some(session), None),
            |context| context.activate_credential(ak, ek, id_object, seed),
        )
    });
    match secret {
        // The TPM ends a policy session that was used.
        Ok(secret) => Ok(secret.value().to_vec()),
        Err(error) => {
            let _already_failed = context.flush_context(SessionHandle::from(session).into());
            Err(opening(error))
        }
    }
}

fn policy_session(context: &mut Context) -> Result<AuthSession, tss_esapi::Error> {
    let session = context.execute_without_session(|context| {
        context.start_auth_session(
            None,
            None,
            None,
            SessionType::Policy,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
    })?;
    let none = tss_esapi::Error::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm);
    let session = session.ok_or(none)?;
    let (attributes, mask) = SessionAttributesBuilder::new().build();
    context.tr_sess_set_attributes(session, attributes, mask)?;
    Ok(session)
}

/// The endorsement key's policy: whoever may use the endorsement hierarchy may use the key.
fn permit(context: &mut Context, session: AuthSession) -> Result<(), tss_esapi::Error> {
    let policy = PolicySession::try_from(session)?;
    context.execute_with_session(Some(AuthSession::Password), |context| {
        context
            .policy_secret(
                policy,
                AuthHandle::Endorsement,
                Nonce::default(),
                Digest::default(),
                Nonce::default(),
                None,
            )
            .map(|_ticket| ())
    })
}

/// The key, loaded, and its public area. It has to be flushed.
fn create(context: &mut Context, kind: EkKind) -> Result<(KeyHandle, Vec<u8>), TpmError> {
    let making = TpmError::command("make the endorsement key");
    let template = match read(context, kind.indices().1)? {
        Some(bytes) => Public::unmarshall(&bytes).map_err(&making)?,
        None => create_ek_public_from_default_template_2(kind.algorithm(), DefaultKey)
            .map_err(&making)?,
    };
    let made = context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
        })
        .map_err(&making)?;
    match made.out_public.marshall() {
        Ok(public) => Ok((made.key_handle, public)),
        Err(error) => {
            flush(context, made.key_handle)?;
            Err(making(error))
        }
    }
}

fn flush(context: &mut Context, handle: KeyHandle) -> Result<(), TpmError> {
    context
        .flush_context(handle.into())
        .map_err(TpmError::command("flush the endorsement key"))
}

/// Name algorithm and digest of a public area; the low-range templates use SHA-256.
fn name_of(public: &[u8]) -> Vec<u8> {
    let mut name = vec![0x00, 0x0B];
    name.extend_from_slice(&Sha256::digest(public));
    name
}

/// Certificates of issuers, as far as the TPM holds them: a run of bytes over several indices.
fn chain(context: &mut Context) -> Result<Vec<Vec<u8>>, TpmError> {
    let mut bytes = Vec::new();
    for index in defined(context, CHAIN_FIRST, CHAIN_MOST)? {
        if (CHAIN_FIRST..=CHAIN_LAST).contains(&index)
            && let Some(more) = read(context, index)?
        {
            bytes.extend(more);
        }
    }
    Ok(certificates(&bytes))
}

/// NV indices from `first` on, ascending.
fn defined(context: &mut Context, first: u32, most: u32) -> Result<Vec<u32>, TpmError> {
    let (found, _more) = context
        .execute_without_session(|context| {
            context.get_capability(CapabilityType::Handles, first, most)
        })
        .map_err(TpmError::command("list its NV indices"))?;
    let CapabilityData::Handles(handles) = found else {
        return Err(TpmError::Answer {
            what: "a capability",
            why: "not a list of handles".into(),
        });
    };
    Ok(handles.into_inner().into_iter().map(u32::from).collect())
}

/// The contents of an NV index, or `None` where it is not defined.
fn read(context: &mut Context, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
    if defined(context, index, 1)?.first() != Some(&index) {
        return Ok(None);
    }
    let reading = TpmError::command("read an NV index (owner authorization)");
    let handle = NvIndexTpmHandle::new(index).map_err(&reading)?;
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            nv::read_full(context, NvAuth::Owner, handle)
        })
        .map(Some)
        .map_err(&reading)
}

/// The DER sequences that `bytes` begins with; filling after the last is left out.
fn certificates(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(length) = sequence(bytes) {
        let Some((one, rest)) = bytes.split_at_checked(length) else {
            break;
        };
        all.push(one.to_vec());
        bytes = rest;
    }
    all
}

/// Length of the DER sequence at the beginning, header included. A certificate is longer than
/// 127 bytes and shorter than 64 KiB.
fn sequence(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0x30, 0x81, length, ..] => Some(3 + usize::from(*length)),
        [0x30, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::certificates;

    #[test]
    fn certificates_are_cut_from_what_fills_the_index_after_them() {
        let one = [&[0x30, 0x81, 0x80][..], &[7; 128]].concat();
        let two = [&[0x30, 0x82, 0x01, 0x00][..], &[8; 256]].concat();
        let all = [&one[..], &two[..], &[0xff; 40]].concat();
        assert_eq!(certificates(&all), [one.clone(), two]);
        assert_eq!(certificates(&one[..100]), Vec::<Vec<u8>>::new());
        assert_eq!(certificates(&[]), Vec::<Vec<u8>>::new());
    }
}
