//! A body on its way through: each piece is hashed and handed on as it comes.
//! No piece is kept, none waits for another.

use super::exchange::{Exchange, Half, Side};
use super::expect::{Gate, Key};
use super::model::Sniff;
use super::upstream::Lease;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prometheus::IntCounter;
use sha2::{Digest as _, Sha256};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

/// Any error of a body.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Digest and name of one side of a recorded exchange.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) exchange: Arc<Exchange>,
    pub(super) side: Side,
    pub(super) hash: Sha256,
    pub(super) sniff: Sniff,
}

/// What a body carries on its way.
#[derive(Debug)]
pub(super) struct Tap {
    inner: Incoming,
    bytes: u64,
    has_ended: bool,
    total: IntCounter,
    following: Option<Following>,
}

impl Tap {
    pub(super) fn new(inner: Incoming, total: IntCounter, following: Option<Following>) -> Self {
        Self {
            inner,
            bytes: 0,
            has_ended: false,
            total,
            following,
        }
    }

    fn is_whole(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.bytes += bytes.len() as u64;
                    self.total.inc_by(bytes.len() as u64);
                    if let Some(following) = &mut self.following {
                        following.hash.update(bytes);
                        following.sniff.see(bytes);
                    }
                }
            }
            Some(Err(_)) => {
                if let Some(following) = &self.following {
                    following.exchange.broke_off(following.side);
                }
            }
            None => self.has_ended = true,
        }
        Poll::Ready(polled)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let is_whole = self.is_whole();
        let Some(Following {
            exchange,
            side,
            hash,
            sniff,
        }) = self.following.take()
        else {
            return;
        };
        let half = Half {
            digest: Some(hash.finalize().into()),
            bytes: self.bytes,
            is_whole,
            model: if is_whole { sniff.end() } else { None },
        };
        exchange.passed(side, half);
    }
}

/// How far a request's body is.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Pieces passed, by which a slow upload is told from a silent server.
    pub(super) pieces: AtomicU64,
    /// Whether all of it was passed.
    is_over: AtomicBool,
}

/// A request's body on its way to the server.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) tap: Tap,
    pub(super) upload: Arc<Upload>,
    /// Closed while the server has not asked for the body.
    pub(super) gate: Option<Gate>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        if self.tap.is_whole() {
            self.upload.is_over.store(true, Ordering::Release);
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            ready!(gate.poll(context))?;
            this.gate = None;
        }
        let polled = ready!(this.tap.poll(context));
        this.upload.pieces.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.tap.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.tap.inner.size_hint()
    }
}

/// An answer's body on its way to the client. Dropped before its end, it takes
/// the server's connection with it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) tap: Tap,
    /// The connection, for the next request.
    pub(super) lease: Option<Lease>,
    /// A connection on which a request still goes up serves no other.
    pub(super) upload: Arc<Upload>,
    /// Shuts the gate of a body that the server never asked for.
    pub(super) key: Option<Arc<Key>>,
}

impl Drop for Answered {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            key.shut();
        }
        let lease = self.lease.take();
        if self.tap.is_whole()
            && self.upload.is_over.load(Ordering::Acquire)
            && let Some(lease) = lease
        {
            lease.give_back();
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(self.tap.poll(context));
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.tap.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.tap.inner.size_hint()
    }
}
