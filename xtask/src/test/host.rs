//! The test programs on this machine's own kernel.

use std::process::Command;

use anyhow::Result;

use super::{GUEST_FEATURE, is_runner, only_in_guest};
use crate::{
    bpffs, build,
    programs::Program,
    progress::Step,
    shell, sudo, swtpm,
    tally::{self, Tally},
    undo::Undo,
};

/// Runs all of them but those for guests, then the documentation's examples.
pub(super) fn all(programs: &[Program], tally: &mut Tally) -> Result<()> {
    let _bpffs = if sudo::is_root() {
        bpffs::ensure()?
    } else {
        None
    };
    for program in programs
        .iter()
        .filter(|program| program.is_test && !only_in_guest(program))
    {
        let name = program.name();
        let mut command = shell::command(&program.path);
        command.current_dir(&program.directory);
        if is_runner(program) {
            egress_on_this_host(&name, &mut command, tally)?;
            continue;
        }
        let _step = Step::begin(&name, program.path.display());
        command.env("XTASK_BIN_DIR", build::output(false));
        let outcomes = shell::target().join("tamper-outcomes.json");
        command.env("XTASK_TAMPER_OUTCOMES", outcomes);
        tally.add(&name, tally::run(&name, command.arg("--show-output"))?);
    }
    let _step = Step::begin("documentation", "the examples in it compile and run");
    let mut documentation = shell::cargo();
    documentation.args(["test", "--workspace", "--doc", "--features", GUEST_FEATURE]);
    tally.add(
        "documentation",
        tally::run("documentation", &mut documentation)?,
    );
    Ok(())
}

/// The egress suite against the real agent and a software TPM of its own.
fn egress_on_this_host(name: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    if !sudo::is_root() {
        let listed = shell::read(command.arg("--list"))?;
        for case in listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
        {
            tally.skip(
                &format!("{name}: {case}"),
                "loading eBPF programs needs root",
            );
        }
        return Ok(());
    }
    let _step = Step::begin(name, "every way out, against this kernel");
    let state = tempfile::Builder::new()
        .prefix("merestone-swtpm-")
        .tempdir()?;
    let path = state.path().to_owned();
    let _undo = Undo::new(move || drop(state));
    let (_swtpm, port) = swtpm::start_on_free_ports(&path)?;
    command.env("MERESTONE_BIN", build::output(false).join("merestone"));
    let tpm = format!("[tpm]\ntcti = \"swtpm:host=127.0.0.1,port={port}\"\n");
    command.env("MERESTONE_CONFIG_EXTRA", tpm);
    command.env(
        "MERESTONE_OUTCOMES",
        shell::target().join("egress-outcomes.json"),
    );
    tally.add(name, tally::run(name, command)?);
    Ok(())
}
