//! The password of the counters: random, made once, in a file for root alone.
//!
//! It keeps other programs from counting; who is root can read it. Lost with its file, the
//! counters have to be undefined and made anew, and go on above where they were.

use super::{SealError, session::random};
use merestone_tpm::NvAuth;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

const FILE: &str = "nv.auth";
/// As long as the Name algorithm's digest: no TPM takes more.
const LENGTH: usize = 32;

/// The password of this state directory, made where there is none yet.
pub fn nv_auth(state_dir: &Path) -> Result<NvAuth, SealError> {
    let path = state_dir.join(FILE);
    let failed = |source: io::Error| SealError::Secret {
        path: path.clone(),
        source,
    };
    let index = match fs::read(&path) {
        Ok(bytes) if bytes.len() == LENGTH => bytes,
        Ok(bytes) => {
            let text = format!("{} bytes where {LENGTH} belong", bytes.len());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(state_dir).map_err(failed)?;
            let mut bytes = [0; LENGTH];
            random(&mut bytes)?;
            // A TPM drops zeros at the end of a password.
            bytes[LENGTH - 1] |= 1;
            write(&path, &bytes).map_err(failed)?;
            bytes.to_vec()
        }
        Err(error) => return Err(failed(error)),
    };
    Ok(NvAuth {
        owner: Vec::new(),
        index,
    })
}

/// Whole or not at all: half a password would lock the counters.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)
}
