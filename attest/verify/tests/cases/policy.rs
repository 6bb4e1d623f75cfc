//! Sound evidence against trust policies, and trust policies with faults.

use crate::support::{EpochHook, Maker, NOW, START, demand, judge};
use merestone_evidence::{Counter, FlowVerdict, Mode, sha256};
use merestone_verify::{Purpose, Trust, verify};

/// A bundle with one thing changed in its statements, judged with `[require]` lines.
#[track_caller]
fn asked(maker: &Maker, require: &str, exit: u8, id: &str) {
    let trust = maker.trust() + "[require]\n" + require;
    demand(&judge(&maker.bundle(), &trust), exit, id);
}

fn with_epoch(change: EpochHook) -> Maker {
    let mut maker = Maker::new();
    maker.epoch = change;
    maker
}

#[test]
fn digests_outside_the_accepted_ones_fail() {
    let maker = Maker::new();
    for (key, id, good) in [
        ("boundary", "policy.boundary", sha256(b"boundary")),
        ("object", "policy.object", sha256(b"object")),
        ("agent", "policy.agent", sha256(b"agent")),
    ] {
        asked(&maker, &format!("{key} = \"{good}\"\n"), 0, id);
        asked(&maker, &format!("{key} = [\"{good}\"]\n"), 0, id);
        asked(
            &maker,
            &format!("{key} = \"{}\"\n", sha256(b"other")),
            2,
            id,
        );
        asked(&maker, &format!("{key} = []\n"), 2, id);
    }
    let changed = with_epoch(Box::new(|sequence, epoch| {
        if sequence == 1 {
            epoch.boundary.sha256 = sha256(b"wider");
        }
    }));
    let good = sha256(b"boundary");
    asked(
        &changed,
        &format!("boundary = \"{good}\"\n"),
        2,
        "policy.boundary",
    );
}

#[test]
fn audit_mode_and_what_it_let_out_fail_unless_allowed() {
    let maker = with_epoch(Box::new(|_, epoch| epoch.boundary.mode = Mode::Audit));
    asked(&maker, "", 2, "policy.mode");
    asked(&maker, "audit = true\n", 0, "policy.mode");
    let maker = with_epoch(Box::new(|_, epoch| {
        epoch.counters.push(Counter {
            hook: "egress".into(),
            verdict: FlowVerdict::Audit,
            protocol: "udp".into(),
            count: 1,
        });
    }));
    asked(&maker, "", 2, "policy.egress");
    asked(&maker, "audit = true\n", 0, "policy.egress");
}

#[test]
fn tiers_that_are_not_in_force_fail() {
    let maker = Maker::new();
    asked(&maker, "tiers = [\"cgroup\"]\n", 0, "policy.tiers");
    asked(&maker, "tiers = [\"cgroup\", \"lsm\"]\n", 2, "policy.tiers");
    let lapse = with_epoch(Box::new(|sequence, epoch| {
        if sequence == 3 {
            epoch.tiers.clear();
        }
    }));
    asked(&lapse, "tiers = [\"cgroup\"]\n", 2, "policy.tiers");
}

#[test]
fn losses_beyond_the_limit_and_uncovered_ways_out_fail_where_asked() {
    let lossy = with_epoch(Box::new(|_, epoch| epoch.lost[0].count = 5));
    asked(&lossy, "", 2, "policy.lost");
    asked(&lossy, "max_lost = 5\n", 0, "policy.lost");
    asked(&Maker::new(), "uncovered = false\n", 2, "policy.uncovered");
}

#[test]
fn a_software_tpm_and_a_test_library_fail_unless_allowed_and_are_never_called_checked() {
    let mut maker = Maker::new();
    maker.session = Box::new(|session| session.tpm.software = true);
    asked(&maker, "", 2, "policy.tpm");
    let trust = maker.trust() + "[require]\nsoftware_tpm = true\n";
    let verdict = judge(&maker.bundle(), &trust);
    demand(&verdict, 0, "policy.tpm");
    assert!(
        verdict
            .not_checked
            .iter()
            .any(|skipped| skipped.id == "policy.tpm")
    );
    maker.session = Box::new(|session| session.gpu.test_library = true);
    asked(&maker, "", 2, "policy.gpu");
    asked(&maker, "test_gpu_library = true\n", 0, "policy.gpu");
}

#[test]
fn gaps_longer_than_allowed_fail_also_at_the_edges() {
    let maker = Maker::new();
    let mut early = maker.bundle();
    early.from_ms = START - 121_000;
    demand(&judge(&early, &maker.trust()), 2, "policy.coverage");
    let mut late = maker.bundle();
    late.to_ms = START + 40_000 + 121_000;
    demand(&judge(&late, &maker.trust()), 2, "policy.coverage");
    late.to_ms = START + 40_000 + 119_000;
    demand(&judge(&late, &maker.trust()), 0, "policy.coverage");
    let mut elsewhere = maker.bundle();
    elsewhere.from_ms = START - 500_000;
    elsewhere.to_ms = START - 300_000;
    demand(&judge(&elsewhere, &maker.trust()), 2, "policy.coverage");
}

#[test]
fn a_file_in_which_nothing_is_attested_fails_however_short_its_period() {
    let mut maker = Maker::new();
    maker.epochs = 0;
    for length in [0, 1_000, 60_000] {
        let mut bundle = maker.bundle();
        bundle.to_ms = bundle.from_ms + length;
        demand(&judge(&bundle, &maker.trust()), 2, "policy.coverage");
    }
    let mut instant = Maker::new().bundle();
    instant.to_ms = instant.from_ms;
    demand(&judge(&instant, &maker.trust()), 2, "policy.coverage");
}

#[test]
fn a_gap_hidden_in_a_long_epoch_fails() {
    let mut maker = Maker::new();
    maker.epochs = 1;
    maker.epoch = Box::new(|_, epoch| epoch.closed_ms = epoch.opened_ms + 121_000);
    asked(&maker, "max_clock_step_s = 1000\n", 2, "policy.coverage");
}

#[test]
fn a_period_narrower_than_the_policy_asks_for_fails() {
    let maker = Maker::new();
    asked(
        &maker,
        "from = \"2025-10-09T08:53:20Z\"\n",
        0,
        "policy.period",
    );
    asked(
        &maker,
        "from = \"2025-10-09T08:53:19Z\"\n",
        2,
        "policy.period",
    );
    asked(
        &maker,
        "to = \"2025-10-09T09:53:20Z\"\n",
        2,
        "policy.period",
    );
}

#[test]
fn evidence_too_old_or_of_the_future_fails() {
    let maker = Maker::new();
    asked(&maker, "max_age_s = 600\n", 0, "policy.age");
    asked(&maker, "max_age_s = 60\n", 2, "policy.age");
    let trust = Trust::parse(&maker.trust(), "trust.toml").unwrap();
    let bytes = merestone_evidence::encode(&maker.bundle());
    let early = verify(&bytes, &trust, Purpose::Period, START - 300_000);
    demand(&early, 2, "policy.age");
    demand(
        &verify(&bytes, &trust, Purpose::Period, NOW),
        0,
        "policy.age",
    );
}

#[test]
fn n49_a_place_is_compared_as_a_whole_and_exactly() {
    let maker = Maker::new();
    asked(
        &maker,
        "country = \"DE\"\nregion = [\"eu-central\", \"eu-west\"]\n",
        0,
        "location",
    );
    for place in [
        "country = \"de\"",
        "country = \"D\"",
        "country = [\"DEU\"]",
        "region = \"eu\"",
    ] {
        asked(&maker, &format!("{place}\n"), 2, "location");
    }
    let mut silent = Maker::new();
    silent.session = Box::new(|session| session.site = None);
    asked(&silent, "country = \"DE\"\n", 3, "location");
}

#[test]
fn n66_a_level_of_location_that_cannot_be_judged_is_indeterminate() {
    asked(&Maker::new(), "location_level = \"L1\"\n", 3, "location");
    asked(
        &Maker::new(),
        "location_level = \"L0\"\ncountry = \"DE\"\n",
        0,
        "location",
    );
}

#[test]
fn n69_a_wall_clock_that_leaves_the_tpms_fails() {
    let maker = with_epoch(Box::new(|sequence, epoch| {
        if sequence == 3 {
            epoch.closed_ms += 61_000;
        }
    }));
    asked(&maker, "", 2, "clock.wall");
    asked(&maker, "max_clock_step_s = 100\n", 0, "clock.wall");
}

#[test]
fn a_failure_outweighs_what_could_not_be_looked_at_and_distrust_outweighs_both() {
    let lossy = with_epoch(Box::new(|_, epoch| epoch.lost[0].count = 5));
    asked(&lossy, "location_level = \"L2\"\n", 2, "policy.lost");
    let trust = lossy.trust() + "[require]\nlocation_level = \"L2\"\n";
    let mut bundle = lossy.bundle();
    bundle.sessions[0].quote.attest[0] ^= 1;
    demand(&judge(&bundle, &trust), 1, "quote.signature");
}

#[test]
fn n74_faults_of_a_trust_policy_name_file_and_line() {
    for (text, line, part) in [
        ("version = 1\nvresion = 2\n", 2, "unknown field"),
        (
            "version = 1\n[require]\nboot_logs = true\n",
            3,
            "unknown field",
        ),
        ("version = 1\n[[node]]\nid = \"a\"\n", 2, "missing field"),
        ("version = 2\n", 1, "version is 2"),
        ("\n\nversion = \"1\"\n", 3, "invalid type"),
        (
            "version = 1\n[[node]]\nid = \"a\"\nak_name = \"00\"\n",
            4,
            "68 hexadecimal",
        ),
        (
            "version = 1\n[require]\nboundary = \"xy\"\n",
            3,
            "64 hexadecimal",
        ),
        (
            "version = 1\n[require]\nfrom = \"yesterday\"\n",
            3,
            "time like",
        ),
        (
            "version = 1\n[require]\nlocation_level = \"EU\"\n",
            3,
            "location level",
        ),
        ("version = 1\n[require.pcr]\n24 = \"00\"\n", 3, "0 to 23"),
        (
            "version = 1\n[require]\npermit = [\"tampering\"]\n",
            3,
            "cannot be permitted",
        ),
        (
            "version = 1\n[require]\ndeputies = \"some\"\n",
            3,
            "deputies is",
        ),
        (
            "version = 1\n[require]\ndeputies = \"listed\"\n",
            3,
            "with deputy",
        ),
        (
            "version = 1\n[require]\n\ndeputy = \"127.0.0.1:80\"\n",
            4,
            "needs deputies",
        ),
        (
            "version = 1\n[require]\ngrant_to = [\"203.0.113.7/24\"]\n",
            3,
            "beyond its prefix",
        ),
        ("version = 1\n[require]\nmax_grant_bytes = -1\n", 3, ""),
        ("version = 1\nversion = 1\n", 2, "duplicate key"),
        ("version = 1\n[require]\nboot_log = maybe\n", 3, ""),
        ("", 1, "missing field"),
    ] {
        let error = Trust::parse(text, "trust.toml").unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("trust.toml:{line}: "))
        );
        assert!(error.detail.contains(part), "{text:?}: {error}");
    }
}

#[test]
fn a_node_that_is_named_twice_is_a_fault() {
    let trust = Maker::new().trust();
    let twice = trust.clone() + trust.strip_prefix("version = 1\n").unwrap();
    assert!(
        Trust::parse(&twice, "t")
            .unwrap_err()
            .detail
            .contains("named twice")
    );
}
