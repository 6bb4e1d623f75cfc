//! What is wrong with an operator's file, where, and what to write instead.
//!
//! Every fault of a file is gathered before any is reported, so that one run
//! of `policy check` shows all there is to mend. A fault never carries the
//! value of a key that may hold a secret; it names the key.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// A place in a file; line and column count from 1, columns in characters.
    File {
        /// The file as the operator named it.
        path: PathBuf,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// A file as a whole.
    Whole {
        /// The file as the operator named it.
        path: PathBuf,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        name: String,
    },
    /// A command-line flag.
    Flag {
        /// The flag as typed.
        name: String,
    },
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Whole { path } => write!(f, "{}", path.display()),
            Self::Environment { name } => write!(f, "environment {name}"),
            Self::Flag { name } => write!(f, "flag {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Fault {
    /// Where.
    pub origin: Origin,
    /// What, in lower case and without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with one input; as an error never empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    list: Vec<Fault>,
}

impl Faults {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes one with a hint.
    pub fn push(&mut self, origin: Origin, message: impl Into<String>, hint: impl Into<String>) {
        let hint = hint.into();
        self.list.push(Fault {
            origin,
            message: message.into(),
            hint: (!hint.is_empty()).then_some(hint),
        });
    }

    /// Takes over those of another input.
    pub fn append(&mut self, other: Self) {
        self.list.extend(other.list);
    }

    /// Every fault, in the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The value if nothing is wrong, otherwise the faults in file order.
    pub fn into_result<T>(mut self, value: T) -> Result<T, Self> {
        if self.list.is_empty() {
            return Ok(value);
        }
        self.list.sort();
        self.list.dedup();
        Err(self)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Reads a whole file an operator wrote, or says what to do about it.
pub(crate) fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, Faults> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let whole = || Origin::Whole {
        path: path.to_owned(),
    };
    let mut faults = Faults::new();
    let outcome = std::fs::File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut bytes));
    match outcome {
        Err(error) => {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "write the file, or name another one",
                std::io::ErrorKind::PermissionDenied => {
                    "run as a user who may read it, or mend its permissions"
                }
                std::io::ErrorKind::IsADirectory => "name the file, not its directory",
                _ => "",
            };
            faults.push(whole(), format!("cannot be read: {}", plain(&error)), hint);
        }
        Ok(_) if bytes.len() as u64 > limit_bytes => faults.push(
            whole(),
            format!("is larger than {limit_bytes} bytes"),
            "is this the right file?",
        ),
        Ok(_) => {}
    }
    faults.into_result(bytes)
}

/// The operating system's words, in the voice of the tool.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_out_in_the_order_of_the_file_and_once() {
        let at = |line, column| Origin::File {
            path: "b.toml".into(),
            line,
            column,
        };
        let mut faults = Faults::new();
        faults.push(at(10, 1), "later", "");
        faults.push(at(2, 4), "sooner", "do this");
        faults.push(at(2, 4), "sooner", "do this");
        let text = faults.into_result(()).unwrap_err().to_string();
        assert_eq!(
            text,
            "b.toml:2:4: sooner\n  hint: do this\nb.toml:10:1: later"
        );
    }

    #[test]
    fn a_missing_file_is_one_line_that_says_what_to_do() {
        let faults = read(Path::new("/nonexistent/b.toml"), 10).unwrap_err();
        assert_eq!(
            faults.to_string(),
            "/nonexistent/b.toml: cannot be read: no such file or directory\n  \
             hint: write the file, or name another one"
        );
    }
}
