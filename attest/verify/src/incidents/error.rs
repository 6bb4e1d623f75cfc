//! Why what the log tells of enforcement is not accepted. All of it is sound evidence of what
//! should not have been: it fails the policy and does not spoil the file.

/// Why what the log tells of enforcement is not accepted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IncidentError {
    /// Something was not as it had been left.
    #[error("{at}: {what} was not kept: {detail}")]
    Unkept {
        /// Which entry.
        at: String,
        /// What.
        what: String,
        /// In the agent's words.
        detail: String,
    },
    /// More of them than are worth a line each.
    #[error("and {more} more")]
    More {
        /// How many.
        more: u64,
    },
    /// An attempt passed without an opening.
    #[error("{at}: {attempt} was let through, and no break-glass is shown open then")]
    LetThrough {
        /// Which entry.
        at: String,
        /// What was tried.
        attempt: String,
    },
    /// The host was started anew, and the TPM was not.
    #[error(
        "{at}: the host was started anew, and the tpm's reset count stayed {resets}: another kernel was put in place"
    )]
    Restarted {
        /// Which entry.
        at: String,
        /// The count.
        resets: u32,
    },
    /// Protection was opened.
    #[error(
        "protection was opened {openings} times ({who}); add \"{permit}\" to permit to accept it"
    )]
    Opened {
        /// How often.
        openings: u64,
        /// For what, by whom.
        who: String,
        /// The word that permits it.
        permit: &'static str,
    },
    /// An entry that belongs to another one, which is not there.
    #[error("{at}: {what}")]
    Alone {
        /// Which entry.
        at: String,
        /// What is missing.
        what: &'static str,
    },
    /// A grant beyond what was signed.
    #[error("{at}: grant {name:?} {what}: {got}, signed was {want}")]
    Beyond {
        /// Which entry.
        at: String,
        /// The grant.
        name: String,
        /// In which way.
        what: &'static str,
        /// Found.
        got: String,
        /// In its terms.
        want: String,
    },
    /// Grants were in force and the policy does not say that they may be.
    #[error(
        "{grants} grants were in force ({names}), {bytes} bytes left under them; add \"grants\" to permit, or name destinations, to accept it"
    )]
    Granted {
        /// How many.
        grants: u64,
        /// Which.
        names: String,
        /// Bytes under them.
        bytes: u64,
    },
    /// A grant to somewhere the policy does not name.
    #[error("grant {name:?} is to {to:?}, which lies in no network of grant_to")]
    Destination {
        /// The grant.
        name: String,
        /// Where to.
        to: String,
    },
    /// More left under grants than the policy accepts.
    #[error("{got} bytes left under grants; at most {limit} may")]
    GrantedBytes {
        /// How many.
        got: u64,
        /// How many may.
        limit: u64,
    },
    /// Somebody outside the group was asked.
    #[error("{got} requests reached somebody outside the group: {who}")]
    Deputies {
        /// How many.
        got: u64,
        /// Whom.
        who: String,
    },
    /// Something of the canary's got out.
    #[error("{at}: {what} escaped")]
    Escaped {
        /// Where it is said.
        at: String,
        /// Which vectors.
        what: String,
    },
    /// The canary's numbers contradict each other.
    #[error("{at}: the canary's {what}: {got}, {want} was to be expected")]
    CanaryNumbers {
        /// Which epoch.
        at: String,
        /// Which numbers.
        what: &'static str,
        /// Found.
        got: String,
        /// Expected.
        want: String,
    },
    /// The canary was not at work.
    #[error("{at}: {why}")]
    CanaryIdle {
        /// Which epoch.
        at: String,
        /// Why it says nothing.
        why: String,
    },
}
