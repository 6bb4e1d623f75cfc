//! From the first listener to the last record: accepts, drains, ends.

use super::child::Child;
use super::door::Door;
use super::framing::MOST_HEAD_BYTES;
use super::metrics::{self, Looked, Metrics};
use super::pass::Gateway;
use super::receipts::{MOST_KEPT, Receipts};
use super::record::Connection;
use super::recorder::Recorder;
use super::upstream::{BUFFER_BYTES, MOST_FIELDS, Upstream};
use super::weights::{Source, Weights};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

/// Connections of clients at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 16_384;
/// A head that is not there after so long ends the connection; so does a
/// connection that says nothing.
const HEAD_PATIENCE: Duration = Duration::from_secs(75);
/// How long streams may go on after SIGTERM.
const DRAIN_PATIENCE: Duration = Duration::from_secs(25);
/// How long the last records may take after that.
const FLUSH_PATIENCE: Duration = Duration::from_secs(4);
/// How long the first word with the agent may take before clients are let in.
const ASK_PATIENCE: Duration = Duration::from_secs(2);
/// Threads at most; each passes some GB/s.
const MOST_THREADS: usize = 4;

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The server, `host:port`.
    pub to: String,
    /// The agent's records socket.
    pub records: PathBuf,
    /// Whether a request without a receipt is refused.
    pub require_receipts: bool,
    /// Directories and files of weights; empty to look what the server opened.
    pub model_files: Vec<PathBuf>,
    /// Where to answer /metrics.
    pub metrics: Option<SocketAddr>,
    /// How long the server may be silent before its answer begins.
    pub timeout: Duration,
    /// How long receipts are kept for their clients.
    pub keep: Duration,
    /// Paths that are no inference.
    pub leave_out: Vec<String>,
    /// The server's command line, where the gateway starts it.
    pub command: Vec<OsString>,
}

/// Why the gateway did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address is not free.
    #[error("cannot listen on {listen}: {source}; choose a free address")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server's command cannot be started.
    #[error("cannot start {command}: {source}")]
    Command {
        /// Its first word.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The server that the gateway started ended.
    #[error("the inference server ended by itself: {status}")]
    ServerEnded {
        /// How.
        status: ExitStatus,
    },
    /// The system refused something else.
    #[error("cannot start the gateway: {source}")]
    Start {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// The counters could not be made.
    #[error("cannot make the metrics: {source}")]
    Metrics {
        /// Why.
        #[from]
        source: prometheus::Error,
    },
}

/// Runs until SIGTERM or SIGINT, or until the server that it started ends.
pub fn run(options: Options) -> Result<(), GatewayError> {
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(1, MOST_THREADS))
        .thread_name("gateway")
        .enable_all()
        .build()?
        .block_on(begin(options))
}

async fn begin(options: Options) -> Result<(), GatewayError> {
    let Options {
        listen,
        to,
        records,
        require_receipts,
        model_files,
        metrics: metrics_at,
        timeout,
        keep,
        leave_out,
        command,
    } = options;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let failed = |listen| move |source| GatewayError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed(listen))?;
    let metrics = Metrics::new()?;
    let receipts = Arc::new(Receipts::new(MOST_KEPT, keep));
    let recorder = Arc::new(Recorder::start(
        &records,
        Arc::clone(&receipts),
        Arc::clone(&metrics),
    ));
    // From before the server starts: it may open its weights and close them.
    let source = Source::of(model_files, &to, !command.is_empty());
    let weights = Weights::start(source, metrics.model_files.clone())?;
    let gateway = Arc::new(Gateway {
        upstream: Upstream::new(to.clone()),
        recorder: Arc::clone(&recorder),
        receipts: Arc::clone(&receipts),
        metrics: Arc::clone(&metrics),
        weights,
        leave_out,
        requires_receipts: require_receipts,
        timeout,
    });
    if let Some(at) = metrics_at {
        let looked = Looked {
            metrics: Arc::clone(&metrics),
            receipts,
            recorder: Arc::clone(&recorder),
            requires_receipts: require_receipts,
        };
        metrics::serve(at, looked).await.map_err(failed(at))?;
    }
    let mut child = Child::start(&command)?;
    tokio::time::timeout(ASK_PATIENCE, recorder.asked())
        .await
        .ok();
    tracing::info!(%listen, server = to, records = recorder.standing().word(), "passing requests on");
    sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
    let (stop, stopped) = watch::channel(());
    let (connected, gone) = mpsc::channel::<()>(1);
    let outcome = tokio::select! {
        never = accept(&listener, &gateway, &stopped, &connected) => match never {},
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        status = child.ended() => Err(GatewayError::ServerEnded { status: status? }),
    };
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
    drop((listener, stopped, connected, gateway));
    drain(stop, gone, &recorder).await;
    child.stop().await;
    outcome
}

/// Lets streams end, then tells the last records.
async fn drain(stop: watch::Sender<()>, mut gone: mpsc::Receiver<()>, recorder: &Recorder) {
    tracing::info!("stopping: no new requests; streams may end");
    stop.send_replace(());
    if tokio::time::timeout(DRAIN_PATIENCE, gone.recv())
        .await
        .is_err()
    {
        tracing::warn!("streams were cut: they took too long to end");
        return;
    }
    if tokio::time::timeout(FLUSH_PATIENCE, recorder.flush())
        .await
        .is_err()
    {
        let left = recorder.taken();
        tracing::error!(left, "records were not taken by the agent and are gone");
    }
}

async fn accept(
    listener: &TcpListener,
    gateway: &Arc<Gateway>,
    stopped: &watch::Receiver<()>,
    connected: &mpsc::Sender<()>,
) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, peer)) => {
                let serving = serve(Arc::clone(gateway), stream, peer, stopped.clone());
                let connected = connected.clone();
                tokio::spawn(async move {
                    serving.await;
                    drop((place, connected));
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: wait rather than spin.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stopped: watch::Receiver<()>,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    stream.set_nodelay(true).ok();
    let metrics = Arc::clone(&gateway.metrics);
    metrics.connections.inc();
    let connection = Connection {
        peer: plain(peer).to_string(),
        local: plain(local).to_string(),
    };
    let refused = Arc::clone(&metrics);
    let door = Door::new(stream, move |shape| refused.refused(shape.word()));
    let service =
        service_fn(move |request| Arc::clone(&gateway).answer(connection.clone(), request));
    let serving = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(BUFFER_BYTES)
        .max_header_size(MOST_HEAD_BYTES)
        .max_headers(MOST_FIELDS)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(door), service);
    let mut serving = std::pin::pin!(serving);
    let outcome = tokio::select! {
        outcome = &mut serving => outcome,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a client's connection ended");
    }
    metrics.connections.dec();
}

/// An IPv4 address as such, also on a socket of both families: as the kernel's
/// turns have it.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
