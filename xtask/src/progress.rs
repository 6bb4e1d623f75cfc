//! What a person watching sees: one line a step, with the time it took.
//!
//! Nothing else in xtask prints. A reader that went away (a closed pipe) never
//! stops the work.

use std::{
    fmt::Display,
    io::{self, Write as _},
    time::Instant,
};

/// Prints one line.
pub(crate) fn line(text: impl Display) {
    let mut out = io::stdout().lock();
    // A closed pipe must not leave namespaces and virtual machines behind.
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {}
}

/// Prints the heading of a step and, when the step ends, how long it took.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    began: Instant,
}

impl Step {
    /// Begins a step; `why` says what it is for, or how long it takes.
    pub(crate) fn begin(name: impl Into<String>, why: impl Display) -> Self {
        let name = name.into();
        line(format_args!("==> {name}: {why}"));
        Self {
            name,
            began: Instant::now(),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        line(format_args!(
            "    {}: {:.1} s",
            self.name,
            self.began.elapsed().as_secs_f32()
        ));
    }
}
