//! Parsing of `/proc/PID`, through one directory handle.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags};
use rustix::time::{ClockId, clock_gettime};

/// No file read here is longer: a cgroup's path is `PATH_MAX`, the rest are lines.
const MAX_BYTES: u64 = 64 << 10;

/// A process's directory in `/proc`.
pub(super) struct Entry(OwnedFd);

impl Entry {
    pub(super) fn open(proc: &Path, pid: u32) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = proc.join(pid.to_string());
        rustix::fs::open(path, flags, Mode::empty()).ok().map(Self)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A second handle on the same process.
    pub(super) fn duplicate(&self) -> Option<Self> {
        self.0.try_clone().ok().map(Self)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty()).ok()?);
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Field 22 of `stat`.
    pub(super) fn start_time_ticks(&self) -> Option<u64> {
        start_time_ticks(&self.read("stat")?)
    }

    pub(super) fn comm(&self) -> Option<String> {
        let bytes = self.read("comm")?;
        Some(printable(bytes.strip_suffix(b"\n").unwrap_or(&bytes)))
    }

    /// The cgroup v2 path.
    pub(super) fn cgroup(&self) -> Option<String> {
        cgroup(&self.read("cgroup")?)
    }

    /// The program's path. Reading the link asks no file system anything.
    pub(super) fn exe(&self) -> Option<String> {
        let link = rustix::fs::readlinkat(&self.0, "exe", Vec::new()).ok()?;
        let bytes = link.as_bytes();
        let bytes = if self.exe_deleted() {
            bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)
        } else {
            bytes
        };
        Some(printable(bytes))
    }

    /// Whether the program's file has no name any more. The link's " (deleted)" alone would be
    /// believed of a file that is called so.
    pub(super) fn exe_deleted(&self) -> bool {
        self.exe_stat().is_some_and(|stat| stat.stx_nlink == 0)
    }

    /// The program's attributes, as far as the kernel has them: a file system in user space must not
    /// be able to keep us waiting.
    pub(super) fn exe_stat(&self) -> Option<Statx> {
        let flags = AtFlags::STATX_DONT_SYNC;
        rustix::fs::statx(&self.0, "exe", flags, StatxFlags::BASIC_STATS).ok()
    }

    /// The program's content; this may wait for its file system.
    pub(super) fn open_exe(&self) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.0, "exe", flags, Mode::empty()).ok()?;
        Some(File::from(file))
    }
}

/// The start time from `stat`. The name in its second field may hold anything, also `)`; it ends at
/// the last one, because the fields after it are numbers and one letter.
pub(super) fn start_time_ticks(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let after = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    // The first field after the name is number 3.
    after.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The cgroup v2 line's path. No name in it can hold a newline (`cgroup_mkdir`,
/// kernel/cgroup/cgroup.c), so a line is a line.
pub(super) fn cgroup(file: &[u8]) -> Option<String> {
    let path = file
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    path.starts_with(b"/").then(|| printable(path))
}

/// Text that a terminal or a log can be given: control characters and broken UTF-8 are escaped.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || is_direction(character) {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    text
}

/// Marks that change the direction in which the rest of a line is shown.
const fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// When a process started, by today's clock.
pub(super) fn ticks_to_ms(ticks: u64) -> Option<u64> {
    let per_second = rustix::param::clock_ticks_per_second();
    let milliseconds = |clock| {
        let time = clock_gettime(clock);
        Some(
            u64::try_from(time.tv_sec).ok()? * 1000 + u64::try_from(time.tv_nsec).ok()? / 1_000_000,
        )
    };
    let boot = milliseconds(ClockId::Realtime)?.checked_sub(milliseconds(ClockId::Boottime)?)?;
    boot.checked_add(ticks.checked_mul(1000)?.checked_div(per_second)?)
}
