//! The line to the agent's records socket: one record a call, over a kept
//! connection, and what the agent says of the gateway.

use super::record::Record;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// How long the agent may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const MOST_ANSWER_BYTES: usize = 64 << 10;

/// What the agent's 201 says.
#[derive(Debug, Deserialize)]
pub(super) struct Issued {
    pub(super) id: String,
    pub(super) receipt: String,
}

/// Why there is no receipt.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NotIssued {
    /// Nobody answers.
    #[error("no agent answers on {path}: {why}")]
    Away { path: String, why: String },
    /// The gateway is not in a guarded group.
    #[error("the agent says that the gateway is in no guarded group: {body}")]
    NotGuarded { body: String },
    /// The agent has no session or no room now.
    #[error("the agent takes no record now: {status} {body}")]
    NotNow { status: u16, body: String },
    /// The agent will never take it.
    #[error("the agent refused the record: {status} {body}")]
    Refused { status: u16, body: String },
}

impl NotIssued {
    /// Whether the same record may be taken later.
    pub(super) fn may_pass(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// A connection to the agent, made anew when it is gone.
#[derive(Debug)]
pub(super) struct Line {
    path: PathBuf,
    open: Option<BufReader<UnixStream>>,
}

impl Line {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            open: None,
        }
    }

    /// Tells one record.
    pub(super) async fn tell(&mut self, record: &Record) -> Result<Issued, NotIssued> {
        let body = serde_json::to_vec(record).map_err(|error| NotIssued::Refused {
            status: 0,
            body: error.to_string(),
        })?;
        let (status, body) = self.post(&body).await?;
        if status != StatusCode::CREATED {
            return Err(refusal(status, &body));
        }
        match serde_json::from_slice::<Issued>(&body) {
            Ok(issued) if issued.id == record.id => Ok(issued),
            _ => Err(NotIssued::Refused {
                status: status.as_u16(),
                body: "the answer is not a receipt for this record".into(),
            }),
        }
    }

    /// Asks whether a record would be taken, by one that cannot be: who may
    /// speak is judged before what is said.
    pub(super) async fn probe(&mut self) -> Result<(), NotIssued> {
        let (status, body) = self.post(b"{}").await?;
        match refusal(status, &body) {
            NotIssued::Refused { .. } => Ok(()),
            other => Err(other),
        }
    }

    async fn post(&mut self, body: &[u8]) -> Result<(StatusCode, Bytes), NotIssued> {
        let posted = tokio::time::timeout(PATIENCE, self.posted(body)).await;
        let outcome = posted.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()));
        outcome.map_err(|why| {
            self.open = None;
            NotIssued::Away {
                path: self.path.display().to_string(),
                why: why.to_string(),
            }
        })
    }

    /// By hand: the agent answers who may not speak before it reads, and a
    /// library takes an answer before its question for a fault.
    async fn posted(&mut self, body: &[u8]) -> io::Result<(StatusCode, Bytes)> {
        let length = body.len();
        let head = format!(
            "POST /v1/records HTTP/1.1\r\nHost: merestone\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        let request = [head.as_bytes(), body].concat();
        if let Some(mut kept) = self.open.take() {
            // An agent that restarted has closed it; nothing was read there
            // then, or it has the id and says so.
            if let Ok(answer) = ask(&mut kept, &request).await {
                return Ok(self.keep(kept, answer));
            }
        }
        let mut stream = BufReader::new(UnixStream::connect(&self.path).await?);
        let answer = ask(&mut stream, &request).await?;
        Ok(self.keep(stream, answer))
    }

    fn keep(&mut self, stream: BufReader<UnixStream>, answer: Answer) -> (StatusCode, Bytes) {
        let Answer {
            status,
            body,
            is_last,
        } = answer;
        if !is_last {
            self.open = Some(stream);
        }
        (status, body)
    }
}

/// An answer of the agent's.
struct Answer {
    status: StatusCode,
    body: Bytes,
    /// Whether the agent closes after it.
    is_last: bool,
}

async fn ask(stream: &mut BufReader<UnixStream>, request: &[u8]) -> io::Result<Answer> {
    // One that is turned away may have its answer and no reader.
    let written = stream.get_mut().write_all(request).await;
    match read(stream).await {
        Ok(answer) => Ok(answer),
        Err(unread) => Err(written.err().unwrap_or(unread)),
    }
}

async fn read(stream: &mut BufReader<UnixStream>) -> io::Result<Answer> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/1.1");
    let mut head = Vec::new();
    let mut lines = Vec::new();
    loop {
        let mut limited = (&mut *stream).take((MOST_ANSWER_BYTES - head.len()) as u64);
        let start = head.len();
        limited.read_until(b'\n', &mut head).await?;
        let line = head.get(start..).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if line.is_empty() {
            break;
        }
        lines.push(String::from_utf8_lossy(line).into_owned());
    }
    let (first, fields) = lines.split_first().ok_or_else(strange)?;
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(strange)?;
    let field = |name: &str| {
        let mut named = fields.iter().filter_map(|line| line.split_once(':'));
        let found = named.find(|(one, _)| one.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_ascii_lowercase())
    };
    let length = field("content-length").and_then(|length| length.parse().ok());
    let length = length
        .filter(|length| *length <= MOST_ANSWER_BYTES)
        .ok_or_else(strange)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Answer {
        status,
        body: body.into(),
        is_last: field("connection").is_some_and(|value| value == "close"),
    })
}

fn refusal(status: StatusCode, body: &[u8]) -> NotIssued {
    let text = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
    let body = text.trim().escape_debug().to_string();
    match status {
        StatusCode::FORBIDDEN => NotIssued::NotGuarded { body },
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            NotIssued::NotNow {
                status: status.as_u16(),
                body,
            }
        }
        status => NotIssued::Refused {
            status: status.as_u16(),
            body,
        },
    }
}

#[cfg(test)]
mod tests {
    //! Against the agent's own socket, with the test in the place of its loop.

    use super::super::record::Connection;
    use super::*;
    use crate::ledger::Ledger;
    use crate::serve::{self, Call, Issued as Given, Post};
    use std::sync::Arc;
    use tokio::net::UnixListener;
    use tokio::sync::mpsc;

    fn record() -> Record {
        Record {
            id: "0a".repeat(16),
            request: "1b".repeat(32),
            answer: "2c".repeat(32),
            model: Some("m".into()),
            model_files: Some("3d".repeat(32)),
            method: Some("POST".into()),
            path: Some("/v1/chat/completions".into()),
            status: Some(200),
            started_ms: 1,
            first_ms: Some(2),
            ended_ms: 3,
            request_bytes: 4,
            answer_bytes: 5,
            connection: Some(Connection {
                peer: "[::1]:1".into(),
                local: "127.0.0.1:8000".into(),
            }),
            upstream: Some(Connection {
                peer: "127.0.0.1:8001".into(),
                local: "127.0.0.1:40000".into(),
            }),
            nonce: Some("AAECAwQFBgc=".into()),
        }
    }

    fn given(post: Post, tell: &mpsc::Sender<Post>) -> Given {
        let id = hex::decode(post.id.as_ref().unwrap()).unwrap();
        tell.try_send(post).unwrap();
        Given {
            id: id.try_into().unwrap(),
            index: 7,
            message: vec![0, 1, 2],
        }
    }

    /// A socket whose callers are all guarded, or all not.
    fn agent(folder: &Path, is_guarded: bool) -> (PathBuf, mpsc::Receiver<Post>) {
        let path = folder.join(if is_guarded { "guarded" } else { "other" });
        let listener = UnixListener::bind(&path).unwrap();
        let (ledger, _) = Ledger::open(folder).unwrap();
        let (calls, mut asked) = mpsc::channel(8);
        let (tell, told) = mpsc::channel(8);
        tokio::spawn(serve::records(listener, calls, Arc::new(ledger)));
        tokio::spawn(async move {
            while let Some(call) = asked.recv().await {
                match call {
                    Call::Guarded { reply, .. } => reply.send(is_guarded).unwrap(),
                    Call::Record { post, reply, .. } => {
                        let given = post.map(|post| given(post, &tell));
                        let refused = |why| serve::RecordRefused::Bad { why };
                        reply.send(given.map_err(refused)).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        (path, told)
    }

    #[tokio::test]
    async fn a_record_is_what_the_agents_own_socket_takes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut told) = agent(folder.path(), true);
        let mut line = Line::new(&path);
        assert_eq!(line.probe().await, Ok(()));
        for _ in 0..2 {
            let issued = line.tell(&record()).await.unwrap();
            assert_eq!((issued.id, issued.receipt.as_str()), (record().id, "AAEC"));
            let post = told.recv().await.unwrap();
            assert_eq!(post.request, record().request);
            assert_eq!(post.answer, record().answer);
            assert_eq!(post.connection.unwrap().peer.to_string(), "[::1]:1");
            assert!(line.open.is_some(), "the line is kept");
        }
    }

    #[tokio::test]
    async fn who_is_not_guarded_hears_it_although_nothing_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _told) = agent(folder.path(), false);
        let mut line = Line::new(&path);
        for _ in 0..20 {
            let refused = line.probe().await.unwrap_err();
            assert!(
                matches!(refused, NotIssued::NotGuarded { .. }),
                "{refused:?}"
            );
        }
        let refused = line.tell(&record()).await.unwrap_err();
        assert!(matches!(refused, NotIssued::NotGuarded { .. }) && refused.may_pass());
        let refused = Line::new(&folder.path().join("none"))
            .probe()
            .await
            .unwrap_err();
        assert!(matches!(refused, NotIssued::Away { .. }));
    }
}
