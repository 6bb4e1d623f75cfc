//! The attestation key: its template, and its place in the TPM.
//!
//! A primary key is derived from the hierarchy's seed and the template, so a
//! lost handle is no loss: the same TPM makes the same key with the same Name
//! again. What sits under the handle is taken only if it has the template's
//! attributes, scheme and parameters *and* its qualified Name says that it is a
//! primary of the endorsement hierarchy. Anything else is left alone.

use crate::TpmError;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use tss_esapi::{
    Context,
    attributes::{ObjectAttributes, ObjectAttributesBuilder},
    constants::CapabilityType,
    handles::{KeyHandle, PersistentTpmHandle, TpmHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        dynamic_handles::Persistent,
        ecc::EccCurve,
        key_bits::RsaKeyBits,
        resource_handles::{Hierarchy, Provision},
        session_handles::AuthSession,
    },
    structures::{
        CapabilityData, EccPoint, EccScheme, HashScheme, Public, PublicBuilder,
        PublicEccParametersBuilder, PublicKeyRsa, PublicRsaParametersBuilder, RsaExponent,
        RsaScheme, SymmetricDefinitionObject,
    },
    traits::Marshall as _,
};

/// Where the attestation key is kept unless the configuration says otherwise:
/// in the range for endorsement keys, away from the handles of the TCG's
/// provisioning guidance (0x81010001 and up).
pub const DEFAULT_AK_HANDLE: u32 = 0x8101_4D53;

const RH_ENDORSEMENT: u32 = 0x4000_000B;
const FIRST_OWNER_HANDLE: u32 = 0x8100_0000;
const LAST_OWNER_HANDLE: u32 = 0x817F_FFFF;

/// The two kinds of attestation key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AkKind {
    /// ECDSA with SHA-256 on P-256.
    EcdsaP256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits.
    Rsassa2048,
}

/// The key, ready to sign.
#[derive(Debug)]
pub(crate) struct Ak {
    pub(crate) handle: KeyHandle,
    pub(crate) public: Vec<u8>,
    pub(crate) name: Vec<u8>,
}

/// Take the key under `handle`, or make it and put it there.
pub(crate) fn provision(
    context: &mut Context,
    handle: u32,
    wanted: Option<AkKind>,
) -> Result<Ak, TpmError> {
    if !(FIRST_OWNER_HANDLE..=LAST_OWNER_HANDLE).contains(&handle) {
        return Err(TpmError::Handle { handle });
    }
    let persistent =
        PersistentTpmHandle::new(handle).map_err(|_source| TpmError::Handle { handle })?;
    if !is_occupied(context, handle)? {
        let kind = wanted.map_or_else(|| choose(context), Ok)?;
        create(context, kind, persistent)?;
    }
    load(context, handle, persistent, wanted)
}

fn is_occupied(context: &mut Context, handle: u32) -> Result<bool, TpmError> {
    let doing = "list its persistent handles";
    let (found, _more) = context
        .get_capability(CapabilityType::Handles, handle, 1)
        .map_err(TpmError::command(doing))?;
    let CapabilityData::Handles(handles) = found else {
        return Err(TpmError::Answer {
            what: "a capability",
            why: "not a list of handles".into(),
        });
    };
    Ok(handles
        .into_inner()
        .into_iter()
        .any(|found| u32::from(found) == handle))
}

/// P-256 where the TPM lists the curve; every TPM 2.0 has RSA-2048.
fn choose(context: &mut Context) -> Result<AkKind, TpmError> {
    let (found, _more) = context
        .get_capability(CapabilityType::EccCurves, 0, 64)
        .map_err(TpmError::command("list its curves"))?;
    let CapabilityData::EccCurves(curves) = found else {
        return Err(TpmError::Answer {
            what: "a capability",
            why: "not a list of curves".into(),
        });
    };
    let has_p256 = curves
        .into_inner()
        .into_iter()
        .any(|curve| curve == EccCurve::NistP256.into());
    Ok(if has_p256 {
        AkKind::EcdsaP256
    } else {
        AkKind::Rsassa2048
    })
}

/// `noDA` because the key has no password to guess: without it, wrong guesses
/// at anybody's key lock this one out too, and the evidence stops.
fn attributes() -> Result<ObjectAttributes, tss_esapi::Error> {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()
}

fn template(kind: AkKind) -> Result<Public, tss_esapi::Error> {
    let common = PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes()?);
    match kind {
        AkKind::EcdsaP256 => common
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(
                PublicEccParametersBuilder::new_unrestricted_signing_key(
                    EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)),
                    EccCurve::NistP256,
                )
                .with_symmetric(SymmetricDefinitionObject::Null)
                .with_restricted(true)
                .build()?,
            )
            .with_ecc_unique_identifier(EccPoint::default())
            .build(),
        AkKind::Rsassa2048 => common
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(
                PublicRsaParametersBuilder::new_unrestricted_signing_key(
                    RsaScheme::RsaSsa(HashScheme::new(HashingAlgorithm::Sha256)),
                    RsaKeyBits::Rsa2048,
                    RsaExponent::default(),
                )
                .with_symmetric(SymmetricDefinitionObject::Null)
                .with_restricted(true)
                .build()?,
            )
            .with_rsa_unique_identifier(PublicKeyRsa::default())
            .build(),
    }
}

fn create(
    context: &mut Context,
    kind: AkKind,
    persistent: PersistentTpmHandle,
) -> Result<(), TpmError> {
    let making = TpmError::command("make the attestation key in the endorsement hierarchy");
    let public = template(kind).map_err(&making)?;
    let made = context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Endorsement, public, None, None, None, None)
        })
        .map_err(&making)?;
    let kept = context.execute_with_session(Some(AuthSession::Password), |context| {
        context.evict_control(
            Provision::Owner,
            made.key_handle.into(),
            Persistent::Persistent(persistent),
        )
    });
    let flushed = context.flush_context(made.key_handle.into());
    kept.map_err(TpmError::command(
        "keep the attestation key (owner authorization)",
    ))?;
    flushed.map_err(TpmError::command(
        "flush the transient copy of the attestation key",
    ))
}

fn load(
    context: &mut Context,
    handle: u32,
    persistent: PersistentTpmHandle,
    wanted: Option<AkKind>,
) -> Result<Ak, TpmError> {
    let reading = TpmError::command("read the attestation key");
    let key: KeyHandle = context
        .tr_from_tpm_public(TpmHandle::Persistent(persistent))
        .map_err(&reading)?
        .into();
    let (public, name, qualified_name) = context.read_public(key).map_err(&reading)?;
    let taken = |why| TpmError::HandleTaken {
        handle,
        why,
        name: hex(name.value()),
    };
    let found = kind_of(&public).map_err(&taken)?;
    if wanted.is_some_and(|wanted| wanted != found) {
        return Err(taken("not of the kind asked for"));
    }
    let bytes = public.marshall().map_err(&reading)?;
    let mut expected = vec![0x00, 0x0B];
    expected.extend_from_slice(&Sha256::digest(&bytes));
    if name.value() != expected {
        return Err(TpmError::Answer {
            what: "a public area",
            why: format!(
                "name {} is not the hash of it, {}",
                hex(name.value()),
                hex(&expected)
            ),
        });
    }
    // TPM 2.0 part 1 §16 "Names": QN = nameAlg ‖ H(QN of parent ‖ Name); a
    // hierarchy's QN is its handle.
    let mut primary = vec![0x00, 0x0B];
    let hash = Sha256::new()
        .chain_update(RH_ENDORSEMENT.to_be_bytes())
        .chain_update(&expected);
    primary.extend_from_slice(&hash.finalize());
    if qualified_name.value() != primary {
        return Err(taken("not a primary of the endorsement hierarchy"));
    }
    Ok(Ak {
        handle: key,
        public: bytes,
        name: expected,
    })
}

/// Which of our templates `public` was made from.
fn kind_of(public: &Public) -> Result<AkKind, &'static str> {
    if attributes().map_or(true, |wanted| wanted.0 != public.object_attributes().0) {
        return Err("not a restricted signing key with our attributes");
    }
    if public.name_hashing_algorithm() != HashingAlgorithm::Sha256
        || !public.auth_policy().is_empty()
    {
        return Err("other name algorithm or policy");
    }
    for kind in [AkKind::EcdsaP256, AkKind::Rsassa2048] {
        let same = match (template(kind), public) {
            (
                Ok(Public::Ecc {
                    parameters: wanted, ..
                }),
                Public::Ecc { parameters, .. },
            ) => wanted == *parameters,
            (
                Ok(Public::Rsa {
                    parameters: wanted, ..
                }),
                Public::Rsa { parameters, .. },
            ) => wanted == *parameters,
            _ => false,
        };
        if same {
            return Ok(kind);
        }
    }
    Err("other algorithm or scheme")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}
