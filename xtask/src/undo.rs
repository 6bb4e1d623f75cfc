//! Takes away what a run made, at its end and also when it is interrupted.
//!
//! Everything that outlives a function (a process, a namespace, a directory)
//! is registered here with the action that removes it. A signal runs all of
//! them, newest first, and only then ends the program. It does not survive
//! SIGKILL; `cargo xtask cleanup` is for that.

use std::{
    process,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::progress;

type Action = Box<dyn FnOnce() + Send>;

static REGISTERED: Mutex<Registry> = Mutex::new(Registry {
    next: 0,
    actions: Vec::new(),
});
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

struct Registry {
    next: u64,
    actions: Vec<(u64, Action)>,
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something made by this run; dropping it takes it away.
#[must_use = "dropping this takes the thing away at once"]
#[derive(Debug)]
pub(crate) struct Undo(u64);

impl Undo {
    /// Registers what takes the thing away again.
    pub(crate) fn new(action: impl FnOnce() + Send + 'static) -> Self {
        if INTERRUPTED.load(Ordering::SeqCst) {
            action();
            wait_for_the_end();
        }
        let mut registry = registry();
        let id = registry.next;
        registry.next += 1;
        registry.actions.push((id, Box::new(action)));
        Self(id)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let mut registry = registry();
        let found = registry.actions.iter().position(|(id, _)| *id == self.0);
        let action = found.map(|at| registry.actions.remove(at).1);
        drop(registry);
        if let Some(action) = action {
            action();
        }
    }
}

/// From here on SIGINT, SIGTERM and SIGHUP take everything away first.
pub(crate) fn catch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            progress::line("interrupted: taking everything away again");
            let actions = std::mem::take(&mut registry().actions);
            for (_, action) in actions.into_iter().rev() {
                action();
            }
            leave(128 + signal);
        }
    });
    Ok(())
}

/// Keeps a thread from going on, or out, while the signal's thread cleans up.
pub(crate) fn yield_to_interruption() {
    if INTERRUPTED.load(Ordering::SeqCst) {
        wait_for_the_end();
    }
}

fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

#[expect(clippy::exit, reason = "the only way out of the signal's thread")]
fn leave(code: i32) -> ! {
    process::exit(code)
}
