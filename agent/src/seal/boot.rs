//! The logs of this boot: what the firmware and the kernel say they measured.
//!
//! Both are read *after* a quote. The verifier cuts the measurement list to the
//! part that the quoted PCR 10 explains; a list read before the quote could be
//! too short for it, one read after can only be too long.
//!
//! The list only grows within a boot, so the freshest one explains every quote
//! of the boot: each session keeps one list, read at its start and again
//! whenever a quote shows that PCR 10 has moved.

use crate::ledger::LOG_LIMIT;
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Where the logs are.
#[derive(Debug, Clone)]
pub struct BootLogs {
    /// The firmware's event log.
    pub boot: PathBuf,
    /// The kernel's measurement list.
    pub ima: PathBuf,
}

impl BootLogs {
    /// The kernel's files for a TPM of this host, none for another: the logs of
    /// one machine do not explain the registers of another's TPM.
    pub(super) fn of(is_local: bool) -> Self {
        let path = |path: &str| {
            if is_local {
                PathBuf::from(path)
            } else {
                PathBuf::new()
            }
        };
        Self {
            boot: path("/sys/kernel/security/tpm0/binary_bios_measurements"),
            ima: path("/sys/kernel/security/ima/binary_runtime_measurements"),
        }
    }
}

/// The file's bytes; `None` where the host has none. securityfs files have no
/// length, so they are read to the end.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    if path.as_os_str().is_empty() {
        return None;
    }
    match read_whole(path) {
        Ok(bytes) if bytes.is_empty() => None,
        Ok(bytes) if bytes.len() as u64 > LOG_LIMIT => {
            tracing::warn!(path = %path.display(), limit = LOG_LIMIT, "log is too long to be evidence; left out");
            None
        }
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "log cannot be read; left out of the evidence");
            None
        }
    }
}

fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LOG_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
