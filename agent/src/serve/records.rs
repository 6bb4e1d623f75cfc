//! The records socket: processes of guarded groups give digests of what they were asked and
//! answered, and get a receipt.
//!
//! Any process may connect; one that is not guarded is answered 403 before anything of it is
//! read, and holds no place. Whose group a record is of is the kernel's answer about the process
//! that connected, never a field of the request. A receipt is handed out when record and receipt
//! are on the disk.

use super::{Call, Peer};
use crate::ledger::Ledger;
use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::serve::{IncomingStream, Listener};
use base64ct::{Base64, Encoding as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Most bytes of a request.
const MOST_BYTES: usize = 64 << 10;
/// Connections that are being judged at once.
const MOST_JUDGED: usize = 128;
/// Connections of guarded processes at once.
const MOST_OPEN: usize = 1024;
/// How long one that is refused is given to take its answer.
const FAREWELL: Duration = Duration::from_secs(2);

/// A record as it is told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Post {
    /// The id that it is to have, 32 hexadecimal digits.
    pub id: Option<String>,
    /// Digest of the salt and the request, hexadecimal.
    pub request: String,
    /// Digest of the salt and the answer.
    pub answer: String,
    /// The model's name.
    pub model: Option<String>,
    /// The digest of its weight files.
    pub model_files: Option<String>,
    /// The request's method.
    pub method: Option<String>,
    /// Its path.
    pub path: Option<String>,
    /// The answer's status.
    pub status: Option<u16>,
    /// First byte of the request, milliseconds since 1970.
    pub started_ms: u64,
    /// First byte of the answer.
    pub first_ms: Option<u64>,
    /// Last byte of the answer.
    pub ended_ms: u64,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub answer_bytes: u64,
    /// The client's connection.
    pub connection: Option<Connection>,
    /// Of a gateway, its own connection to the server: `local` is the gateway's end.
    pub upstream: Option<Connection>,
    /// The client's nonce, in base64.
    pub nonce: Option<String>,
}

/// A connection as whoever tells of it saw it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The other end's address and port.
    pub peer: SocketAddr,
    /// Its own.
    pub local: SocketAddr,
}

/// A receipt that was issued.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issued {
    /// Its id.
    pub id: [u8; 16],
    /// The leaf it is about.
    pub index: u64,
    /// The `COSE_Sign1`.
    pub message: Vec<u8>,
}

/// Why no record is written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordRefused {
    /// The process is in no guarded group.
    #[error("the process is in no guarded group; only such a process can tell of its own answers")]
    NotGuarded,
    /// The request is not one.
    #[error("{why}")]
    Bad {
        /// What is wrong.
        why: String,
    },
    /// The id is another record's.
    #[error("id {id} is another record's; draw 16 random bytes for each")]
    Used {
        /// The id.
        id: String,
    },
    /// It cannot be done now.
    #[error("{why}")]
    Unavailable {
        /// Why.
        why: String,
    },
}

impl RecordRefused {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NotGuarded => StatusCode::FORBIDDEN,
            Self::Bad { .. } => StatusCode::BAD_REQUEST,
            Self::Used { .. } => StatusCode::CONFLICT,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(&self) -> String {
        serde_json::json!({ "error": self.to_string() }).to_string() + "\n"
    }

    fn answer(&self) -> Response {
        let kind = [(axum::http::header::CONTENT_TYPE, "application/json")];
        (self.status(), kind, self.body()).into_response()
    }
}

/// Serves until the agent's loop ends.
pub async fn records(
    listener: UnixListener,
    calls: mpsc::Sender<Call>,
    ledger: Arc<Ledger>,
) -> io::Result<()> {
    let (to, guarded) = mpsc::channel(MOST_JUDGED);
    let judging = judge_all(listener, calls.clone(), to);
    let router = Router::new()
        .route("/v1/records", post(record))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(Serving { calls, ledger });
    let serving = axum::serve(
        Guarded(guarded),
        router.into_make_service_with_connect_info::<Caller>(),
    );
    tokio::select! {
        () = judging => Ok(()),
        served = serving => served,
    }
}

/// Takes connections and passes those of guarded processes on.
async fn judge_all(
    listener: UnixListener,
    calls: mpsc::Sender<Call>,
    to: mpsc::Sender<(Held, Arc<Peer>)>,
) {
    let judged = Arc::new(Semaphore::new(MOST_JUDGED));
    let open = Arc::new(Semaphore::new(MOST_OPEN));
    let mut empty_ns = crate::clock::boot_ns();
    loop {
        let accepted = poll_fn(|context| {
            let before_ns = crate::clock::boot_ns();
            let accepted = listener.poll_accept(context);
            if accepted.is_pending() && is_empty(&listener) {
                // Whoever is next connects after this.
                empty_ns = before_ns;
            }
            accepted
        });
        let stream = match accepted.await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: wait rather than spin.
                tracing::warn!(%error, "cannot accept on the records socket");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&judged).acquire_owned().await else {
            return;
        };
        let (calls, to, open) = (calls.clone(), to.clone(), Arc::clone(&open));
        let peer = Peer::of(&stream, empty_ns);
        tokio::spawn(async move {
            let _permit = permit;
            match judge(peer, &calls).await {
                Ok(peer) => match open.try_acquire_owned() {
                    Ok(place) => {
                        let held = Held {
                            stream,
                            _place: place,
                        };
                        // The agent ends where nobody takes it.
                        to.send((held, peer)).await.ok();
                    }
                    Err(_full) => {
                        let why = "too many connections are open".to_owned();
                        turn_away(stream, &RecordRefused::Unavailable { why }).await;
                    }
                },
                Err(refused) => turn_away(stream, &refused).await,
            }
        });
    }
}

/// Whether nobody waits to be accepted, as the kernel says it: the runtime may not have heard yet.
fn is_empty(listener: &UnixListener) -> bool {
    let mut waiting = [PollFd::new(listener, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut waiting, Some(&at_once)), Ok(0))
}

async fn judge(
    peer: io::Result<Peer>,
    calls: &mpsc::Sender<Call>,
) -> Result<Arc<Peer>, RecordRefused> {
    let peer = match peer {
        Ok(peer) => Arc::new(peer),
        Err(error) => {
            tracing::debug!(%error, "a peer of the records socket cannot be told");
            return Err(RecordRefused::NotGuarded);
        }
    };
    let (reply, answer) = oneshot::channel();
    let call = Call::Guarded {
        peer: Arc::clone(&peer),
        reply,
    };
    let asked = calls.send(call).await.is_ok();
    match answer.await {
        Ok(true) if asked => Ok(peer),
        Ok(_) => Err(RecordRefused::NotGuarded),
        Err(_gone) => Err(stopping()),
    }
}

fn stopping() -> RecordRefused {
    RecordRefused::Unavailable {
        why: "the agent is stopping".to_owned(),
    }
}

/// Answers without looking at what was sent, and lets the client finish: one that is still
/// writing when its peer closes does not read what it was told (`unix_release_sock`,
/// `net/unix/af_unix.c`).
async fn turn_away(mut stream: UnixStream, refused: &RecordRefused) {
    let body = refused.body();
    let status = refused.status();
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    let said = async {
        stream.write_all((head + &body).as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = (&mut stream).take(2 * MOST_BYTES as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // A client that went away has been answered well enough.
    tokio::time::timeout(FAREWELL, said).await.ok();
}

/// A connection of a guarded process.
#[derive(Debug)]
struct Held {
    stream: UnixStream,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl tokio::io::AsyncRead for Held {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Held {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The connections that were judged.
struct Guarded(mpsc::Receiver<(Held, Arc<Peer>)>);

impl Listener for Guarded {
    type Io = Held;
    type Addr = Option<Arc<Peer>>;

    async fn accept(&mut self) -> (Held, Option<Arc<Peer>>) {
        match self.0.recv().await {
            Some((held, peer)) => (held, Some(peer)),
            // The judging ended, and with it the serving.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Option<Arc<Peer>>> {
        Ok(None)
    }
}

/// The process at the other end of a request's connection.
#[derive(Clone, Debug)]
struct Caller(Option<Arc<Peer>>);

impl Connected<IncomingStream<'_, Guarded>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Guarded>) -> Self {
        Self(stream.remote_addr().clone())
    }
}

#[derive(Clone)]
struct Serving {
    calls: mpsc::Sender<Call>,
    ledger: Arc<Ledger>,
}

async fn record(
    State(serving): State<Serving>,
    ConnectInfo(Caller(peer)): ConnectInfo<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let issued = match peer {
        Some(peer) => issue(serving, peer, body).await,
        None => Err(RecordRefused::NotGuarded),
    };
    match issued {
        Ok(issued) => {
            let Issued { id, index, message } = issued;
            let body = serde_json::json!({
                "id": hex::encode(id),
                "receipt": Base64::encode_string(&message),
                "index": index,
            });
            (StatusCode::CREATED, axum::Json(body)).into_response()
        }
        Err(refused) => refused.answer(),
    }
}

async fn issue(
    serving: Serving,
    peer: Arc<Peer>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Issued, RecordRefused> {
    let post = match body {
        Ok(body) => serde_json::from_slice::<Post>(&body).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let (reply, answer) = oneshot::channel();
    let post = Box::new(post);
    let call = Call::Record { peer, post, reply };
    let asked = serving.calls.send(call).await.is_ok();
    let issued = match answer.await {
        Ok(issued) if asked => issued?,
        _ => return Err(stopping()),
    };
    let durable = tokio::task::spawn_blocking(move || serving.ledger.make_durable());
    match durable.await {
        Ok(Ok(())) => Ok(issued),
        Ok(Err(error)) => Err(RecordRefused::Unavailable {
            why: format!("the record is not on the disk: {error}"),
        }),
        Err(_ended) => Err(stopping()),
    }
}
