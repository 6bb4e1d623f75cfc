//! Every second of the period: attested, or why not; and what GPUs used meanwhile.

use crate::support::{Log, Maker, START, demand, judge};
use merestone_evidence::{Body, Bundle, Cause, Entry, EntryKind, GpuEnergy, GpuReading};
use merestone_verify::{Coverage, Verdict};

/// What happens between two sessions of four epochs of 10 s.
struct Between {
    /// By the wall clock.
    wall_ms: u64,
    /// By the TPM's.
    tpm_ms: u64,
    resets: u32,
    cause: Cause,
    /// Energy that the GPU used meanwhile.
    joules: u64,
    /// Energy in each epoch, in millijoules: 500 W at 5,000,000.
    epoch_mj: u64,
    /// The second session's counter begins at zero.
    anew: bool,
}

impl Default for Between {
    fn default() -> Self {
        Self {
            wall_ms: 60_000,
            tpm_ms: 60_000,
            resets: 0,
            cause: Cause::Shutdown,
            joules: 0,
            epoch_mj: 500_000,
            anew: false,
        }
    }
}

impl Between {
    fn bundle(&self) -> Bundle {
        let mut log = Log::default();
        let mut tpm = Maker::new().tpm;
        let (cause, epoch_mj) = (self.cause, self.epoch_mj);
        let energy = |maker: &mut Maker, base: u64, last: Cause| {
            maker.epoch = Box::new(move |number, statement| {
                statement.cause = if number == 3 { last } else { Cause::Work };
                statement.gpu_energy = vec![GpuEnergy {
                    uuid: "GPU-0".into(),
                    millijoules: Some(base + epoch_mj * (number + 1)),
                }];
            });
        };
        let mut maker = Maker::new();
        energy(&mut maker, 1_000_000, cause);
        let first = maker.seal_session(&mut tpm, &mut log, None, START, 1);
        let previous = merestone_evidence::sha256(&first.epochs[3].statement);
        tpm.clock += self.tpm_ms;
        tpm.resets += self.resets;
        if self.resets > 0 {
            tpm.pcrs = Maker::new().tpm.pcrs;
        }
        let base = if self.anew {
            0
        } else {
            1_000_000 + 4 * epoch_mj + self.joules * 1000
        };
        let start = START + 40_000 + self.wall_ms;
        let mut maker = Maker::new();
        energy(&mut maker, base, Cause::Shutdown);
        let told = |body| Entry {
            kind: EntryKind,
            time_ms: start + 1,
            boot_ns: start * 1_000_000,
            body,
        };
        maker.told = vec![
            (
                0,
                told(Body::AgentStart {
                    version: "0".into(),
                }),
            ),
            (
                0,
                told(Body::Gpu {
                    state: "ok".into(),
                    devices: vec![GpuReading {
                        uuid: "GPU-0".into(),
                        utilisation_percent: None,
                        memory_used_bytes: None,
                        power_milliwatts: None,
                        energy_millijoules: Some(base),
                        processes: Vec::new(),
                    }],
                }),
            ),
        ];
        let second = maker.seal_session(&mut tpm, &mut log, Some(previous), start, 2);
        maker.pack(vec![first, second], &log, START, start + 40_000)
    }
}

fn asked(between: &Between, require: &str) -> Verdict {
    let trust = Maker::new().trust() + "[require]\n" + require;
    judge(&between.bundle(), &trust)
}

fn covered(between: &Between) -> Coverage {
    asked(between, "").coverage.unwrap()
}

/// What the shares say of time that is not attested.
fn why(coverage: &Coverage) -> Vec<(&'static str, u64)> {
    let shares = coverage
        .shares
        .iter()
        .filter(|share| share.what != "attested");
    shares
        .map(|share| (share.what, share.milliseconds))
        .collect()
}

#[test]
fn every_second_asked_for_is_attested_or_has_its_reason() {
    let stopped = covered(&Between::default());
    assert_eq!(why(&stopped), [("the agent was stopped", 60_000)]);
    let total: u64 = stopped.shares.iter().map(|share| share.milliseconds).sum();
    assert_eq!(total, 140_000);
    assert!(
        stopped.reboots.is_empty() && stopped.clock_jumps.is_empty(),
        "{stopped:?}"
    );
    let crashed = covered(&Between {
        cause: Cause::Work,
        ..Between::default()
    });
    assert_eq!(
        why(&crashed),
        [("the agent ended without closing its last epoch", 60_000)]
    );
    // More than the file has, asked for: that is not attested either, and fails the period.
    let from = "from = \"2025-10-09T08:53:00Z\"\n";
    let wider = asked(&Between::default(), from);
    demand(&wider, 2, "policy.period");
    let outside = ("outside the period of this file", 20_000);
    assert!(why(&wider.coverage.unwrap()).contains(&outside));
}

#[test]
fn a_reboot_and_a_crash_of_the_host_are_named() {
    let reboot = Between {
        resets: 1,
        ..Between::default()
    };
    let coverage = covered(&reboot);
    assert_eq!(
        why(&coverage),
        [("the agent was stopped and the host restarted", 60_000)]
    );
    assert_eq!(
        (coverage.reboots.len(), coverage.reboots[0].orderly),
        (1, true)
    );
    let crash = Between {
        resets: 1,
        cause: Cause::Work,
        ..Between::default()
    };
    let coverage = covered(&crash);
    assert_eq!(
        why(&coverage),
        [("the host went down while the agent ran", 60_000)]
    );
    assert_eq!(
        (coverage.reboots[0].resets, coverage.reboots[0].orderly),
        (1, false)
    );
}

#[test]
fn n69_time_that_a_clock_set_back_hides_between_sessions_is_a_gap() {
    // An hour without an agent; the wall clock says a second.
    let hidden = Between {
        wall_ms: 1_000,
        tpm_ms: 3_600_000,
        ..Between::default()
    };
    let verdict = asked(&hidden, "");
    demand(&verdict, 2, "policy.coverage");
    let coverage = verdict.coverage.unwrap();
    let jump = &coverage.clock_jumps[0];
    assert!(jump.between_sessions, "{jump:?}");
    assert_eq!(
        (jump.wall_ms, jump.tpm_ms, jump.hidden_ms()),
        (1_000, 3_600_000, 3_599_000)
    );
    // Without power the TPM's clock stands: that hides nothing.
    let off = Between {
        wall_ms: 90_000,
        tpm_ms: 1_000,
        resets: 1,
        ..Between::default()
    };
    assert!(covered(&off).clock_jumps.is_empty());
    // With power, and the wall clock far ahead: named, and the gap is as the wall clock has it.
    let ahead = Between {
        wall_ms: 90_000,
        tpm_ms: 1_000,
        ..Between::default()
    };
    assert_eq!(covered(&ahead).clock_jumps.len(), 1);
}

#[test]
fn energy_that_a_gpu_used_while_nobody_watched_is_dark_compute() {
    // 50 W idle; a minute at 500 W more is 30 kJ.
    let busy = Between {
        joules: 33_000,
        ..Between::default()
    };
    let coverage = covered(&busy);
    let dark = &coverage.dark[0];
    assert_eq!(
        (dark.joules, dark.idle_milliwatts),
        (Some(33_000), Some(50_000))
    );
    assert_eq!(
        (dark.idle_joules, dark.unexplained_joules),
        (3_000, Some(30_000))
    );
    assert_eq!(
        dark.ms, 60_001,
        "to the first reading, not to the first epoch"
    );
    demand(&asked(&busy, "max_dark_joules = 29999\n"), 2, "policy.dark");
    demand(&asked(&busy, "max_dark_joules = 30000\n"), 0, "policy.dark");
    // Busy throughout, the file shows no idle GPU; the policy knows what one takes.
    let always = Between {
        epoch_mj: 5_000_000,
        ..busy
    };
    assert_eq!(covered(&always).dark[0].unexplained_joules, Some(3_000));
    let known = "idle_watts = 50.0\nmax_dark_joules = 29999\n";
    demand(&asked(&always, known), 2, "policy.dark");
    let idle = Between {
        joules: 2_900,
        ..Between::default()
    };
    assert_eq!(covered(&idle).dark[0].unexplained_joules, Some(0));
}

#[test]
fn a_counter_that_began_anew_is_said_to_and_never_passes_a_limit() {
    let anew = Between {
        anew: true,
        ..Between::default()
    };
    let verdict = asked(&anew, "max_dark_joules = 1000000\n");
    demand(&verdict, 3, "policy.dark");
    let dark = &verdict.coverage.unwrap().dark[0];
    assert_eq!(
        (dark.joules, dark.unknown),
        (None, Some("the counter went back: it began anew"))
    );
    let reboot = Between {
        resets: 1,
        ..Between::default()
    };
    let verdict = asked(&reboot, "max_dark_joules = 1000000\n");
    demand(&verdict, 3, "policy.dark");
    assert!(
        verdict.coverage.unwrap().dark[0]
            .unknown
            .unwrap()
            .contains("restarted")
    );
}
