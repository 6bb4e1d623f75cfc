//! L2: documents in the forms of three clouds, in bundles, for this verifier and for others to judge.
//!
//! What the parsers make of OpenSSL's own is with them (`src/location/cloud/tests.rs`); here each
//! document is tied to the session that the bundle seals, which is why they are signed anew.

use crate::support::{Maker, START, demand, judge};
use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use merestone_evidence::{
    Blob, Bundle, CloudDocument, Digest, LocationEvidence, LocationKind, SessionId, cloud_audience,
    cloud_nonce, encode, sha256,
};
use merestone_verify::Location;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use sha2::{Digest as _, Sha256};
use x509_cert::der::{Decode as _, Encode as _};

const ISSUER: &str = include_str!("support/cloud/azure-issuer.pem");
const LEAF: &str = include_str!("support/cloud/azure-leaf.pem");
const STRANGER: &str = include_str!("support/cloud/azure-stranger.pem");
const AWS_DOCUMENT: &str = include_str!("../../src/location/cloud/testdata/aws.json");
/// Signed data as OpenSSL makes it where it writes as it reads, as the metadata service does.
const AWS_SIGNATURE: &[u8] = include_bytes!("../../src/location/cloud/testdata/aws.rsa2048");
const AWS_SIGNER: &str = include_str!("../../src/location/cloud/testdata/aws.pem");

fn key() -> RsaPrivateKey {
    let der = include_bytes!("support/test-only-rsa-2048.pk8");
    RsaPrivateKey::from_pkcs8_der(der).unwrap()
}

fn signature(message: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(message);
    key().sign(Pkcs1v15Sign::new::<Sha256>(), &digest).unwrap()
}

fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 128 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(bytes.len()).unwrap());
            out.extend(bytes);
        }
    }
    out.extend(contents);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

fn pem(text: &str) -> Vec<u8> {
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    Base64::decode_vec(&body).unwrap()
}

/// PKCS #7 signed data (RFC 5652) over `content`, by the key of the tests, whose certificate is
/// `signer`; with signed attributes.
fn signed_data(content: &[u8], signer: &str) -> Vec<u8> {
    let oid = |last: &[u8]| {
        tlv(
            6,
            &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01], last].concat(),
        )
    };
    let data = oid(&[7, 1]);
    let sha256_with = sequence(&[&tlv(6, &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1]), &[5, 0]]);
    let rsa_with = sequence(&[&oid(&[1, 1]), &[5, 0]]);
    let attribute = |kind: &[u8], value: &[u8]| sequence(&[&oid(&[9, kind[0]]), &tlv(0x31, value)]);
    let attributes = [
        attribute(&[3], &data),
        attribute(&[4], &tlv(4, &sha256(content).0)),
    ]
    .concat();
    let (leaf, issuer) = (pem(signer), pem(ISSUER));
    // Which of the certificates: its issuer's name and its number.
    let read = x509_cert::Certificate::from_der(&leaf).unwrap();
    let read = read.tbs_certificate();
    let who = sequence(&[
        &read.issuer().to_der().unwrap(),
        &read.serial_number().to_der().unwrap(),
    ]);
    let one = sequence(&[
        &[2, 1, 1],
        &who,
        &sha256_with,
        &tlv(0xa0, &attributes),
        &rsa_with,
        &tlv(4, &signature(&tlv(0x31, &attributes))),
    ]);
    let inner = sequence(&[
        &[2, 1, 1],
        &tlv(0x31, &sha256_with),
        &sequence(&[&data, &tlv(0xa0, &tlv(4, content))]),
        &tlv(0xa0, &[leaf, issuer].concat()),
        &tlv(0x31, &one),
    ]);
    sequence(&[&oid(&[7, 2]), &tlv(0xa0, &inner)])
}

fn document(
    provider: &str,
    document: impl Into<Vec<u8>>,
    signature: Option<&[u8]>,
) -> CloudDocument {
    CloudDocument {
        provider: provider.to_owned(),
        document: document.into(),
        signature: signature.map(<[u8]>::to_vec),
    }
}

fn aws() -> CloudDocument {
    document("aws", AWS_DOCUMENT, Some(AWS_SIGNATURE))
}

/// Attested data with this nonce, of the minute in which the evidence of the tests was made.
fn azure(nonce: &str, signer: &str) -> CloudDocument {
    azure_of(
        nonce,
        signer,
        "10/09/25 08:53:20 -0000",
        "10/09/25 14:53:20 -0000",
    )
}

fn azure_of(nonce: &str, signer: &str, created: &str, expires: &str) -> CloudDocument {
    let content = format!(
        r#"{{"licenseType":"","nonce":"{nonce}","subscriptionId":"8d10da13-0000-0000-0000-000000000000","timeStamp":{{"createdOn":"{created}","expiresOn":"{expires}"}},"vmId":"02aab8a4-74ef-476e-8182-f6d2ba4166a6"}}"#
    );
    let body = Base64::encode_string(&signed_data(content.as_bytes(), signer));
    let answer = format!(r#"{{"encoding":"pkcs7","signature":"{body}"}}"#);
    document("azure", answer, None)
}

/// An identity token with this audience and header.
fn gcp(audience: &str, header: &str) -> CloudDocument {
    let at = START / 1000;
    let claims = format!(
        r#"{{"aud":"{audience}","exp":{},"google":{{"compute_engine":{{"instance_id":"3245678901234567890","zone":"europe-west3-a"}}}},"iat":{at},"iss":"https://accounts.google.com","sub":"1"}}"#,
        at + 3600
    );
    let part = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
    let signed = format!("{}.{}", part(header), part(&claims));
    let signature = Base64UrlUnpadded::encode_string(&signature(signed.as_bytes()));
    document("gcp", format!("{signed}.{signature}"), None)
}

const GOOD: &str = r#"{"alg":"RS256","kid":"k1","typ":"JWT"}"#;

/// A bundle whose second epoch sealed these documents.
fn sealed(documents: Vec<CloudDocument>) -> Bundle {
    let evidence = encode(&LocationEvidence {
        kind: LocationKind,
        session: SessionId([1; 16]),
        landmarks: Vec::<Blob>::new(),
        clouds: documents,
    });
    let mut maker = Maker::new();
    let digest = sha256(&evidence);
    maker.epoch = Box::new(move |number, statement| {
        statement.location = (number == 1).then_some(digest);
    });
    let mut bundle = maker.bundle();
    bundle.location = Some(vec![Blob::from(evidence)]);
    bundle
}

/// The digest that ties a document to the session: that of its statement.
fn session() -> Digest {
    sha256(&Maker::new().bundle().sessions[0].statement)
}

fn pinned(provider: &str) -> String {
    let root = include_str!("support/cloud/azure-root.pem");
    let modulus = Base64UrlUnpadded::encode_string(&key().n_bytes());
    match provider {
        "aws" => format!(
            "[[cloud]]\nprovider = \"aws\"\ncertificates = ['''{AWS_SIGNER}''']\nregions = [\"eu-central-1\"]\ninstances = [\"i-0123456789abcdef0\"]\n"
        ),
        "azure" => format!(
            "[[cloud]]\nprovider = \"azure\"\ncertificates = ['''{root}''']\ninstances = [\"02aab8a4-74ef-476e-8182-f6d2ba4166a6\"]\n"
        ),
        _ => format!(
            "[[cloud]]\nprovider = \"gcp\"\njwks = '{{\"keys\":[{{\"alg\":\"RS256\",\"e\":\"AQAB\",\"kid\":\"k1\",\"kty\":\"RSA\",\"n\":\"{modulus}\"}}]}}'\nregions = [\"europe-west3\"]\ninstances = [\"3245678901234567890\"]\n"
        ),
    }
}

fn trust(provider: &str) -> String {
    let node = Maker::new().trust();
    let cloud = pinned(provider);
    format!("{node}\n{cloud}[require]\nlocation_level = \"L2\"\n")
}

#[track_caller]
fn judged(document: CloudDocument, trust: &str, exit: u8, why: &str) -> Option<Location> {
    let verdict = judge(&sealed(vec![document]), trust);
    demand(
        &verdict,
        exit,
        if exit == 0 { "policy.age" } else { "location" },
    );
    let check = verdict.checks.iter().find(|check| check.id == "location");
    let detail = check.map(|check| check.detail.clone()).unwrap_or_default();
    assert!(detail.contains(why), "{why:?} not in: {detail}");
    verdict.location
}

#[test]
fn a_document_of_each_cloud_proves_l2_and_its_region_where_it_states_one() {
    let session = session();
    for (document, region) in [
        (aws(), Some("eu-central-1")),
        (azure(&cloud_nonce(&session), LEAF), None),
        (gcp(&cloud_audience(&session), GOOD), Some("europe-west3")),
    ] {
        let trust = trust(&document.provider);
        let location = judged(document, &trust, 0, "this holds only if").unwrap();
        assert_eq!(location.level, "L2");
        assert_eq!(location.clouds[0].region.as_deref(), region);
    }
}

#[test]
fn n66_a_spoiled_document_of_a_cloud_is_refused_whatever_is_asked() {
    let mut spoiled = aws();
    let at = spoiled.document.len() / 2;
    spoiled.document[at] ^= 1;
    let asked = trust("aws");
    for trust in [asked.replace("\"L2\"", "\"L0\""), asked] {
        judged(spoiled.clone(), &trust, 1, "");
    }
    let mut unsigned = aws();
    unsigned.signature = None;
    judged(unsigned, &trust("aws"), 1, "no signature");
}

#[test]
fn a_document_that_answers_another_session_is_refused_where_it_says_which_it_answers() {
    judged(
        azure("0000000000", LEAF),
        &trust("azure"),
        1,
        "its nonce is",
    );
    let other = cloud_audience(&Digest([7; 32]));
    judged(gcp(&other, GOOD), &trust("gcp"), 1, "its audience is");
}

#[test]
fn a_document_of_a_signer_that_nobody_pinned_or_of_another_name_is_refused() {
    let session = session();
    let nonce = cloud_nonce(&session);
    judged(
        azure(&nonce, STRANGER),
        &trust("azure"),
        1,
        "not \"metadata.azure.com\"",
    );
    let root = include_str!("support/cloud/azure-root.pem");
    let other = trust("azure").replace(root, AWS_SIGNER);
    judged(azure(&nonce, LEAF), &other, 1, "");
    let other = trust("aws").replace(AWS_SIGNER, root);
    judged(aws(), &other, 1, "no pinned certificate");
    let audience = cloud_audience(&session);
    let header = GOOD.replace("k1", "k2");
    judged(gcp(&audience, &header), &trust("gcp"), 1, "is not pinned");
}

#[test]
fn n36_a_token_whose_algorithm_is_none_or_another_is_refused() {
    let audience = cloud_audience(&session());
    for other in ["none", "HS256", "ES256"] {
        let header = GOOD.replace("RS256", other);
        judged(gcp(&audience, &header), &trust("gcp"), 1, "want RS256");
    }
}

#[test]
fn a_document_of_another_instance_region_or_time_fails_and_one_of_an_unpinned_cloud_counts_for_nothing()
 {
    let session = session();
    let other = trust("aws").replace("i-0123456789abcdef0", "i-0123456789abcdef1");
    judged(aws(), &other, 2, "instance");
    // Compared whole: "eu-central" is not "eu-central-1".
    let other = trust("aws").replace("\"eu-central-1\"", "\"eu-central\", \"EU-CENTRAL-1\"");
    judged(aws(), &other, 2, "region");
    let nonce = cloud_nonce(&session);
    let old = azure_of(
        &nonce,
        LEAF,
        "10/08/25 00:00:00 -0000",
        "10/08/25 06:00:00 -0000",
    );
    judged(old, &trust("azure"), 2, "the epoch that sealed it");
    let gcp = gcp(&cloud_audience(&session), GOOD);
    judged(gcp, &trust("azure"), 3, "no document of a pinned cloud");
}
