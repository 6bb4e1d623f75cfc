//! Words on stdout and stderr, in one voice: `error:` then `hint:`.

use super::{Exit, Failure};
use std::io::{self, Write as _};
use std::path::Path;

/// One line, or several, on stdout. A reader that went away is not an error.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let outcome = writeln!(out, "{text}").and_then(|()| out.flush());
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A value as JSON on stdout.
pub(super) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(&text),
        Err(error) => Err(Failure::of(&error)),
    }
}

/// The lines of a failure on stderr.
pub(super) fn failure(failure: &Failure) -> Exit {
    let mut text = String::new();
    for (message, hint) in &failure.lines {
        text.push_str("error: ");
        text.push_str(message);
        text.push('\n');
        if let Some(hint) = hint {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
    }
    // With stderr gone there is no one left to tell.
    io::stderr().write_all(text.as_bytes()).ok();
    failure.exit
}

/// What clap has to say: help on stdout, a wrong command line on stderr.
pub(super) fn usage(error: &clap::Error) -> Exit {
    error.print().ok();
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Yes
    }
}

/// Writes a file whole: a reader sees all of it or none.
pub(super) fn file(path: &Path, bytes: &[u8], force: bool) -> Result<(), Failure> {
    if !force && path.exists() {
        let message = format!("{} exists already", path.display());
        return Err(Failure::new(Exit::No, message).hint("overwrite it with --force"));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let written = std::fs::write(beside, bytes).and_then(|()| std::fs::rename(beside, path));
    written.map_err(|error| {
        Failure::new(
            Exit::No,
            format!("cannot write {}: {error}", path.display()),
        )
        .hint("name a file in a directory you may write to")
    })
}
