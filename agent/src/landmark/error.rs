//! Why nothing was measured.

use crate::signed::SignedError;
use merestone_evidence::DecodeError;
use std::io;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LandmarkError {
    /// The socket failed.
    #[error("cannot {doing}: {source}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Nobody answered, or not to the end.
    #[error("the landmark sent {challenges} challenges and no statement")]
    Silent {
        /// Challenges that came.
        challenges: u32,
    },
    /// The session ended meanwhile.
    #[error("there is no session whose key could answer")]
    NoSession,
    /// The statement is not signed by the landmark that was asked.
    #[error("the landmark's statement: {0}")]
    Signed(#[from] SignedError),
    /// The statement is none.
    #[error("the landmark's statement: {0}")]
    Statement(#[from] DecodeError),
    /// The statement is of another session.
    #[error("the landmark's statement is not of this session")]
    Foreign,
    /// No random numbers.
    #[error("no random numbers: {source}")]
    Random {
        /// Why.
        source: io::Error,
    },
    /// The metadata service of a cloud said something else.
    #[error("the metadata service answered: {got}")]
    Metadata {
        /// Its answer's first line, or what is wrong with it.
        got: String,
    },
    /// A position that is none.
    #[error("{latitude}, {longitude} is no latitude and longitude in degrees")]
    Position {
        /// Given.
        latitude: f64,
        /// Given.
        longitude: f64,
    },
}
