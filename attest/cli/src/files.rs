//! Files in and out: sizes capped, secrets for the owner alone, nothing overwritten unasked.

use crate::fault::Fault;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) const TRUST_MANUAL: &str = "docs/trust.md is the manual of the trust policy";
pub(crate) const AUTHORITY_MANUAL: &str = "docs/enrolment.md is the manual of authority.toml";
/// A file that a policy names.
const MAX_NAMED: u64 = 4 << 20;

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Everybody.
    Public,
    /// Its owner.
    Private,
}

/// A whole file; `-` is standard input.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let source: Box<dyn std::io::Read> = if path.as_os_str() == OsStr::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| Fault::read(path, &error))?)
    };
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Fault::read(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Fault::TooBig {
            file: path.display().to_string(),
            limit,
        });
    }
    Ok(bytes)
}

/// A whole file of text.
pub(crate) fn text(path: &Path, limit: u64, manual: &'static str) -> Result<String, Fault> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes).map_err(|error| Fault::NotText {
        file: path.display().to_string(),
        line: 1 + error
            .as_bytes()
            .iter()
            .take(error.utf8_error().valid_up_to())
            .filter(|byte| **byte == b'\n')
            .count(),
        manual,
    })
}

/// A file that the policy `at` names: relative names are from the policy's own folder.
pub(crate) fn named_in(at: &Path, named: &str) -> Result<Vec<u8>, String> {
    let folder = at.parent().unwrap_or(Path::new(""));
    let path = folder.join(named);
    let said = |error: &std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    File::open(&path)
        .map_err(|error| said(&error))?
        .take(MAX_NAMED + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| said(&error))?;
    if bytes.len() as u64 > MAX_NAMED {
        return Err(format!(
            "{} has more than {MAX_NAMED} bytes",
            path.display()
        ));
    }
    Ok(bytes)
}

/// Refuses to go on where a file would be overwritten.
pub(crate) fn absent(path: &Path) -> Result<(), Fault> {
    if path.exists() {
        return Err(Fault::Exists {
            file: path.display().to_string(),
        });
    }
    Ok(())
}

/// Writes a file that is not there yet.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), Fault> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    restrict(&mut options, mode);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Fault::Exists {
            file: path.display().to_string(),
        },
        _ => Fault::write(path, &error),
    })
}

/// Writes a file whole, in the place of one that may be there.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), Fault> {
    let part = with_suffix(path, ".part");
    write_new(&part, bytes, mode)?;
    std::fs::rename(&part, path).map_err(|error| Fault::write(path, &error))
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(unix)]
fn restrict(options: &mut OpenOptions, mode: Mode) {
    use std::os::unix::fs::OpenOptionsExt as _;
    if mode == Mode::Private {
        options.mode(0o600);
    }
}

/// Elsewhere the folder's own rights have to do.
#[cfg(not(unix))]
fn restrict(_: &mut OpenOptions, _: Mode) {}

pub(crate) fn now_ms() -> Result<u64, Fault> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    since
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .ok_or(Fault::Clock)
}

/// A time for people.
pub(crate) fn rfc3339(at_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{at_ms} ms after 1970"))
}
