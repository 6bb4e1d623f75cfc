//! What agent and canary say to each other: one JSON object a line.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The agent to the canary.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Become guarded; the programs are attached.
    Guard {
        /// Where sockets that are older than the guarding are connected to.
        v4: Ipv4Addr,
        /// The same.
        v6: Ipv6Addr,
    },
    /// Try one way out.
    Try {
        /// Which.
        vector: String,
        /// An IPv4 address outside.
        v4: Ipv4Addr,
        /// An IPv6 address outside.
        v6: Ipv6Addr,
    },
}

/// The canary to the agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The device node was opened.
    Opened {
        /// By this process.
        pid: u32,
    },
    /// It could not be.
    NotOpened {
        /// Why.
        why: String,
    },
    /// What became of a try.
    Tried {
        /// What.
        outcome: Outcome,
    },
}

/// What the kernel answered to a try.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It was refused.
    Refused {
        /// The call.
        call: String,
        /// Its error.
        errno: i32,
    },
    /// The kernel took it. Whether it left is for the counters to say.
    Taken {
        /// The last call.
        call: String,
    },
    /// The process was ended by a signal.
    Killed {
        /// Which.
        signal: i32,
    },
    /// There is no such thing on this host.
    Absent {
        /// What is missing.
        why: String,
    },
    /// It could not be tried.
    Broken {
        /// Why.
        why: String,
    },
}

/// What a try came to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Result {
    /// Refused, and counted as refused by the kernel.
    Held,
    /// It got out, or could have.
    Escaped,
    /// Nothing was to be shown here.
    NotApplicable,
    /// It proved neither.
    Error,
}

impl Result {
    /// Every result, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Held, Self::Escaped, Self::NotApplicable, Self::Error];

    /// The word of metric, evidence and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Escaped => "escaped",
            Self::NotApplicable => "not_applicable",
            Self::Error => "error",
        }
    }

    /// Whether somebody has to be told.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Escaped | Self::Error)
    }
}

impl fmt::Display for Result {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
