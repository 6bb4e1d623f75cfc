//! Documents in the forms of the clouds, made by `testdata/make.sh` with keys of our own.

use super::super::error::LocationError;
use super::super::{Finding, Round, State};
use super::{Cloud, CloudTold, Table, ber, check, judge};
use crate::location::PlaceTrust;
use merestone_evidence::{
    Blob, CloudDocument, Digest, LocationEvidence, LocationKind, SessionId, cloud_audience,
    cloud_nonce,
};

/// 2026-12-01T00:10:00Z; the documents were made ten minutes before.
const SEALED_MS: u64 = 1_796_083_800_000;

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("testdata/", $name)).as_slice()
    };
}

fn clouds(text: &str) -> Result<Vec<Cloud>, String> {
    #[derive(serde::Deserialize)]
    struct File {
        cloud: Vec<Table>,
    }
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let files = |name: &str| match name {
        "aws.pem" => Ok(data!("aws.pem").to_vec()),
        "other.pem" => Ok(data!("other.pem").to_vec()),
        "root.pem" => Ok(data!("azure-root.pem").to_vec()),
        "jwks" => Ok(data!("gcp.jwks").to_vec()),
        _ => Err("no such file".to_owned()),
    };
    check(file.cloud, &files).map_err(|(_, detail)| detail)
}

const AWS: &str = "[[cloud]]\nprovider = \"aws\"\ncertificates = [\"aws.pem\"]\nregions = [\"eu-central-1\"]\ninstances = [\"i-0123456789abcdef0\"]\n";
const AZURE: &str = "[[cloud]]\nprovider = \"azure\"\ncertificates = [\"root.pem\"]\ninstances = [\"02aab8a4-74ef-476e-8182-f6d2ba4166a6\"]\n";
const GCP: &str = "[[cloud]]\nprovider = \"gcp\"\njwks = \"jwks\"\nregions = [\"europe-west3\"]\ninstances = [\"3245678901234567890\"]\n";

fn judged(
    trust: &str,
    provider: &str,
    document: &[u8],
    signature: Option<&[u8]>,
) -> (Finding, Vec<CloudTold>) {
    judged_at(SEALED_MS, trust, provider, document, signature)
}

fn judged_at(
    closed_ms: u64,
    trust: &str,
    provider: &str,
    document: &[u8],
    signature: Option<&[u8]>,
) -> (Finding, Vec<CloudTold>) {
    let round = Round {
        at: "session 0 epoch 0",
        session: SessionId([1; 16]),
        session_key: &[9; 32],
        session_digest: Digest([7; 32]),
        opened_ms: closed_ms - 60_000,
        closed_ms,
        evidence: LocationEvidence {
            kind: LocationKind,
            session: SessionId([1; 16]),
            landmarks: Vec::<Blob>::new(),
            clouds: vec![CloudDocument {
                provider: provider.to_owned(),
                document: document.to_vec(),
                signature: signature.map(<[u8]>::to_vec),
            }],
        },
    };
    let trust = PlaceTrust {
        clouds: clouds(trust).unwrap(),
        ..PlaceTrust::default()
    };
    judge(&[round], &[], &trust, 60_000)
}

#[track_caller]
fn refused(found: (Finding, Vec<CloudTold>), why: &str) -> LocationError {
    let (mut finding, told) = found;
    assert!(told.is_empty() && finding.state == State::Short, "{told:?}");
    let error = finding.faults.remove(0);
    assert!(error.to_string().contains(why), "{why:?} not in: {error}");
    error
}

#[test]
fn documents_of_each_cloud_hold_and_say_what_ties_them() {
    let json = data!("aws.json");
    for signature in [
        data!("aws.rsa2048"),
        data!("aws.detached"),
        data!("aws.noattr"),
    ] {
        let (finding, told) = judged(AWS, "aws", json, Some(signature));
        assert_eq!(finding.state, State::Proven, "{:?}", finding.faults);
        assert_eq!(told[0].region.as_deref(), Some("eu-central-1"));
        assert_eq!(told[0].bound_by, None);
        assert!(
            finding.detail.contains("it may be of any time"),
            "{}",
            finding.detail
        );
    }
    let (finding, told) = judged(AZURE, "azure", data!("azure.good"), None);
    assert_eq!(finding.state, State::Proven, "{:?}", finding.faults);
    assert_eq!(
        (told[0].region.as_deref(), told[0].bound_by.is_some()),
        (None, true)
    );
    let (finding, told) = judged(GCP, "gcp", data!("gcp.good"), None);
    assert_eq!(finding.state, State::Proven, "{:?}", finding.faults);
    assert_eq!(told[0].region.as_deref(), Some("europe-west3"));
    assert_eq!(cloud_nonce(&Digest([7; 32])).len(), 10);
    assert!(cloud_audience(&Digest([7; 32])).ends_with("0707"));
}

#[test]
fn another_signer_digest_or_document_is_refused() {
    let json = data!("aws.json");
    let other = AWS.replace("aws.pem", "other.pem");
    refused(
        judged(&other, "aws", json, Some(data!("aws.rsa2048"))),
        "no pinned certificate",
    );
    refused(
        judged(AWS, "aws", json, Some(data!("aws.sha1"))),
        "no signed data of rsa and sha-256",
    );
    refused(judged(AWS, "aws", json, None), "no signature");
    let changed = String::from_utf8(json.to_vec())
        .unwrap()
        .replace("eu-central-1", "us-east-2xxx");
    let changed = changed.as_bytes();
    refused(
        judged(AWS, "aws", changed, Some(data!("aws.rsa2048"))),
        "another document",
    );
    for signature in [data!("aws.detached"), data!("aws.noattr")] {
        refused(
            judged(AWS, "aws", changed, Some(signature)),
            "no pinned certificate",
        );
    }
    refused(judged(AZURE, "azure", data!("azure.rogue"), None), "");
    refused(
        judged(AZURE, "azure", data!("azure.stranger"), None),
        "not \"metadata.azure.com\"",
    );
    refused(judged(GCP, "gcp", data!("gcp.none"), None), "want RS256");
    refused(judged(GCP, "gcp", data!("gcp.key"), None), "is not pinned");
    let mut spoiled = data!("gcp.good").to_vec();
    let middle = spoiled.len() / 2;
    spoiled[middle] ^= 1;
    refused(judged(GCP, "gcp", &spoiled, None), "");
}

#[test]
fn a_document_of_another_session_or_time_is_refused() {
    refused(
        judged(AZURE, "azure", data!("azure.nonce"), None),
        "its nonce is",
    );
    refused(
        judged(GCP, "gcp", data!("gcp.audience"), None),
        "its audience is",
    );
    refused(
        judged(GCP, "gcp", data!("gcp.issuer"), None),
        "its issuer is",
    );
    let day = SEALED_MS + 86_400_000;
    for (trust, provider, document) in [
        (AZURE, "azure", data!("azure.good")),
        (GCP, "gcp", data!("gcp.good")),
    ] {
        let error = refused(
            judged_at(day, trust, provider, document, None),
            "the epoch that sealed it",
        );
        assert!(matches!(error, LocationError::Time { .. }));
    }
}

#[test]
fn another_instance_or_region_fails_and_an_unpinned_cloud_counts_for_nothing() {
    let instance = AWS.replace("i-0123456789abcdef0", "i-0");
    let signed = Some(data!("aws.rsa2048"));
    refused(
        judged(&instance, "aws", data!("aws.json"), signed),
        "instance",
    );
    let region = AWS.replace("[\"eu-central-1\"]", "[\"eu-central\", \"eu-central-11\"]");
    refused(judged(&region, "aws", data!("aws.json"), signed), "region");
    let region = GCP.replace("europe-west3", "europe-west");
    refused(judged(&region, "gcp", data!("gcp.good"), None), "region");
    let (finding, told) = judged(GCP, "aws", data!("aws.json"), signed);
    assert!(finding.state == State::Absent && told.is_empty() && finding.faults.is_empty());
}

#[test]
fn tables_of_clouds_that_could_not_be_judged_by_are_faults() {
    let fault = |text: &str, why: &str| {
        let error = clouds(text).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    fault(
        &AWS.replace("aws\"\ncert", "oracle\"\ncert"),
        "a provider is",
    );
    fault(
        &AWS.replace("[\"i-0123456789abcdef0\"]", "[]"),
        "name the instances",
    );
    fault(&AWS.replace("[\"aws.pem\"]", "[]"), "name the certificates");
    fault(&AWS.replace("[\"eu-central-1\"]", "[]"), "name the regions");
    fault(&GCP.replace("jwks = \"jwks\"\n", ""), "needs jwks");
    fault(&format!("{AWS}{AWS}"), "a second table");
    fault(&AWS.replace("aws.pem", "none.pem"), "no such file");
}

#[test]
fn no_cut_or_change_of_signed_data_panics_or_passes() {
    let text = data!("aws.rsa2048");
    let bytes = super::cms::unarmoured(text).unwrap();
    for at in 0..bytes.len() {
        assert!(ber::der(&bytes[..at]).is_none(), "cut at {at}");
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        // Version, signer's name and unsigned parts change nothing; nothing else may hold.
        if let Some(signed) = super::cms::Signed::read(&changed)
            && let Some(content) = &signed.content
        {
            let cloud = &clouds(AWS).unwrap()[0];
            let holds = signed.is_over(content, &cloud.anchors.roots[0]);
            assert!(
                !holds || content.as_slice() == data!("aws.json"),
                "byte {at}"
            );
        }
    }
    let deep: Vec<u8> = core::iter::repeat_n([0x30, 0x80], 4000).flatten().collect();
    assert!(ber::der(&deep).is_none());
}
