//! Why evidence of the place is refused, or is not enough.

use super::area::Lies;
use crate::enrolment::CoseError;
use crate::refusal::Grade;
use merestone_evidence::{DecodeError, Digest};

/// Why evidence of the place is refused, or is not enough.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// Location evidence that is none.
    #[error("location evidence {number}: {source}")]
    Evidence {
        /// Its number in the file.
        number: usize,
        /// Why.
        source: DecodeError,
    },
    /// Nothing sealed it.
    #[error("location evidence {number}: no epoch of the file has its digest {got}")]
    Unsealed {
        /// Its number in the file.
        number: usize,
        /// Its digest.
        got: Digest,
    },
    /// A statement that no pinned landmark signed as it stands.
    #[error("{at}: statement {number} of a landmark: {source}")]
    Signed {
        /// The epoch that sealed it.
        at: String,
        /// Its number in the evidence.
        number: usize,
        /// Why.
        source: CoseError,
    },
    /// A signed statement that is none.
    #[error("{at}: statement of landmark {landmark:?}: {source}")]
    Statement {
        /// The epoch that sealed it.
        at: String,
        /// The landmark.
        landmark: String,
        /// Why.
        source: DecodeError,
    },
    /// It is of something else.
    #[error("{at}: {whose} is of {what} {got}, not {want}")]
    Foreign {
        /// The epoch that sealed it.
        at: String,
        /// Evidence, or whose statement.
        whose: String,
        /// Session, key or nonce.
        what: &'static str,
        /// Found.
        got: String,
        /// Wanted.
        want: String,
    },
    /// A measurement that cannot have been made.
    #[error("{at}: landmark {landmark:?} measured nothing: {detail}")]
    Measured {
        /// The epoch that sealed it.
        at: String,
        /// The landmark.
        landmark: String,
        /// Why.
        detail: String,
    },
    /// Not of the time of the epoch that sealed it.
    #[error("{at}: {whose} is of {got}, and the epoch that sealed it from {from} to {to}")]
    Time {
        /// The epoch that sealed it.
        at: String,
        /// Whose statement.
        whose: String,
        /// Its time.
        got: String,
        /// The epoch's beginning.
        from: String,
        /// The epoch's end.
        to: String,
    },
    /// A landmark that stands elsewhere than the policy says.
    #[error("{at}: landmark {landmark:?} says that it stands at {got}, the policy says {want}")]
    Moved {
        /// The epoch that sealed it.
        at: String,
        /// The landmark.
        landmark: String,
        /// Its word.
        got: String,
        /// The policy's.
        want: String,
    },
    /// Measurements that nothing on earth explains.
    #[error("{at}: no place on earth is as near to all landmarks as they say: faster than light")]
    Nowhere {
        /// The epoch that sealed them.
        at: String,
    },
    /// Not in the area, or perhaps not.
    #[error("{at}: {} the area {area:?}", match got { Lies::Outside => "outside", _ => "overlaps, and so need not be in," })]
    Area {
        /// The epoch that sealed it.
        at: String,
        /// How it lies.
        got: Lies,
        /// The area's name.
        area: String,
    },
    /// Too long without a measurement that shows it in the area.
    #[error(
        "for {got} s from {from} no measurement shows the host in the area; at most {limit} s may be"
    )]
    Stale {
        /// How long.
        got: u64,
        /// From when.
        from: String,
        /// Most.
        limit: u64,
    },
    /// Too few who are independent of the party that is checked, and of one another.
    #[error("{at}: {got} independent parties measured, at least {want} have to")]
    Few {
        /// The epoch that sealed it.
        at: String,
        /// How many.
        got: u64,
        /// Least.
        want: u64,
    },
    /// A session that was never shown to be in the area.
    #[error("no measurement shows the host in the area in the session from {from}")]
    Unmeasured {
        /// Its start.
        from: String,
    },
    /// A cloud's document that does not hold.
    #[error("{at}: document of {provider}: {detail}")]
    Cloud {
        /// The epoch that sealed it.
        at: String,
        /// The cloud.
        provider: String,
        /// Why.
        detail: String,
    },
    /// A cloud's document of something that the policy does not accept.
    #[error("{at}: {provider} says {what} {got:?}, which the policy does not accept")]
    CloudValue {
        /// The epoch that sealed it.
        at: String,
        /// The cloud.
        provider: String,
        /// Region or instance.
        what: &'static str,
        /// Found.
        got: String,
    },
    /// The level asked for is not reached.
    #[error("the place is known to {got}, the policy asks for L{want}: {why}")]
    Level {
        /// Reached.
        got: &'static str,
        /// Asked for.
        want: u8,
        /// What there is of the level.
        why: String,
    },
}

impl LocationError {
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Evidence { .. }
            | Self::Unsealed { .. }
            | Self::Signed { .. }
            | Self::Statement { .. }
            | Self::Foreign { .. }
            | Self::Measured { .. }
            | Self::Nowhere { .. }
            | Self::Cloud { .. } => Grade::Untrusted,
            Self::Time { .. }
            | Self::Moved { .. }
            | Self::Area { .. }
            | Self::Stale { .. }
            | Self::Unmeasured { .. }
            | Self::Few { .. }
            | Self::CloudValue { .. } => Grade::Failed,
            Self::Level { .. } => Grade::Indeterminate,
        }
    }
}
