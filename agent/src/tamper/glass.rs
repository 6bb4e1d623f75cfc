//! Opening and closing protection: what becomes of a request.
//!
//! Where signers are named, only a token that one of them signed opens it.
//! Where none is, root may ask for it; there would be no way in otherwise but
//! a restart of the host. Either way it is an entry, and ends by the kernel's
//! own clock.

use super::token::{Token, TokenError};
use super::used::Used;
use crate::bpf::{Kernel, KernelError};
use crate::clock;
use crate::signed::{Kind, SignedError, Signers};
use merestone_abi::Glass;
use std::io;

/// Why protection was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The signature.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The payload.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Once only.
    #[error("this token was used before; have another one signed")]
    Used,
    /// It could not be written down, so it was not honoured.
    #[error("the token cannot be written down as used: {0}")]
    Unrecorded(#[source] io::Error),
    /// No signer is named.
    #[error(
        "no signer is named in [break_glass] or [policy]; root may ask without a token: --unsigned"
    )]
    NoSigners,
    /// Signers are named.
    #[error("signers are named in [break_glass] or [policy], so a token of theirs is needed")]
    NeedsToken,
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What is open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Open {
    pub(super) sha256: [u8; 32],
    pub(super) token: Token,
    pub(super) until_boot_ns: u64,
    /// Key id of whoever signed.
    pub(super) signer: Option<[u8; 32]>,
}

impl Open {
    pub(super) fn as_glass(&self) -> Glass {
        Glass {
            until_boot_ns: self.until_boot_ns,
            token: self.sha256,
            actions: self.token.actions,
            reserved: 0,
        }
    }
}

/// Judges a signed token; it is used up by that.
pub(super) fn by_token(
    signers: &Signers,
    used: &mut Used,
    node: &str,
    message: &[u8],
) -> Result<Open, Refusal> {
    if signers.is_empty() {
        return Err(Refusal::NoSigners);
    }
    let signed = signers.verify(Kind::BreakGlass, message, None)?;
    let token = Token::read(&signed.payload, node, clock::now_ms())?;
    if !used.take(&signed.sha256).map_err(Refusal::Unrecorded)? {
        return Err(Refusal::Used);
    }
    Ok(open(token, signed.sha256, Some(signed.signer)))
}

/// What root asks for, where there is nobody to sign.
pub(super) fn by_root(
    signers: &Signers,
    reason: String,
    seconds: u64,
    actions: &[String],
) -> Result<Open, Refusal> {
    if !signers.is_empty() {
        return Err(Refusal::NeedsToken);
    }
    let token = Token::unsigned(reason, seconds, actions, clock::now_ms())?;
    Ok(open(token, [0; 32], None))
}

fn open(token: Token, sha256: [u8; 32], signer: Option<[u8; 32]>) -> Open {
    let left_ms = token.until_ms.saturating_sub(clock::now_ms());
    Open {
        sha256,
        until_boot_ns: clock::boot_ns().saturating_add(left_ms.saturating_mul(1_000_000)),
        token,
        signer,
    }
}

/// Tells the kernel.
pub(super) fn apply(kernel: &mut Kernel, open: Option<&Open>) -> Result<(), Refusal> {
    let glass = open.map(Open::as_glass).unwrap_or_default();
    Ok(kernel.set_glass(glass)?)
}

/// The names of actions.
pub(super) fn actions(bits: u32) -> Vec<String> {
    let named = Glass::NAMES.iter().filter(|(bit, _)| bits & bit != 0);
    named.map(|(_, name)| (*name).to_owned()).collect()
}
