//! Why a signed file is refused.

/// One refusal; the payload was not looked at.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// Too large to be parsed.
    #[error("the signed file is {got} bytes and {limit} is the most that is read")]
    Size {
        /// Its size.
        got: usize,
        /// The most.
        limit: usize,
    },
    /// Not a tagged `COSE_Sign1`.
    #[error("not a signed file (COSE_Sign1): {detail}")]
    Parse {
        /// The parser's words.
        detail: String,
    },
    /// A second encoding of a message.
    #[error("the signed file is not in its canonical form: sign it anew with `merestone sign`")]
    Encoding,
    /// Another algorithm, or none in the protected header.
    #[error("the protected header names algorithm {got}, expected EdDSA (-8)")]
    Algorithm {
        /// What it names.
        got: String,
    },
    /// Signed as something else.
    #[error("signed as {got:?}, expected {expected:?}")]
    Kind {
        /// What it was signed as.
        got: String,
        /// What it is to be used as.
        expected: &'static str,
    },
    /// Something in the header that nobody signed.
    #[error("the unprotected header is not empty: what it says is not signed")]
    Unprotected,
    /// Something in the header that this version does not understand.
    #[error("the protected header holds more than algorithm, content type and key id")]
    Header,
    /// No key id of the right length.
    #[error("the key id is {got} bytes, expected the 32 of the public key's SHA-256")]
    KeyId {
        /// Its length.
        got: usize,
    },
    /// The payload was to be in a file of its own.
    #[error("the signature carries a payload, and was to lie beside the file it signs")]
    NotDetached,
    /// The payload was to be in the message.
    #[error("the signed file carries no payload")]
    Detached,
    /// Nobody that is pinned.
    #[error("signed by key {got}, which is not among the pinned signers")]
    Unknown {
        /// The key id, in hexadecimal.
        got: String,
    },
    /// Not an Ed25519 signature.
    #[error("the signature is {got} bytes, expected 64")]
    Length {
        /// Its length.
        got: usize,
    },
    /// The signature does not hold.
    #[error("the signature does not hold: the file was changed, or signed with another key")]
    Signature,
    /// A key could not be read.
    #[error("signer {name:?}: {detail}")]
    Key {
        /// The key as configured.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The message could not be written.
    #[error("cannot write the signed file: {detail}")]
    Encode {
        /// Why.
        detail: String,
    },
}
