//! The TPM crate against a real software TPM, judged by tpm2-tools.
#![cfg(test)]

mod support;

use merestone_evidence::{Digest, sha256};
use merestone_tpm::{AkKind, Clock, Deadline, EsysTpm, Options, Tpm as _, TpmError};
use std::{fs, time::Duration};
use support::Swtpm;

const PCRS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn options(swtpm: &Swtpm) -> Options {
    Options::at(swtpm.tcti().parse().unwrap())
}

fn tool(swtpm: &Swtpm, dir: &tempfile::TempDir, words: &[&str]) -> String {
    swtpm.tool(dir.path(), words).unwrap()
}

#[test]
fn tpm2_checkquote_accepts_a_quote_of_either_key_and_refuses_another_challenge() {
    let Some(swtpm) = Swtpm::start_or_skip("tpm2_checkquote_accepts_a_quote_of_either_key") else {
        return;
    };
    for (kind, handle) in [
        (AkKind::EcdsaP256, 0x8101_4D53),
        (AkKind::Rsassa2048, 0x8101_4D54),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let challenge = sha256(b"statement");
        {
            let options = Options {
                ak_kind: Some(kind),
                ak_handle: handle,
                ..options(&swtpm)
            };
            let mut tpm = EsysTpm::open(&options).unwrap();
            tpm.extend(15, &challenge).unwrap();
            let quoted = tpm.quote(&PCRS, &challenge).unwrap();
            assert_eq!(
                quoted
                    .quote
                    .pcrs
                    .iter()
                    .map(|pcr| pcr.index)
                    .collect::<Vec<_>>(),
                PCRS
            );
            fs::write(dir.path().join("attest"), &quoted.quote.attest).unwrap();
            fs::write(dir.path().join("sig"), &quoted.quote.signature).unwrap();
        }
        tool(
            &swtpm,
            &dir,
            &[
                "tpm2_readpublic",
                "-c",
                &format!("{handle:#x}"),
                "-f",
                "pem",
                "-o",
                "ak.pem",
            ],
        );
        let good = challenge.to_string();
        let check = [
            "tpm2_checkquote",
            "-u",
            "ak.pem",
            "-m",
            "attest",
            "-s",
            "sig",
            "-g",
            "sha256",
            "-q",
        ];
        let shown = tool(&swtpm, &dir, &[&check[..], &[good.as_str()]].concat());
        assert!(shown.contains("sig"), "{shown}");
        let other = sha256(b"other").to_string();
        swtpm
            .tool(dir.path(), &[&check[..], &[other.as_str()]].concat())
            .unwrap_err();
    }
}

#[test]
fn n21_the_key_is_a_restricted_signing_primary_of_the_endorsement_hierarchy() {
    let Some(swtpm) = Swtpm::start_or_skip("the_key_is_a_restricted_signing_primary") else {
        return;
    };
    let (name, public) = {
        let tpm = EsysTpm::open(&options(&swtpm)).unwrap();
        (tpm.ak_name_hex(), tpm.ak_public().to_vec())
    };
    let dir = tempfile::tempdir().unwrap();
    let shown = tool(
        &swtpm,
        &dir,
        &[
            "tpm2_readpublic",
            "-c",
            "0x81014D53",
            "-f",
            "tpmt",
            "-o",
            "ak.tpmt",
        ],
    );
    assert!(shown.contains(&format!("name: {name}")), "{shown}");
    assert!(
        shown.contains(
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign\n"
        ),
        "{shown}"
    );
    assert!(
        shown.contains("ecdsa") && shown.contains("NIST p256"),
        "{shown}"
    );
    assert_eq!(fs::read(dir.path().join("ak.tpmt")).unwrap(), public);
    assert_eq!(name, format!("000b{}", sha256(&public)));
}

#[test]
fn the_key_is_found_again_and_made_again_with_the_same_name() {
    let Some(mut swtpm) = Swtpm::start_or_skip("the_key_is_found_again") else {
        return;
    };
    let name = |swtpm: &Swtpm| EsysTpm::open(&options(swtpm)).unwrap().ak_name_hex();
    let first = name(&swtpm);
    assert_eq!(name(&swtpm), first, "a second connection");
    swtpm.reset();
    assert_eq!(name(&swtpm), first, "a reboot");
    let dir = tempfile::tempdir().unwrap();
    tool(&swtpm, &dir, &["tpm2_evictcontrol", "-c", "0x81014D53"]);
    assert_eq!(name(&swtpm), first, "made again");
}

#[test]
fn a_key_of_somebody_else_under_the_handle_is_refused_and_left_alone() {
    let Some(swtpm) = Swtpm::start_or_skip("a_key_of_somebody_else_is_refused") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    // Right attributes and scheme, wrong hierarchy (N29); then a storage key.
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
    for (handle, how, why) in [
        (
            "0x81014D53",
            &[
                "-C",
                "o",
                "-G",
                "ecc256:ecdsa-sha256:null",
                "-a",
                attributes,
            ][..],
            "endorsement",
        ),
        ("0x81014D54", &["-C", "e", "-G", "ecc256"][..], "attributes"),
    ] {
        tool(
            &swtpm,
            &dir,
            &[&["tpm2_createprimary", "-c", "key.ctx"][..], how].concat(),
        );
        tool(
            &swtpm,
            &dir,
            &["tpm2_evictcontrol", "-c", "key.ctx", handle],
        );
        tool(&swtpm, &dir, &["tpm2_flushcontext", "-t"]);
        let ak_handle = u32::from_str_radix(handle.trim_start_matches("0x"), 16).unwrap();
        let error = EsysTpm::open(&Options {
            ak_handle,
            ..options(&swtpm)
        })
        .unwrap_err();
        assert!(
            matches!(error, TpmError::HandleTaken { handle, .. } if handle == ak_handle),
            "{error}"
        );
        assert!(error.to_string().contains(why), "{error}");
        tool(&swtpm, &dir, &["tpm2_readpublic", "-c", handle]);
    }
}

#[test]
fn an_extend_changes_the_register_as_the_specification_says() {
    let Some(swtpm) = Swtpm::start_or_skip("an_extend_changes_the_register") else {
        return;
    };
    let mut tpm = EsysTpm::open(&options(&swtpm)).unwrap();
    let before = tpm.read_pcrs(&[15]).unwrap();
    tpm.extend(15, &sha256(b"epoch")).unwrap();
    let after = tpm.read_pcrs(&[15]).unwrap();
    assert_eq!(after[0].value, before[0].value.extended(&sha256(b"epoch")));
    assert_eq!(tpm.read_pcrs(&PCRS).unwrap().len(), 16);
}

#[test]
fn n14_a_resettable_register_is_refused_as_the_chain() {
    let Some(swtpm) = Swtpm::start_or_skip("a_resettable_register_is_refused") else {
        return;
    };
    let mut tpm = EsysTpm::open(&options(&swtpm)).unwrap();
    for pcr in [16, 17, 22, 23, 24, 255] {
        let error = tpm.extend(pcr, &Digest::ZERO).unwrap_err();
        assert!(matches!(error, TpmError::ChainPcr { .. }), "{error}");
    }
}

#[test]
fn the_clock_shows_a_reboot() {
    let Some(mut swtpm) = Swtpm::start_or_skip("the_clock_shows_a_reboot") else {
        return;
    };
    let before = {
        let mut tpm = EsysTpm::open(&options(&swtpm)).unwrap();
        let quoted = tpm.quote(&PCRS, &sha256(b"1")).unwrap();
        assert_eq!(Clock::of_attest(&quoted.quote.attest), Some(quoted.clock));
        tpm.clock().unwrap()
    };
    swtpm.reset();
    let after = EsysTpm::open(&options(&swtpm)).unwrap().clock().unwrap();
    assert_eq!(after.reset_count, before.reset_count + 1);
}

#[test]
fn a_lockout_that_others_caused_does_not_stop_the_quotes() {
    let Some(swtpm) = Swtpm::start_or_skip("a_lockout_that_others_caused") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let lock = ["-s", "-n", "1", "-t", "1000", "-l", "1000"];
    tool(
        &swtpm,
        &dir,
        &[&["tpm2_dictionarylockout"][..], &lock].concat(),
    );
    tool(
        &swtpm,
        &dir,
        &["tpm2_createprimary", "-p", "secret", "-c", "key.ctx"],
    );
    for _failure in 0..2 {
        let create = [
            "tpm2_create",
            "-C",
            "key.ctx",
            "-P",
            "wrong",
            "-u",
            "u",
            "-r",
            "r",
        ];
        swtpm.tool(dir.path(), &create).unwrap_err();
    }
    tool(&swtpm, &dir, &["tpm2_flushcontext", "-t"]);
    let shown = tool(&swtpm, &dir, &["tpm2_getcap", "properties-variable"]);
    assert!(shown.contains("inLockout:                 1"), "{shown}");
    let mut tpm = EsysTpm::open(&options(&swtpm)).unwrap();
    tpm.quote(&PCRS, &sha256(b"1")).unwrap();
}

#[test]
fn a_software_tpm_is_called_one() {
    let Some(swtpm) = Swtpm::start_or_skip("a_software_tpm_is_called_one") else {
        return;
    };
    let tpm = EsysTpm::open(&options(&swtpm)).unwrap();
    let properties = tpm.properties();
    assert!(properties.software);
    assert_eq!(properties.manufacturer, "IBM");
    assert_eq!(properties.vendor, "SW TPM");
}

#[test]
fn a_wrong_address_is_refused_in_one_line_that_says_what_to_do() {
    // Port 1 (tcpmux) is not in use on a test machine.
    let options = Options::at("swtpm:host=127.0.0.1,port=1".parse().unwrap());
    let message = EsysTpm::open(&options).unwrap_err().to_string();
    assert!(
        message.starts_with(
            "cannot reach the TPM at swtpm:host=127.0.0.1,port=1: connection refused; start it"
        ),
        "{message}"
    );
    assert!(!message.contains('\n'));
}

#[test]
fn a_tpm_that_hangs_holds_its_caller_no_longer_than_the_limit() {
    let Some(swtpm) = Swtpm::start_or_skip("a_tpm_that_hangs") else {
        return;
    };
    let options = options(&swtpm);
    let mut tpm =
        Deadline::spawn(Duration::from_secs(20), move || EsysTpm::open(&options)).unwrap();
    tpm.set_limit(Duration::from_millis(300));
    tpm.quote(&PCRS, &sha256(b"1")).unwrap();
    swtpm.pause();
    let late = tpm.quote(&PCRS, &sha256(b"2")).unwrap_err();
    assert!(matches!(late, TpmError::Deadline { .. }), "{late}");
    let busy = tpm.read_pcrs(&[15]).unwrap_err();
    assert!(matches!(busy, TpmError::Busy), "{busy}");
    swtpm.resume();
    tpm.set_limit(Duration::from_secs(20));
    let answer = (0..200).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        tpm.quote(&PCRS, &sha256(b"3")).ok()
    });
    assert!(answer.is_some(), "it answers again once it is back");
}
