//! `io_uring`: the same operations without the system calls.
#![expect(
    unsafe_code,
    reason = "a submission entry holds raw pointers; each outlives its completion here"
)]

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

/// How long an operation may take that a hook did not refuse.
const PATIENCE: Duration = Duration::from_millis(200);

/// A ring for one operation.
#[expect(missing_debug_implementations, reason = "the ring has none")]
pub(super) struct Ring(IoUring);

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        IoUring::new(4).map(Self)
    }

    /// `IORING_OP_CONNECT`.
    pub(super) fn connect(mut self, socket: &OwnedFd, address: &[u8]) -> io::Result<()> {
        let length = libc::socklen_t::try_from(address.len()).unwrap_or(0);
        let fd = types::Fd(socket.as_raw_fd());
        self.run(&opcode::Connect::new(fd, address.as_ptr().cast(), length).build())
    }

    /// `IORING_OP_SENDMSG` would do as well; an address came to `SEND` in 6.0.
    pub(super) fn send(mut self, socket: &OwnedFd, data: &[u8], address: &[u8]) -> io::Result<()> {
        let fd = types::Fd(socket.as_raw_fd());
        let size = u32::try_from(data.len()).unwrap_or(0);
        let length = libc::socklen_t::try_from(address.len()).unwrap_or(0);
        let entry = opcode::Send::new(fd, data.as_ptr(), size)
            .dest_addr(address.as_ptr().cast())
            .dest_addr_len(length);
        self.run(&entry.build())
    }

    /// Callers keep what `entry` points at alive until this returns; after that
    /// the ring is dropped, which cancels what is still under way.
    fn run(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: the callers' slices outlive this call, see above.
        unsafe { self.0.submission().push(entry) }.map_err(io::Error::other)?;
        let patience = types::Timespec::from(PATIENCE);
        let arguments = types::SubmitArgs::new().timespec(&patience);
        match self.0.submitter().submit_with_args(1, &arguments) {
            // Under way, and not refused.
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                return Err(io::Error::from_raw_os_error(libc::EINPROGRESS));
            }
            outcome => outcome?,
        };
        let result = self.0.completion().next().map_or(0, |done| done.result());
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(())
    }
}
