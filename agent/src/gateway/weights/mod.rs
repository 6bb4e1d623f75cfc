//! Which weight files the server runs on: found, hashed once, told as one
//! digest.
//!
//! The digest is the SHA-256 of a text: a first line that says how the files
//! were found, then a line for each, sorted by name: SHA-256, size, name. A
//! file is told only when all of it was hashed and it did not change meanwhile.
//! It cannot tell what a server read and closed between two looks; the first
//! line says `opened` for what was seen open, `named` for what the operator
//! named.

mod find;
mod list;

use bytes::Bytes;
use find::Seen;
use list::{Digests, text};
use prometheus::IntGauge;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

/// How often to look, while a server may still be loading and after that.
const LOOK_LOADING: Duration = Duration::from_secs(1);
const LOOK_LATER: Duration = Duration::from_secs(15);
/// How long it may be loading.
const LOADING: Duration = Duration::from_secs(900);
/// Lists kept for clients.
const MOST_LISTS: usize = 16;

/// Where the files are to be found.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The operator says so.
    Named(Vec<PathBuf>),
    /// What processes of this cgroup have open, where one of them listens on
    /// the port.
    Opened {
        /// The server's.
        port: u16,
        /// Only processes that the gateway started.
        below: bool,
    },
    /// The server is on another host.
    Nowhere,
}

impl Source {
    pub(super) fn of(named: Vec<PathBuf>, server: &str, below: bool) -> Self {
        if !named.is_empty() {
            return Self::Named(named);
        }
        let addresses = server.to_socket_addrs();
        let mut addresses = addresses.into_iter().flatten();
        let local = addresses.find(|address| address.ip().to_canonical().is_loopback());
        local.map_or(Self::Nowhere, |address| Self::Opened {
            port: address.port(),
            below,
        })
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Named(_) => "named",
            Self::Opened { .. } | Self::Nowhere => "opened",
        }
    }
}

#[derive(Debug, Default)]
struct Told {
    digest: Option<Arc<str>>,
    lists: BTreeMap<String, Bytes>,
}

/// The digest now, and lists by digest.
#[derive(Debug, Default)]
pub(super) struct Weights {
    told: RwLock<Told>,
}

impl Weights {
    /// Starts looking, in a thread of the lowest priority.
    pub(super) fn start(source: Source, count: IntGauge) -> io::Result<Arc<Self>> {
        let weights = Arc::new(Self::default());
        if !matches!(source, Source::Nowhere) {
            let weak = Arc::downgrade(&weights);
            std::thread::Builder::new()
                .name("weights".into())
                .spawn(move || look(&source, &weak, &count))?;
        }
        Ok(weights)
    }

    /// The digest of the list, in hex.
    pub(super) fn digest(&self) -> Option<Arc<str>> {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        told.digest.clone()
    }

    /// The list with this digest.
    pub(super) fn list(&self, digest: &str) -> Option<Bytes> {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        told.lists.get(digest).cloned()
    }

    fn tell(&self, list: Option<String>) {
        let mut told = self.told.write().unwrap_or_else(PoisonError::into_inner);
        let digest = list.map(|list| {
            let digest = hex::encode(Sha256::digest(&list));
            if told.lists.len() >= MOST_LISTS {
                told.lists.clear();
            }
            told.lists.insert(digest.clone(), list.into());
            Arc::from(digest.as_str())
        });
        if told.digest != digest {
            tracing::info!(digest = digest.as_deref(), "model files");
        }
        told.digest = digest;
    }
}

fn look(source: &Source, weights: &Weak<Weights>, count: &IntGauge) {
    // The thread's alone (kernel/sys.c, setpriority: PRIO_PROCESS of 0). The
    // disk's priority follows from it (block/ioprio.c).
    rustix::process::setpriority_process(None, 19).ok();
    let since = Instant::now();
    let mut digests = Digests::default();
    let mut seen = Seen::default();
    while let Some(weights) = weights.upgrade() {
        let files = match source {
            Source::Named(paths) => find::named(paths),
            Source::Opened { port, below } => seen.look(*port, *below),
            Source::Nowhere => Vec::new(),
        };
        let is_complete = files.iter().all(|file| digests.of(file).is_some());
        let list =
            (is_complete && !files.is_empty()).then(|| text(source.word(), &files, &mut digests));
        let told = list.flatten();
        count.set(match &told {
            Some(_) => i64::try_from(files.len()).unwrap_or(i64::MAX),
            None => 0,
        });
        weights.tell(told);
        drop(weights);
        let pause = if since.elapsed() < LOADING {
            LOOK_LOADING
        } else {
            LOOK_LATER
        };
        std::thread::sleep(pause);
    }
}
