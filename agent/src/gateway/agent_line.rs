//! The line to the agent's records socket: one record a call, over a kept
//! connection, and what the agent says of the gateway.

use super::record::Record;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
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
    open: Option<SendRequest<Full<Bytes>>>,
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
        let (status, body) = self.post(body.into()).await?;
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
        let (status, body) = self.post(Bytes::from_static(b"{}")).await?;
        match refusal(status, &body) {
            NotIssued::Refused { .. } => Ok(()),
            other => Err(other),
        }
    }

    async fn post(&mut self, body: Bytes) -> Result<(StatusCode, Bytes), NotIssued> {
        let posted = tokio::time::timeout(PATIENCE, self.posted(body)).await;
        let outcome = posted.unwrap_or_else(|_late| Err("it takes too long".into()));
        outcome.map_err(|why| {
            self.open = None;
            NotIssued::Away {
                path: self.path.display().to_string(),
                why: why.to_string(),
            }
        })
    }

    async fn posted(
        &mut self,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::post("/v1/records")
            .header(header::HOST, "merestone")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let response = loop {
            let mut kept = self.open.take();
            let is_there = match &mut kept {
                Some(sender) => sender.ready().await.is_ok(),
                None => false,
            };
            let (mut sender, is_new) = match kept.filter(|_| is_there) {
                Some(sender) => (sender, false),
                None => (self.connect().await?, true),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.open = Some(sender);
                    break response;
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_ANSWER_BYTES)
            .collect()
            .await?;
        Ok((status, body.to_bytes()))
    }

    async fn connect(
        &self,
    ) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = UnixStream::connect(&self.path).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the line to the agent ended");
            }
        });
        Ok(sender)
    }
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
