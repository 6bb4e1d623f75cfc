//! How a command ends.

use crate::config::Faults;
use std::error::Error;
use std::process::{ExitCode, Termination};

/// Every exit status of `merestone`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Done; the answer is yes.
    Yes = 0,
    /// Refused or failed; the answer is no.
    No = 1,
    /// The command line was wrong.
    Usage = 2,
    /// The question could not be answered, where "no" means something else
    /// (`policy explain`).
    Unanswered = 3,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// How to exit.
    pub exit: Exit,
    /// Each with what to do about it.
    pub lines: Vec<(String, Option<String>)>,
}

impl Failure {
    /// One line.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            lines: vec![(message.into(), None)],
        }
    }

    /// Says what to do about the last line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some((_, last)) = self.lines.last_mut() {
            *last = Some(hint.into());
        }
        self
    }

    /// The same with another exit status.
    #[must_use]
    pub fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// From any error: its causes on one line, each said once, since many
    /// errors already repeat theirs.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        if let Some(faults) = error.downcast_ref::<Faults>() {
            return faults.clone().into();
        }
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Self::new(Exit::No, message)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        let lines = faults
            .list()
            .iter()
            .map(|fault| {
                (
                    format!("{}: {}", fault.origin, fault.message),
                    fault.hint.clone(),
                )
            })
            .collect();
        Self {
            exit: Exit::No,
            lines,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::of(&error)
    }
}
