//! Asking GPUs to attest themselves: the question, and what each answered, between whoever asks
//! and the thread that calls NVML.
//!
//! It judges nothing. A GPU that cannot answer, or whose confidential computing is off, is left
//! out; what the answer is worth is the verifier's to say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a GPU said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// Its UUID, as NVML tells it.
    pub uuid: String,
    /// The report, as the driver gave it.
    pub report: Vec<u8>,
    /// Its certificates, PEM.
    pub certificates: Vec<u8>,
}

/// The last question and its answer; shared by every opening of NVML.
#[derive(Debug, Clone, Default)]
pub(super) struct Question(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    nonce: Option<[u8; 32]>,
    answer: Option<Vec<Attested>>,
}

impl Question {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks; an older question is forgotten.
    pub(super) fn ask(&self, nonce: [u8; 32]) {
        *self.lock() = State {
            nonce: Some(nonce),
            answer: None,
        };
    }

    /// What is asked and not answered yet.
    pub(super) fn open(&self) -> Option<[u8; 32]> {
        let state = self.lock();
        state.nonce.filter(|_| state.answer.is_none())
    }

    /// Answers, unless something else is asked by now.
    pub(super) fn answer(&self, nonce: [u8; 32], answer: Vec<Attested>) {
        let mut state = self.lock();
        if state.nonce == Some(nonce) {
            state.answer = Some(answer);
        }
    }

    /// The answer, once.
    pub(super) fn take(&self) -> Option<([u8; 32], Vec<Attested>)> {
        let mut state = self.lock();
        let answer = state.answer.take()?;
        Some((state.nonce.take()?, answer))
    }
}
