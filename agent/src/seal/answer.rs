//! The session's key, for answers to landmarks: it can be asked for nothing else here.

use super::key::{KeySlot, SessionKey};
use merestone_evidence::{Digest, SessionId};
use std::sync::Arc;

/// Signs answers while a session is open. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Answerer(KeySlot);

impl Answerer {
    pub(super) const fn of(slot: KeySlot) -> Self {
        Self(slot)
    }

    /// The open session and its public key.
    #[must_use]
    pub fn session(&self) -> Option<(SessionId, [u8; 32])> {
        let key = self.0.key()?;
        Some((key.session(), key.public()))
    }

    /// The answer to a landmark's challenge; `None` where that session is over.
    #[must_use]
    pub fn answer(
        &self,
        session: SessionId,
        landmark: &Digest,
        challenge: &[u8; 32],
    ) -> Option<[u8; 64]> {
        Some(self.of_session(session)?.answer(landmark, challenge))
    }

    /// Digest of the open session's statement; `None` where that session is over.
    #[must_use]
    pub fn statement(&self, session: SessionId) -> Option<Digest> {
        Some(self.of_session(session)?.statement())
    }

    fn of_session(&self, session: SessionId) -> Option<Arc<SessionKey>> {
        self.0.key().filter(|key| key.session() == session)
    }

    #[cfg(test)]
    pub(crate) fn open(
        &self,
        session: SessionId,
        statement: Digest,
        key: &ed25519_dalek::SigningKey,
    ) {
        let key = SessionKey::new(session, statement, &[], key.clone());
        self.0.set(Some(key));
    }

    #[cfg(test)]
    pub(crate) fn close(&self) {
        self.0.set(None);
    }
}
