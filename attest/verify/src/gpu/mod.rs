//! What GPUs say of themselves: a report that a GPU's own key signed, over a nonce that is the
//! digest of the session's statement, and certificates that lead to a maker who is pinned.
//!
//! It never calls an inventory proven by a GPU (N65), nor a report bound to this host (N62): a
//! GPU's signature says which GPU answered, and a relay can have asked one elsewhere. Measurements
//! are compared with what is pinned, and with manifests that the maker signed (N63); it fetches
//! neither those nor lists of what the maker took back.
//! A report looks the same in developer mode, in which nothing is protected: that one the agent
//! tells, and then no report counts for confidential computing (N61).

mod canonical;
mod reference;
mod rim;
mod spdm;

pub use reference::{Compared, Reference};
pub use rim::{Manifest, RimError, Value};
pub use spdm::{Report, SpdmError};

use crate::ek::{Certificate, EkError, certificates, signs_statements};
use crate::log::LogChecked;
use crate::refusal::{Grade, Refusal};
use crate::trust::GpuTrust;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Digest, GpuReport, sha256};
use serde::Serialize;
use std::collections::BTreeSet;

/// States of confidential computing, as the agent tells them, in which nothing is protected.
const UNPROTECTED: [&str; 2] = ["off", "developer mode"];
/// Most reports of one session.
const MAX_REPORTS: usize = 64;

/// Why what a GPU said of itself is not accepted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GpuError {
    /// The report itself.
    #[error(transparent)]
    Spdm(#[from] SpdmError),
    /// Its certificates.
    #[error(transparent)]
    Certificate(#[from] EkError),
    /// There is no certificate.
    #[error("it comes without a certificate")]
    NoCertificate,
    /// It answers another question (N60).
    #[error("its nonce is {got}, not the digest {want} of the session's statement")]
    Nonce {
        /// The nonce.
        got: String,
        /// The digest.
        want: Digest,
    },
    /// The key belongs to another firmware than the one that reports.
    #[error("the firmware that reports has digest {got}, that of the certificate {want}")]
    Firmware {
        /// In the report.
        got: String,
        /// In the certificate.
        want: String,
    },
    /// Its maker took the certificate back, for good or for a while (N63).
    #[error("certificate {digest} of {subject} is one that the trust policy has on hold")]
    OnHold {
        /// Its subject.
        subject: String,
        /// Its SHA-256.
        digest: Digest,
    },
    /// It protects nothing, report or not (N61).
    #[error("confidential computing of {uuid} is {got:?}, by the agent's own word")]
    Mode {
        /// The GPU.
        uuid: String,
        /// What the agent says of it.
        got: String,
    },
    /// Not among what is pinned.
    #[error("measurements {got} are not among those accepted")]
    Measurements {
        /// SHA-256 of the measurement record.
        got: String,
    },
    /// No manifest of what it runs is at hand.
    #[error(
        "no manifest of {of} {}{}",
        .version.as_deref().unwrap_or("of an untold version"),
        .id.as_deref().map(|id| format!(", which its maker calls {id}")).unwrap_or_default()
    )]
    NoManifest {
        /// Driver or VBIOS.
        of: &'static str,
        /// Its version, where it is told.
        version: Option<String>,
        /// The manifest's name, where the report has it.
        id: Option<String>,
    },
    /// Not what its maker published.
    #[error(
        "measurements {at:?} are none of those that the maker signed for driver {driver} and vbios {vbios}"
    )]
    Unlike {
        /// The driver's version.
        driver: String,
        /// The VBIOS's version.
        vbios: String,
        /// Which differ, as the report numbers them.
        at: Vec<u8>,
    },
    /// Two manifests speak of the same measurement.
    #[error("the manifests of driver and vbios both give values of measurements {at:?}")]
    Ambiguous {
        /// Which.
        at: Vec<u8>,
    },
    /// A GPU of the inventory did not report.
    #[error("no report of {uuid}, which the inventory has")]
    Silent {
        /// The GPU.
        uuid: String,
    },
    /// Two GPUs report with one key.
    #[error("the same gpu reports as {first} and as {second}")]
    Twice {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// More than any host has.
    #[error("{got} reports where at most {limit} are looked at")]
    TooMany {
        /// How many.
        got: usize,
        /// How many may be.
        limit: usize,
    },
}

impl GpuError {
    pub(crate) const fn grade(&self) -> Grade {
        match self {
            Self::Certificate(error) => error.grade(),
            Self::Measurements { .. }
            | Self::Unlike { .. }
            | Self::Ambiguous { .. }
            | Self::OnHold { .. }
            | Self::Mode { .. } => Grade::Failed,
            Self::Silent { .. } | Self::NoManifest { .. } => Grade::Indeterminate,
            Self::Spdm(_)
            | Self::NoCertificate
            | Self::Nonce { .. }
            | Self::Firmware { .. }
            | Self::Twice { .. }
            | Self::TooMany { .. } => Grade::Untrusted,
        }
    }
}

/// A GPU that attested itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GpuAttested {
    /// Session, hexadecimal.
    pub session: String,
    /// What the agent calls it. Its signature does not say.
    pub uuid: String,
    /// The certificate's subject.
    pub subject: String,
    /// Who is pinned at the end.
    pub anchor: String,
    /// SHA-256 of the certificate: the same GPU has the same.
    pub certificate: String,
    /// Its driver's version, as the GPU tells it.
    pub driver: Option<String>,
    /// Its VBIOS's version.
    pub vbios: Option<String>,
    /// How many measurements it gave.
    pub measurements: usize,
    /// SHA-256 of the measurement record.
    pub measurements_sha256: String,
    /// What the maker's manifests say to them, where any are given and they are met.
    pub reference: Option<Compared>,
}

/// What a report showed.
struct Seen {
    gpu: GpuAttested,
    /// Why its measurements are not those of the maker's manifests.
    unlike: Option<GpuError>,
}

/// Judges every report of every session.
pub(crate) fn check(
    log: &LogChecked,
    trust: Option<&GpuTrust>,
    tally: &mut Tally,
) -> Vec<GpuAttested> {
    tally.skip(
        CheckId::GpuBinding,
        "a gpu's signature says which gpu answered, not which host it is in: another host's can \
         be relayed",
    );
    let total: usize = log
        .sessions
        .iter()
        .map(|session| session.gpu_reports.len())
        .sum();
    let is_required = trust.is_some_and(|trust| trust.required);
    if is_required && unprotected(log, true, tally) {
        tally.skip(
            CheckId::GpuMeasurements,
            "no gpu computes confidentially here",
        );
        return Vec::new();
    }
    if total == 0 {
        let detail = format!("no gpu reports on itself here{}", confidential(log));
        let say = if is_required {
            Tally::missing
        } else {
            Tally::skip
        };
        say(tally, CheckId::GpuAttestation, detail);
        tally.skip(CheckId::GpuMeasurements, "no gpu reports on itself here");
        return Vec::new();
    }
    let Some(trust) = trust else {
        let detail = format!("{total} reports; no maker's root is pinned: [gpu] roots");
        tally.skip(CheckId::GpuAttestation, detail);
        tally.skip(CheckId::GpuMeasurements, "no maker's root is pinned");
        return Vec::new();
    };
    let (seen, sound) = of_sessions(log, trust, tally);
    let sound = sound && !unprotected(log, false, tally);
    if sound {
        tally.pass(
            CheckId::GpuAttestation,
            format!(
                "{} reports, each signed by a gpu over the digest of its session; its maker's \
                 revocation lists are not looked at{}",
                seen.len(),
                confidential(log)
            ),
        );
    }
    measured(&seen, trust, tally);
    seen.into_iter().map(|one| one.gpu).collect()
}

/// The reports that hold, and whether all do.
fn of_sessions(log: &LogChecked, trust: &GpuTrust, tally: &mut Tally) -> (Vec<Seen>, bool) {
    let mut seen = Vec::new();
    let mut sound = true;
    for session in &log.sessions {
        let id = hex::encode(session.statement.session.0);
        let at_s = session.statement.started_ms / 1000;
        let found = of_session(&session.gpu_reports, &id, session.digest, at_s, trust);
        let mut fail = |source: GpuError| {
            sound = false;
            let at = format!("session {id}");
            tally.fail(CheckId::GpuAttestation, &Refusal::Gpu { at, source });
        };
        match found {
            Ok(found) => {
                let named: BTreeSet<_> = found.iter().map(|one| one.gpu.uuid.as_str()).collect();
                let silent = session.statement.gpu.devices.iter();
                let silent = silent.filter(|device| !named.contains(device.uuid.as_str()));
                for device in silent.filter(|_| trust.required) {
                    let uuid = device.uuid.clone();
                    fail(GpuError::Silent { uuid });
                }
                seen.extend(found);
            }
            Err(error) => fail(error),
        }
    }
    (seen, sound)
}

/// Whether the agent says of a GPU that it protects nothing; only of GPUs that report, unless
/// `all` are asked for.
fn unprotected(log: &LogChecked, all: bool, tally: &mut Tally) -> bool {
    let mut found = false;
    for session in &log.sessions {
        let reports = |uuid: &str| session.gpu_reports.iter().any(|one| one.uuid == uuid);
        for device in &session.statement.gpu.devices {
            let state = device.confidential.as_deref();
            let is_open = state.is_some_and(|state| UNPROTECTED.contains(&state));
            if is_open && (all || reports(&device.uuid)) {
                found = true;
                let at = session.at.clone();
                let source = GpuError::Mode {
                    uuid: device.uuid.clone(),
                    got: state.unwrap_or_default().to_owned(),
                };
                tally.fail(CheckId::GpuAttestation, &Refusal::Gpu { at, source });
            }
        }
    }
    found
}

/// What the host says of confidential computing, as words after a sentence.
fn confidential(log: &LogChecked) -> String {
    let devices = log
        .sessions
        .iter()
        .flat_map(|session| &session.statement.gpu.devices);
    let states: BTreeSet<_> = devices
        .map(|device| device.confidential.as_deref().unwrap_or("not told"))
        .collect();
    if states.is_empty() {
        return String::new();
    }
    let states: Vec<_> = states.into_iter().collect();
    format!(
        "; confidential computing, by the agent's word: {}",
        states.join(", ")
    )
}

fn of_session(
    reports: &[GpuReport],
    session: &str,
    digest: Digest,
    at_s: u64,
    trust: &GpuTrust,
) -> Result<Vec<Seen>, GpuError> {
    if reports.len() > MAX_REPORTS {
        return Err(GpuError::TooMany {
            got: reports.len(),
            limit: MAX_REPORTS,
        });
    }
    let mut found: Vec<Seen> = Vec::new();
    for report in reports {
        let one = of_gpu(report, session, digest, at_s, trust)?;
        let twin = found
            .iter()
            .find(|known| known.gpu.certificate == one.gpu.certificate);
        if let Some(twin) = twin {
            return Err(GpuError::Twice {
                first: twin.gpu.uuid.clone(),
                second: one.gpu.uuid,
            });
        }
        found.push(one);
    }
    Ok(found)
}

/// The certificates first, then the signature, then what was signed.
fn of_gpu(
    told: &GpuReport,
    session: &str,
    digest: Digest,
    at_s: u64,
    trust: &GpuTrust,
) -> Result<Seen, GpuError> {
    let offered = certificates(&told.certificates)?;
    let (leaf, between) = offered.split_first().ok_or(GpuError::NoCertificate)?;
    signs_statements(leaf)?;
    let (path, anchor) = trust.anchors.path(leaf, between, at_s)?;
    let report = Report::parse(&told.report)?;
    report.signed_by(leaf.p384_point()?)?;
    if report.nonce != digest.0 {
        return Err(GpuError::Nonce {
            got: hex::encode(report.nonce),
            want: digest,
        });
    }
    same_firmware(leaf, &report)?;
    let mut chain = path.iter().chain([&anchor]);
    if let Some(held) = chain.find(|one| trust.on_hold.contains(&one.sha256())) {
        return Err(GpuError::OnHold {
            subject: held.subject(),
            digest: held.sha256(),
        });
    }
    let compared = trust.reference.as_ref();
    let compared = compared.map(|one| one.compare(&report, &trust.on_hold, at_s));
    let (reference, unlike) = match compared.transpose() {
        Ok(reference) => (reference, None),
        Err(error) => (None, Some(error)),
    };
    let gpu = GpuAttested {
        session: session.to_owned(),
        uuid: told.uuid.clone(),
        subject: leaf.subject(),
        anchor: anchor.subject(),
        certificate: leaf.sha256().to_string(),
        driver: report.driver(),
        vbios: report.vbios(),
        measurements: report.measurements.len(),
        measurements_sha256: sha256(report.record).to_string(),
        reference,
    };
    Ok(Seen { gpu, unlike })
}

/// The certificate is of a key that one firmware alone can derive (TCG DICE Attestation
/// Architecture, 6.1.1 `TcbInfo`; NVIDIA's form has the digest last).
fn same_firmware(leaf: &Certificate, report: &Report<'_>) -> Result<(), GpuError> {
    let (Some(got), Some(certified)) = (report.firmware(), leaf.firmware_id()) else {
        return Ok(());
    };
    if certified == got {
        return Ok(());
    }
    Err(GpuError::Firmware {
        got: hex::encode(got),
        want: hex::encode(certified),
    })
}

/// The measurements beside what is pinned and what the maker signed; either may be asked alone.
fn measured(seen: &[Seen], trust: &GpuTrust, tally: &mut Tally) {
    if trust.measurements.is_none() && trust.reference.is_none() {
        let detail = "measurements are shown and compared with nothing: [gpu] rims or measurements";
        tally.skip(CheckId::GpuMeasurements, detail);
        return;
    }
    if seen.is_empty() {
        tally.skip(CheckId::GpuMeasurements, "no report of a gpu is sound");
        return;
    }
    let mut sound = true;
    let mut fail = |one: &GpuAttested, source: GpuError| {
        sound = false;
        let at = format!("session {}, {}", one.session, one.uuid);
        tally.fail(CheckId::GpuMeasurements, &Refusal::Gpu { at, source });
    };
    for Seen { gpu, unlike } in seen {
        let is_accepted = |accepted: &BTreeSet<Digest>| {
            let mut accepted = accepted.iter();
            accepted.any(|one| one.to_string() == gpu.measurements_sha256)
        };
        if !trust.measurements.as_ref().is_none_or(is_accepted) {
            let got = gpu.measurements_sha256.clone();
            fail(gpu, GpuError::Measurements { got });
        }
        if let Some(error) = unlike {
            fail(gpu, error.clone());
        }
    }
    if !sound {
        return;
    }
    let total = seen.len();
    let detail = match (&trust.measurements, &trust.reference) {
        (None, Some(_)) => "are those that the maker signed for driver and vbios",
        (Some(_), Some(_)) => "are accepted ones, and those that the maker signed",
        (_, None) => "are accepted ones",
    };
    let detail = format!("measurements of {total} reports {detail}");
    tally.pass(CheckId::GpuMeasurements, detail);
}
