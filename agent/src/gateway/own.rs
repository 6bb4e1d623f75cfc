//! What the gateway says itself: refusals, and that the server did not answer.
//!
//! The form is that of `OpenAI`'s errors, so that a client library shows the
//! message.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

/// Why a request got no answer of the server's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// CONNECT or TRACE.
    Method,
    /// A protocol whose messages no receipt could be bound to.
    Upgrade,
    /// `Connection` names a field of the message.
    Connection,
    /// An absolute target that is not plain http, or with a user.
    Target,
    /// `Merestone-Nonce` that is not 8 to 64 bytes in base64.
    Nonce,
    /// Receipts are required and cannot be had.
    NoReceipt(&'static str),
    /// The server cannot be connected to.
    Unreachable,
    /// It broke off before it answered.
    Broken,
    /// It sent an answer with two lengths.
    Ambiguous,
    /// It did not take the connection in time.
    ConnectTimeout,
    /// It did not begin to answer in time.
    AnswerTimeout,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Method | Self::Upgrade => StatusCode::NOT_IMPLEMENTED,
            Self::Connection | Self::Target | Self::Nonce => StatusCode::BAD_REQUEST,
            Self::NoReceipt(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable | Self::Broken | Self::Ambiguous => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::AnswerTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The word in the body and in the metric.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Method => "method_refused",
            Self::Upgrade => "upgrade_refused",
            Self::Connection => "connection_field",
            Self::Target => "target",
            Self::Nonce => "nonce",
            Self::NoReceipt(_) => "no_receipt",
            Self::Unreachable => "server_unreachable",
            Self::Broken => "server_broke_off",
            Self::Ambiguous => "server_answer_ambiguous",
            Self::ConnectTimeout => "server_connect_timeout",
            Self::AnswerTimeout => "server_answer_timeout",
        }
    }

    fn message(self) -> String {
        match self {
            Self::Method => "CONNECT and TRACE are not passed on".into(),
            Self::Upgrade => {
                "WebSocket is not passed on: no receipt could be bound to what it carries".into()
            }
            Self::Connection => "the Connection header names a field of the message".into(),
            Self::Target => "the target must be a path, or http:// without a user".into(),
            Self::Nonce => "Merestone-Nonce must be 8 to 64 bytes in base64".into(),
            Self::NoReceipt(why) => {
                format!("receipts are required here and cannot be had: {why}; try again")
            }
            Self::Unreachable => "the inference server cannot be reached".into(),
            Self::Broken => "the inference server broke off before it answered".into(),
            Self::Ambiguous => "the inference server's answer has two lengths".into(),
            Self::ConnectTimeout => "the inference server does not take connections".into(),
            Self::AnswerTimeout => "the inference server did not begin to answer in time".into(),
        }
    }

    pub(super) fn body(self) -> Bytes {
        let body = serde_json::json!({ "error": {
            "message": self.message(), "type": "merestone_gateway", "code": self.code(),
        }});
        Bytes::from(format!("{body}\n"))
    }

    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let mut response = json(self.status(), self.body());
        if let Self::NoReceipt(_) = self {
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response
    }
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    typed(status, "application/json", body)
}

/// An answer of the gateway's own, which nobody may keep.
pub(super) fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
