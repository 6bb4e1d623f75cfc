//! Why sound evidence is not what the policy asks for.

use crate::refusal::Grade;

/// Why sound evidence is not what the policy asks for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// Not one of the accepted values.
    #[error("{at}: {what} is {got}, which the policy does not accept")]
    Value {
        /// Which statement.
        at: String,
        /// Of what.
        what: &'static str,
        /// Found.
        got: String,
    },
    /// The file is about another period.
    #[error("the file covers {got}, the policy asks for {want}")]
    Period {
        /// Its period.
        got: String,
        /// The period asked for.
        want: String,
    },
    /// A stretch without evidence.
    #[error("nothing was sealed for {seconds} s from {from} ({reason}); at most {limit} s may be")]
    Gap {
        /// Its length.
        seconds: u64,
        /// Its start.
        from: String,
        /// Why.
        reason: &'static str,
        /// Longest allowed.
        limit: u64,
    },
    /// A GPU worked while nobody watched.
    #[error(
        "gpu {uuid:?} used {got} J beyond being idle from {from} to {to}, while no session watched; at most {limit} J may be"
    )]
    Dark {
        /// The device.
        uuid: String,
        /// Joules.
        got: u64,
        /// Last read before.
        from: String,
        /// First read after.
        to: String,
        /// Most allowed.
        limit: u64,
    },
    /// Nothing to judge a period by.
    #[error("nothing of the period is attested")]
    Nothing,
    /// Too old or not yet.
    #[error("the last epoch closed at {got}, {what} {want}")]
    Age {
        /// When.
        got: String,
        /// Before or after.
        what: &'static str,
        /// The limit.
        want: String,
    },
    /// A tier that should have been in force.
    #[error("{at}: tier {want:?} is not in force, only {got:?}")]
    Tier {
        /// Which statement.
        at: String,
        /// The tier.
        want: String,
        /// Those in force.
        got: Vec<String>,
    },
    /// Too many of something.
    #[error("{got} {what}; at most {limit} may be")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many.
        got: u64,
        /// How many may be.
        limit: u64,
    },
    /// Ways out.
    #[error("nothing covers: {got}")]
    Uncovered {
        /// Which.
        got: String,
    },
    /// A place that was not stated.
    #[error("{got} sessions state no {what}, the policy accepts only some")]
    Unstated {
        /// How many.
        got: u64,
        /// Country or region.
        what: &'static str,
    },
    /// A register that the policy names and the evidence lacks.
    #[error("{at}: the policy names register {register}, which no quote of this session selects")]
    NoRegister {
        /// Which session.
        at: String,
        /// The register.
        register: u8,
    },
}

impl PolicyError {
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::NoRegister { .. } | Self::Unstated { .. } => Grade::Indeterminate,
            _ => Grade::Failed,
        }
    }
}
