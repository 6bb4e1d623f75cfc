//! What the maker of a GPU says its measurements have to be: a reference integrity manifest (TCG
//! RIM Information Model 1.01), as NVIDIA hands them out, one for each version of the driver and
//! one for each of the VBIOS: a software identification tag (ISO/IEC 19770-2:2015) with the
//! signature (W3C XML Signature 1.1, enveloped) and its certificates inside.
//!
//! One form of signature is known, the one that they have; everything else is refused. It is over
//! the whole document, so that nothing beside what was signed can be read as a value.

use super::canonical::{canonical, read};
use crate::ek::{Certificate, EkError};
use base64ct::{Base64, Encoding as _};
use merestone_evidence::{Digest, sha256};
use p384::ecdsa::signature::hazmat::PrehashVerifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use roxmltree::Node;
use sha2::{Digest as _, Sha384};
use std::collections::BTreeMap;

const TAG: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const SIGNATURE: &str = "http://www.w3.org/2000/09/xmldsig#";
/// The namespace that the values' attributes have.
const SHA384: &str = "http://www.w3.org/2001/04/xmlenc#sha384";

const CANONICAL: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const ECDSA: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const DIGEST: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";

/// Largest manifest; NVIDIA's have 21 KiB.
const MAX_BYTES: usize = 1 << 20;
/// Most values that one measurement may have.
const MAX_ALTERNATIVES: usize = 64;
/// Most certificates in one.
const MAX_CERTIFICATES: usize = 8;
/// Bytes of a value, a digest by SHA-384.
const VALUE_BYTES: usize = 48;

/// A value that a measurement may have.
pub type Value = [u8; VALUE_BYTES];

/// Why a manifest is none, or not signed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RimError {
    /// Not the form of a manifest.
    #[error("reference integrity manifest: {0}")]
    Form(String),
    /// Its contents are not those that were signed.
    #[error("reference integrity manifest: it is not what was signed")]
    Changed,
    /// Not made by the key of its first certificate.
    #[error("reference integrity manifest: the key of its certificate did not sign it")]
    Signature,
    /// One of its certificates.
    #[error("reference integrity manifest: {0}")]
    Certificate(#[from] EkError),
}

/// A manifest, read, and signed by the key of its own first certificate. Whose that is, is for
/// the caller to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// The version of driver or VBIOS that it is about, as the maker writes it.
    pub version: String,
    /// The product, such as `GH100`.
    pub product: String,
    /// Values of the measurements that count, by the index that a report gives them (from 1): a
    /// measurement has to be one of its values.
    pub values: BTreeMap<u8, Vec<Value>>,
    /// The signer's certificate, then others.
    pub certificates: Vec<Certificate>,
    /// SHA-256 of the file.
    pub digest: Digest,
}

impl Manifest {
    /// Reads a whole file and checks its signature.
    pub fn read(bytes: &[u8]) -> Result<Self, RimError> {
        if bytes.len() > MAX_BYTES {
            return Err(form(format!(
                "it has {} bytes, over {MAX_BYTES}",
                bytes.len()
            )));
        }
        let text = core::str::from_utf8(bytes).map_err(|error| form(error.to_string()))?;
        let document = read(text).map_err(form)?;
        let root = document.root_element();
        if !root.has_tag_name((TAG, "SoftwareIdentity")) {
            return Err(form("it is no software identification tag"));
        }
        let certificates = signed(root)?;
        let meta = only(root, TAG, "Meta")?;
        Ok(Self {
            version: attribute(meta, "colloquialVersion")?.to_owned(),
            product: attribute(meta, "product")?.to_owned(),
            values: values(only(root, TAG, "Payload")?)?,
            certificates,
            digest: sha256(bytes),
        })
    }
}

fn form(detail: impl Into<String>) -> RimError {
    RimError::Form(detail.into())
}

/// The one child of this name.
fn only<'a, 'i>(parent: Node<'a, 'i>, space: &str, name: &str) -> Result<Node<'a, 'i>, RimError> {
    let mut found = parent
        .children()
        .filter(|child| child.has_tag_name((space, name)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(form(format!("it has no {name}"))),
        (Some(_), Some(_)) => Err(form(format!("it has two of {name}"))),
    }
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str, RimError> {
    let absent = || form(format!("{} has no {name}", node.tag_name().name()));
    node.attribute(name).ok_or_else(absent)
}

/// That an element names this algorithm, and has nothing that changes what it does.
fn algorithm(node: Node<'_, '_>, want: &str) -> Result<(), RimError> {
    let got = attribute(node, "Algorithm")?;
    if got != want || node.children().any(|child| child.is_element()) {
        return Err(form(format!(
            "{} is {got:?}, not {want:?} alone",
            node.tag_name().name()
        )));
    }
    Ok(())
}

fn decoded(node: Node<'_, '_>) -> Result<Vec<u8>, RimError> {
    let text: String = node.children().filter_map(|child| child.text()).collect();
    let text: String = text
        .chars()
        .filter(|one| !one.is_ascii_whitespace())
        .collect();
    Base64::decode_vec(&text)
        .map_err(|_base64| form(format!("{} is not base64", node.tag_name().name())))
}

/// Checks the signature over everything but itself, and gives its certificates.
fn signed(root: Node<'_, '_>) -> Result<Vec<Certificate>, RimError> {
    let signature = only(root, SIGNATURE, "Signature")?;
    let info = only(signature, SIGNATURE, "SignedInfo")?;
    algorithm(only(info, SIGNATURE, "CanonicalizationMethod")?, CANONICAL)?;
    algorithm(only(info, SIGNATURE, "SignatureMethod")?, ECDSA)?;
    let reference = only(info, SIGNATURE, "Reference")?;
    if !attribute(reference, "URI")?.is_empty() {
        return Err(form("its signature is over a part of it"));
    }
    let transforms = only(reference, SIGNATURE, "Transforms")?;
    let steps: Vec<_> = transforms.children().filter(Node::is_element).collect();
    let [first, second] = steps.as_slice() else {
        return Err(form("its signature has other than two transforms"));
    };
    algorithm(*first, ENVELOPED)?;
    algorithm(*second, CANONICAL)?;
    algorithm(only(reference, SIGNATURE, "DigestMethod")?, DIGEST)?;
    let digest = decoded(only(reference, SIGNATURE, "DigestValue")?)?;
    if Sha384::digest(canonical(root, Some(signature))).as_slice() != digest {
        return Err(RimError::Changed);
    }

    let keys = only(signature, SIGNATURE, "KeyInfo")?;
    let data = only(keys, SIGNATURE, "X509Data")?;
    let written = data
        .children()
        .filter(|child| child.has_tag_name((SIGNATURE, "X509Certificate")));
    let mut certificates = Vec::new();
    for one in written.take(MAX_CERTIFICATES) {
        certificates.push(Certificate::read(&decoded(one)?)?);
    }
    let signer = certificates
        .first()
        .ok_or_else(|| form("it has no certificate"))?;
    let key =
        VerifyingKey::from_sec1_bytes(signer.p384_point()?).map_err(|_off| RimError::Signature)?;
    let value = decoded(only(signature, SIGNATURE, "SignatureValue")?)?;
    let value = Signature::from_slice(&value).map_err(|_range| RimError::Signature)?;
    key.verify_prehash(&Sha384::digest(canonical(info, None)), &value)
        .map_err(|_other| RimError::Signature)?;
    Ok(certificates)
}

/// The measurements that count. A manifest numbers them from 0, a report from 1.
fn values(payload: Node<'_, '_>) -> Result<BTreeMap<u8, Vec<Value>>, RimError> {
    let mut found = BTreeMap::new();
    let mut seen = [false; 255];
    for resource in payload.children().filter(Node::is_element) {
        if !resource.has_tag_name((TAG, "Resource")) {
            let name = resource.tag_name().name();
            return Err(form(format!("its payload has a {name}")));
        }
        if attribute(resource, "type")? != "Measurement" {
            return Err(form("a resource is no measurement"));
        }
        let index = attribute(resource, "index")?;
        let place = index.parse::<usize>().ok();
        let place = place.and_then(|place| seen.get_mut(place));
        match place {
            None => return Err(form(format!("no measurement has index {index:?}"))),
            Some(seen) if *seen => return Err(form(format!("measurement {index} is there twice"))),
            Some(seen) => *seen = true,
        }
        let is_active = match attribute(resource, "active")? {
            "True" | "true" => true,
            "False" | "false" => false,
            other => return Err(form(format!("measurement {index}: active is {other:?}"))),
        };
        let alternatives = alternatives(resource, index)?;
        let in_report = index.parse::<u8>().ok().and_then(|at| at.checked_add(1));
        if let Some(at) = in_report.filter(|_| is_active) {
            found.insert(at, alternatives);
        }
    }
    if found.is_empty() {
        return Err(form("no measurement of it counts"));
    }
    Ok(found)
}

fn alternatives(resource: Node<'_, '_>, index: &str) -> Result<Vec<Value>, RimError> {
    let count = attribute(resource, "alternatives")?;
    let count = count.parse().ok();
    let count: usize = count
        .filter(|count| (1..=MAX_ALTERNATIVES).contains(count))
        .ok_or_else(|| form(format!("measurement {index} has no number of alternatives")))?;
    (0..count)
        .map(|one| {
            let name = format!("Hash{one}");
            let text = resource.attribute((SHA384, name.as_str()));
            let mut value = [0; VALUE_BYTES];
            hex::decode_to_slice(text.unwrap_or_default(), &mut value)
                .map_err(|error| form(format!("measurement {index}, {name}: {error}")))?;
            Ok(value)
        })
        .collect()
}
