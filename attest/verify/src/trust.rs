//! `trust.toml`: whose key is believed and what evidence must show. `docs/trust.md` is its manual.
//!
//! The grammar is closed: an unknown key, a repeated node or a malformed digest is a usage
//! error with the line it stands on, never something passed over (N74).

use crate::ek::Anchors;
use crate::enrolment::{Authority, Table, all_certificates, content};
use crate::gpu::{Manifest, Reference};
use crate::location::{self, PlaceTrust};
use crate::log::{self, LogTrust};
use crate::network::Network;
use core::ops::Range;
use merestone_evidence::Digest;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml::Spanned;

/// Longest gap between attested stretches that needs no other leave: two missed heartbeats.
const DEFAULT_MAX_GAP_S: u64 = 120;
/// How far the wall clock may move against the TPM's clock within a session.
const DEFAULT_MAX_CLOCK_STEP_S: u64 = 60;
/// Bytes of a trust policy.
const MAX_BYTES: usize = 1 << 20;

/// A fault in a trust policy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{file}:{line}: {detail}")]
pub struct TrustError {
    /// The name the caller gave the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub detail: String,
}

/// A trust policy, read and checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trust {
    /// Pinned attestation key Names by node id.
    pub nodes: BTreeMap<String, Vec<u8>>,
    /// Enrolment authorities, where any is believed.
    pub authority: Option<Authority>,
    /// Whose word on the place counts.
    pub place: PlaceTrust,
    /// Keys of the log and of its witnesses, where any is believed.
    pub log: Option<LogTrust>,
    /// Whose GPUs may attest themselves; `None` believes none.
    pub gpu: Option<GpuTrust>,
    /// What evidence must show.
    pub require: Require,
}

/// Makers of GPUs, and what is asked of a GPU's report on itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GpuTrust {
    /// Makers' roots.
    pub anchors: Anchors,
    /// Accepted measurement records, by SHA-256; `None` accepts any.
    pub measurements: Option<BTreeSet<Digest>>,
    /// The maker's manifests of what measurements have to be; `None` asks none.
    pub reference: Option<Reference>,
    /// Certificates that their maker took back, by SHA-256.
    pub on_hold: BTreeSet<Digest>,
    /// Every GPU has to report.
    pub required: bool,
}

/// What evidence must show. Each field is a key of `[require]`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of its own in the file"
)]
pub struct Require {
    /// Accepted boundary files; `None` accepts any.
    pub boundary: Option<BTreeSet<Digest>>,
    /// Accepted eBPF objects; `None` accepts any.
    pub object: Option<BTreeSet<Digest>>,
    /// Accepted agent executables; `None` accepts any.
    pub agent: Option<BTreeSet<Digest>>,
    /// Tiers that must be in force in every epoch.
    pub tiers: BTreeSet<String>,
    /// A boot event log that replays must be there.
    pub boot_log: bool,
    /// An IMA list that replays must be there.
    pub ima: bool,
    /// A session of a TPM that is a program is acceptable.
    pub software_tpm: bool,
    /// A test double of the GPU library is acceptable.
    pub test_gpu_library: bool,
    /// Audit mode, and flows that it let through, are acceptable.
    pub audit: bool,
    /// Ways out that the agent declares uncovered are acceptable.
    pub uncovered: bool,
    /// Longest unattested stretch within the period.
    pub max_gap_s: u64,
    /// Most joules that one GPU may have used between two sessions beyond being idle.
    pub max_dark_joules: Option<u64>,
    /// Power of an idle GPU, in milliwatts; `None` takes the least that the file shows.
    pub idle_milliwatts: Option<u64>,
    /// Most events and entries that may have been lost.
    pub max_lost: u64,
    /// Most that the wall clock may move against the TPM's.
    pub max_clock_step_s: u64,
    /// Greatest age of the last quote; `None` accepts any.
    pub max_age_s: Option<u64>,
    /// The bundle's period must begin no later.
    pub from_ms: Option<u64>,
    /// The bundle's period must end no earlier.
    pub to_ms: Option<u64>,
    /// Accepted countries; `None` accepts any.
    pub country: Option<BTreeSet<String>>,
    /// Accepted regions; `None` accepts any.
    pub region: Option<BTreeSet<String>>,
    /// Lowest level of location evidence.
    pub location_level: u8,
    /// What may have happened to enforcement.
    pub permit: BTreeSet<Permit>,
    /// Networks that grants may be to; `None` names none.
    pub(crate) grant_to: Option<Vec<Network>>,
    /// Most bytes that may have left under grants; `None` names no number.
    pub max_grant_bytes: Option<u64>,
    /// Whom guarded groups may have asked on their host.
    pub deputies: DeputyRule,
    /// Every epoch must tell of a canary at work.
    pub canary: bool,
    /// Every session must count its epochs in the TPM.
    pub counters: bool,
    /// Most epochs that may be missing after losses of power.
    pub max_crash_epochs: u64,
    /// Accepted values by register.
    pub pcrs: BTreeMap<u8, BTreeSet<Digest>>,
}

/// Something that fails unless it is permitted. Each is a word of `permit`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Permit {
    /// Enforcement was found changed, or not as it had been left.
    Tamper,
    /// Protection was opened by a signed token.
    BreakGlass,
    /// Protection was opened by root, with nobody's signature.
    BreakGlassUnsigned,
    /// Grants were in force.
    Grants,
}

/// Whom guarded groups may have asked on their host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeputyRule {
    /// Anybody; the verdict says that nothing follows what those pass on.
    Any,
    /// Nobody: each request was refused.
    None,
    /// Only those named.
    Listed(BTreeSet<String>),
}

impl Require {
    pub(crate) fn permits(&self, permit: Permit) -> bool {
        self.permit.contains(&permit)
    }
}

impl Trust {
    /// Reads a trust policy that names no other file; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self, TrustError> {
        Self::parse_with(text, file, &|name| {
            Err(format!("{name:?} is a file, and no files are read here"))
        })
    }

    /// Reads a trust policy; `files` gives the contents of the files that it names.
    pub fn parse_with(
        text: &str,
        file: &str,
        files: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, TrustError> {
        let fail = |span: Option<Range<usize>>, detail: String| TrustError {
            file: file.to_owned(),
            line: line_of(text, span.map_or(0, |span| span.start)),
            detail,
        };
        if text.len() > MAX_BYTES {
            let detail = format!("{} bytes where at most {MAX_BYTES} are allowed", text.len());
            return Err(fail(None, detail));
        }
        let file: File = toml::from_str(text)
            .map_err(|error| fail(error.span(), error.message().trim().to_owned()))?;
        file.check(files)
            .map_err(|(span, detail)| fail(Some(span), detail))
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

pub(crate) type Fault = (Range<usize>, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    #[serde(default)]
    node: Vec<Node>,
    authority: Option<Table>,
    location: Option<location::Table>,
    #[serde(default)]
    landmark: Vec<location::LandmarkTable>,
    #[serde(default)]
    cloud: Vec<location::CloudTable>,
    log: Option<log::Table>,
    gpu: Option<GpuTable>,
    #[serde(default)]
    require: RequireTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GpuTable {
    roots: Spanned<Vec<Spanned<String>>>,
    measurements: Option<Spanned<OneOrMany>>,
    on_hold: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    rims: Vec<Spanned<String>>,
    #[serde(default)]
    rim_roots: Vec<Spanned<String>>,
    #[serde(default)]
    rims_may_be_expired: bool,
    #[serde(default)]
    required: bool,
}

impl GpuTable {
    fn reference(
        &self,
        files: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Option<Reference>, Fault> {
        let (lone, other) = match (self.rims.first(), self.rim_roots.first()) {
            (None, None) => return Ok(None),
            (Some(rim), None) => (Some(rim), "rims without rim_roots prove nothing"),
            (None, Some(root)) => (Some(root), "rim_roots without rims prove nothing"),
            (Some(_), Some(_)) => (None, ""),
        };
        if let Some(lone) = lone {
            return Err((lone.span(), other.to_owned()));
        }
        let mut manifests: Vec<Manifest> = Vec::new();
        for entry in &self.rims {
            let bytes = content(entry, "<", files)?;
            let read = Manifest::read(&bytes).map_err(|error| (entry.span(), error.to_string()))?;
            if !manifests.contains(&read) {
                manifests.push(read);
            }
        }
        Ok(Some(Reference {
            anchors: Anchors {
                roots: all_certificates(&self.rim_roots, files)?,
                intermediates: Vec::new(),
            },
            manifests,
            may_be_expired: self.rims_may_be_expired,
        }))
    }

    fn check(self, files: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<GpuTrust, Fault> {
        let roots = all_certificates(self.roots.get_ref(), files)?;
        if roots.is_empty() {
            return Err((self.roots.span(), "name at least one root".to_owned()));
        }
        Ok(GpuTrust {
            reference: self.reference(files)?,
            anchors: Anchors {
                roots,
                intermediates: Vec::new(),
            },
            measurements: self.measurements.map(digests).transpose()?,
            on_hold: self.on_hold.map_or(Ok(BTreeSet::new()), digests)?,
            required: self.required,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    id: Spanned<String>,
    ak_name: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of its own in the file"
)]
struct RequireTable {
    boundary: Option<Spanned<OneOrMany>>,
    object: Option<Spanned<OneOrMany>>,
    agent: Option<Spanned<OneOrMany>>,
    tiers: BTreeSet<String>,
    boot_log: bool,
    ima: bool,
    software_tpm: bool,
    test_gpu_library: bool,
    audit: bool,
    uncovered: Option<bool>,
    max_gap_s: Option<u64>,
    max_dark_joules: Option<u64>,
    idle_watts: Option<Spanned<f64>>,
    max_lost: u64,
    max_clock_step_s: Option<u64>,
    max_age_s: Option<u64>,
    from: Option<Spanned<String>>,
    to: Option<Spanned<String>>,
    country: Option<Spanned<OneOrMany>>,
    region: Option<Spanned<OneOrMany>>,
    location_level: Option<Spanned<String>>,
    permit: Option<Spanned<OneOrMany>>,
    grant_to: Option<Spanned<OneOrMany>>,
    max_grant_bytes: Option<u64>,
    deputies: Option<Spanned<String>>,
    deputy: Option<Spanned<OneOrMany>>,
    canary: bool,
    counters: bool,
    max_crash_epochs: Option<u64>,
    pcr: BTreeMap<Spanned<String>, Spanned<OneOrMany>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn all(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl File {
    fn check(self, files: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<Trust, Fault> {
        let version = *self.version.get_ref();
        if version != 1 {
            let detail = format!("version is {version}; this program knows version 1");
            return Err((self.version.span(), detail));
        }
        let mut nodes = BTreeMap::new();
        for node in self.node {
            let name = hex_of(node.ak_name.get_ref(), 34)
                .map_err(|detail| (node.ak_name.span(), detail))?;
            if !name.starts_with(&[0x00, 0x0b]) {
                let detail = "an ak_name begins with 000b (sha-256)".to_owned();
                return Err((node.ak_name.span(), detail));
            }
            let span = node.id.span();
            let id = node.id.into_inner();
            if nodes.insert(id.clone(), name).is_some() {
                return Err((span, format!("node {id:?} is named twice")));
            }
        }
        Ok(Trust {
            nodes,
            authority: self.authority.map(|table| table.check(files)).transpose()?,
            place: location::trusted(self.location, self.landmark, self.cloud, files)?,
            log: self.log.map(|table| table.check(files)).transpose()?,
            gpu: self.gpu.map(|table| table.check(files)).transpose()?,
            require: self.require.check()?,
        })
    }
}

impl RequireTable {
    fn check(self) -> Result<Require, Fault> {
        let mut pcrs = BTreeMap::new();
        for (index, values) in self.pcr {
            let register = index
                .get_ref()
                .parse()
                .ok()
                .filter(|register| *register < 24);
            let Some(register) = register else {
                return Err((
                    index.span(),
                    "a register is a number from 0 to 23".to_owned(),
                ));
            };
            pcrs.insert(register, digests(values)?);
        }
        Ok(Require {
            boundary: self.boundary.map(digests).transpose()?,
            object: self.object.map(digests).transpose()?,
            agent: self.agent.map(digests).transpose()?,
            tiers: self.tiers,
            boot_log: self.boot_log,
            ima: self.ima,
            software_tpm: self.software_tpm,
            test_gpu_library: self.test_gpu_library,
            audit: self.audit,
            uncovered: self.uncovered.unwrap_or(true),
            max_gap_s: self.max_gap_s.unwrap_or(DEFAULT_MAX_GAP_S),
            max_dark_joules: self.max_dark_joules,
            idle_milliwatts: self.idle_watts.map(milliwatts).transpose()?,
            max_lost: self.max_lost,
            max_clock_step_s: self.max_clock_step_s.unwrap_or(DEFAULT_MAX_CLOCK_STEP_S),
            max_age_s: self.max_age_s,
            from_ms: self.from.map(instant).transpose()?,
            to_ms: self.to.map(instant).transpose()?,
            country: self.country.map(texts),
            region: self.region.map(texts),
            location_level: self.location_level.map_or(Ok(0), level)?,
            permit: self.permit.map_or(Ok(BTreeSet::new()), permits)?,
            grant_to: self.grant_to.map(networks).transpose()?,
            max_grant_bytes: self.max_grant_bytes,
            deputies: deputies(self.deputies, self.deputy)?,
            canary: self.canary,
            counters: self.counters,
            max_crash_epochs: self.max_crash_epochs.unwrap_or(u64::MAX),
            pcrs,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to lie from 0 to 10^8 before"
)]
fn milliwatts(watts: Spanned<f64>) -> Result<u64, Fault> {
    if (0.0..=100_000.0).contains(watts.get_ref()) {
        return Ok((watts.get_ref() * 1000.0) as u64);
    }
    let detail = "want the watts of one idle gpu, from 0 to 100000".to_owned();
    Err((watts.span(), detail))
}

fn texts(values: Spanned<OneOrMany>) -> BTreeSet<String> {
    values.into_inner().all().into_iter().collect()
}

fn permits(values: Spanned<OneOrMany>) -> Result<BTreeSet<Permit>, Fault> {
    let span = values.span();
    let words = values.into_inner().all().into_iter();
    let permits = words.map(|word| match word.as_str() {
        "tamper" => Ok(Permit::Tamper),
        "break_glass" => Ok(Permit::BreakGlass),
        "break_glass_unsigned" => Ok(Permit::BreakGlassUnsigned),
        "grants" => Ok(Permit::Grants),
        _ => Err((
            span.clone(),
            format!(
                "{word:?} cannot be permitted; these can: \"tamper\", \"break_glass\", \"break_glass_unsigned\", \"grants\""
            ),
        )),
    });
    permits.collect()
}

fn networks(values: Spanned<OneOrMany>) -> Result<Vec<Network>, Fault> {
    let span = values.span();
    let texts = values.into_inner().all().into_iter();
    let networks = texts.map(|text| Network::parse(&text).map_err(|detail| (span.clone(), detail)));
    networks.collect()
}

fn deputies(
    rule: Option<Spanned<String>>,
    listed: Option<Spanned<OneOrMany>>,
) -> Result<DeputyRule, Fault> {
    let word = rule.as_ref().map(|rule| rule.get_ref().as_str());
    match (word, listed) {
        (Some("listed"), Some(listed)) => Ok(DeputyRule::Listed(texts(listed))),
        (None | Some("any"), None) => Ok(DeputyRule::Any),
        (Some("none"), None) => Ok(DeputyRule::None),
        (None | Some("any" | "none"), Some(listed)) => {
            let detail = "deputy needs deputies = \"listed\"".to_owned();
            Err((listed.span(), detail))
        }
        (Some(_), _) => {
            let span = rule.map_or(0..0, |rule| rule.span());
            let detail = "deputies is \"any\", \"none\", or \"listed\" with deputy = [...]";
            Err((span, detail.to_owned()))
        }
    }
}

fn digests(values: Spanned<OneOrMany>) -> Result<BTreeSet<Digest>, Fault> {
    let span = values.span();
    let digests = values.into_inner().all().into_iter().map(|text| {
        let bytes = hex_of(&text, 32).map_err(|detail| (span.clone(), detail))?;
        let mut digest = Digest::default();
        digest.0.copy_from_slice(&bytes);
        Ok(digest)
    });
    digests.collect()
}

/// Hexadecimal text of exactly `length` bytes.
fn hex_of(text: &str, length: usize) -> Result<Vec<u8>, String> {
    let bytes = hex::decode(text).ok();
    bytes
        .filter(|bytes| bytes.len() == length)
        .ok_or_else(|| format!("want {} hexadecimal digits", length * 2))
}

fn level(text: Spanned<String>) -> Result<u8, Fault> {
    match text.get_ref().as_str() {
        "L0" => Ok(0),
        "L1" => Ok(1),
        "L2" => Ok(2),
        "L3" => Ok(3),
        _ => Err((
            text.span(),
            "a location level is \"L0\", \"L1\", \"L2\" or \"L3\"".to_owned(),
        )),
    }
}

fn instant(text: Spanned<String>) -> Result<u64, Fault> {
    let parsed = OffsetDateTime::parse(text.get_ref(), &Rfc3339).ok();
    let millis = parsed.map(|at| at.unix_timestamp_nanos() / 1_000_000);
    millis
        .and_then(|millis| u64::try_from(millis).ok())
        .ok_or_else(|| {
            (
                text.span(),
                "want a time like 2026-01-31T12:00:00Z".to_owned(),
            )
        })
}
