//! A report beside the maker's manifests of the driver and the VBIOS that it names (N63).

use super::rim::{Manifest, Value};
use super::{GpuError, Report};
use crate::ek::{Anchors, EkError, signs_statements};
use merestone_evidence::Digest;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The measurement of what the first video decoder runs, as a report numbers it. Where that
/// decoder is off it runs nothing, and NVIDIA's own verifier does not compare it.
const DECODER: u8 = 36;

/// Manifests, and who may sign them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference {
    /// Roots of the maker's signers.
    pub anchors: Anchors,
    /// As given.
    pub manifests: Vec<Manifest>,
    /// A signer's certificate may have expired by the session.
    pub may_be_expired: bool,
}

/// That a GPU is in the state that its maker published.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Compared {
    /// SHA-256 of the driver's manifest.
    pub driver: String,
    /// SHA-256 of the VBIOS's manifest.
    pub vbios: String,
    /// Measurements that are one of the maker's values.
    pub equal: usize,
    /// Measurements that the maker gives no value for.
    pub without_value: usize,
}

impl Reference {
    /// Compares a report whose signature holds; `at_s` is the time of the session, in seconds.
    pub fn compare(
        &self,
        report: &Report<'_>,
        on_hold: &BTreeSet<Digest>,
        at_s: u64,
    ) -> Result<Compared, GpuError> {
        let absent = |of, version, id| GpuError::NoManifest { of, version, id };
        let drivers = self.about(report.driver(), on_hold, at_s)?;
        let firmwares = self.about(report.vbios(), on_hold, at_s)?;
        if drivers.is_empty() {
            return Err(absent("driver", report.driver(), None));
        }
        // One version may have a manifest for each product: what fits one of them is theirs.
        let mut closest: Option<GpuError> = None;
        for driver in &drivers {
            for vbios in &firmwares {
                match fits(report, driver, vbios) {
                    Ok(compared) => return Ok(compared),
                    Err(error) => closest = closest.or(Some(error)),
                }
            }
        }
        Err(closest.unwrap_or_else(|| absent("vbios", report.vbios(), report.vbios_manifest())))
    }

    /// The manifests of a version, each signed by who may sign.
    fn about(
        &self,
        version: Option<String>,
        on_hold: &BTreeSet<Digest>,
        at_s: u64,
    ) -> Result<Vec<&Manifest>, GpuError> {
        let Some(asked) = version else {
            return Ok(Vec::new());
        };
        let found = self.manifests.iter();
        let found = found.filter(|one| one.version.eq_ignore_ascii_case(&asked));
        let found: Vec<_> = found.collect();
        for one in &found {
            self.may_sign(one, on_hold, at_s)?;
        }
        Ok(found)
    }

    fn may_sign(
        &self,
        manifest: &Manifest,
        on_hold: &BTreeSet<Digest>,
        at_s: u64,
    ) -> Result<(), GpuError> {
        let Some((leaf, between)) = manifest.certificates.split_first() else {
            return Err(GpuError::NoCertificate);
        };
        signs_statements(leaf)?;
        let found = self.anchors.path(leaf, between, at_s);
        let found = match found {
            // It was signed in its time, which nobody but the maker saw.
            Err(EkError::Validity { until, at, .. }) if self.may_be_expired && at > until => {
                self.anchors.path(leaf, between, leaf.validity().0)
            }
            found => found,
        };
        let (path, anchor) = found?;
        match path
            .into_iter()
            .chain([anchor])
            .find(|one| on_hold.contains(&one.sha256()))
        {
            Some(held) => Err(GpuError::OnHold {
                subject: held.subject(),
                digest: held.sha256(),
            }),
            None => Ok(()),
        }
    }
}

/// Every value of the two has to be met, and no measurement may have values in both.
fn fits(report: &Report<'_>, driver: &Manifest, vbios: &Manifest) -> Result<Compared, GpuError> {
    let unlike = |at: Vec<u8>| GpuError::Unlike {
        driver: driver.version.clone(),
        vbios: vbios.version.clone(),
        at,
    };
    let both: Vec<u8> = driver
        .values
        .keys()
        .filter(|at| vbios.values.contains_key(at))
        .copied()
        .collect();
    if !both.is_empty() {
        return Err(GpuError::Ambiguous { at: both });
    }
    let values: BTreeMap<u8, &Vec<Value>> = driver
        .values
        .iter()
        .chain(&vbios.values)
        .map(|(at, values)| (*at, values))
        .filter(|(at, _)| *at != DECODER || !report.is_decoder_off())
        .collect();
    let differs = |(at, values): (&u8, &&Vec<Value>)| {
        let got = report.measurements.get(at);
        let is_one = values
            .iter()
            .any(|value| got.is_some_and(|got| **got == value[..]));
        (!is_one).then_some(*at)
    };
    let at: Vec<u8> = values.iter().filter_map(differs).collect();
    if !at.is_empty() {
        return Err(unlike(at));
    }
    Ok(Compared {
        driver: driver.digest.to_string(),
        vbios: vbios.digest.to_string(),
        equal: values.len(),
        without_value: report.measurements.len().saturating_sub(values.len()),
    })
}
