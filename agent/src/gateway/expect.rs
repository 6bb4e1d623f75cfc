//! `Expect: 100-continue`: the client's body waits until the server asks for
//! it, or has been silent for a second (RFC 9110 §10.1.1).

use super::tap::BodyError;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// After this long without a word from the server the body goes all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a body back.
#[derive(Debug)]
pub(super) struct Gate {
    opened: oneshot::Receiver<()>,
    timer: Pin<Box<Sleep>>,
    key: Arc<Key>,
}

/// Opens it.
#[derive(Debug)]
pub(super) struct Key {
    open: Mutex<Option<oneshot::Sender<()>>>,
    /// Whether the server gave its final answer before it asked for the body.
    is_answered: AtomicBool,
}

/// A closed gate and its key.
pub(super) fn gate() -> (Gate, Arc<Key>) {
    let (open, opened) = oneshot::channel();
    let key = Arc::new(Key {
        open: Mutex::new(Some(open)),
        is_answered: AtomicBool::new(false),
    });
    let gate = Gate {
        opened,
        timer: Box::pin(tokio::time::sleep(PATIENCE)),
        key: Arc::clone(&key),
    };
    (gate, key)
}

impl Key {
    fn take(&self) -> Option<oneshot::Sender<()>> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The server asks for the body.
    pub(super) fn open(&self) {
        if let Some(open) = self.take() {
            // A request that is gone has no gate any more.
            open.send(()).ok();
        }
    }

    /// The server has answered: time alone opens it no more.
    pub(super) fn answered(&self) {
        self.is_answered.store(true, Ordering::Release);
    }

    /// The answer is over, and nobody wants the body.
    pub(super) fn shut(&self) {
        drop(self.take());
    }
}

impl Gate {
    /// Ready when the body may go; an error when nobody wants it.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match Pin::new(&mut self.opened).poll(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(_shut)) => {
                return Poll::Ready(Err("the server answered and wants no body".into()));
            }
            Poll::Pending => {}
        }
        if self.timer.as_mut().poll(context).is_ready()
            && !self.key.is_answered.load(Ordering::Acquire)
        {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}
