//! The gateway's own counters, for `--metrics`.

use super::receipts::Receipts;
use super::recorder::{Recorder, Standing};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Every counter.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) in_flight: IntGauge,
    pub(super) connections: IntGauge,
    pub(super) receipts: IntCounter,
    pub(super) retries: IntCounter,
    pub(super) agent_ready: IntGauge,
    pub(super) request_bytes: IntCounter,
    pub(super) answer_bytes: IntCounter,
    pub(super) left_out: IntCounter,
    pub(super) head_seconds: Histogram,
    pub(super) model_files: IntGauge,
    kept: IntGauge,
    queue: IntGauge,
    requests: IntCounterVec,
    refused: IntCounterVec,
    unrecorded: IntCounterVec,
}

impl Metrics {
    pub(super) fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("merestone_gateway_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("merestone_gateway_{name}_total"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let labelled = |name: &str, help: &str, label: &str| {
            let opts = Opts::new(format!("merestone_gateway_{name}_total"), help);
            let counter = IntCounterVec::new(opts, &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let head_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "merestone_gateway_answer_begins_seconds",
                "From the request's head to the head of the server's answer.",
            )
            .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
        )?;
        registry.register(Box::new(head_seconds.clone()))?;
        Ok(Arc::new(Self {
            in_flight: gauge("requests_in_flight", "Requests whose answer has not begun.")?,
            connections: gauge("connections", "Connections of clients.")?,
            receipts: counter("receipts", "Receipts that the agent issued.")?,
            retries: counter("record_retries", "Records that were told again.")?,
            agent_ready: gauge("agent_ready", "1 where the agent takes records.")?,
            request_bytes: counter("request_bytes", "Bytes of requests' bodies passed on.")?,
            answer_bytes: counter("answer_bytes", "Bytes of answers' bodies passed on.")?,
            left_out: counter("left_out", "Requests for paths that are no inference.")?,
            model_files: gauge("model_files", "Weight files in the digest of the model.")?,
            kept: gauge("receipts_kept", "Receipts kept for their clients.")?,
            queue: gauge(
                "queue_places_taken",
                "Exchanges under way and records waiting.",
            )?,
            requests: labelled(
                "requests",
                "Requests answered, by class of status.",
                "class",
            )?,
            refused: labelled(
                "refused",
                "Requests that got no answer of the server's.",
                "reason",
            )?,
            unrecorded: labelled("unrecorded", "Exchanges without a record.", "reason")?,
            head_seconds,
            registry,
        }))
    }

    pub(super) fn answered(&self, status: StatusCode) {
        let class = match status.as_u16() {
            ..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[class]).inc();
    }

    pub(super) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(super) fn unrecorded(&self, reason: &str) {
        self.unrecorded.with_label_values(&[reason]).inc();
    }

    fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// What the endpoint looks at.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub(super) metrics: Arc<Metrics>,
    pub(super) receipts: Arc<Receipts>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) requires_receipts: bool,
}

/// Opens the endpoint and serves it.
pub(super) async fn serve(listen: SocketAddr, looked: Looked) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(async || "healthy\n"))
        .route("/-/ready", get(ready))
        .with_state(looked);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics endpoint ended");
        }
    });
    Ok(())
}

async fn metrics(State(looked): State<Looked>) -> Response {
    let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    looked.metrics.kept.set(whole(looked.receipts.len()));
    looked.metrics.queue.set(whole(looked.recorder.taken()));
    match looked.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(looked): State<Looked>) -> Response {
    match looked.recorder.standing() {
        Standing::Ready => "ready\n".into_response(),
        other if looked.requires_receipts => {
            let why = format!("no receipts: {}\n", other.word());
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
        other => format!("ready, without receipts: {}\n", other.word()).into_response(),
    }
}
