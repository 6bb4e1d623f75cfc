//! The test programs in a virtual machine, and the judgement of what it handed
//! back.

use std::{
    path::Path,
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::{
    AFTER_BOOTS, AFTER_GUEST, END_TO_END, IN_GUEST, KERNEL_TESTS, NETEM, RECEIPTS, is_runner,
};
use crate::{
    build,
    programs::Program,
    progress, shell, swtpm,
    tally::{self, Tally},
    vm::{self, Load, disk, kernel::Series, machine::End},
};

/// Emulated processors are slow; a hang is still noticed.
const LIMIT: Duration = Duration::from_mins(45);

/// What emulated processors are spared: the run without an agent, which the
/// host does, and the larger part of the storms.
const SPARED: &str = "MERESTONE_QUICK=1 MERESTONE_STORM=1000 MERESTONE_FLOOD=40000";
/// The agent's tests of what only a kernel can show; the others run on the host.
const AGENT_IN_GUEST: [&str; 6] = [
    "bpf_kernel",
    "names",
    "packet_parser",
    "turns",
    "ways_out",
    TAMPER,
];
/// Of these, a guest runs what only BPF LSM can refuse; the host the others.
const TAMPER: &str = "tamper";

/// The suite on each kernel, side by side: a guest waits more than it computes.
pub(super) fn all(kernels: &[Series], programs: &[Program], verifier: &Path, tally: &mut Tally) {
    let found: Vec<_> = thread::scope(|scope| {
        let guests: Vec<_> = kernels
            .iter()
            .map(|series| scope.spawn(|| boot(*series, programs, verifier)))
            .collect();
        let ends = guests.into_iter().map(ScopedJoinHandle::join);
        ends.map(|end| end.unwrap_or_else(|_panic| Err(anyhow!("its thread panicked"))))
            .collect()
    });
    for (series, found) in kernels.iter().zip(found) {
        let suite = format!("Linux {series}");
        match found {
            Ok(found) => tally.add(&suite, found),
            Err(error) => {
                progress::line(format_args!("{suite}: {error:#}"));
                tally.check(&suite, false);
            }
        }
    }
}

/// The suite on one kernel: in the guest, then on what it handed back.
fn boot(series: Series, programs: &[Program], verifier: &Path) -> Result<Tally> {
    let in_guest = |program: &&Program| match program.package.as_str() {
        KERNEL_TESTS => true,
        build::AGENT => !program.is_test || AGENT_IN_GUEST.contains(&program.target.as_str()),
        // Delay is the network's, not the kernel's: once is enough, on the faster of them.
        END_TO_END if program.target == NETEM => series == Series::V6_12,
        END_TO_END => !program.is_test || [IN_GUEST, RECEIPTS].contains(&program.target.as_str()),
        build::VERIFIER => !program.is_test,
        _ => false,
    };
    let chosen: Vec<Program> = programs.iter().filter(in_guest).cloned().collect();
    let mut load = Load::default();
    load.add_programs(&chosen);
    load.alone
        .push((verifier.to_owned(), "merestone/alone".to_owned()));
    load.command = script(&chosen);
    let mut tally = Tally::default();
    let outcome = vm::boot(series, &load, LIMIT, |line| {
        if tally.read(line) {
            progress::line(format_args!("{series} | {line}"));
        }
    })?;
    if outcome.status != 0 && tally.failed == 0 {
        tally.check(&format!("the guest's status is {}", outcome.status), false);
    }
    if tally.passed == 0 {
        tally.check("the guest ran no test", false);
    }
    let judge = programs
        .iter()
        .find(|program| program.is_test && program.target == AFTER_GUEST);
    // Left out together with what it judges (`--only`).
    let Some(judge) = judge else {
        return Ok(tally);
    };
    let mut command = shell::command(&judge.path);
    command.current_dir(&judge.directory).arg("--show-output");
    command
        .env("XTASK_BIN_DIR", build::output(true))
        .env("XTASK_VM_OUT", &outcome.out);
    tally.add(
        "what the guest handed back",
        tally::run("measured_boot", &mut command)?,
    );
    if programs.iter().any(|program| program.target == AFTER_BOOTS) {
        tally.add("several boots", boots(series, programs)?);
    }
    Ok(tally)
}

/// Enrolment, a reboot, a loss of power and another TPM, and the judgement of what they left.
pub(super) fn boots(series: Series, programs: &[Program]) -> Result<Tally> {
    let in_guest = |program: &&Program| {
        !program.is_test && [build::AGENT, build::VERIFIER].contains(&program.package.as_str())
    };
    let chosen: Vec<Program> = programs.iter().filter(in_guest).cloned().collect();
    let mut load = Load::default();
    load.add_programs(&chosen);
    // Manufactures the authority that the TPM's vendor is, where it is the first.
    let spare = tempfile::tempdir()?;
    swtpm::manufacture(spare.path())?;
    for name in ["swtpm-localca-rootca-cert.pem", "issuer.pem"] {
        let place = format!("{}/{name}", disk::FILES);
        load.files.push((swtpm::authority().join(name), place));
    }
    include_str!("../vm/guest/boots.sh").clone_into(&mut load.command);
    let boot = |tpm, end| vm::Boot { tpm, end };
    let plan = [
        boot("tpm", End::Status(0)),
        boot("tpm", End::PowerLost),
        boot("tpm", End::Status(0)),
        boot("other", End::Status(0)),
    ];
    let out = vm::boots(series, &load, &plan, LIMIT, |line| {
        progress::line(format_args!("{series} | {line}"));
    })?;
    let judge = programs
        .iter()
        .find(|program| program.is_test && program.target == AFTER_BOOTS)
        .ok_or_else(|| anyhow!("the test `{AFTER_BOOTS}` is not built"))?;
    let mut command = shell::command(&judge.path);
    command.current_dir(&judge.directory).arg("--show-output");
    command
        .env("XTASK_BIN_DIR", build::output(false))
        .env("XTASK_VM_OUT", &out);
    tally::run(AFTER_BOOTS, &mut command)
}

/// What one program leaves on the kernel decides about the next one's processes.
const LEAVES_NO_PINS: &str = r#"leaves_no_pins() {
    left=$(ls -A /sys/fs/bpf)
    if [ -z "$left" ]; then
        echo "test $1: it leaves no pins ... ok"
        echo "test result: ok. 1 passed; 0 failed"
    else
        echo "it left $left"
        rm -rf /sys/fs/bpf/*
        echo "test $1: it leaves no pins ... FAILED"
        echo "test result: FAILED. 0 passed; 1 failed"
        failed=1
    fi
}"#;

/// Runs every test program, and fails when one of them did.
fn script(programs: &[Program]) -> String {
    let mut lines = vec![format!("failed=0\n{LEAVES_NO_PINS}")];
    for program in programs.iter().filter(|program| program.is_test) {
        let name = program.name();
        let run = if is_runner(program) {
            // The same runner, beside its probe.
            let bin = disk::BIN;
            let out = "MERESTONE_OUTCOMES=/merestone/out/egress-outcomes.json";
            format!("{SPARED} {out} MERESTONE_BIN=/{bin}/merestone /{bin}/egress-suite")
        } else if program.package == build::AGENT && program.target == TAMPER {
            let out = "XTASK_TAMPER_OUTCOMES=/merestone/out/tamper-outcomes.json";
            let tests = disk::TESTS;
            format!("{out} /{tests}/{name} --show-output --test-threads=1 refused::")
        } else {
            format!(
                "{SPARED} /{}/{name} --show-output --test-threads=1",
                disk::TESTS
            )
        };
        lines.push(format!("echo '==> {name}'"));
        lines.push(format!("{run} || failed=1"));
        lines.push(format!("leaves_no_pins {name}"));
    }
    lines.push("exit $failed\n".to_owned());
    lines.join("\n")
}
