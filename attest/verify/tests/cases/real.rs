//! Boot event logs of real machines, made by their firmware.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test reads files and says what it skipped"
)]

use merestone_verify::boot::{EventLog, EventLogError};
use std::path::{Path, PathBuf};

/// File, and SHA-256 values of registers 0, 4 and 7 as `tpm2_eventlog` 5.4 replays them, except
/// for the two values of register 0 that say otherwise. Of the rest, go-tpm-tools' own tests list
/// the same for the Arch, COS and Ubuntu 21.04 machines.
const LOGS: [(&str, [&str; 3]); 6] = [
    (
        "arch-linux-workstation.bin",
        [
            "758b773d94feabf52ef5a4c00a7ad2c80d8d6e6d9d58756150be9bc973da9087",
            "925d453d3dfef4ac0c72c957402163d45fa95d05e6d53f047263a3a60b598325",
            "3b4a4db44b7a872524055364e62e897ae678e0d47ab0809f65c3a4ed77f66ab9",
        ],
    ),
    (
        "cos-101-amd-sev.bin",
        [
            "0f35c214608d93c7a6e68ae7359b4a8be5a0e99eea9107ece427c4dea4e439cf",
            "6d9f1a1d461cf77517e8d4c488c53f338a71c5a8e2b81ab7011c14f72cbc9a80",
            "2bc6edaa921f953cec0ffb28dad4f87114886603d6a782036502d28e69d97a48",
        ],
    ),
    (
        "eventlogwithsp800155.bin",
        [
            // tpm2_eventlog 5.4 gives fd1475af…. This is the value that owners of such cloud
            // machines publish from their TPMs; no reading of this very machine is known.
            "d0c70a9310cd0b55767084333022ce53f42befbb69c059ee6c0a32766f160783",
            "18314f0c33adea45e461155e190199716256ca532cd89e9aa3b7d2f6407fa4c8",
            "8c5dc451764d0db9c1e17da03564bcae3a09fa3d7f8e467d9c381dc8698377d6",
        ],
    ),
    (
        "glinux-alex.bin",
        [
            // tpm2_eventlog 5.4 gives 1f0d16fe…, from a start of zero; the log has a startup
            // locality of 3. go-tpm-tools' tests list this value for the machine; an older
            // version had the other, commented out as a broken replay.
            "0e5ea849d7647a1ac1becc096fee4df98f00f8015f934afadaab0b8aa20b38a5",
            "ddb124ca9013f1e42f98537f7f381e47c5e6caa988cf2b4088f452c5a8dd912d",
            "9d1be46302bc4f5055c90a0376d9142e397ca8744f387c9824170f1bc855fde5",
        ],
    ),
    (
        "ubuntu-2104-no-secure-boot.bin",
        [
            "24af52a4f429b71a3184a6d64cddad17e54ea030e2aa6576bf3a5a3d8bd3328f",
            "ebc7ae25d0347868250995c9a8fff16bf79e048453262d0ef2756e213c76181c",
            "0d8847bc5eca06452df10e2f214363845c7ac11d47525a5474e225e72ce25dfe",
        ],
    ),
    (
        "ubuntu-2404-amd-sevsnp.bin",
        [
            "50597a27846e91d025eef597abbc89f72bff9af849094db97b0684d8bc4c515e",
            "abe8b3fa6aecb36c2fd93c6f6edde661c21b353d007410a2739d69bfa7e1b9be",
            "33ad69850fb2c7f30b4f8b4bc10ed93fc954dc07fa726e84f50f3d192dc1c140",
        ],
    ),
];

fn vectors() -> Option<PathBuf> {
    let base = std::env::var_os("MERESTONE_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let folder = base.join("tcg-eventlogs");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED: {} is absent", folder.display());
    None
}

#[test]
fn every_real_crypto_agile_log_replays_as_another_program_says() {
    let Some(folder) = vectors() else { return };
    for (file, values) in LOGS {
        let log = EventLog::parse(&std::fs::read(folder.join(file)).unwrap());
        let log = log.unwrap_or_else(|error| panic!("{file}: {error}"));
        let registers = log.replay();
        for (register, want) in [0, 4, 7].into_iter().zip(values) {
            assert_eq!(
                registers[&register].to_string(),
                want,
                "{file}: register {register}"
            );
        }
    }
}

#[test]
fn n12_a_real_log_of_the_old_form_has_only_sha1_and_is_refused() {
    let Some(folder) = vectors() else { return };
    let bytes = std::fs::read(folder.join("debian-10.bin")).unwrap();
    assert_eq!(EventLog::parse(&bytes), Err(EventLogError::Header));
}

#[test]
fn n17_no_cut_or_flip_of_a_real_log_panics() {
    let Some(folder) = vectors() else { return };
    for (file, _) in LOGS {
        let good = std::fs::read(folder.join(file)).unwrap();
        let want = EventLog::parse(&good).unwrap().replay();
        for at in (0..good.len()).step_by(97) {
            if let Ok(cut) = EventLog::parse(&good[..at]) {
                assert!(cut.replay() != want || good[at..].iter().all(|byte| *byte == 0xff));
            }
            let mut flipped = good.clone();
            flipped[at] ^= 0x80;
            let _flipped = EventLog::parse(&flipped).map(|log| log.replay());
        }
    }
}
