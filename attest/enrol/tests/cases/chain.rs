//! Endorsement certificates: which are traced to a vendor, and which are refused and why.

use crate::support::x509::{
    CERT_SIGN, CONSTRAINTS, DIGITAL_SIGNATURE, EXTENDED, KEY_AGREEMENT, Made, SAN, Spec, USAGE,
    basic, name, oid, san_short, san_together, sequence, tlv, usage,
};
use crate::support::{ENROLLED, Vendor};
use merestone_verify::Grade;
use merestone_verify::ek::{Anchors, Certificate, EkError, EkTrusted, Rules, certificates};

const NOW_S: u64 = ENROLLED / 1000;

fn trace(vendor: &Vendor, leaf: &Made, between: &[&Made]) -> Result<EkTrusted, EkError> {
    let mut offered = vec![leaf.der.as_slice()];
    offered.extend(between.iter().map(|one| one.der.as_slice()));
    vendor.anchors().trace(&offered, Rules::default(), NOW_S)
}

/// A leaf of the good intermediate.
fn leaf(vendor: &Vendor, spec: &Spec) -> Result<EkTrusted, EkError> {
    let leaf = spec.sign(Some(&vendor.between));
    trace(vendor, &leaf, &[&vendor.between])
}

#[track_caller]
fn refused(outcome: Result<EkTrusted, EkError>, grade: Grade, words: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.grade(), grade, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn a_certificate_of_a_pinned_vendor_is_traced_and_names_its_tpm() {
    let vendor = Vendor::new();
    for san in [crate::support::x509::san_apart(), san_together()] {
        for critical in [true, false] {
            let found = leaf(&vendor, &Spec::leaf(3).with(SAN, critical, san.clone())).unwrap();
            let tpm = found.identity.unwrap();
            assert_eq!(
                (
                    tpm.vendor().as_str(),
                    tpm.model.as_str(),
                    tpm.version.as_str()
                ),
                ("TEST", "SoftModel", "id:00010002")
            );
            assert_eq!(found.anchor_name, "CN=Vendor Root");
            assert_eq!(found.chain.len(), 2);
        }
    }
}

#[test]
fn an_issuer_named_in_another_string_type_and_case_is_the_same() {
    let vendor = Vendor::new();
    let spec = Spec {
        issuer: Some(name("VENDOR intermediate", 0x13)),
        ..Spec::leaf(3)
    };
    assert!(leaf(&vendor, &spec).is_ok());
}

#[test]
fn a_pinned_intermediate_is_enough_and_may_be_among_those_offered() {
    let vendor = Vendor::new();
    let anchors = Anchors {
        roots: vec![Certificate::read(&vendor.between.der).unwrap()],
        intermediates: Vec::new(),
    };
    for offered in [
        vec![vendor.leaf.der.as_slice()],
        vec![vendor.leaf.der.as_slice(), vendor.between.der.as_slice()],
    ] {
        let found = anchors.trace(&offered, Rules::default(), NOW_S).unwrap();
        assert_eq!(found.chain, std::slice::from_ref(&vendor.leaf.der));
    }
}

#[test]
fn n27a_a_chain_that_brings_its_own_root_is_refused() {
    let vendor = Vendor::new();
    // The same names, other keys.
    let root = Spec::authority("Vendor Root", 11).sign(None);
    let between = Spec::authority("Vendor Intermediate", 12).sign(Some(&root));
    let leaf = Spec::leaf(13).sign(Some(&between));
    refused(
        trace(&vendor, &leaf, &[&between, &root]),
        Grade::Untrusted,
        "was not signed by",
    );
    let root = Spec::authority("Another Root", 11).sign(None);
    let between = Spec::authority("Another Intermediate", 12).sign(Some(&root));
    let leaf = Spec::leaf(13).sign(Some(&between));
    refused(
        trace(&vendor, &leaf, &[&between, &root]),
        Grade::Untrusted,
        "no pinned root",
    );
    let alone = Spec::leaf(13).sign(None);
    refused(
        trace(&vendor, &alone, &[]),
        Grade::Untrusted,
        "no pinned root",
    );
}

#[test]
fn n27b_an_issuer_that_may_not_issue_is_refused() {
    let vendor = Vendor::new();
    let authority = || Spec::authority("Vendor Intermediate", 2);
    for (spec, words) in [
        (
            authority().with(CONSTRAINTS, true, basic(false, None)),
            "no certificate authority",
        ),
        (authority().without(CONSTRAINTS), "no certificate authority"),
        (
            authority().with(USAGE, true, usage(DIGITAL_SIGNATURE)),
            "not for signing certificates",
        ),
    ] {
        let between = spec.sign(Some(&vendor.root));
        let leaf = Spec::leaf(3).sign(Some(&between));
        refused(trace(&vendor, &leaf, &[&between]), Grade::Untrusted, words);
    }
    // A TPM's certificate issues nothing, whatever its key could sign.
    let below = Spec::leaf(4);
    let below = Spec {
        issuer: Some(name("", 0)),
        ..below
    }
    .sign(Some(&vendor.leaf));
    refused(
        trace(&vendor, &below, &[&vendor.leaf, &vendor.between]),
        Grade::Untrusted,
        "no certificate authority",
    );
}

#[test]
fn n27b_a_path_longer_than_an_issuer_allows_is_refused() {
    let vendor = Vendor::new();
    let short = Spec::authority("Short", 20)
        .with(CONSTRAINTS, true, basic(true, Some(0)))
        .sign(Some(&vendor.root));
    let leaf = Spec::leaf(3).sign(Some(&short));
    assert!(trace(&vendor, &leaf, &[&short]).is_ok());
    let below = Spec::authority("Below", 21).sign(Some(&short));
    let leaf = Spec::leaf(3).sign(Some(&below));
    refused(
        trace(&vendor, &leaf, &[&below, &short]),
        Grade::Untrusted,
        "path length",
    );
}

#[test]
fn an_authoritys_certificate_to_itself_does_not_count_as_a_step() {
    let vendor = Vendor::new();
    let short = Spec::authority("Short", 20)
        .with(CONSTRAINTS, true, basic(true, Some(0)))
        .sign(Some(&vendor.root));
    let renewed = Spec::authority("Short", 22).sign(Some(&short));
    let leaf = Spec::leaf(3).sign(Some(&renewed));
    assert!(trace(&vendor, &leaf, &[&renewed, &short]).is_ok());
    // One of another name does, also behind it.
    let below = Spec::authority("Below", 21).sign(Some(&renewed));
    let leaf = Spec::leaf(3).sign(Some(&below));
    refused(
        trace(&vendor, &leaf, &[&below, &renewed, &short]),
        Grade::Untrusted,
        "path length",
    );
}

#[test]
fn n27b_an_issuer_without_a_name_is_refused() {
    let vendor = Vendor::new();
    let nameless = Spec::authority("", 2).sign(Some(&vendor.root));
    let leaf = Spec::leaf(3).sign(Some(&nameless));
    refused(
        trace(&vendor, &leaf, &[&nameless]),
        Grade::Untrusted,
        "it has no name",
    );
}

#[test]
fn n27c_restrictions_that_are_not_enforced_and_key_identifiers_called_critical_are_refused() {
    let vendor = Vendor::new();
    for (oid, is_critical, is_fine) in [
        ("2.5.29.30", false, false),
        ("2.5.29.36", false, false),
        ("2.5.29.54", true, false),
        ("2.5.29.14", false, true),
        ("2.5.29.14", true, false),
        ("2.5.29.35", true, false),
        ("1.3.6.1.5.5.7.1.1", true, false),
        ("2.5.29.32", true, true),
    ] {
        let between = Spec::authority("Vendor Intermediate", 2)
            .with(oid, is_critical, sequence(&[]))
            .sign(Some(&vendor.root));
        let end = Spec::leaf(3).sign(Some(&between));
        let outcome = trace(&vendor, &end, &[&between]);
        if is_fine {
            assert!(outcome.is_ok(), "{oid}");
        } else {
            refused(outcome, Grade::Untrusted, oid);
        }
    }
}

#[test]
fn n27c_an_unknown_critical_extension_is_refused_anywhere_in_the_path() {
    let vendor = Vendor::new();
    let odd = ("1.3.6.1.4.1.55555.1", sequence(&[]));
    refused(
        leaf(&vendor, &Spec::leaf(3).with(odd.0, true, odd.1.clone())),
        Grade::Untrusted,
        "critical extension 1.3.6.1.4.1.55555.1",
    );
    assert!(leaf(&vendor, &Spec::leaf(3).with(odd.0, false, odd.1.clone())).is_ok());
    let between = Spec::authority("Vendor Intermediate", 2)
        .with(odd.0, true, odd.1)
        .sign(Some(&vendor.root));
    let end = Spec::leaf(3).sign(Some(&between));
    refused(
        trace(&vendor, &end, &[&between]),
        Grade::Untrusted,
        "critical extension",
    );
    // Name constraints are not enforced, so they are not passed over either.
    let between = Spec::authority("Vendor Intermediate", 2)
        .with("2.5.29.30", false, sequence(&[]))
        .sign(Some(&vendor.root));
    let end = Spec::leaf(3).sign(Some(&between));
    refused(
        trace(&vendor, &end, &[&between]),
        Grade::Untrusted,
        "2.5.29.30",
    );
}

#[test]
fn n27c_the_names_of_the_tpm_are_read_and_not_only_let_pass() {
    let vendor = Vendor::new();
    for (san, words) in [
        (san_short(), "lacks"),
        (sequence(&[]), "lacks"),
        (tlv(0x31, &[]), "malformed"),
        (sequence(&[tlv(0xa4, &[0x30, 0x05, 0x00])]), "malformed"),
        ([san_together(), vec![0x00]].concat(), "malformed"),
    ] {
        refused(
            leaf(&vendor, &Spec::leaf(3).with(SAN, true, san)),
            Grade::Untrusted,
            words,
        );
    }
    let nameless = Spec::leaf(3).without(SAN).sign(Some(&vendor.between));
    refused(
        trace(&vendor, &nameless, &[&vendor.between]),
        Grade::Untrusted,
        "does not name its TPM",
    );
    let offered = [nameless.der.as_slice(), vendor.between.der.as_slice()];
    let lenient = Rules {
        must_name_tpm: false,
    };
    let found = vendor.anchors().trace(&offered, lenient, NOW_S).unwrap();
    assert_eq!(found.identity, None);
}

#[test]
fn n12_a_certificate_signed_with_sha1_is_refused() {
    let vendor = Vendor::new();
    let spec = Spec {
        algorithm: "1.2.840.10045.4.1",
        ..Spec::leaf(3)
    };
    refused(leaf(&vendor, &spec), Grade::Untrusted, "sha-1");
    let spec = Spec {
        algorithm: "1.2.840.10045.4.3.9",
        ..Spec::leaf(3)
    };
    refused(leaf(&vendor, &spec), Grade::Indeterminate, "not known here");
}

#[test]
fn a_certificate_that_is_not_an_endorsement_keys_is_refused() {
    let vendor = Vendor::new();
    for (spec, words) in [
        (Spec::leaf(3).without(EXTENDED), "2.23.133.8.1"),
        (
            Spec::leaf(3).with(EXTENDED, true, sequence(&[oid("2.5.29.37.0")])),
            "2.23.133.8.1",
        ),
        (
            Spec::leaf(3).with(USAGE, true, usage(KEY_AGREEMENT | DIGITAL_SIGNATURE)),
            "allows signing",
        ),
        (
            Spec::leaf(3).with(USAGE, true, usage(0x01)),
            "does not allow",
        ),
        (Spec::leaf(3).without(USAGE), "no key usage"),
        (
            Spec::leaf(3)
                .with(CONSTRAINTS, true, basic(true, None))
                .with(USAGE, true, usage(CERT_SIGN)),
            "certificate authority",
        ),
    ] {
        refused(leaf(&vendor, &spec), Grade::Untrusted, words);
    }
}

#[test]
fn a_certificate_outside_its_validity_fails_the_policy() {
    let vendor = Vendor::new();
    for (from, until) in [
        ("20200101000000Z", "20250101000000Z"),
        ("20400101000000Z", "20500101000000Z"),
    ] {
        let spec = Spec {
            from,
            until,
            ..Spec::leaf(3)
        };
        refused(leaf(&vendor, &spec), Grade::Failed, "is valid from");
        let between = Spec {
            from,
            until,
            ..Spec::authority("Vendor Intermediate", 2)
        }
        .sign(Some(&vendor.root));
        let end = Spec::leaf(3).sign(Some(&between));
        refused(
            trace(&vendor, &end, &[&between]),
            Grade::Failed,
            "is valid from",
        );
    }
}

#[test]
fn an_extension_that_is_there_twice_is_refused() {
    let vendor = Vendor::new();
    let mut spec = Spec::leaf(3);
    let again = spec.extensions[2].clone();
    spec.extensions.push(again);
    refused(leaf(&vendor, &spec), Grade::Untrusted, "twice");
}

#[test]
fn a_path_that_goes_in_circles_ends() {
    let vendor = Vendor::new();
    let one = Spec::authority("One", 30);
    let two = Spec::authority("Two", 31);
    let (a, b) = (one.sign(None), two.sign(None));
    let (one, two) = (one.sign(Some(&b)), two.sign(Some(&a)));
    let leaf = Spec::leaf(3).sign(Some(&one));
    refused(
        trace(&vendor, &leaf, &[&one, &two, &a, &b]),
        Grade::Untrusted,
        "no pinned root",
    );
}

#[test]
fn a_file_of_many_certificates_is_read_and_one_bad_certificate_spoils_it() {
    use base64ct::{Base64, Encoding as _};
    let vendor = Vendor::new();
    let pem = |der: &[u8]| {
        format!(
            "comment\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            Base64::encode_string(der)
        )
    };
    let both = pem(&vendor.root.der) + &pem(&vendor.between.der);
    assert_eq!(certificates(both.as_bytes()).unwrap().len(), 2);
    assert_eq!(certificates(&vendor.root.der).unwrap().len(), 1);
    let bad = both + &pem(b"nothing");
    assert!(certificates(bad.as_bytes()).is_err());
    let cut = &pem(&vendor.root.der).into_bytes()[..200];
    assert!(certificates(cut).is_err());
    let longer = [&vendor.root.der[..], &[0]].concat();
    assert!(certificates(&longer).is_err());
}
