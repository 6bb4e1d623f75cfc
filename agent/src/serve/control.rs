//! The control socket: a line of JSON in, lines of JSON out.
//!
//! Who may connect is the file's mode (0660, root and its group); who may
//! change something is the peer's uid as the kernel gives it (`SO_PEERCRED`):
//! root, or the user the agent runs as.

use super::Call;
use crate::api::{Reply, Request};
use crate::flow::{FlowEvent, Store};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Longest request line.
const MOST_REQUEST_BYTES: u64 = 64 * 1024;
/// How long a client may take to send its request, or to read a line.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most events one `flows` call reads from the past.
const MOST_PAST: usize = 100_000;

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another agent listens there.
    #[error("another agent answers on {path}; stop it first, or set [api] socket to another path")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket is in the way.
    #[error("{path} exists and is not a socket; remove it, or set [api] socket to another path")]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot open the socket {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Opens the control socket, replacing one that no agent answers on.
pub fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    bind_as(path, 0o660)
}

/// The same for a socket that every process may connect to: who may say something is judged
/// by what the kernel knows of it.
pub fn bind_for_all(path: &Path) -> Result<UnixListener, ServeError> {
    bind_as(path, 0o666)
}

fn bind_as(path: &Path, mode: u32) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Io {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(ServeError::InUse {
                    path: path.to_owned(),
                });
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed(source)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Serves until the agent's loop ends.
pub async fn control(listener: UnixListener, calls: mpsc::Sender<Call>, store: Store) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (calls, store) = (calls.clone(), store.clone());
                tokio::spawn(async move {
                    if let Err(error) = client(stream, calls, store).await {
                        tracing::debug!(%error, "a control client went away");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: wait rather than spin.
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn client(mut stream: UnixStream, calls: mpsc::Sender<Call>, store: Store) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    let (read, write) = stream.split();
    answer(read, write, peer, own, calls, store).await
}

/// Reads one request and answers it. `peer` is the client's uid, `own` the
/// agent's.
pub async fn answer(
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    peer: u32,
    own: u32,
    calls: mpsc::Sender<Call>,
    store: Store,
) -> io::Result<()> {
    let mut line = String::new();
    let mut limited = BufReader::new(read.take(MOST_REQUEST_BYTES));
    match tokio::time::timeout(PATIENCE, limited.read_line(&mut line)).await {
        Ok(done) => done?,
        Err(_late) => return Ok(()),
    };
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let reply = refused(format!("not a request: {error}"), None);
            return send(&mut write, &reply).await;
        }
    };
    if request.changes_state() && peer != 0 && peer != own {
        tracing::warn!(uid = peer, ?request, "refused on the control socket");
        let reply = refused(
            format!("uid {peer} may look but not change anything"),
            Some("run the command as root".to_owned()),
        );
        return send(&mut write, &reply).await;
    }
    if let Request::Flows {
        follow,
        denied,
        limit,
    } = request
    {
        return flows(&mut write, &store, follow, denied, limit).await;
    }
    let (reply, answer) = oneshot::channel();
    let asked = calls.send(Call::Control { request, reply }).await.is_ok();
    let reply = match answer.await {
        Ok(reply) if asked => reply,
        _ => refused("the agent is stopping".to_owned(), None),
    };
    send(&mut write, &reply).await
}

async fn flows(
    write: &mut (impl AsyncWrite + Unpin),
    store: &Store,
    follow: bool,
    denied: bool,
    limit: usize,
) -> io::Result<()> {
    let wanted = |event: &FlowEvent| !denied || event.is_denied();
    let (past, mut new) = store.follow(limit.min(MOST_PAST), wanted);
    for event in past {
        send(write, &Reply::Flow(Box::new(FlowEvent::clone(&event)))).await?;
    }
    loop {
        if !follow {
            break;
        }
        match new.recv().await {
            Ok(event) if wanted(&event) => {
                let event = Arc::unwrap_or_clone(event);
                send(write, &Reply::Flow(Box::new(event))).await?;
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let error = format!("this reader fell behind and missed {missed} events");
                send(write, &refused(error, None)).await?;
            }
            Err(broadcast::error::RecvError::Closed) => break,
        }
    }
    send(
        write,
        &Reply::Done {
            detail: "no more events".to_owned(),
        },
    )
    .await
}

fn refused(error: String, hint: Option<String>) -> Reply {
    Reply::Refused { error, hint }
}

async fn send(write: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    match tokio::time::timeout(PATIENCE, write.write_all(&line)).await {
        Ok(done) => done,
        Err(_late) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Client;

    #[tokio::test]
    async fn a_line_that_is_no_request_is_refused_and_not_passed_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.sock");
        let listener = bind(&path).expect("binds");
        let (calls, mut asked) = mpsc::channel(1);
        tokio::spawn(control(listener, calls, Store::default()));
        let mut stream = UnixStream::connect(&path).await.expect("connects");
        stream
            .write_all(b"{\"op\":\"status\",\"also\":1}\n")
            .await
            .expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        assert!(answer.contains("not a request"), "{answer}");
        assert!(asked.try_recv().is_err());
    }

    #[tokio::test]
    async fn flows_gives_the_past_and_only_what_was_denied() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.sock");
        let listener = bind(&path).expect("binds");
        let (calls, _asked) = mpsc::channel(1);
        let store = Store::default();
        let event = merestone_abi::Event {
            kind: merestone_abi::EventKind::FLOW,
            verdict: merestone_abi::Verdict::DENY,
            ..Default::default()
        };
        store.push(FlowEvent::new(&event, crate::flow::Names::default(), 1));
        let allowed = merestone_abi::Event {
            verdict: merestone_abi::Verdict::ALLOW,
            ..event
        };
        store.push(FlowEvent::new(&allowed, crate::flow::Names::default(), 1));
        tokio::spawn(control(listener, calls, store));
        let replies = tokio::task::spawn_blocking(move || {
            let request = Request::Flows {
                follow: false,
                denied: true,
                limit: 10,
            };
            Client::connect(&path)
                .and_then(|client| client.ask(&request))
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        })
        .await
        .expect("joins")
        .expect("answers");
        assert_eq!(replies.len(), 2, "{replies:?}");
        assert!(matches!(replies.last(), Some(Reply::Done { .. })));
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.sock");
        std::fs::write(&path, "precious").expect("writes");
        assert!(matches!(bind(&path), Err(ServeError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).expect("reads"), b"precious");
    }

    #[tokio::test]
    async fn a_socket_that_an_agent_answers_on_is_not_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.sock");
        let _first = bind(&path).expect("binds");
        assert!(matches!(bind(&path), Err(ServeError::InUse { .. })));
    }
}
