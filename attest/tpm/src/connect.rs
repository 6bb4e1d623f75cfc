//! Connecting to a TPM.
//!
//! libtss2 opens devices and sockets without `O_CLOEXEC` (tcti-device.c, util-io/io.c), and every
//! child would hold the agent's way to its TPM. They are marked here, as soon as they are open; a
//! child that another thread makes in that very moment still gets them.

#![expect(
    unsafe_code,
    reason = "libtss2 keeps its descriptors to itself; they are known by their numbers"
)]

use rustix::{
    fd::{BorrowedFd, RawFd},
    io::{FdFlags, fcntl_getfd, fcntl_setfd},
};
use std::{collections::BTreeSet, fs};
use tss_esapi::{Context, Error, TctiNameConf};

/// A context of the TPM behind `tcti`.
pub(crate) fn connect(tcti: TctiNameConf) -> Result<Context, Error> {
    let before = open_files();
    let context = Context::new(tcti)?;
    for file in open_files().difference(&before) {
        keep_from_children(*file);
    }
    Ok(context)
}

/// The numbers of this process's files; none where /proc is not there.
fn open_files() -> BTreeSet<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect()
}

fn keep_from_children(file: RawFd) {
    // SAFETY: the descriptor was open a moment ago, is used for these two calls alone and not
    // closed. Where another thread closed it meanwhile they fail with EBADF, or mark what it
    // opened since, which Rust's library has marked already.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    if let Ok(flags) = fcntl_getfd(file) {
        fcntl_setfd(file, flags | FdFlags::CLOEXEC).ok();
    }
}
