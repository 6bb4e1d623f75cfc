//! `[[cloud]]` of the trust policy.

use super::jwt;
use crate::ek::{Anchors, Certificate, certificates};
use core::ops::Range;
use serde::Deserialize;
use std::collections::BTreeSet;
use toml::Spanned;

/// A cloud whose documents are understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Provider {
    /// Amazon EC2: instance identity document, RSA-2048 signature.
    Aws,
    /// Azure: attested data.
    Azure,
    /// Google Compute Engine: identity token.
    Gcp,
}

impl Provider {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
        }
    }
}

/// A cloud, as the policy knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cloud {
    /// Which.
    pub provider: Provider,
    /// AWS: certificates of signers. Azure: certificates of issuers.
    pub(super) anchors: Anchors,
    /// Google: keys of signers.
    pub(super) keys: Vec<jwt::Key>,
    /// Accepted regions.
    pub regions: BTreeSet<String>,
    /// Accepted instances.
    pub instances: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    provider: Spanned<String>,
    #[serde(default)]
    certificates: Vec<Spanned<String>>,
    jwks: Option<Spanned<String>>,
    #[serde(default)]
    regions: BTreeSet<String>,
    instances: BTreeSet<String>,
}

type Fault = (Range<usize>, String);
type Files<'f> = &'f dyn Fn(&str) -> Result<Vec<u8>, String>;

pub(crate) fn check(tables: Vec<Table>, files: Files<'_>) -> Result<Vec<Cloud>, Fault> {
    let mut clouds: Vec<Cloud> = Vec::new();
    for table in tables {
        let span = table.provider.span();
        let cloud = one(table, files)?;
        if clouds.iter().any(|other| other.provider == cloud.provider) {
            let detail = format!(
                "a second table of {:?}: put both into one",
                cloud.provider.word()
            );
            return Err((span, detail));
        }
        clouds.push(cloud);
    }
    Ok(clouds)
}

fn one(table: Table, files: Files<'_>) -> Result<Cloud, Fault> {
    let span = table.provider.span();
    let fail = |detail: &str| Err((span.clone(), detail.to_owned()));
    let provider = match table.provider.get_ref().as_str() {
        "aws" => Provider::Aws,
        "azure" => Provider::Azure,
        "gcp" => Provider::Gcp,
        _ => return fail("a provider is \"aws\", \"azure\" or \"gcp\""),
    };
    if table.instances.is_empty() {
        return fail("name the instances: a document can be handed on");
    }
    if table.regions.is_empty() && provider != Provider::Azure {
        return fail("name the regions");
    }
    let mut roots: Vec<Certificate> = Vec::new();
    for entry in &table.certificates {
        let text = entry.get_ref().trim_start();
        let bytes = if text.starts_with("-----BEGIN CERTIFICATE") {
            text.as_bytes().to_vec()
        } else {
            files(entry.get_ref()).map_err(|detail| (entry.span(), detail))?
        };
        let found = certificates(&bytes).map_err(|error| (entry.span(), error.to_string()))?;
        roots.extend(found);
    }
    let keys = match (provider, &table.jwks) {
        (Provider::Gcp, Some(entry)) => {
            let text = entry.get_ref();
            let bytes = if text.trim_start().starts_with('{') {
                text.as_bytes().to_vec()
            } else {
                files(text).map_err(|detail| (entry.span(), detail))?
            };
            jwt::keys(&bytes).map_err(|detail| (entry.span(), detail))?
        }
        (Provider::Gcp, None) => return fail("gcp needs jwks, the keys of its tokens"),
        (_, Some(_)) => return fail("jwks is for gcp alone"),
        (_, None) if roots.is_empty() => return fail("name the certificates that sign or issue"),
        (_, None) => Vec::new(),
    };
    if provider == Provider::Gcp && !roots.is_empty() {
        return fail("certificates are for aws and azure");
    }
    Ok(Cloud {
        provider,
        anchors: Anchors {
            roots,
            intermediates: Vec::new(),
        },
        keys,
        regions: table.regions,
        instances: table.instances,
    })
}
