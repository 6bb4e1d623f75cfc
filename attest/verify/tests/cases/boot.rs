//! Boot logs and IMA lists: N12, N13, N15–N18, N20.

use crate::good::measured;
use crate::support::{EventLogMaker, ImaMaker, Maker, demand, judge};
use merestone_evidence::Digest;
use merestone_verify::boot::EventLog;

/// A boot whose log is `log` and whose firmware registers hold what it leads to.
fn booted(log: &EventLogMaker) -> Maker {
    let mut maker = Maker::new();
    for register in 0..8 {
        maker
            .tpm
            .pcrs
            .insert(register, log.value(register, Digest::ZERO));
    }
    maker.boot_log = Some(log.bytes());
    maker
}

#[track_caller]
fn refused(maker: &Maker, exit: u8, id: &str) {
    demand(&judge(&maker.bundle(), &maker.trust()), exit, id);
}

#[test]
fn n12_a_log_without_sha256_digests_is_refused() {
    let mut log = EventLogMaker::good();
    let mut maker = booted(&log);
    log.algorithms = vec![(0x0004, 20)];
    log.events.clear();
    log.event(0, 1, b"weak");
    maker.boot_log = Some(log.bytes());
    refused(&maker, 1, "boot.log");
}

#[test]
fn n17_a_boot_log_that_is_cut_or_promises_more_than_there_is_is_refused() {
    let good = EventLogMaker::good();
    let whole = good.bytes();
    let mut more = whole.clone();
    more.extend([7, 0, 0, 0, 1, 0, 0, 0]);
    more.extend(u32::MAX.to_le_bytes());
    for log in [
        more,
        whole[..whole.len() - 1].to_vec(),
        whole[..40].to_vec(),
    ] {
        let mut maker = booted(&good);
        maker.boot_log = Some(log);
        refused(&maker, 1, "boot.log");
    }
}

#[test]
fn n13_registers_that_firmware_never_extended_are_refused() {
    for zero in [0, 4] {
        let mut log = EventLogMaker::new();
        for register in (0..8).filter(|register| *register != zero) {
            log.event(register, 1, &[register]);
        }
        refused(&booted(&log), 1, "boot.log");
    }
    // Without a log, but with one demanded, the same registers are as telling.
    let mut maker = Maker::new();
    maker.tpm.pcrs.insert(0, Digest::ZERO);
    let trust = maker.trust() + "[require]\nboot_log = true\n";
    demand(&judge(&maker.bundle(), &trust), 1, "boot.log");
    // Where nothing is claimed of the boot, nothing is refused, and it is said.
    let verdict = judge(&maker.bundle(), &maker.trust());
    assert_eq!(verdict.exit, 0);
    assert!(
        verdict
            .not_checked
            .iter()
            .any(|skipped| skipped.id == "boot.log")
    );
}

#[test]
fn a_demanded_log_or_list_that_is_absent_is_indeterminate() {
    let (mut maker, trust) = measured();
    maker.ima_log = None;
    demand(&judge(&maker.bundle(), &trust), 3, "boot.ima");
    maker.boot_log = None;
    demand(&judge(&maker.bundle(), &trust), 3, "boot.log");
}

#[test]
fn n15_a_startup_locality_changes_what_register_0_starts_with() {
    let mut log = EventLogMaker::new();
    log.locality(3);
    for register in 0..8 {
        log.event(register, 1, &[register]);
    }
    let mut maker = booted(&log);
    refused(&maker, 1, "boot.log");
    let mut start = Digest::ZERO;
    start.0[31] = 3;
    maker.tpm.pcrs.insert(0, log.value(0, start));
    refused(&maker, 0, "boot.log");

    let mut late = EventLogMaker::good();
    late.locality(3);
    refused(&booted(&late), 1, "boot.log");
}

#[test]
fn n15_a_register_that_was_quoted_and_never_logged_is_refused() {
    let log = EventLogMaker::good();
    let mut maker = booted(&log);
    let mut less = EventLogMaker::new();
    for register in (0..8).filter(|register| *register != 5) {
        less.event(register, 0x8000_0008, &[register; 40]);
    }
    maker.boot_log = Some(less.bytes());
    refused(&maker, 1, "boot.log");
}

#[test]
fn n15_registers_of_a_dynamic_launch_start_with_ones() {
    let log = EventLog::parse(&EventLogMaker::good().bytes()).unwrap();
    assert_eq!(log.initial(17), Digest([0xff; 32]));
    assert_eq!(log.initial(22), Digest([0xff; 32]));
    assert_eq!(log.initial(16), Digest::ZERO);
}

#[test]
fn n16_an_event_relabelled_as_no_action_does_not_vanish() {
    let mut log = EventLogMaker::good();
    log.event(7, 0x8000_00e0, b"secure boot off");
    let maker_registers = booted(&log);
    let mut lie = EventLogMaker::good();
    lie.raw(7, 3, Digest::ZERO, b"secure boot off");
    let mut maker = maker_registers;
    maker.boot_log = Some(lie.bytes());
    refused(&maker, 1, "boot.log");
}

#[test]
fn n16_other_data_beside_the_same_digest_changes_nothing_that_is_concluded() {
    let mut log = EventLogMaker::good();
    let maker = booted(&log);
    let verdict = judge(&maker.bundle(), &maker.trust());
    let at = log.events.len() - 1;
    log.events[at] ^= 0xff;
    let mut other = maker;
    other.boot_log = Some(log.bytes());
    let again = judge(&other.bundle(), &other.trust());
    let details = |verdict: &merestone_verify::Verdict| {
        verdict
            .checks
            .iter()
            .skip(1)
            .map(|check| check.detail.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(details(&verdict), details(&again));
}

#[test]
fn n17_huge_counts_cut_records_and_absent_digests_are_refused() {
    let good = EventLogMaker::good().bytes();
    assert!(EventLog::parse(&good).is_ok());
    let whole = EventLogMaker::good();
    for cut in 0..good.len() {
        // A cut at the end of an event is a shorter log: the replay tells it, not the form.
        if let Ok(log) = EventLog::parse(&good[..cut]) {
            assert!(log.extends.len() < whole.extends.len());
        }
    }
    let header = good.len() - whole.events.len();
    for (offset, value) in [
        (8, u32::MAX),
        (8, 0),
        (8, 1),
        (8, 3),
        (0, 24),
        (0, u32::MAX),
    ] {
        let mut bad = good.clone();
        bad[header + offset..header + offset + 4].copy_from_slice(&value.to_le_bytes());
        assert!(EventLog::parse(&bad).is_err(), "{offset} {value}");
    }
    let mut data = good.clone();
    let size = header + 12 + 2 + 20 + 2 + 32;
    data[size..size + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(EventLog::parse(&data).is_err());
    let mut algorithms = good;
    algorithms[32 + 24..32 + 28].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(EventLog::parse(&algorithms).is_err());
}

#[test]
fn n18_right_signatures_over_other_register_values_fail_the_policy() {
    let maker = Maker::new();
    let value = merestone_evidence::sha256(&[4]);
    let good = maker.trust() + &format!("[require.pcr]\n4 = [\"{value}\"]\n");
    demand(&judge(&maker.bundle(), &good), 0, "policy.pcrs");
    let bad = maker.trust() + &format!("[require.pcr]\n4 = \"{}\"\n", Digest::ZERO);
    demand(&judge(&maker.bundle(), &bad), 2, "policy.pcrs");
}

#[test]
fn n18_a_register_that_moves_after_the_session_began_is_seen() {
    let moved = |maker: &mut Maker| {
        maker.between = Box::new(|sequence, tpm| {
            if sequence == 2 {
                tpm.extend(4, Digest([9; 32]));
            }
        });
    };
    let mut maker = Maker::new();
    moved(&mut maker);
    let value = merestone_evidence::sha256(&[4]);
    let trust = maker.trust() + &format!("[require.pcr]\n4 = \"{value}\"\n");
    demand(&judge(&maker.bundle(), &trust), 2, "policy.pcrs");
    let (mut maker, trust) = measured();
    moved(&mut maker);
    demand(&judge(&maker.bundle(), &trust), 1, "boot.log");
}

#[test]
fn n20_a_list_longer_than_the_quote_is_cut_to_it() {
    let (mut maker, trust) = measured();
    let mut longer = ImaMaker {
        bytes: maker.ima_log.clone().unwrap(),
        value: Digest::ZERO,
    };
    longer.entry("/usr/bin/late");
    maker.ima_log = Some(longer.bytes);
    let verdict = judge(&maker.bundle(), &trust);
    demand(&verdict, 0, "boot.ima");
    let check = verdict
        .checks
        .iter()
        .find(|check| check.id == "boot.ima")
        .unwrap();
    assert!(check.detail.starts_with("3 entries") && check.detail.contains("1 after"));
}

#[test]
fn n20_a_list_that_never_reaches_the_quote_or_is_of_another_register_is_refused() {
    let (mut maker, trust) = measured();
    let good = maker.ima_log.clone().unwrap();
    let mut shorter = ImaMaker::default();
    shorter.entry("boot_aggregate");
    maker.ima_log = Some(shorter.bytes);
    demand(&judge(&maker.bundle(), &trust), 1, "boot.ima");
    let mut other = ImaMaker {
        bytes: good,
        value: Digest::ZERO,
    };
    other.raw(11, [1; 20], "/usr/bin/elsewhere");
    maker.ima_log = Some(other.bytes.clone());
    demand(&judge(&maker.bundle(), &trust), 1, "boot.ima");
    other.bytes.truncate(other.bytes.len() - 1);
    maker.ima_log = Some(other.bytes);
    demand(&judge(&maker.bundle(), &trust), 1, "boot.ima");
}

#[test]
fn n20_a_violation_hidden_as_an_ordinary_entry_is_refused() {
    let (mut maker, trust) = measured();
    let mut hidden = ImaMaker::default();
    hidden.entry("boot_aggregate");
    hidden.entry("/usr/bin/true");
    hidden.entry("/usr/bin/merestone");
    maker.ima_log = Some(hidden.bytes);
    demand(&judge(&maker.bundle(), &trust), 1, "boot.ima");
}
