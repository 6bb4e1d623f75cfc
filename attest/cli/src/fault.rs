//! Faults of the call: exit 4, one line that says what is wrong and one that says what to do.

use crate::escape::escaped;
use core::fmt;
use merestone_verify::TrustError;
use std::path::Path;

/// The exit code of every fault of the call.
pub(crate) const USAGE: u8 = 4;

/// A fault of the call.
#[derive(Debug)]
pub(crate) enum Fault {
    Read {
        file: String,
        error: String,
    },
    Write {
        file: String,
        error: String,
    },
    TooBig {
        file: String,
        limit: u64,
    },
    NotText {
        file: String,
        line: usize,
        manual: &'static str,
    },
    Exists {
        file: String,
    },
    Random {
        error: String,
    },
    /// An enrolment that goes no further; the exit code is a verdict's.
    Refused {
        exit: u8,
        error: String,
        hint: &'static str,
    },
    Key {
        file: String,
    },
    Trust(TrustError),
    Clock,
}

impl Fault {
    pub(crate) fn read(file: &Path, error: &std::io::Error) -> Self {
        Self::Read {
            file: file.display().to_string(),
            error: lower(error),
        }
    }

    pub(crate) fn write(file: &Path, error: &std::io::Error) -> Self {
        Self::Write {
            file: file.display().to_string(),
            error: lower(error),
        }
    }

    pub(crate) fn random(error: getrandom::Error) -> Self {
        Self::Random {
            error: error.to_string(),
        }
    }

    /// How the program ends.
    pub(crate) const fn exit(&self) -> u8 {
        match self {
            Self::Refused { exit, .. } => *exit,
            _ => USAGE,
        }
    }

    fn parts(&self) -> (String, &'static str) {
        match self {
            Self::Read { file, error } => (
                format!("cannot read {file}: {error}"),
                "name a file that exists and that you may read",
            ),
            Self::Write { file, error } => (
                format!("cannot write {file}: {error}"),
                "name a place that you may write to",
            ),
            Self::TooBig { file, limit } => (
                format!("{file} has more than {limit} bytes"),
                "what is printed or piped is held in memory: ask for a shorter period, or verify a file",
            ),
            Self::NotText { file, line, manual } => {
                (format!("{file}:{line}: not utf-8 text"), manual)
            }
            Self::Exists { file } => (
                format!("{file} exists already"),
                "name another file, or remove that one",
            ),
            Self::Key { file } => (
                format!("{file} is no private key that can sign an ear"),
                "give a pkcs#8 pem file with an ed25519 or p-256 key, as `openssl genpkey -algorithm ed25519` writes it",
            ),
            Self::Random { error } => (
                format!("this machine gives no random numbers: {error}"),
                "without them there is no secret; nothing was written",
            ),
            Self::Refused { error, hint, .. } => (error.clone(), hint),
            Self::Trust(error) => (error.to_string(), crate::files::TRUST_MANUAL),
            Self::Clock => (
                "this machine's clock is before 1970".to_owned(),
                "give the time of the verdict with --at",
            ),
        }
    }
}

impl From<TrustError> for Fault {
    fn from(error: TrustError) -> Self {
        Self::Trust(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (error, hint) = self.parts();
        writeln!(f, "error: {}", escaped(error.trim_end()))?;
        writeln!(f, "hint: {hint}")
    }
}

/// The system's words without its number, as this program writes.
fn lower(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}
