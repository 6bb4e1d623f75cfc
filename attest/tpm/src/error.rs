//! What can go wrong with a TPM, each with what to do about it.

use crate::Address;
use std::time::Duration;
use tss_esapi::constants::Tss2ResponseCodeKind as Kind;

/// Why a TPM could not be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// The address is not one this crate knows.
    #[error(
        "tpm address {got:?} is not understood; use device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=2321"
    )]
    Address {
        /// The text given.
        got: String,
    },
    /// Nothing answers at the address.
    #[error("cannot reach the TPM at {address}: {cause}; {hint}")]
    Unreachable {
        /// The address tried.
        address: Address,
        /// The system's reason.
        cause: String,
        /// What to do.
        hint: &'static str,
    },
    /// Something answers, but not as a TPM 2.0 that was started.
    #[error(
        "the TPM at {address} does not answer as a TPM 2.0: {cause}; check that it was started and that no other program is connected to it"
    )]
    NotATpm {
        /// The address tried.
        address: Address,
        /// The stack's reason.
        cause: String,
    },
    /// The TPM counts too many failed authorizations.
    #[error(
        "the TPM is in dictionary-attack lockout, so it refuses commands with a password; wait for it to recover or reset it with tpm2_dictionarylockout"
    )]
    Lockout,
    /// A hierarchy needs a password.
    #[error(
        "the TPM wants a password to {doing}; clear the owner and endorsement passwords while the attestation key is made"
    )]
    Password {
        /// What was being done.
        doing: &'static str,
    },
    /// The persistent handle holds a key that is not ours.
    #[error(
        "persistent handle {handle:#010x} holds another key ({why}, name {name}); free it with tpm2_evictcontrol or set another handle"
    )]
    HandleTaken {
        /// The handle.
        handle: u32,
        /// How the key differs.
        why: &'static str,
        /// Name of that key, hex.
        name: String,
    },
    /// The handle cannot be a persistent one of the owner.
    #[error(
        "handle {handle:#010x} cannot hold the attestation key; use one from 0x81000000 to 0x817fffff"
    )]
    Handle {
        /// The handle given.
        handle: u32,
    },
    /// Nothing certifies the endorsement key.
    #[error(
        "the TPM holds no endorsement certificate ({kind}); some vendors hand it out on request: write it to its NV index with tpm2_nvwrite"
    )]
    NoEkCertificate {
        /// Which kinds were looked for.
        kind: &'static str,
    },
    /// The challenge is for another TPM.
    #[error("the challenge is sealed to the endorsement key {name}, which this TPM does not have")]
    OtherEk {
        /// Name of that key, hex.
        name: String,
    },
    /// The SHA-256 bank lacks PCRs.
    #[error(
        "the TPM's SHA-256 bank does not hold PCR {pcr}; enable the SHA-256 bank in the firmware's TPM settings"
    )]
    NoBank {
        /// The first PCR that is missing.
        pcr: u8,
    },
    /// A PCR index that does not exist or must not be used.
    #[error("pcr {pcr} cannot be the chain: {why}; use one from 0 to 15, 15 is the default")]
    ChainPcr {
        /// The index given.
        pcr: u8,
        /// Why.
        why: &'static str,
    },
    /// PCRs changed between every quote and the reading after it.
    #[error("the PCRs changed during each of {tries} quotes; something extends them without pause")]
    PcrsKeepChanging {
        /// Quotes tried.
        tries: u32,
    },
    /// What came back from the TPM does not fit together.
    #[error("the TPM answered {what} that does not fit: {why}")]
    Answer {
        /// Which answer.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A command failed.
    #[error("the TPM could not {doing}: {cause}")]
    Command {
        /// What was being done.
        doing: &'static str,
        /// The TPM's reason.
        cause: String,
    },
    /// A command of ours was refused.
    #[error("the TPM refused to {doing}: {}", reason(*.code))]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// The response code.
        code: u32,
    },
    /// Something else is under a handle of ours in the TPM's memory.
    #[error(
        "nv index {index:#010x} is not ours ({why}, name {name}); free it with tpm2_nvundefine -C o {index:#x}, after making sure that nobody needs it"
    )]
    NvTaken {
        /// The handle.
        index: u32,
        /// How it differs.
        why: &'static str,
        /// Its Name, hex.
        name: String,
    },
    /// An index was undefined while it was in use.
    #[error("nv index {index:#010x} is gone: somebody undefined it")]
    NvGone {
        /// The handle.
        index: u32,
    },
    /// The caller's time ran out. The command may still take effect.
    #[error("the TPM did not {doing} within {limit:?}")]
    Deadline {
        /// What was being done.
        doing: &'static str,
        /// The time allowed.
        limit: Duration,
    },
    /// The last command has still not come back.
    #[error("the TPM is still busy with a command that ran out of time")]
    Busy,
    /// The thread that owns the TPM is gone.
    #[error("the TPM thread ended; restart the agent")]
    Gone,
}

impl TpmError {
    /// What the stack said, as the reason for failing to do `doing`.
    pub(crate) fn command(doing: &'static str) -> impl Fn(tss_esapi::Error) -> Self {
        move |source| match kind(source) {
            Some(Kind::Lockout) => Self::Lockout,
            Some(Kind::AuthFail | Kind::BadAuth | Kind::AuthMissing) => Self::Password { doing },
            _ => Self::Command {
                doing,
                cause: one_line(source),
            },
        }
    }
}

/// A response code in words, where it is one that an operator can do something about (part 2
/// §6.6.3; a format-one code names its handle, parameter or session in bits 6 and 8 to 11).
fn reason(code: u32) -> String {
    const FORMAT_ONE: u32 = 0x80;
    let plain = if code & FORMAT_ONE == 0 {
        code
    } else {
        code & 0xBF
    };
    let words = match plain {
        0x8E | 0xA2 => "the password is wrong",
        0x148 => "it is locked",
        0x149 => "it is not authorized by its attributes",
        0x14A => "it was never written",
        0x14B => "its memory is full",
        0x143 => "it does not have this command",
        0x921 => "it is in dictionary-attack lockout",
        _ => "see the TPM 2.0 library, part 2, 6.6.3",
    };
    format!("{words} (response code {code:#x})")
}

fn kind(error: tss_esapi::Error) -> Option<Kind> {
    match error {
        tss_esapi::Error::Tss2Error(code) => code.kind(),
        tss_esapi::Error::WrapperError(_) => None,
    }
}

pub(crate) fn one_line(error: tss_esapi::Error) -> String {
    let text = error.to_string();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .trim_end_matches('.')
        .to_owned()
}
