//! `cargo xtask`: sets a machine up, builds, tests, boots virtual machines.
//!
//! It ships with the source and is never installed. It changes nothing on the
//! machine without saying so, and as root only after asking.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::{
    sudo::Consent,
    vm::{Load, kernel::Series},
};

mod bench;
mod bpffs;
mod build;
mod bypasses;
mod demo;
mod ebpf_toolchain;
mod foreign;
mod fuzz;
mod leftovers;
#[path = "../../attest/tpm/tests/support/listens.rs"]
mod listens;
mod programs;
mod progress;
mod setup;
mod shell;
mod soak;
mod sudo;
mod swtpm;
mod tally;
mod test;
mod undo;
mod vm;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Set up, build and test Merestone")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install what building, testing and the demo need
    Setup {
        /// Only say what is missing
        #[arg(long)]
        check: bool,
        /// Do not ask before using sudo
        #[arg(long)]
        yes: bool,
    },
    /// Build the eBPF object, the agent and the verifier
    Build {
        /// Optimised, as it is shipped
        #[arg(long)]
        release: bool,
        /// Log lines in the eBPF object, for debugging
        #[arg(long, conflicts_with = "release")]
        log: bool,
        /// Only the eBPF object
        #[arg(long)]
        object_only: bool,
    },
    /// Guard a real inference server, let it try to leak, verify the evidence
    Demo {
        /// Do not ask before using sudo
        #[arg(long)]
        yes: bool,
        /// Only the part that needs root; everything is built already
        #[arg(long, hide = true)]
        stage: bool,
    },
    /// Run every check and every test, on this kernel and in virtual machines
    Test {
        /// Leave the virtual machines out
        #[arg(long)]
        no_vm: bool,
        /// Do not ask before using sudo
        #[arg(long)]
        yes: bool,
    },
    /// Measure what it costs, and write the page about it
    #[command(subcommand)]
    Bench(Bench),
    /// Remove what interrupted tests and demos left on this machine
    Cleanup {
        /// Do not ask before using sudo
        #[arg(long)]
        yes: bool,
    },
    /// Write docs/bypasses.md from what runs of the egress suite have shown
    Bypasses(bypasses::Arguments),
    /// Guarded senders at full rate while the agent is killed and reloaded
    Soak(soak::Arguments),
    /// Ask other people's tools about what is written and judged: a second verifier, CDDL, EAR
    Foreign,
    /// Fuzz the parsers of foreign bytes (needs a nightly compiler and cargo-fuzz)
    Fuzz(fuzz::Arguments),
    /// Run the VM suite, or one command, on Debian's kernels in QEMU
    Vm(VmArguments),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The kernel part: a decision, a connect, a datagram; writes docs/benchmarks.md
    Egress {
        /// A few rounds, up to 100,000 prefixes; prints the page and writes nothing
        #[arg(long)]
        quick: bool,
        /// Leave out systemd's own program, which is measured in virtual machines; what the page
        /// says about it stays
        #[arg(long)]
        no_vm: bool,
        /// Only that, and not as root; what the page says about this machine stays
        #[arg(long, conflicts_with = "no_vm")]
        only_vm: bool,
        /// Do not ask before using sudo
        #[arg(long)]
        yes: bool,
        /// Only the part that needs root; everything is built already
        #[arg(long, hide = true)]
        stage: bool,
    },
    /// The evidence: records to the disk, a million verified; writes docs/benchmarks-attest.md
    Attest {
        /// Seconds, up to 100,000 records; prints the page and writes nothing
        #[arg(long)]
        quick: bool,
        /// Do not ask before using sudo
        #[arg(long)]
        yes: bool,
    },
    /// The reverse proxy, against no proxy; writes docs/benchmarks-gateway.md
    Gateway {
        /// A few rounds; prints the page and writes nothing
        #[arg(long)]
        quick: bool,
        /// Do not ask before using sudo
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct VmArguments {
    /// 6.1 or 6.12; both without it
    #[arg(long)]
    kernel: Option<Series>,
    /// Of the suite, only the programs whose name has this in it
    #[arg(long, value_name = "TEXT", conflicts_with = "command")]
    only: Option<String>,
    /// Of the suite, only the machine that is enrolled, booted again, loses its power, and whose
    /// disk gets another TPM
    #[arg(long, conflicts_with_all = ["command", "only"])]
    boots: bool,
    /// Build this package's tests and put them in /merestone/tests
    #[arg(long, value_name = "PACKAGE")]
    tests: Vec<String>,
    /// Put this program and its libraries in /merestone/bin
    #[arg(long, value_name = "PATH")]
    program: Vec<PathBuf>,
    /// Put this file in /merestone/files
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Boot Debian 12's systemd, with the command as a unit of it
    #[arg(long, requires = "command")]
    systemd: bool,
    /// Seconds until the guest is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
    /// What to run; what it leaves in /merestone/out comes back
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let result = undo::catch_signals().and_then(|()| run(Arguments::parse().task));
    undo::yield_to_interruption();
    match result {
        Ok(code) => code,
        Err(error) => {
            progress::line(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup { check, yes } => setup::all(setup::Options {
            check,
            consent: Consent::new(yes),
        })?,
        Task::Build {
            release,
            log,
            object_only,
        } => {
            setup::for_build(Consent::new(false))?;
            if object_only {
                build::object(log)?;
            } else {
                build::all(build::Options { release, log })?;
            }
        }
        Task::Demo { yes, stage } => demo::demo(Consent::new(yes), stage)?,
        Task::Test { no_vm, yes } => return Ok(test::all(Consent::new(yes), no_vm)),
        Task::Bench(Bench::Egress {
            quick,
            no_vm,
            only_vm,
            yes,
            stage,
        }) => bench::egress(bench::Options {
            quick,
            consent: Consent::new(yes),
            stage,
            parts: match (no_vm, only_vm) {
                (true, _) => bench::Parts::Host,
                (_, true) => bench::Parts::Guests,
                _ => bench::Parts::All,
            },
        })?,
        Task::Bench(Bench::Attest { quick, yes }) => bench::attest(quick, Consent::new(yes))?,
        Task::Bench(Bench::Gateway { quick, yes }) => bench::gateway(quick, Consent::new(yes))?,
        Task::Cleanup { yes } => leftovers::cleanup(Consent::new(yes))?,
        Task::Bypasses(arguments) => bypasses::run(&arguments)?,
        Task::Soak(arguments) => soak::run(&arguments)?,
        Task::Foreign => foreign::run()?,
        Task::Fuzz(arguments) => fuzz::run(&arguments)?,
        Task::Vm(arguments) => return run_vm(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_vm(arguments: VmArguments) -> Result<ExitCode> {
    let VmArguments {
        kernel,
        only,
        boots,
        tests,
        program,
        file,
        systemd,
        timeout,
        command,
    } = arguments;
    let kernels = kernel.map_or_else(|| Series::ALL.to_vec(), |kernel| vec![kernel]);
    if boots {
        return test::boots_alone(&kernels);
    }
    if command.is_empty() {
        return test::virtual_machines_alone(&kernels, only.as_deref());
    }
    let limit = Duration::from_secs(timeout);
    let mut load = Load {
        managed: systemd,
        ..Load::default()
    };
    if systemd {
        setup::guest_manager(Consent::new(false))?;
    }
    if !tests.is_empty() {
        load.add_programs(&programs::build(&tests, &[])?);
    }
    for (paths, place, into) in [
        (program, vm::disk::BIN, &mut load.programs),
        (file, vm::disk::FILES, &mut load.files),
    ] {
        for path in paths {
            let name = path
                .file_name()
                .with_context(|| format!("{} names no file", path.display()))?;
            let place = format!("{place}/{}", name.to_string_lossy());
            // Relative to where the person is, not to the workspace.
            into.push((std::path::absolute(&path)?, place));
        }
    }
    vm::command(&kernels, load, &command, limit)?;
    Ok(ExitCode::SUCCESS)
}
