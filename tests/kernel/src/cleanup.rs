//! What must not be left behind, undone in reverse order: at the end, after a
//! panic, and on SIGINT, SIGTERM and SIGHUP.

use crate::sys;
use std::sync::{Mutex, PoisonError};

type Step = Box<dyn FnOnce() + Send>;

static STEPS: Mutex<Vec<Step>> = Mutex::new(Vec::new());

/// Has `step` run when everything is undone.
pub fn later(step: impl FnOnce() + Send + 'static) {
    STEPS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Box::new(step));
}

/// Undoes everything, last things first.
pub fn now() {
    loop {
        let step = STEPS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match step {
            Some(step) => step(),
            None => return,
        }
    }
}

/// Undoes everything when a signal ends the suite.
pub fn on_signals() -> std::io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    sys::forward_signals(writer)?;
    std::thread::spawn(move || {
        let mut signal = [0];
        if rustix::io::read(&reader, &mut signal).is_ok() {
            now();
            let [signal] = signal;
            sys::leave(128 + i32::from(signal));
        }
    });
    Ok(())
}
