//! The session's key, for answers to landmarks: it can be asked for nothing else here.

use ed25519_dalek::{Signer as _, SigningKey};
use merestone_evidence::{Digest, SessionId, answer_message};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Signs answers while a session is open. Clones share it.
#[derive(Clone, Default)]
pub struct Answerer(Arc<Mutex<Option<Live>>>);

struct Live {
    session: SessionId,
    statement: Digest,
    key: SigningKey,
}

impl fmt::Debug for Answerer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = self.session().map(|(session, _)| session);
        out.debug_tuple("Answerer").field(&session).finish()
    }
}

impl Answerer {
    /// The open session and its public key.
    #[must_use]
    pub fn session(&self) -> Option<(SessionId, [u8; 32])> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .map(|live| (live.session, live.key.verifying_key().to_bytes()))
    }

    /// The answer to a landmark's challenge; `None` where that session is over.
    #[must_use]
    pub fn answer(
        &self,
        session: SessionId,
        landmark: &Digest,
        challenge: &[u8; 32],
    ) -> Option<[u8; 64]> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live = held.as_ref().filter(|live| live.session == session)?;
        let message = answer_message(session, landmark, challenge);
        Some(live.key.sign(&message).to_bytes())
    }

    /// Digest of the open session's statement; `None` where that session is over.
    #[must_use]
    pub fn statement(&self, session: SessionId) -> Option<Digest> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live = held.as_ref().filter(|live| live.session == session)?;
        Some(live.statement)
    }

    pub(crate) fn open(&self, session: SessionId, statement: Digest, key: &SigningKey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Live {
            session,
            statement,
            key: key.clone(),
        });
    }

    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
