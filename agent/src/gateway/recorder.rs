//! The queue of records to the agent.
//!
//! A request takes its place in the queue before it goes on, so that what has
//! a receipt's id has room to be told. Nothing here is waited for by a stream.
//! A record that the agent did not take within a minute is given up, counted
//! and logged: it is never written down here, because its salt may not be.

use super::agent_line::{Issued, Line, NotIssued};
use super::metrics::Metrics;
use super::receipts::Receipts;
use super::record::Told;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, OwnedPermit, Receiver, Sender, WeakSender};
use tokio::sync::{Mutex, Notify};

/// Exchanges under way and records waiting, together.
pub(super) const MOST_PLACES: usize = 16_384;
/// Lines to the agent: what it seals together it can answer together.
const LINES: usize = 4;
/// A record that the agent did not take for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries of one record.
const WAIT: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(1);
/// How often the agent is asked while it is away, and while it is idle.
const ASK_AWAY: Duration = Duration::from_millis(500);
const ASK_IDLE: Duration = Duration::from_secs(5);

/// Whether the agent takes records, as far as is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Standing {
    /// Not asked yet.
    Unknown = 0,
    /// It takes them.
    Ready = 1,
    /// Nobody answers.
    Away = 2,
    /// The gateway is not guarded.
    NotGuarded = 3,
    /// No session, or no room.
    NotNow = 4,
}

impl Standing {
    fn of(outcome: &NotIssued) -> Self {
        match outcome {
            NotIssued::Away { .. } => Self::Away,
            NotIssued::NotGuarded { .. } => Self::NotGuarded,
            NotIssued::NotNow { .. } => Self::NotNow,
            NotIssued::Refused { .. } => Self::Ready,
        }
    }

    fn from_number(number: u8) -> Self {
        let all = [Self::Ready, Self::Away, Self::NotGuarded, Self::NotNow];
        let found = all.into_iter().find(|one| *one as u8 == number);
        found.unwrap_or(Self::Unknown)
    }

    /// The word in the metric.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "agent_not_asked",
            Self::Ready => "ready",
            Self::Away => "agent_away",
            Self::NotGuarded => "not_guarded",
            Self::NotNow => "agent_not_now",
        }
    }
}

/// Takes records and tells them.
#[derive(Debug)]
pub(super) struct Recorder {
    queue: Sender<Waiting>,
    /// Held by every record that has a place and is not told yet.
    open: Arc<()>,
    shared: Arc<Shared>,
}

/// A record in the queue. Its room in the queue is free once a line has taken it; the second
/// part is held until it is told or given up.
type Waiting = (Told, Arc<()>);

/// A place for one record.
#[derive(Debug)]
pub(super) struct Place {
    permit: OwnedPermit<Waiting>,
    open: Arc<()>,
}

impl Place {
    /// Has the record told; false where nobody tells any more.
    pub(super) fn send(self, told: Told) -> bool {
        !self.permit.send((told, self.open)).is_closed()
    }
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    standing: AtomicU8,
    told: Notify,
    receipts: Arc<Receipts>,
    metrics: Arc<Metrics>,
}

impl Recorder {
    /// Starts the lines; they end when the recorder and all places are gone.
    pub(super) fn start(path: &Path, receipts: Arc<Receipts>, metrics: Arc<Metrics>) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_PLACES);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            standing: AtomicU8::new(Standing::Unknown as u8),
            told: Notify::new(),
            receipts,
            metrics,
        });
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..LINES {
            tokio::spawn(line(Arc::clone(&shared), Arc::clone(&waiting)));
        }
        tokio::spawn(ask(Arc::clone(&shared), queue.downgrade()));
        Self {
            queue,
            open: Arc::new(()),
            shared,
        }
    }

    /// A place for one record, or why there is none.
    pub(super) fn place(&self) -> Result<Place, &'static str> {
        match self.standing() {
            Standing::Ready => {}
            other => return Err(other.word()),
        }
        let permit = self.queue.clone().try_reserve_owned();
        Ok(Place {
            permit: permit.map_err(|_full| "queue_full")?,
            open: Arc::clone(&self.open),
        })
    }

    /// Whether the agent takes records.
    pub(super) fn standing(&self) -> Standing {
        Standing::from_number(self.shared.standing.load(Ordering::Relaxed))
    }

    /// Exchanges under way and records not told yet.
    pub(super) fn taken(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Waits until the agent was asked for the first time.
    pub(super) async fn asked(&self) {
        while self.standing() == Standing::Unknown {
            self.shared.told.notified().await;
        }
    }

    /// Waits until every record is told or given up.
    pub(super) async fn flush(&self) {
        while self.taken() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Shared {
    fn stands(&self, now: Standing, why: Option<&NotIssued>) {
        let before = self.standing.swap(now as u8, Ordering::Relaxed);
        self.metrics
            .agent_ready
            .set(i64::from(now == Standing::Ready));
        self.told.notify_waiters();
        if before == now as u8 {
            return;
        }
        if let Some(why) = why {
            tracing::warn!(%why, "no receipt can be given");
        } else {
            tracing::info!("the agent takes records");
        }
    }

    fn outcome(&self, outcome: &Result<Issued, NotIssued>) {
        match outcome {
            Ok(_) => self.stands(Standing::Ready, None),
            Err(why) => match Standing::of(why) {
                Standing::Ready => self.stands(Standing::Ready, None),
                other => self.stands(other, Some(why)),
            },
        }
    }

    fn issued(&self, told: &Told, issued: &Issued) {
        let Told {
            id,
            salt,
            ended,
            has_whole_request,
            record,
        } = told;
        let json = serde_json::json!({
            "id": record.id,
            "salt": hex::encode(salt),
            "request": record.request,
            "answer": record.answer,
            "receipt": issued.receipt,
            "ended": ended.word(),
            "request_whole": has_whole_request,
        });
        self.receipts.ready(*id, Bytes::from(format!("{json}\n")));
        self.metrics.receipts.inc();
    }

    fn lost(&self, told: &Told, why: &NotIssued) {
        let (reason, words) = match why {
            NotIssued::Refused { status: 409, .. } => (
                "id_used",
                "the agent has the record, but its receipt did not arrive here",
            ),
            NotIssued::Refused { .. } => ("refused", "the agent refused the record"),
            other => (
                Standing::of(other).word(),
                "the agent did not take the record in time",
            ),
        };
        self.metrics.unrecorded(reason);
        self.receipts.lose(told.id, words);
        tracing::error!(id = %told.id, %why, "an exchange is not recorded");
    }
}

/// One line: the next record, until it is told or given up.
async fn line(shared: Arc<Shared>, waiting: Arc<Mutex<Receiver<Waiting>>>) {
    let mut line = Line::new(&shared.path);
    loop {
        // A guard in the condition would be held for the body.
        let next = waiting.lock().await.recv().await;
        let Some((told, open)) = next else { return };
        let since = Instant::now();
        let mut wait = *WAIT.start();
        loop {
            let outcome = line.tell(&told.record).await;
            shared.outcome(&outcome);
            match outcome {
                Ok(issued) => {
                    shared.issued(&told, &issued);
                    break;
                }
                Err(why) if why.may_pass() && since.elapsed() < PATIENCE => {
                    shared.metrics.retries.inc();
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(*WAIT.end());
                }
                Err(why) => {
                    shared.lost(&told, &why);
                    break;
                }
            }
        }
        drop(open);
    }
}

/// Asks the agent whether it is there, until nobody wants to know.
async fn ask(shared: Arc<Shared>, queue: WeakSender<Waiting>) {
    let mut line = Line::new(&shared.path);
    while queue.upgrade().is_some() {
        match line.probe().await {
            Ok(()) => shared.stands(Standing::Ready, None),
            Err(why) => shared.stands(Standing::of(&why), Some(&why)),
        }
        let is_ready = shared.standing.load(Ordering::Relaxed) == Standing::Ready as u8;
        tokio::time::sleep(if is_ready { ASK_IDLE } else { ASK_AWAY }).await;
    }
}
