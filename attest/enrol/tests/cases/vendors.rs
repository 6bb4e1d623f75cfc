//! Real certificates of TPM vendors, made by others: `../shared/vectors/ek-roots` and
//! `ek-certificates`, or `$MERESTONE_VECTORS`. Absent ones are reported as skipped.

use merestone_verify::ek::{Anchors, Certificate, EkKey, Rules, certificates};
use std::path::PathBuf;

/// A time at which all of these were in use: 2020-01-01.
const IN_2020: u64 = 1_577_836_800;

fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MERESTONE_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let folder = root.join(name);
    folder.is_dir().then_some(folder)
}

fn all(folder: &PathBuf) -> Vec<Certificate> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    names.sort();
    let read = |path: &PathBuf| {
        certificates(&std::fs::read(path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    names.iter().flat_map(read).collect()
}

#[test]
fn a_clouds_roots_are_read_and_are_no_endorsement_certificates() {
    let Some(folder) = folder("ek-roots") else {
        println!("SKIPPED: a_clouds_roots_are_read: no ek-roots");
        return;
    };
    let authorities = all(&folder);
    assert!(authorities.len() >= 4, "{}", authorities.len());
    let anchors = Anchors {
        roots: authorities.clone(),
        intermediates: Vec::new(),
    };
    for authority in &authorities {
        // They carry the endorsement usage too, as that cloud writes it; still they are issuers.
        let error = anchors
            .trace(&[authority.der()], Rules::default(), IN_2020)
            .unwrap_err();
        assert!(
            error.to_string().contains("certificate authority"),
            "{error}"
        );
        assert!(
            authority.subject().contains("Google"),
            "{}",
            authority.subject()
        );
    }
}

#[test]
fn chips_of_st_and_nuvoton_are_traced_to_their_vendors_roots() {
    let Some(folder) = folder("ek-certificates") else {
        println!("SKIPPED: chips_of_st_and_nuvoton_are_traced: no ek-certificates");
        return;
    };
    let authorities = all(&folder.join("vendors"));
    let subjects: Vec<_> = authorities.iter().map(Certificate::subject).collect();
    // Pinned: what issued itself, and what a root issued that is not among them.
    let root =
        |one: &Certificate| one.subject() == one.issuer() || !subjects.contains(&one.issuer());
    let (roots, intermediates): (Vec<_>, Vec<_>) = authorities.into_iter().partition(root);
    assert!(roots.len() > 8 && intermediates.len() > 20);
    let anchors = Anchors {
        roots,
        intermediates,
    };
    for (file, vendor, model, is_rsa) in [
        ("stm-rsa.der", "STM", "ST33HTPHAHB4", true),
        ("stm-ecc.der", "STM", "ST33HTPHAHB4", false),
        ("nuvoton-rsa.der", "NTC", "NPCT75x", true),
    ] {
        let der = std::fs::read(folder.join(file)).unwrap();
        let found = anchors
            .trace(&[&der], Rules::default(), IN_2020)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        let tpm = found.identity.unwrap();
        assert_eq!((tpm.vendor().as_str(), tpm.model.as_str()), (vendor, model));
        assert_eq!(matches!(found.key, EkKey::Rsa { .. }), is_rsa, "{file}");
        // One byte less, one bit else, or nobody pinned: refused.
        let mut bad = der.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        assert!(anchors.trace(&[&bad], Rules::default(), IN_2020).is_err());
        let nobody = Anchors {
            roots: Vec::new(),
            ..anchors.clone()
        };
        assert!(nobody.trace(&[&der], Rules::default(), IN_2020).is_err());
    }
}

#[test]
fn vendors_issuers_signed_one_another_and_sha1_is_named() {
    let Some(folder) = folder("ek-certificates") else {
        println!("SKIPPED: vendors_issuers_signed_one_another: no ek-certificates");
        return;
    };
    let all = all(&folder.join("vendors"));
    let (mut signed, mut weak) = (0, Vec::new());
    for one in &all {
        // Two keys may bear one name; one of them has to have signed.
        let issuers: Vec<_> = all
            .iter()
            .filter(|issuer| issuer.subject() == one.issuer())
            .collect();
        if issuers.is_empty() {
            continue;
        }
        let outcomes: Vec<_> = issuers.iter().map(|issuer| one.signed_by(issuer)).collect();
        if outcomes.iter().any(Result::is_ok) {
            signed += 1;
        } else {
            let error = outcomes[0].as_ref().unwrap_err().to_string();
            assert!(error.contains("sha-1"), "{error}");
            weak.push(one.subject());
        }
    }
    println!("{signed} signed, {} with sha-1: {weak:?}", weak.len());
    assert!(signed > 35, "{signed}");
}
