//! One request on its way: judged, given a receipt's id, passed on, answered.

use super::exchange::{Asked, Exchange, Side};
use super::expect;
use super::head;
use super::metrics::Metrics;
use super::model::Sniff;
use super::own::{self, Refusal};
use super::receipts::{Id, Kept, Receipts};
use super::record::Connection;
use super::recorder::Recorder;
use super::tap::{Answered, BodyError, Following, Sent, Tap, Upload};
use super::upstream::{Lease, Upstream};
use super::weights::Weights;
use base64ct::{Base64, Encoding as _};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Where receipts are handed out.
pub(crate) const RECEIPTS: &str = "/.well-known/merestone/receipts/";
/// Where lists of weight files are.
const MODELS: &str = "/.well-known/merestone/models/";
/// The gateway's own paths; none of them goes to the server.
const OWN: &str = "/.well-known/merestone/";

/// What every request needs.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) upstream: Arc<Upstream>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) receipts: Arc<Receipts>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) weights: Arc<Weights>,
    pub(super) leave_out: Vec<String>,
    pub(super) requires_receipts: bool,
    /// How long the server may be silent before its answer begins.
    pub(super) timeout: Duration,
}

/// A body for the client: the server's or the gateway's.
#[derive(Debug)]
pub(super) enum Outgoing {
    Passing(Box<Answered>),
    Own(Full<Bytes>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Passing(body) => Pin::new(body.as_mut()).poll_frame(context),
            Self::Own(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never: Infallible| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passing(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passing(body) => body.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}

/// Counts a request as under way until it is let go.
struct InFlight(Arc<Metrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

impl Gateway {
    /// Answers one request.
    pub(super) async fn answer(
        self: Arc<Self>,
        connection: Connection,
        request: Request<Incoming>,
    ) -> Result<Response<Outgoing>, Infallible> {
        self.metrics.in_flight.inc();
        let _in_flight = InFlight(Arc::clone(&self.metrics));
        if request.uri().path().starts_with(OWN) {
            return Ok(self.own(&request).map(Outgoing::Own));
        }
        let (exchange, outcome) = match self.admit(connection, request) {
            Ok((exchange, request)) => {
                let outcome = self.pass(exchange.as_ref(), request).await;
                (exchange, outcome)
            }
            Err(refusal) => (None, Err(refusal)),
        };
        let mut response = outcome.unwrap_or_else(|refusal| {
            self.metrics.refused(refusal.code());
            if let Some(exchange) = &exchange {
                exchange.answered_by_us(refusal.status(), &refusal.body());
            }
            refusal.response().map(Outgoing::Own)
        });
        self.metrics.answered(response.status());
        if let Some(exchange) = exchange
            && let Ok(id) = HeaderValue::from_str(&exchange.id().to_string())
        {
            response.headers_mut().insert(head::RECEIPT, id);
        }
        Ok(response)
    }

    /// Judges a request, and gives it an id where there can be a receipt.
    fn admit(
        &self,
        connection: Connection,
        request: Request<Incoming>,
    ) -> Result<(Option<Arc<Exchange>>, Request<Incoming>), Refusal> {
        let nonce = nonce(&request)?;
        let (mut parts, body) = request.into_parts();
        head::request(&mut parts, &body)?;
        let request = Request::from_parts(parts, body);
        if self
            .leave_out
            .iter()
            .any(|path| path == request.uri().path())
        {
            self.metrics.left_out.inc();
            return Ok((None, request));
        }
        let drawn = self.recorder.place().and_then(|place| {
            let random = random().ok_or("no_randomness")?;
            Ok((place, random))
        });
        let (place, (id, salt)) = match drawn {
            Ok(drawn) => drawn,
            Err(why) if self.requires_receipts => return Err(Refusal::NoReceipt(why)),
            Err(why) => {
                self.metrics.unrecorded(why);
                return Ok((None, request));
            }
        };
        let asked = Asked {
            id,
            salt,
            connection,
            method: request.method().clone(),
            uri: request.uri().clone(),
            nonce,
            model_files: self.weights.digest(),
        };
        let exchange = Exchange::begin(asked, place, Arc::clone(&self.receipts));
        Ok((Some(exchange), request))
    }

    /// Passes a request on, and its answer back.
    async fn pass(
        &self,
        exchange: Option<&Arc<Exchange>>,
        request: Request<Incoming>,
    ) -> Result<Response<Outgoing>, Refusal> {
        let (parts, body) = request.into_parts();
        let has_no_answer_body = parts.method == Method::HEAD;
        let length = body.size_hint().exact();
        let following = exchange.map(|exchange| Following {
            exchange: Arc::clone(exchange),
            side: Side::Request,
            hash: exchange.hash(Side::Request),
            sniff: Sniff::of(&parts.headers, length),
        });
        let expects = parts.headers.contains_key(header::EXPECT) && !body.is_end_stream();
        let (gate, key) = if expects { Some(expect::gate()) } else { None }.unzip();
        let upload = Arc::new(Upload::default());
        let sent = Sent {
            tap: Tap::new(body, self.metrics.request_bytes.clone(), following),
            upload: Arc::clone(&upload),
            gate,
        };
        let mut request = Request::from_parts(parts, sent);
        if let Some(key) = &key {
            let key = Arc::clone(key);
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    key.open();
                }
            });
        }
        let since = Instant::now();
        let (response, lease) = self.send(request, &upload).await?;
        self.metrics
            .head_seconds
            .observe(since.elapsed().as_secs_f64());
        if let Some(key) = &key {
            key.answered();
        }
        let (mut parts, body) = response.into_parts();
        let is_bodiless = has_no_answer_body || parts.status == StatusCode::NOT_MODIFIED;
        if !head::response(&mut parts.headers, &body, !is_bodiless) {
            return Err(Refusal::Ambiguous);
        }
        let following = exchange.map(|exchange| {
            exchange.answered(parts.status);
            exchange.passed_on(lease.ends());
            let sniff = if exchange.has_model() {
                Sniff::Off
            } else {
                Sniff::of(&parts.headers, body.size_hint().exact())
            };
            Following {
                exchange: Arc::clone(exchange),
                side: Side::Answer,
                hash: exchange.hash(Side::Answer),
                sniff,
            }
        });
        let answered = Answered {
            tap: Tap::new(body, self.metrics.answer_bytes.clone(), following),
            lease: Some(lease),
            upload,
            key,
        };
        Ok(Response::from_parts(
            parts,
            Outgoing::Passing(Box::new(answered)),
        ))
    }

    /// Sends it, and waits for the head of the answer as long as something
    /// moves.
    async fn send(
        &self,
        request: Request<Sent>,
        upload: &Upload,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        let mut sending = std::pin::pin!(Arc::clone(&self.upstream).send(request));
        loop {
            let before = upload.pieces.load(Ordering::Relaxed);
            match tokio::time::timeout(self.timeout, &mut sending).await {
                Ok(outcome) => return outcome,
                Err(_silent) if upload.pieces.load(Ordering::Relaxed) == before => {
                    return Err(Refusal::AnswerTimeout);
                }
                Err(_uploading) => {}
            }
        }
    }

    /// The gateway's own paths.
    fn own(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let missing = |status, why: &str| {
            own::json(
                status,
                Bytes::from(format!("{}\n", serde_json::json!({ "error": why }))),
            )
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return missing(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        }
        let path = request.uri().path();
        if let Some(list) = path
            .strip_prefix(MODELS)
            .and_then(|digest| self.weights.list(digest))
        {
            return own::typed(StatusCode::OK, "text/plain; charset=utf-8", list);
        }
        let kept = path
            .strip_prefix(RECEIPTS)
            .and_then(Id::parse)
            .and_then(|id| self.receipts.get(id));
        match kept {
            Some(Kept::Ready(json)) => own::json(StatusCode::OK, json),
            Some(Kept::Pending) => missing(StatusCode::ACCEPTED, "not yet: ask again"),
            Some(Kept::Lost(why)) => missing(StatusCode::GONE, why),
            None => missing(StatusCode::NOT_FOUND, "unknown, or kept no longer"),
        }
    }
}

/// The client's nonce, as it came.
fn nonce(request: &Request<Incoming>) -> Result<Option<String>, Refusal> {
    let mut values = request.headers().get_all(head::NONCE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let count = request.headers().get_all(head::NONCE).iter().count();
        return if count == 0 {
            Ok(None)
        } else {
            Err(Refusal::Nonce)
        };
    };
    let text = value.to_str().ok().ok_or(Refusal::Nonce)?;
    let mut bytes = [0; 64];
    match Base64::decode(text, &mut bytes) {
        Ok(nonce) if nonce.len() >= 8 => Ok(Some(text.to_owned())),
        _ => Err(Refusal::Nonce),
    }
}

/// An id and a salt, from the kernel.
fn random() -> Option<(Id, [u8; 32])> {
    let mut drawn = [0; 48];
    // Up to 256 bytes come whole (drivers/char/random.c, getrandom(2)).
    let count = rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty()).ok()?;
    let (id, salt) = drawn.get(..count)?.split_first_chunk::<16>()?;
    Some((Id(*id), salt.try_into().ok()?))
}
