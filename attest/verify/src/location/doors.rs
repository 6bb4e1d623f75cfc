//! Ways in for the fuzz targets, compiled for them alone: one epoch's location evidence, judged as
//! that of a session whose quotes held.

use super::{
    CloudTold, PlaceTrust, Round, RoundTold, State, Table, Times, cloud, landmarks, trusted,
};
use merestone_evidence::{Digest, LocationEvidence, SessionId};

/// What the evidence came to.
#[derive(Debug)]
pub struct Judged {
    /// Documents of clouds that hold.
    pub clouds: Vec<CloudTold>,
    /// Measurements that hold.
    pub rounds: Vec<RoundTold>,
    /// Whether clouds, and landmarks, prove the place.
    pub proven: [bool; 2],
    /// What is wrong, as it would be told.
    pub faults: Vec<String>,
}

/// The session that evidence is of, as a quote would have sealed it.
#[derive(Clone, Copy, Debug)]
pub struct Sealed {
    /// Its id.
    pub session: SessionId,
    /// Its key.
    pub key: [u8; 32],
    /// Digest of its statement.
    pub digest: Digest,
    /// When the epoch opened and closed.
    pub times_ms: (u64, u64),
}

/// Judges one piece of evidence.
#[must_use]
pub fn judge(sealed: &Sealed, evidence: LocationEvidence, trust: &PlaceTrust) -> Judged {
    const LEEWAY_MS: u64 = 60_000;
    let (opened_ms, closed_ms) = sealed.times_ms;
    let round = Round {
        at: "session 0 epoch 0",
        session: sealed.session,
        session_key: &sealed.key,
        session_digest: sealed.digest,
        opened_ms,
        closed_ms,
        evidence,
    };
    let rounds = [round];
    let (cloud, clouds) = cloud::judge(&rounds, &[], trust, LEEWAY_MS);
    let times = Times {
        from_ms: opened_ms,
        to_ms: closed_ms,
        sessions: vec![sealed.times_ms],
    };
    let told = landmarks::judge(&rounds, &times, trust, LEEWAY_MS);
    let findings = [cloud, told.finding];
    Judged {
        clouds,
        rounds: told.rounds,
        proven: [0, 1].map(|level: usize| {
            findings
                .get(level)
                .is_some_and(|finding| finding.state == State::Proven)
        }),
        faults: findings
            .iter()
            .flat_map(|finding| &finding.faults)
            .map(ToString::to_string)
            .collect(),
    }
}

/// A policy with one area and nothing else, from GeoJSON.
pub fn area(bytes: &[u8]) -> Result<PlaceTrust, String> {
    let table: Table = toml::from_str("area = \"area.json\"").map_err(|error| error.to_string())?;
    let file = |_name: &str| Ok(bytes.to_vec());
    trusted(Some(table), Vec::new(), Vec::new(), &file).map_err(|(_, detail)| detail)
}
