//! The connections to the inference server.
//!
//! The newest idle one is used first. A request is given to another connection
//! only while nothing of it was written; after that it is never repeated.

use super::own::Refusal;
use super::record::Connection;
use super::tap::Sent;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long a connection may be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Common servers close after 5 s; a shorter time loses no request to that.
const MOST_IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept at most.
const MOST_KEPT: usize = 1024;
/// Read and written at most before the other side has taken it.
pub(super) const BUFFER_BYTES: usize = super::framing::MOST_HEAD_BYTES;
/// Fields of a head at most.
pub(super) const MOST_FIELDS: usize = 128;

/// A connection and its two ends.
#[derive(Debug)]
struct Sender {
    requests: SendRequest<Sent>,
    ends: Connection,
}

/// The way to the server.
#[derive(Debug)]
pub(super) struct Upstream {
    /// `host:port`.
    address: String,
    idle: Mutex<Vec<(Sender, Instant)>>,
}

/// A connection in use.
#[derive(Debug)]
pub(super) struct Lease {
    sender: Sender,
    home: Arc<Upstream>,
}

impl Lease {
    /// Both ends of the connection.
    pub(super) fn ends(&self) -> Connection {
        self.sender.ends.clone()
    }

    /// The answer is over: the connection may serve the next request.
    pub(super) fn give_back(self) {
        let Self { sender, home } = self;
        if sender.requests.is_closed() {
            return;
        }
        let mut idle = home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_KEPT {
            idle.push((sender, Instant::now()));
        }
    }
}

impl Upstream {
    pub(super) fn new(address: String) -> Arc<Self> {
        Arc::new(Self {
            address,
            idle: Mutex::default(),
        })
    }

    /// Sends a request; the answer's head comes with its connection.
    pub(super) async fn send(
        self: Arc<Self>,
        mut request: Request<Sent>,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        loop {
            let (mut sender, is_new) = match self.rested().await {
                Some(sender) => (sender, false),
                None => (self.connect().await?, true),
            };
            match sender.requests.try_send_request(request).await {
                Ok(response) => {
                    let home = Arc::clone(&self);
                    return Ok((response, Lease { sender, home }));
                }
                Err(mut error) => match error.take_message() {
                    // It was closed while it lay idle, and nothing was written.
                    Some(unsent) if !is_new => request = unsent,
                    _ => {
                        tracing::debug!(error = %error.error(), "the server broke off");
                        return Err(Refusal::Broken);
                    }
                },
            }
        }
    }

    /// An idle connection that still is one.
    async fn rested(&self) -> Option<Sender> {
        loop {
            let (mut sender, since) = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.pop()?
            };
            if since.elapsed() > MOST_IDLE {
                // Those below are older.
                self.idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clear();
                return None;
            }
            if sender.requests.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    async fn connect(&self) -> Result<Sender, Refusal> {
        let connecting = TcpStream::connect(&self.address);
        let stream = match tokio::time::timeout(CONNECT_PATIENCE, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, server = self.address, "cannot connect");
                return Err(Refusal::Unreachable);
            }
            Err(_late) => return Err(Refusal::ConnectTimeout),
        };
        let broken = |_error| Refusal::Broken;
        let ends = Connection {
            peer: stream.peer_addr().map_err(broken)?.to_string(),
            local: stream.local_addr().map_err(broken)?.to_string(),
        };
        // A small piece of an answer must not wait for the next one.
        stream.set_nodelay(true).ok();
        let (requests, connection) = Builder::new()
            .preserve_header_case(true)
            .max_buf_size(BUFFER_BYTES)
            .max_header_size(BUFFER_BYTES)
            .max_headers(MOST_FIELDS)
            .handshake(TokioIo::new(stream))
            .await
            .ok()
            .ok_or(Refusal::Broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the server ended");
            }
        });
        Ok(Sender { requests, ends })
    }
}
