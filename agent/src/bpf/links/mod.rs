//! Keeps the `link` program on every network link: of every network namespace
//! that a process, a thread, a mount or an open file keeps alive, and of links
//! that appear later.
//!
//! One thread does it, because a thread is in one network namespace at a time
//! and the agent's others must stay in theirs. The kernel tells it of new links
//! at once; of new namespaces nobody tells, so it looks every second, and
//! whenever there is news of a link. It never takes the program off a link: the
//! pins hold it there when the agent ends.

mod attach;
mod namespaces;
mod netlink;

use super::KernelError;
use super::error::innermost;
use super::hooks::LINK;
use super::host;
use super::standing::Making;
use attach::Attacher;
use aya::Ebpf;
use aya::programs::{Program, SchedClassifier};
use namespaces::Found;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the processes' namespaces are looked at.
const LOOK: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// How long a namespace may have been missed before what holds its links is let go.
const MISSED: Duration = Duration::from_secs(2);
/// How often every thread and open file is.
const WALK: Duration = Duration::from_mins(1);

/// The thread, and what it has to say.
#[derive(Debug)]
pub(super) struct Links {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    wake: OwnedFd,
    ends: AtomicBool,
    walks: AtomicBool,
    fault: Mutex<Option<String>>,
}

impl Links {
    /// Attaches to every link there is, then starts looking for more.
    pub(super) fn start(ebpf: &mut Ebpf, pins: &Path, making: Making) -> Result<Self, KernelError> {
        let refused = |detail: String| KernelError::Refused {
            name: "tcx/egress".to_owned(),
            detail,
        };
        let place = pins.join("net");
        host::pin_dir(&place)?;
        let program = reopened(ebpf, &place).map_err(refused)?;
        let shared = Arc::new(Shared {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| refused(error.to_string()))?,
            ends: AtomicBool::new(false),
            walks: AtomicBool::new(false),
            fault: Mutex::new(None),
        });
        let (ready, attached) = channel();
        let worker = Worker {
            attacher: Attacher::new(program, place, making),
            known: BTreeMap::new(),
            walked: None,
            shared: Arc::clone(&shared),
        };
        let worker = std::thread::Builder::new()
            .name("links".to_owned())
            .spawn(move || worker.run(&ready))
            .map_err(|error| refused(error.to_string()))?;
        // An error means that the thread is gone: the fault says so.
        attached.recv().ok();
        Ok(Self {
            shared,
            worker: Some(worker),
        })
    }

    /// The first link that the program is not on, and why.
    pub(super) fn fault(&self) -> Option<String> {
        if self.worker.as_ref().is_none_or(JoinHandle::is_finished) {
            return Some("nobody looks for new links any more".to_owned());
        }
        let fault = self.shared.fault.lock();
        fault.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be called when a group becomes guarded: looks at everything now.
    pub(super) fn look(&self) {
        self.shared.walks.store(true, Ordering::Relaxed);
        // A full counter wakes as well as one more would.
        rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes()).ok();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.look();
        if let Some(worker) = self.worker.take() {
            // A panic of the thread was told on standard error already.
            worker.join().ok();
        }
    }
}

/// The loaded program once more, through a pin: the thread has its own handle.
fn reopened(ebpf: &mut Ebpf, place: &Path) -> Result<SchedClassifier, String> {
    let pin = place.join("program");
    let new = place.join("program_new");
    let program = ebpf.program_mut(LINK).ok_or("the object has none")?;
    let Program::SchedClassifier(program) = program else {
        return Err("it is no classifier".to_owned());
    };
    if new.exists() {
        fs::remove_file(&new).map_err(|error| error.to_string())?;
    }
    program.pin(&new).map_err(|error| innermost(&error))?;
    fs::rename(&new, &pin).map_err(|error| error.to_string())?;
    SchedClassifier::from_pin(&pin).map_err(|error| innermost(&error))
}

/// Takes what no pin holds off the links, before the pins are removed.
pub(super) fn detach(pins: &Path) {
    if attach::uses_netlink() && pins.join("net").exists() {
        for found in namespaces::all(true) {
            if found.enter().is_ok() {
                attach::detach_here();
            }
        }
    }
}

/// A namespace that is looked after.
struct Known {
    found: Found,
    /// Tells of links that come and go.
    news: OwnedFd,
    links: BTreeSet<u32>,
    /// One of them is not held: to be tried again, news or not.
    is_behind: bool,
    /// Since when no walk has found what keeps it alive.
    missed: Option<Instant>,
}

impl Known {
    /// Whether a walk found it, or one that missed it was a moment ago: what keeps a namespace can
    /// pass from process to process behind a walk's back.
    fn stays(&mut self, is_alive: bool) -> bool {
        if is_alive {
            self.missed = None;
            return true;
        }
        self.missed.get_or_insert_with(Instant::now).elapsed() < MISSED
    }

    /// Attaches to what is new. The first link that is not held.
    fn look(&mut self, attacher: &mut Attacher) -> Option<String> {
        let news = netlink::drain(self.news.as_fd());
        if news.lost {
            self.links.clear();
        }
        for gone in &news.gone {
            self.links.remove(gone);
        }
        if !news.any && !self.is_behind {
            return None;
        }
        let mut fault = None;
        attacher.sync(&self.found, &mut self.links, &mut fault);
        self.is_behind = fault.is_some();
        fault
    }
}

struct Worker {
    attacher: Attacher,
    known: BTreeMap<u64, Known>,
    walked: Option<Instant>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self, ready: &Sender<()>) {
        while !self.shared.ends.load(Ordering::Relaxed) {
            let fault = self.round().err();
            if let Some(fault) = &fault {
                tracing::warn!(fault, "a network link is not held");
            }
            let mut told = self.shared.fault.lock();
            **told.as_mut().unwrap_or_else(|poisoned| poisoned.get_mut()) = fault;
            drop(told);
            // Nobody waits any more after the first.
            ready.send(()).ok();
            self.wait();
        }
    }

    fn wait(&self) {
        let mut fds: Vec<_> = self
            .known
            .values()
            .map(|known| PollFd::new(&known.news, PollFlags::IN))
            .collect();
        fds.push(PollFd::new(&self.shared.wake, PollFlags::IN));
        // Interrupted or not, a round follows.
        poll(&mut fds, Some(&LOOK)).ok();
        let mut counter = [0; 8];
        rustix::io::read(&self.shared.wake, &mut counter).ok();
    }

    /// Whether one that was in sight is not found any more.
    fn misses_one(&self, found: &[Found]) -> bool {
        let there: BTreeSet<u64> = found.iter().map(|found| found.inode).collect();
        let mut known = self.known.iter();
        known.any(|(inode, known)| !known.found.hidden && !there.contains(inode))
    }

    /// One look at everything. `Err` is the first link that is not held.
    fn round(&mut self) -> Result<(), String> {
        let asked = self.shared.walks.swap(false, Ordering::Relaxed);
        let mut walks = asked || self.walked.is_none_or(|walked| walked.elapsed() >= WALK);
        let mut found = namespaces::all(walks);
        // One that is gone must be let go: the handle here keeps it alive.
        if !walks && self.misses_one(&found) {
            walks = true;
            found = namespaces::all(true);
        }
        if walks {
            self.walked = Some(Instant::now());
            let alive: BTreeSet<u64> = found.iter().map(|found| found.inode).collect();
            // What only a thread or an open file keeps is seen by a walk alone.
            self.known
                .retain(|inode, known| known.stays(alive.contains(inode)));
            if self.known.values().any(|known| known.missed.is_some()) {
                self.shared.walks.store(true, Ordering::Relaxed);
            }
        }
        let mut fault = None;
        for found in found {
            let inode = found.inode;
            if let Some(known) = self.known.get_mut(&inode) {
                known.found.hidden &= found.hidden;
                continue;
            }
            match self.attacher.begin(&found) {
                Ok(news) => {
                    let known = Known {
                        found,
                        news,
                        links: BTreeSet::new(),
                        is_behind: true,
                        missed: None,
                    };
                    self.known.insert(inode, known);
                }
                // It ended while it was looked at.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    fault.get_or_insert(format!("network namespace {inode}: {error}"));
                }
            }
        }
        for known in self.known.values_mut() {
            if let Some(behind) = known.look(&mut self.attacher) {
                fault.get_or_insert(behind);
            }
        }
        if walks {
            let alive = self
                .known
                .iter()
                .map(|(inode, known)| (*inode, &known.links));
            self.attacher.forget(&alive.collect());
        }
        fault.map_or(Ok(()), Err)
    }
}
