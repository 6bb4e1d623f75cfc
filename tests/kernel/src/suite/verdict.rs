//! What a case came to, and why.

use crate::catalog::{Expect, Oracle, Tree, Vector};
use crate::holder::Status;
use crate::lab::Phase;
use crate::sniffer::Tally;
use std::time::Duration;

/// A refusal that takes longer is not "at once".
pub(super) const AT_ONCE: Duration = Duration::from_secs(1);

/// What a case came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// As it must be, and what was seen.
    Pass(String),
    /// It got out, and the agent says that it does not cover this.
    Declared(String),
    /// This kernel does not have it.
    Absent(String),
    /// Not as it must be.
    Fail(String),
}

impl Outcome {
    /// An error of a trial is a failure of it.
    pub(super) fn of_trial(outcome: anyhow::Result<String>) -> Self {
        match outcome {
            Ok(seen) => Self::Pass(seen),
            Err(error) => Self::Fail(format!("{error:#}")),
        }
    }
}

/// One try of a probe.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) pid: u32,
    pub(super) errno: Option<i32>,
    pub(super) elapsed: Duration,
}

/// Everything seen of one run of a vector.
#[derive(Clone, Debug, Default)]
pub(super) struct Sighting {
    pub(super) tally: Tally,
    pub(super) attempts: Vec<Attempt>,
    pub(super) families: Option<Vec<String>>,
    pub(super) inside: Option<Vec<String>>,
}

impl Sighting {
    /// Whether anything got out, by the vector's own oracle.
    pub(super) fn leaked(&self, vector: &Vector) -> bool {
        let Tally {
            markers,
            syns,
            data,
            bare,
        } = self.tally;
        match vector.oracle {
            Oracle::Wire => markers + syns + data > 0,
            Oracle::Payload => markers + data > 0,
            Oracle::Address => syns + data + bare > 0,
            Oracle::Answer => match &self.families {
                Some(families) => families.iter().any(|name| unexpected(name)),
                None => self.attempts.iter().any(|attempt| attempt.errno.is_none()),
            },
        }
    }

    /// What the calls said, in a word.
    pub(super) fn answers(&self) -> String {
        let mut words: Vec<_> = self
            .attempts
            .iter()
            .map(|attempt| name(attempt.errno))
            .collect();
        words.dedup();
        words.join(" ")
    }

    fn refused_at_once(&self) -> bool {
        !self.attempts.is_empty()
            && self
                .attempts
                .iter()
                .all(|attempt| attempt.errno == Some(libc::EPERM) && attempt.elapsed < AT_ONCE)
    }
}

/// Whether a family beyond the few an inference server needs could be made.
fn unexpected(created: &str) -> bool {
    let mut parts = created.split('/');
    let (family, _kind, protocol) = (parts.next(), parts.next(), parts.next());
    let family = family.and_then(|word| word.parse().ok()).unwrap_or(0);
    match family {
        libc::AF_UNIX | libc::AF_INET | libc::AF_INET6 => false,
        // NETLINK_ROUTE alone: getaddrinfo asks it for the host's addresses.
        libc::AF_NETLINK => protocol != Some("0"),
        _ => true,
    }
}

fn name(errno: Option<i32>) -> String {
    match errno {
        None => "ok".to_owned(),
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::EAGAIN) => "EAGAIN".to_owned(),
        Some(libc::EINPROGRESS) => "EINPROGRESS".to_owned(),
        Some(libc::ENOBUFS) => "ENOBUFS".to_owned(),
        Some(code) => format!("errno {code}"),
    }
}

/// Answers that mean: this kernel was built without.
const ABSENT: [i32; 7] = [
    libc::EPROTONOSUPPORT,
    libc::EAFNOSUPPORT,
    libc::ESOCKTNOSUPPORT,
    libc::ENOPROTOOPT,
    libc::EOPNOTSUPP,
    libc::ENOSYS,
    libc::EINVAL,
];

/// An unguarded run: the way must be open.
pub(super) fn unguarded(vector: &Vector, seen: &Sighting) -> Outcome {
    let answers = seen.answers();
    if seen.leaked(vector) {
        let inside = seen.inside.iter().flatten().next();
        return match inside {
            Some(error) => Outcome::Fail(format!("cannot talk to the allowed host: {error}")),
            None => Outcome::Pass(format!("leaks ({})", seen.tally)),
        };
    }
    let absent = |attempt: &Attempt| attempt.errno.is_some_and(|code| ABSENT.contains(&code));
    if vector.optional && seen.attempts.iter().any(absent) {
        return Outcome::Absent(format!("this kernel has no such thing ({answers})"));
    }
    Outcome::Fail(format!("the way is not open to begin with ({answers})"))
}

/// A guarded run, apart from its events: `Ok` with what was seen.
pub(super) fn guarded(vector: &Vector, phase: Phase, seen: &Sighting, status: &Status) -> Outcome {
    let (leaked, answers) = (seen.leaked(vector), seen.answers());
    let shown = if seen.families.is_some() {
        format!(
            "{:?}",
            seen.families
                .iter()
                .flatten()
                .filter(|name| unexpected(name))
                .collect::<Vec<_>>()
        )
    } else {
        format!("{}; calls said {answers}", seen.tally)
    };
    if let Some(error) = seen.inside.iter().flatten().next() {
        return Outcome::Fail(format!("cannot talk to the allowed host any more: {error}"));
    }
    let declared = |word: &str| match status.declares(word) {
        Some(entry) => Outcome::Declared(format!("{entry} [{shown}]")),
        None => Outcome::Fail(format!(
            "LEAK: {shown}; and no uncovered entry names {word:?}"
        )),
    };
    if leaked
        && phase == Phase::Tree
        && let Tree::Declared(word) = vector.tree
    {
        return declared(word);
    }
    match vector.expect {
        Expect::Families(word) | Expect::Family(word) if leaked && !status.lsm() => declared(word),
        Expect::Declared(word) if leaked => declared(word),
        _ if leaked => Outcome::Fail(format!("LEAK: {shown}")),
        // Without LSM such a socket can be made; what it sends is held below.
        Expect::Family(_) if !status.lsm() => Outcome::Pass(answers),
        Expect::Refused | Expect::Family(_) if !seen.refused_at_once() => {
            let slowest = seen.attempts.iter().map(|attempt| attempt.elapsed).max();
            Outcome::Fail(format!(
                "held, but not by EPERM at once: {answers} after {slowest:?}"
            ))
        }
        _ => Outcome::Pass(answers),
    }
}
