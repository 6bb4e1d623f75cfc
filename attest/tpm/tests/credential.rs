//! Secrets sealed by one implementation and opened by another: ours, tpm2-tools' and the TPM's.
#![cfg(test)]

#[expect(dead_code, reason = "the other tests use the rest of it")]
mod support;

use merestone_enrol::credential;
use merestone_tpm::{AkKind, EkKind, EsysTpm, Options, Tpm as _};
use merestone_verify::tpm::{EkPublic, Public};
use std::fs;
use std::path::Path;
use support::Swtpm;

const AK: u32 = 0x8101_4D53;
const SECRET: [u8; 32] = *b"a secret of thirty-two bytes....";

/// Deterministic, and nobody's secret.
fn counted() -> impl FnMut(&mut [u8]) {
    let mut next = 1_u8;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            next = next.wrapping_mul(29).wrapping_add(7);
            *byte = next;
        }
    }
}

fn tool(swtpm: &Swtpm, dir: &Path, words: &str) {
    let words: Vec<_> = words.split(' ').collect();
    swtpm.tool(dir, &words).unwrap();
}

/// A certificate that is none, in the index where the vendor's would be.
fn write_certificate(swtpm: &Swtpm, dir: &Path, index: &str) {
    let filler = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256], &[0xff; 64]].concat();
    fs::write(dir.join("cert"), filler).unwrap();
    tool(
        swtpm,
        dir,
        &format!("tpm2_nvdefine {index} -C o -s 324 -a ownerread|ownerwrite|authread"),
    );
    tool(swtpm, dir, &format!("tpm2_nvwrite {index} -C o -i cert"));
}

/// The attestation key's Name and the endorsement key's public area, by our own hand.
fn keys(swtpm: &Swtpm, kind: EkKind) -> (Vec<u8>, Vec<u8>) {
    let mut tpm = open(swtpm);
    let endorsement = tpm.endorsement(Some(kind)).unwrap();
    assert_eq!(endorsement.certificates.len(), 1);
    assert_eq!(
        endorsement.certificates[0].len(),
        260,
        "what fills the index is cut off"
    );
    (tpm.ak_name().to_vec(), endorsement.public)
}

fn open(swtpm: &Swtpm) -> EsysTpm {
    let options = Options {
        ak_kind: Some(AkKind::EcdsaP256),
        ..Options::at(swtpm.tcti().parse().unwrap())
    };
    EsysTpm::open(&options).unwrap()
}

const KINDS: [(EkKind, &str, &str); 2] = [
    (EkKind::Rsa2048, "rsa", "0x01C00002"),
    (EkKind::EccP256, "ecc", "0x01C0000A"),
];

#[test]
fn what_we_seal_tpm2_activatecredential_and_our_own_tpm_crate_open() {
    let name = "what_we_seal_tpm2_activatecredential_opens";
    let Some(swtpm) = Swtpm::start_or_skip(name) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (kind, algorithm, index) in KINDS {
        write_certificate(&swtpm, dir, index);
        let (ak_name, ek_public) = keys(&swtpm, kind);
        let ek = EkPublic::parse(&ek_public).unwrap();
        let sealed = credential::make(&ek.key, &ak_name, &SECRET, &mut counted()).unwrap();
        let opened = open(&swtpm)
            .activate(
                &Public::name_of(&ek_public),
                &sealed.id_object,
                &sealed.encrypted_seed,
            )
            .unwrap();
        assert_eq!(opened, SECRET, "{kind:?}");

        // The file of tpm2-tools: a magic number, a version, and both structures with lengths.
        let mut blob = vec![0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
        for part in [&sealed.id_object, &sealed.encrypted_seed] {
            blob.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            blob.extend(part);
        }
        fs::write(dir.join("blob"), blob).unwrap();
        tool(
            &swtpm,
            dir,
            &format!("tpm2_createek -G {algorithm} -c ek.ctx -u ek.pub"),
        );
        tool(
            &swtpm,
            dir,
            "tpm2_startauthsession --policy-session -S session.ctx",
        );
        tool(&swtpm, dir, "tpm2_policysecret -S session.ctx -c e");
        tool(
            &swtpm,
            dir,
            &format!(
                "tpm2_activatecredential -c {AK:#x} -C ek.ctx -i blob -o opened -P session:session.ctx"
            ),
        );
        tool(&swtpm, dir, "tpm2_flushcontext session.ctx");
        tool(&swtpm, dir, "tpm2_flushcontext -t");
        assert_eq!(fs::read(dir.join("opened")).unwrap(), SECRET, "{kind:?}");
        fs::remove_file(dir.join("opened")).unwrap();
    }
}

#[test]
fn what_tpm2_makecredential_seals_we_open_and_a_blob_for_another_key_stays_shut() {
    let name = "what_tpm2_makecredential_seals_we_open";
    let Some(swtpm) = Swtpm::start_or_skip(name) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (kind, algorithm, index) in KINDS {
        write_certificate(&swtpm, dir, index);
        let (ak_name, ek_public) = keys(&swtpm, kind);
        fs::write(dir.join("secret"), SECRET).unwrap();
        tool(
            &swtpm,
            dir,
            &format!("tpm2_createek -G {algorithm} -c ek.ctx -u ek.pub"),
        );
        tool(&swtpm, dir, "tpm2_flushcontext -t");
        // Its public area is ours, but for the length in front.
        let theirs = fs::read(dir.join("ek.pub")).unwrap();
        assert_eq!(theirs[2..], ek_public, "{kind:?}");
        let make = |ak: &[u8]| {
            let name = hex::encode(ak);
            tool(
                &swtpm,
                dir,
                &format!("tpm2_makecredential -T none -u ek.pub -s secret -n {name} -o blob"),
            );
            let blob = fs::read(dir.join("blob")).unwrap();
            let (id, rest) = sized(&blob[8..]);
            let (seed, rest) = sized(rest);
            assert!(rest.is_empty());
            (id.to_vec(), seed.to_vec())
        };
        let ek_name = Public::name_of(&ek_public);
        let (id, seed) = make(&ak_name);
        let mut tpm = open(&swtpm);
        assert_eq!(
            tpm.activate(&ek_name, &id, &seed).unwrap(),
            SECRET,
            "{kind:?}"
        );
        // N22, N26: sealed to another attestation key, or changed by one bit.
        let mut bad = id.clone();
        bad[40] ^= 1;
        assert!(tpm.activate(&ek_name, &bad, &seed).is_err());
        let mut bad = seed.clone();
        bad[40] ^= 1;
        assert!(tpm.activate(&ek_name, &id, &bad).is_err());
        let other = [&ak_name[..2], &[7; 32]].concat();
        assert!(tpm.activate(&other, &id, &seed).is_err());
        drop(tpm);
        let (id, seed) = make(&other);
        assert!(open(&swtpm).activate(&ek_name, &id, &seed).is_err());
    }
}

fn sized(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk::<2>().unwrap();
    rest.split_at(u16::from_be_bytes(*length).into())
}

#[test]
fn without_a_certificate_there_is_nothing_to_enrol_with() {
    let Some(swtpm) = Swtpm::start_or_skip("without_a_certificate_there_is_nothing_to_enrol_with")
    else {
        return;
    };
    let error = open(&swtpm).endorsement(None).unwrap_err().to_string();
    assert!(error.contains("no endorsement certificate"), "{error}");
}
