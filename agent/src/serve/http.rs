//! `/metrics`, `/-/healthy` and `/-/ready`.
//!
//! Healthy says that the agent's loop answers; ready says that it enforces and
//! seals. Neither asks the GPU driver anything: a wedged driver must not make
//! an orchestrator kill the agent.

use super::Call;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// How long a probe waits for the agent's loop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for metrics on {listen}: {source}; set [metrics] listen to a free address")]
pub struct HttpError {
    listen: SocketAddr,
    source: io::Error,
}

/// Opens the endpoint; the future it returns serves until the loop ends.
pub async fn http(
    listen: SocketAddr,
    calls: mpsc::Sender<Call>,
) -> Result<impl Future<Output = io::Result<()>>, HttpError> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| HttpError { listen, source })?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .with_state(calls);
    Ok(axum::serve(listener, router).into_future())
}

async fn ask<T>(
    calls: &mpsc::Sender<Call>,
    call: impl FnOnce(oneshot::Sender<T>) -> Call,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        calls.send(call(reply)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok()?
}

fn silent() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the agent's loop does not answer\n",
    )
        .into_response()
}

async fn metrics(State(calls): State<mpsc::Sender<Call>>) -> Response {
    match ask(&calls, |reply| Call::Scrape { reply }).await {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        None => silent(),
    }
}

async fn healthy(State(calls): State<mpsc::Sender<Call>>) -> Response {
    match ask(&calls, |reply| Call::Ready { reply }).await {
        Some(_) => "healthy\n".into_response(),
        None => silent(),
    }
}

async fn ready(State(calls): State<mpsc::Sender<Call>>) -> Response {
    match ask(&calls, |reply| Call::Ready { reply }).await {
        Some(Ok(())) => "ready\n".into_response(),
        Some(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        None => silent(),
    }
}
