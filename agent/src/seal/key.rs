//! The session's own key: made in memory, gone with the session. It signs receipts, and answers to
//! landmarks under a domain of their own, and nothing else.
//!
//! Its public half stands in the session statement, which the TPM sealed; that is what makes a
//! receipt worth something. The private half is never written anywhere.

use super::SealError;
use coset::iana::Algorithm;
use coset::{CoseSign1Builder, Header, HeaderBuilder, TaggedCborSerializable as _};
use ed25519_dalek::{Signer as _, SigningKey};
use merestone_evidence::{
    Digest, RECEIPT_BYTES, Receipt, SessionId, answer_message, encode, sha256,
};
use std::sync::{Arc, Mutex, PoisonError};

/// The content type of receipts; the verifier's `Kind::Receipt` has the same.
const CONTENT_TYPE: &str = "application/vnd.merestone.receipt+cbor";

/// Signs a session's receipts and answers.
pub struct SessionKey {
    session: SessionId,
    statement: Digest,
    ueid: [u8; 33],
    header: Header,
    key: SigningKey,
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SessionKey")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl SessionKey {
    pub(super) fn new(
        session: SessionId,
        statement: Digest,
        ak_name: &[u8],
        key: SigningKey,
    ) -> Self {
        let id = sha256(key.verifying_key().as_bytes());
        let header = HeaderBuilder::new()
            .algorithm(Algorithm::EdDSA)
            .content_type(CONTENT_TYPE.to_owned())
            .key_id(id.0.to_vec())
            .build();
        Self {
            session,
            statement,
            ueid: merestone_evidence::ueid(ak_name),
            header,
            key,
        }
    }

    /// The session it is of.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Digest of that session's statement.
    pub(super) const fn statement(&self) -> Digest {
        self.statement
    }

    /// The public half.
    pub(super) fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The answer to a landmark's challenge.
    pub(super) fn answer(&self, landmark: &Digest, challenge: &[u8; 32]) -> [u8; 64] {
        let message = answer_message(self.session, landmark, challenge);
        self.key.sign(&message).to_bytes()
    }

    /// What names the node in its receipts.
    #[must_use]
    pub const fn ueid(&self) -> [u8; 33] {
        self.ueid
    }

    /// Signs a receipt (`COSE_Sign1`, `EdDSA`). Refuses one of another session, and one that no
    /// verifier would read for its length.
    pub fn sign(&self, receipt: &Receipt) -> Result<Vec<u8>, SealError> {
        let refused = |why: String| SealError::Receipt { why };
        if receipt.session != self.session || receipt.ueid != self.ueid {
            return Err(refused("it is of another session".to_owned()));
        }
        let message = CoseSign1Builder::new()
            .protected(self.header.clone())
            .payload(encode(receipt))
            .create_signature(&[], |bytes| self.key.sign(bytes).to_vec())
            .build()
            .to_tagged_vec()
            .map_err(|error| refused(error.to_string()))?;
        if message.len() > RECEIPT_BYTES {
            let got = message.len();
            return Err(refused(format!(
                "{got} bytes, at most {RECEIPT_BYTES} are read"
            )));
        }
        Ok(message)
    }
}

/// Where the key of the open session is, if one is open.
#[derive(Clone, Debug, Default)]
pub struct KeySlot(Arc<Mutex<Option<Arc<SessionKey>>>>);

impl KeySlot {
    /// The key of the session that is open now.
    #[must_use]
    pub fn key(&self) -> Option<Arc<SessionKey>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, key: Option<SessionKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = key.map(Arc::new);
    }
}
