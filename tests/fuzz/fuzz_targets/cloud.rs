//! What clouds sign of their instances: whatever holds says what the one document says that the
//! pinned keys signed, of the one instance that the policy names.
//!
//! The first byte says what the others are: a signature of AWS as text or as DER, a document
//! beside AWS's signature, Azure's answer as text or its signed data as DER, a token of Google's,
//! or what a metadata service answers over HTTP.
#![no_main]

use base64ct::{Base64, Encoding as _};
use libfuzzer_sys::fuzz_target;
use merestone_agent::landmark::doors::metadata;
use merestone_evidence::{CloudDocument, Digest, LocationEvidence, LocationKind, SessionId};
use merestone_verify::Trust;
use merestone_verify::location::doors::{Judged, Sealed, judge};
use std::sync::OnceLock;

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!(
            "../../../attest/verify/src/location/cloud/testdata/",
            $name
        ))
    };
}

/// 2026-12-01T00:10:00Z; the documents were made ten minutes before.
const SEALED_MS: u64 = 1_796_083_800_000;

fn trust() -> &'static Trust {
    static TRUST: OnceLock<Trust> = OnceLock::new();
    TRUST.get_or_init(|| {
        let text = |bytes: &'static [u8]| std::str::from_utf8(bytes).expect("text");
        let policy = format!(
            "version = 1\n[[cloud]]\nprovider = \"aws\"\ncertificates = ['''{}''']\n\
             regions = [\"eu-central-1\"]\ninstances = [\"i-0123456789abcdef0\"]\n\
             [[cloud]]\nprovider = \"azure\"\ncertificates = ['''{}''']\n\
             instances = [\"02aab8a4-74ef-476e-8182-f6d2ba4166a6\"]\n\
             [[cloud]]\nprovider = \"gcp\"\njwks = '''{}'''\n\
             regions = [\"europe-west3\"]\ninstances = [\"3245678901234567890\"]\n",
            text(data!("aws.pem")),
            text(data!("azure-root.pem")),
            text(data!("gcp.jwks")),
        );
        Trust::parse(&policy, "trust.toml").expect("a policy")
    })
}

fn judged(provider: &str, document: &[u8], signature: Option<&[u8]>) -> Judged {
    let sealed = Sealed {
        session: SessionId([1; 16]),
        key: [9; 32],
        digest: Digest([7; 32]),
        times_ms: (SEALED_MS - 60_000, SEALED_MS),
    };
    let evidence = LocationEvidence {
        kind: LocationKind,
        session: SessionId([1; 16]),
        landmarks: Vec::new(),
        clouds: vec![CloudDocument {
            provider: provider.to_owned(),
            document: document.to_vec(),
            signature: signature.map(<[u8]>::to_vec),
        }],
    };
    let judged = judge(&sealed, evidence, &trust().place);
    assert_eq!(judged.clouds.len() + judged.faults.len(), 1);
    for told in &judged.clouds {
        let want = match provider {
            "aws" => ("i-0123456789abcdef0", Some("eu-central-1"), false),
            "azure" => ("02aab8a4-74ef-476e-8182-f6d2ba4166a6", None, true),
            _ => ("3245678901234567890", Some("europe-west3"), true),
        };
        let got = (
            told.instance.as_str(),
            told.region.as_deref(),
            told.bound_by.is_some(),
        );
        assert_eq!((told.provider, got), (provider, want));
    }
    judged
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    let json: &[u8] = data!("aws.json");
    match what % 7 {
        0 => drop(judged("aws", json, Some(rest))),
        1 => drop(judged(
            "aws",
            json,
            Some(Base64::encode_string(rest).as_bytes()),
        )),
        2 => {
            for signature in [
                &data!("aws.rsa2048")[..],
                data!("aws.detached"),
                data!("aws.noattr"),
            ] {
                let judged = judged("aws", rest, Some(signature));
                assert_eq!(judged.clouds.len() == 1, rest == json);
            }
        }
        3 => drop(judged("azure", rest, None)),
        4 => {
            let signature = Base64::encode_string(rest);
            let text = format!("{{\"encoding\":\"pkcs7\",\"signature\":\"{signature}\"}}");
            drop(judged("azure", text.as_bytes(), None));
        }
        5 => {
            let judged = judged("gcp", rest, None);
            let sound = data!("gcp.good").trim_ascii();
            // Base64 has one spelling, so a token has, but for the space around it.
            let same = std::str::from_utf8(rest).is_ok_and(|text| text.trim().as_bytes() == sound);
            assert_eq!(judged.clouds.len() == 1, same);
        }
        _ => {
            if let Ok(body) = metadata(rest) {
                assert!(rest.ends_with(&body) && body.len() + 4 <= rest.len());
            }
        }
    }
});
