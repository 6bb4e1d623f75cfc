//! Counters and the geotag in a real software TPM: what they promise, and what breaks it.
#![cfg(test)]

#[expect(dead_code, reason = "the other tests use the rest of it")]
mod support;

use merestone_evidence::sha256;
use merestone_tpm::{
    EPOCHS_INDEX, EsysTpm, GEOTAG_INDEX, NvAuth, NvRole, Options, SESSIONS_INDEX, Tpm as _,
    TpmError,
};
use std::time::{Duration, Instant};
use support::Swtpm;

fn open(swtpm: &Swtpm) -> EsysTpm {
    EsysTpm::open(&Options::at(swtpm.tcti().parse().unwrap())).unwrap()
}

fn auth() -> NvAuth {
    NvAuth {
        owner: Vec::new(),
        index: vec![7; 32],
    }
}

fn value(tpm: &mut EsysTpm, index: u32) -> u64 {
    let certified = tpm.nv_certify(index, &auth(), &sha256(b"now")).unwrap();
    let value = certified.value().unwrap();
    let read = tpm.nv_read(index, &auth()).unwrap();
    assert_eq!(read, value.to_be_bytes());
    value
}

#[test]
fn a_counter_counts_by_one_and_only_with_its_password() {
    let Some(mut swtpm) = Swtpm::start_or_skip("a_counter_counts_by_one") else {
        return;
    };
    let mut tpm = open(&swtpm);
    for role in [NvRole::Epochs, NvRole::Sessions] {
        let made = tpm.nv_counter(role, &auth()).unwrap();
        assert_eq!(made.held.index, role.index());
        assert_eq!(tpm.nv_counter(role, &auth()).unwrap(), made, "found again");
        let before = value(&mut tpm, role.index());
        tpm.nv_increment(role.index(), &auth()).unwrap();
        assert_eq!(value(&mut tpm, role.index()), before + 1);
        let wrong = NvAuth::default();
        let refused = tpm.nv_increment(role.index(), &wrong).unwrap_err();
        assert!(refused.to_string().contains("password"), "{refused}");
        assert_eq!(value(&mut tpm, role.index()), before + 1);
    }
    drop(tpm);
    // Nobody writes it otherwise: not the owner, not as data.
    let dir = tempfile::tempdir().unwrap();
    let index = format!("{SESSIONS_INDEX:#x}");
    for words in [
        &["tpm2_nvincrement", "-C", "o", &index][..],
        &["tpm2_nvwrite", "-C", "o", "-i", "-", &index][..],
        &["tpm2_nvincrement", "-C", "p", &index][..],
    ] {
        swtpm.tool(dir.path(), words).unwrap_err();
    }
    swtpm.reset();
    let mut tpm = open(&swtpm);
    tpm.quote(&[0], &sha256(b"1")).unwrap();
    value(&mut tpm, SESSIONS_INDEX);
    tpm.quote(&[0], &sha256(b"2")).unwrap();
}

#[test]
fn n30d_a_crash_moves_the_orderly_counter_forward_by_less_than_256_and_the_plain_one_not_at_all() {
    let Some(mut swtpm) = Swtpm::start_or_skip("n30d_a_crash_moves_the_orderly_counter") else {
        return;
    };
    let (epochs, sessions, resets) = {
        let mut tpm = open(&swtpm);
        tpm.nv_counter(NvRole::Epochs, &auth()).unwrap();
        tpm.nv_counter(NvRole::Sessions, &auth()).unwrap();
        for _ in 0..3 {
            tpm.nv_increment(EPOCHS_INDEX, &auth()).unwrap();
        }
        let clock = tpm.clock().unwrap();
        assert!(clock.safe);
        (
            value(&mut tpm, EPOCHS_INDEX),
            value(&mut tpm, SESSIONS_INDEX),
            clock.reset_count,
        )
    };
    swtpm.reset();
    {
        let mut tpm = open(&swtpm);
        let clock = tpm.clock().unwrap();
        assert!(!clock.safe, "power was cut without a shutdown");
        assert_eq!(clock.reset_count, resets + 1);
        let after = value(&mut tpm, EPOCHS_INDEX);
        assert!(
            (epochs..=epochs + 255).contains(&after),
            "{epochs} then {after}"
        );
        assert_eq!(value(&mut tpm, SESSIONS_INDEX), sessions);
    }
    // A second crash with nothing counted between does not move it further.
    let before = value(&mut open(&swtpm), EPOCHS_INDEX);
    swtpm.reset();
    assert_eq!(value(&mut open(&swtpm), EPOCHS_INDEX), before);
}

#[test]
fn an_orderly_shutdown_leaves_both_counters_where_they_were() {
    let Some(mut swtpm) = Swtpm::start_or_skip("an_orderly_shutdown") else {
        return;
    };
    let (epochs, sessions) = {
        let mut tpm = open(&swtpm);
        tpm.nv_counter(NvRole::Epochs, &auth()).unwrap();
        tpm.nv_counter(NvRole::Sessions, &auth()).unwrap();
        tpm.nv_increment(EPOCHS_INDEX, &auth()).unwrap();
        (
            value(&mut tpm, EPOCHS_INDEX),
            value(&mut tpm, SESSIONS_INDEX),
        )
    };
    let dir = tempfile::tempdir().unwrap();
    swtpm.tool(dir.path(), &["tpm2_shutdown", "-c"]).unwrap();
    swtpm.reset();
    let mut tpm = open(&swtpm);
    assert!(tpm.clock().unwrap().safe);
    assert_eq!(value(&mut tpm, EPOCHS_INDEX), epochs);
    assert_eq!(value(&mut tpm, SESSIONS_INDEX), sessions);
}

#[test]
fn n30c_a_counter_that_the_owner_undefines_goes_on_above_where_it_was() {
    let Some(swtpm) = Swtpm::start_or_skip("n30c_a_counter_that_the_owner_undefines") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut before = Vec::new();
    {
        let mut tpm = open(&swtpm);
        for role in [NvRole::Epochs, NvRole::Sessions] {
            tpm.nv_counter(role, &auth()).unwrap();
            tpm.nv_increment(role.index(), &auth()).unwrap();
            before.push(value(&mut tpm, role.index()));
        }
    }
    for (role, before) in [NvRole::Epochs, NvRole::Sessions].into_iter().zip(before) {
        let index = format!("{:#x}", role.index());
        swtpm
            .tool(dir.path(), &["tpm2_nvundefine", "-C", "o", &index])
            .unwrap();
        let mut tpm = open(&swtpm);
        assert_eq!(tpm.nv_find(role).unwrap(), None);
        let gone = tpm.nv_increment(role.index(), &auth()).unwrap_err();
        assert!(matches!(gone, TpmError::Refused { .. }), "{gone}");
        tpm.nv_counter(role, &auth()).unwrap();
        assert!(value(&mut tpm, role.index()) > before);
    }
}

#[test]
fn an_index_of_somebody_else_under_a_handle_of_ours_is_refused_and_left_alone() {
    let Some(swtpm) = Swtpm::start_or_skip("an_index_of_somebody_else") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let index = format!("{SESSIONS_INDEX:#x}");
    // A counter that the owner may count too.
    let attributes = "ownerwrite|ownerread|authread|authwrite|no_da|nt=counter";
    swtpm
        .tool(
            dir.path(),
            &["tpm2_nvdefine", &index, "-C", "o", "-a", attributes],
        )
        .unwrap();
    let refused = open(&swtpm)
        .nv_counter(NvRole::Sessions, &auth())
        .unwrap_err();
    assert!(matches!(refused, TpmError::NvTaken { .. }), "{refused}");
    assert!(refused.to_string().contains("tpm2_nvundefine"), "{refused}");
}

#[test]
fn a_geotag_is_written_once_and_locked_for_good() {
    let Some(mut swtpm) = Swtpm::start_or_skip("a_geotag_is_written_once") else {
        return;
    };
    let made = open(&swtpm).nv_geotag(b"Berlin", false, &auth()).unwrap();
    let taken = open(&swtpm)
        .nv_geotag(b"Paris", false, &auth())
        .unwrap_err();
    assert!(matches!(taken, TpmError::NvTaken { .. }), "{taken}");
    swtpm.reset();
    let dir = tempfile::tempdir().unwrap();
    let index = format!("{GEOTAG_INDEX:#x}");
    let password = format!("hex:{}", "07".repeat(32));
    std::fs::write(dir.path().join("paris"), b"Paris!").unwrap();
    for words in [
        &[
            "tpm2_nvwrite",
            &index,
            "-C",
            &index,
            "-P",
            &password,
            "-i",
            "paris",
        ][..],
        &["tpm2_nvwrite", &index, "-C", "o", "-i", "paris"][..],
    ] {
        swtpm.tool(dir.path(), words).unwrap_err();
    }
    let mut tpm = open(&swtpm);
    assert_eq!(tpm.nv_find(NvRole::Geotag).unwrap(), Some(made.clone()));
    let certified = tpm
        .nv_certify(GEOTAG_INDEX, &auth(), &sha256(b"now"))
        .unwrap();
    assert_eq!(certified.contents, b"Berlin");
    // The owner can put another in its place: the Name stays, the contents tell.
    let other = tpm.nv_geotag(b"Paris!", true, &auth()).unwrap();
    assert_eq!(other.name, made.name);
    assert_eq!(tpm.nv_read(GEOTAG_INDEX, &auth()).unwrap(), b"Paris!");
}

/// `cargo test -p merestone-tpm --test nv measured -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn measured() {
    let Some(swtpm) = Swtpm::start_or_skip("measured") else {
        return;
    };
    let mut tpm = open(&swtpm);
    tpm.nv_counter(NvRole::Epochs, &auth()).unwrap();
    let mut run = |name: &str, work: &mut dyn FnMut(&mut EsysTpm)| {
        let mut times: Vec<Duration> = (0..300)
            .map(|_| {
                let began = Instant::now();
                work(&mut tpm);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{name}: p50 {:?} p99 {:?}", times[150], times[297]);
    };
    run("nv_increment", &mut |tpm| {
        tpm.nv_increment(EPOCHS_INDEX, &auth()).unwrap();
    });
    run("nv_certify", &mut |tpm| {
        tpm.nv_certify(EPOCHS_INDEX, &auth(), &sha256(b"1"))
            .unwrap();
    });
    run("quote of 16", &mut |tpm| {
        tpm.quote(
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            &sha256(b"1"),
        )
        .unwrap();
    });
    run("extend, quote, count, certify, in turns", &mut |tpm| {
        tpm.extend(15, &sha256(b"1")).unwrap();
        tpm.quote(
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            &sha256(b"1"),
        )
        .unwrap();
        tpm.nv_increment(EPOCHS_INDEX, &auth()).unwrap();
        tpm.nv_certify(EPOCHS_INDEX, &auth(), &sha256(b"1"))
            .unwrap();
    });
}
