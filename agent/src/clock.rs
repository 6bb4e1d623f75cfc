//! The clocks evidence carries, and what the kernel says of their quality.
//!
//! Wall time is for people and may jump; boot time only moves forward and
//! counts suspend. Nothing here corrects a clock, and nothing in the evidence
//! rests on the wall clock being right: the TPM's own clock is in every quote.
#![expect(
    unsafe_code,
    reason = "adjtimex(2) has no safe wrapper among our dependencies"
)]

use merestone_evidence::ClockQuality;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

/// Milliseconds since the Unix epoch; 0 for a clock before it.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`).
#[must_use]
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// How long the host has slept since boot, in milliseconds: what boot time
/// counts and monotonic time does not.
#[must_use]
pub fn slept_ms() -> u64 {
    let awake = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(awake.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(awake.tv_nsec).unwrap_or_default();
    let awake_ns = seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds);
    boot_ns().saturating_sub(awake_ns) / 1_000_000
}

/// What the kernel's clock discipline says (kernel/time/ntp.c). Without a time
/// service `error_us` grows until the kernel calls the clock unsynchronised.
#[must_use]
pub fn quality() -> ClockQuality {
    // SAFETY: `timex` is plain integers, for which all zeroes is a value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is valid for writes, and `modes` 0 only reads.
    let status = unsafe { libc::adjtimex(&raw mut state) };
    if status < 0 {
        return ClockQuality {
            synchronised: false,
            error_us: None,
        };
    }
    ClockQuality {
        synchronised: status != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0,
        error_us: u64::try_from(state.maxerror).ok(),
    }
}

/// The kernel's random id of this boot; empty where /proc does not show it.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_moves_forward_and_wall_time_is_of_this_century() {
        let before = boot_ns();
        assert!(before > 0 && boot_ns() >= before);
        assert!(now_ms() > 1_600_000_000_000);
        assert_eq!(boot_id().len(), 36);
    }

    #[test]
    fn an_unsynchronised_clock_is_not_called_synchronised() {
        let quality = quality();
        // 16 s is the kernel's own limit (NTP_PHASE_LIMIT) for calling a clock good.
        if quality.error_us.is_none_or(|error| error >= 16_000_000) {
            assert!(!quality.synchronised);
        }
    }
}
