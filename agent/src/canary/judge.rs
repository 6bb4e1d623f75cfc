//! What a try came to: by what the caller heard and what the kernel counted.
//!
//! Both must say the same for "held". Anything let through, audited or taken
//! without a refusal behind it is an escape; what says neither is an error.

use super::vector::{Taken, Vector};
use super::words::{Outcome, Result};
use merestone_abi::GroupCount;

/// By how much the counts of the canary's group moved during a try.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moved {
    /// Packets let through.
    pub allowed: u64,
    /// Decisions refused.
    pub denied: u64,
    /// Decisions that were only reported.
    pub audited: u64,
}

impl Moved {
    /// From one reading to the next.
    #[must_use]
    pub fn between(before: &GroupCount, after: &GroupCount) -> Self {
        Self {
            allowed: after.allowed.saturating_sub(before.allowed),
            denied: after.denied.saturating_sub(before.denied),
            audited: after.audited.saturating_sub(before.audited),
        }
    }
}

/// A verdict on a try, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub result: Result,
    /// What was seen.
    pub proof: String,
}

/// Judges a try.
#[must_use]
pub fn judge(vector: &Vector, outcome: &Outcome, moved: Moved) -> Judged {
    let (result, heard) = match outcome {
        Outcome::Absent { why } if moved == Moved::default() => {
            return Judged {
                result: Result::NotApplicable,
                proof: why.clone(),
            };
        }
        Outcome::Absent { why } => (Result::Error, why.clone()),
        Outcome::Broken { why } => (Result::Error, format!("could not be tried: {why}")),
        Outcome::Killed { signal } => {
            (killed(*signal, moved), format!("killed by signal {signal}"))
        }
        Outcome::Refused { call, errno } => (
            refused(vector, *errno, moved),
            format!("{call}: {}", errno_name(*errno)),
        ),
        Outcome::Taken { call } => (taken(vector, moved), format!("{call}: taken")),
    };
    let result = if moved.allowed > 0 || moved.audited > 0 {
        Result::Escaped
    } else {
        result
    };
    Judged {
        result,
        proof: format!("{heard}; {}", counted(moved)),
    }
}

/// One call, one refusal: more would be somebody else's, none means that no
/// hook refused it.
fn refused(vector: &Vector, errno: i32, moved: Moved) -> Result {
    if vector.errnos.contains(&errno) && moved.denied == 1 {
        Result::Held
    } else {
        Result::Error
    }
}

/// Each system call of the process until the signal counts may be refused.
fn killed(signal: i32, moved: Moved) -> Result {
    if signal == libc::SIGKILL && moved.denied > 0 {
        Result::Held
    } else {
        Result::Error
    }
}

fn taken(vector: &Vector, moved: Moved) -> Result {
    match vector.taken {
        // A retransmission is refused again.
        Taken::AskCounters if moved.denied > 0 => Result::Held,
        Taken::AskCounters | Taken::Escaped => Result::Escaped,
    }
}

fn counted(moved: Moved) -> String {
    let Moved {
        allowed,
        denied,
        audited,
    } = moved;
    let mut words = vec![format!("{denied} denied")];
    if allowed > 0 {
        words.push(format!("{allowed} ALLOWED"));
    }
    if audited > 0 {
        words.push(format!("{audited} AUDITED"));
    }
    words.join(", ")
}

/// The name by which people know an error, for those that are met here.
fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::ENOBUFS => "ENOBUFS",
        libc::EINVAL => "EINVAL",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENXIO => "ENXIO",
        libc::ENODEV => "ENODEV",
        _ => return std::io::Error::from_raw_os_error(errno).to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::vector::{VECTORS, find};
    use super::*;

    fn result(name: &str, outcome: &Outcome, moved: (u64, u64, u64)) -> Result {
        let (allowed, denied, audited) = moved;
        let moved = Moved {
            allowed,
            denied,
            audited,
        };
        judge(&VECTORS[find(name).unwrap()], outcome, moved).result
    }

    fn refused(errno: i32) -> Outcome {
        Outcome::Refused {
            call: "connect".to_owned(),
            errno,
        }
    }

    fn taken() -> Outcome {
        Outcome::Taken {
            call: "send".to_owned(),
        }
    }

    #[test]
    fn held_takes_both_the_error_and_the_kernels_count() {
        assert_eq!(
            result("tcp4", &refused(libc::EPERM), (0, 1, 0)),
            Result::Held
        );
        assert_eq!(
            result("tcp4", &refused(libc::EPERM), (0, 0, 0)),
            Result::Error
        );
        assert_eq!(
            result("tcp4", &refused(libc::EPERM), (0, 2, 0)),
            Result::Error
        );
        for other in [libc::ENETUNREACH, libc::ECONNREFUSED, libc::EACCES] {
            assert_eq!(result("tcp4", &refused(other), (0, 1, 0)), Result::Error);
            assert_eq!(result("tcp4", &refused(other), (0, 0, 0)), Result::Error);
        }
    }

    #[test]
    fn a_packet_dropped_in_silence_is_held_by_the_count_alone() {
        assert_eq!(result("tcp4", &taken(), (0, 1, 0)), Result::Held);
        assert_eq!(
            result("packet", &refused(libc::ENOBUFS), (0, 1, 0)),
            Result::Held
        );
        assert_eq!(result("tcp4", &taken(), (0, 0, 0)), Result::Escaped);
    }

    #[test]
    fn whatever_is_let_through_or_only_audited_is_an_escape() {
        for outcome in [refused(libc::EPERM), taken()] {
            assert_eq!(result("udp4", &outcome, (1, 1, 0)), Result::Escaped);
            assert_eq!(result("udp4", &outcome, (0, 1, 1)), Result::Escaped);
        }
        let absent = Outcome::Absent {
            why: "none".to_owned(),
        };
        assert_eq!(result("udp4", &absent, (1, 0, 0)), Result::Escaped);
        assert_eq!(result("udp4", &absent, (0, 1, 0)), Result::Error);
        assert_eq!(result("udp4", &absent, (0, 0, 0)), Result::NotApplicable);
    }

    #[test]
    fn a_call_that_must_not_succeed_is_an_escape_whatever_is_counted() {
        assert_eq!(result("mark", &taken(), (0, 0, 0)), Result::Escaped);
        assert_eq!(result("mark", &taken(), (0, 1, 0)), Result::Escaped);
        assert_eq!(
            result("mark", &refused(libc::EPERM), (0, 1, 0)),
            Result::Held
        );
    }

    #[test]
    fn a_kill_is_held_only_where_the_kernel_counted_a_refusal() {
        let killed = |signal| Outcome::Killed { signal };
        assert_eq!(result("vsock", &killed(9), (0, 1, 0)), Result::Held);
        assert_eq!(result("vsock", &killed(9), (0, 0, 0)), Result::Error);
        assert_eq!(result("vsock", &killed(11), (0, 1, 0)), Result::Error);
        let broken = Outcome::Broken {
            why: "no time".to_owned(),
        };
        assert_eq!(result("vsock", &broken, (0, 0, 0)), Result::Error);
    }
}
