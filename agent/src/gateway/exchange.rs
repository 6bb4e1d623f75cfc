//! One request and its answer, from the head of the one to the last byte of
//! the other.
//!
//! The record is made when the last part of an exchange is let go, whichever
//! way it ended: there is no path on which one is forgotten. It knows what it
//! handed to the client's connection, not what the client read.

use super::receipts::{Id, Receipts};
use super::record::{Connection, Record, Told};
use super::recorder::Place;
use crate::clock;
use hyper::{Method, StatusCode, Uri};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longest path that the agent takes.
const MOST_PATH_BYTES: usize = 128;
/// The status of an exchange that the client left (as web servers log it).
const CLIENT_LEFT: u16 = 499;

/// A digest of one side, begun with the exchange's salt.
pub(super) fn hash(salt: &[u8; 32], side: Side) -> Sha256 {
    let label: &[u8] = match side {
        Side::Request => b"request",
        Side::Answer => b"answer",
    };
    Sha256::new().chain_update(salt).chain_update(label)
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Request,
    Answer,
}

/// What is known of one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Half {
    pub(super) digest: Option<[u8; 32]>,
    pub(super) bytes: u64,
    /// Whether its end was seen.
    pub(super) is_whole: bool,
    /// The model that it names.
    pub(super) model: Option<String>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// The whole answer was handed on.
    Complete,
    /// The client went away before.
    ClientLeft,
    /// The server broke off within its answer.
    ServerFailed,
}

impl Ended {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientLeft => "client_left",
            Self::ServerFailed => "server_failed",
        }
    }
}

/// What is known of a request when its head is there.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: Id,
    pub(super) salt: [u8; 32],
    pub(super) connection: Connection,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) nonce: Option<String>,
    pub(super) model_files: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct State {
    request: Half,
    answer: Half,
    status: Option<StatusCode>,
    first_ms: Option<u64>,
    /// The connection that it was passed on by.
    upstream: Option<Connection>,
    /// The server broke off within its answer.
    has_failed: bool,
    /// The client broke off within its request.
    has_left: bool,
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    asked: Asked,
    started_ms: u64,
    state: Mutex<State>,
    /// Its place in the queue, taken before the request went on.
    place: Option<Place>,
    receipts: Arc<Receipts>,
}

impl Exchange {
    pub(super) fn begin(asked: Asked, place: Place, receipts: Arc<Receipts>) -> Arc<Self> {
        receipts.begin(asked.id);
        Arc::new(Self {
            asked,
            started_ms: clock::now_ms(),
            state: Mutex::default(),
            place: Some(place),
            receipts,
        })
    }

    pub(super) fn id(&self) -> Id {
        self.asked.id
    }

    pub(super) fn hash(&self, side: Side) -> Sha256 {
        hash(&self.asked.salt, side)
    }

    /// The head of the answer is there.
    pub(super) fn answered(&self, status: StatusCode) {
        let mut state = self.state();
        state.status = Some(status);
        state.first_ms = Some(clock::now_ms());
    }

    /// It was passed on by this connection, and is being answered.
    pub(super) fn passed_on(&self, upstream: Connection) {
        self.state().upstream = Some(upstream);
    }

    /// The gateway answers itself.
    pub(super) fn answered_by_us(&self, status: StatusCode, body: &[u8]) {
        self.answered(status);
        let digest = self.hash(Side::Answer).chain_update(body).finalize();
        let half = Half {
            digest: Some(digest.into()),
            bytes: body.len() as u64,
            is_whole: true,
            model: None,
        };
        self.passed(Side::Answer, half);
    }

    /// One side is over.
    pub(super) fn passed(&self, side: Side, half: Half) {
        let mut state = self.state();
        match side {
            Side::Request => state.request = half,
            Side::Answer => state.answer = half,
        }
    }

    /// One side could not be read to its end.
    pub(super) fn broke_off(&self, side: Side) {
        let mut state = self.state();
        match side {
            Side::Request => state.has_left = true,
            Side::Answer => state.has_failed = true,
        }
    }

    /// Whether the request named a model.
    pub(super) fn has_model(&self) -> bool {
        self.state().request.model.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> Told {
        let Asked {
            id,
            salt,
            connection,
            method,
            uri,
            nonce,
            model_files,
        } = &self.asked;
        let State {
            request,
            answer,
            status,
            first_ms,
            upstream,
            has_failed,
            has_left,
        } = std::mem::take(&mut *self.state());
        // The wall clock may step; what is told is in order.
        let first_ms = first_ms.map(|first| first.max(self.started_ms));
        let ended_ms = clock::now_ms().max(first_ms.unwrap_or(self.started_ms));
        let ended = match () {
            // Whatever was answered then reached nobody.
            () if has_left => Ended::ClientLeft,
            () if answer.is_whole => Ended::Complete,
            () if has_failed => Ended::ServerFailed,
            () => Ended::ClientLeft,
        };
        let status = match ended {
            Ended::Complete => status.map(|status| status.as_u16()),
            Ended::ClientLeft => Some(CLIENT_LEFT),
            Ended::ServerFailed => Some(StatusCode::BAD_GATEWAY.as_u16()),
        };
        let digest = |half: &Half, side| {
            let digest = half
                .digest
                .unwrap_or_else(|| hash(salt, side).finalize().into());
            hex::encode(digest)
        };
        let path = uri.path();
        Told {
            id: *id,
            salt: *salt,
            ended,
            has_whole_request: request.is_whole,
            record: Record {
                id: id.to_string(),
                request: digest(&request, Side::Request),
                answer: digest(&answer, Side::Answer),
                model: request.model.or(answer.model),
                model_files: model_files.as_deref().map(ToOwned::to_owned),
                method: Some(method.as_str())
                    .filter(|word| word.len() <= 16)
                    .map(Into::into),
                path: Some(path)
                    .filter(|path| path.len() <= MOST_PATH_BYTES)
                    .map(Into::into),
                status,
                started_ms: self.started_ms,
                first_ms,
                ended_ms,
                request_bytes: request.bytes,
                answer_bytes: answer.bytes,
                connection: Some(connection.clone()),
                upstream,
                nonce: nonce.clone(),
            },
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        let told = self.told();
        let id = self.asked.id;
        // The other end is gone only when the gateway has given up waiting.
        if !place.send(told) {
            self.receipts.lose(id, "the gateway is stopping");
        }
    }
}
