//! Finds or installs what building, testing and the demo need, on a fresh
//! Debian 12 with rustup.
//!
//! It says what, why and how long before it does anything, asks before it uses
//! root, and does nothing at all the second time. It installs no kernel: guest
//! kernels are only unpacked under `target/`.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    ebpf_toolchain::{DEBIAN_PACKAGES, LINKER_VERSION, LLVM_PREFIX, Toolchain, linker},
    progress::{self, Step},
    shell,
    sudo::Consent,
    vm::{
        kernel::{self, Series},
        manager,
    },
};

/// What a group of packages is for.
struct Need {
    packages: &'static [&'static str],
    why: &'static str,
}

const NEEDS: [Need; 4] = [
    Need {
        packages: &["build-essential", "libtss2-dev", "pkg-config"],
        why: "to compile the agent and talk to a TPM",
    },
    Need {
        packages: &[
            "busybox-static",
            "e2fsprogs",
            "ovmf",
            "qemu-system-x86",
            "swtpm",
            "swtpm-tools",
            "xz-utils",
        ],
        why: "to boot real kernels with a measured boot and a TPM",
    },
    Need {
        packages: &["iproute2", "tpm2-tools"],
        why: "for network namespaces and a second opinion on quotes",
    },
    Need {
        packages: &["openssl", "python3-dev", "python3-venv"],
        why: "for the demo's inference server and the second verifier",
    },
];

/// What only `bench egress` needs.
const PEERS: Need = Need {
    packages: &["iproute2", "nftables"],
    why: "to measure the agent beside nftables",
};

/// What the other benches need.
const SOFTWARE_TPM: Need = Need {
    packages: &["swtpm", "swtpm-tools"],
    why: "for the TPM that seals",
};

/// What `setup` may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Only say what is missing.
    pub(crate) check: bool,
    /// Who may be asked for root.
    pub(crate) consent: Consent,
}

/// Everything that building, testing and the demo need.
pub(crate) fn all(options: Options) -> Result<()> {
    let mut missing = packages(options, &NEEDS)?;
    missing += bpf_linker(options)?;
    for series in Series::ALL {
        missing += guest_kernel(options, series)?;
    }
    if missing > 0 {
        bail!("not everything is here ({missing} missing); `cargo xtask setup` gets it");
    }
    report_toolchain()
}

/// What `build` needs, and no more.
pub(crate) fn for_build(consent: Consent) -> Result<()> {
    let options = Options {
        check: false,
        consent,
    };
    packages(options, NEEDS.get(..1).unwrap_or_default())?;
    bpf_linker(options)?;
    Ok(())
}

/// To build, and what the agent is measured beside.
pub(crate) fn for_egress(consent: Consent) -> Result<()> {
    for_build(consent)?;
    let options = Options {
        check: false,
        consent,
    };
    packages(options, &[PEERS]).map(drop)
}

/// To build, and a TPM to seal with.
pub(crate) fn for_sealing(consent: Consent) -> Result<()> {
    for_build(consent)?;
    let options = Options {
        check: false,
        consent,
    };
    packages(options, &[SOFTWARE_TPM]).map(drop)
}

/// Says which eBPF compiler was picked.
fn report_toolchain() -> Result<()> {
    let toolchain = Toolchain::pick()?;
    progress::line(format_args!("eBPF compiler: {}", toolchain.why));
    progress::line("everything is here");
    Ok(())
}

/// Installs the packages that are not there; with `check` counts them.
fn packages(options: Options, needs: &[Need]) -> Result<usize> {
    let mut missing = Vec::new();
    let mut want = |packages: &[&'static str], why: &str| {
        for package in packages.iter().filter(|package| !is_installed(package)) {
            progress::line(format_args!("missing: {package}, {why}"));
            missing.push(*package);
        }
    };
    for need in needs {
        want(need.packages, need.why);
    }
    if Toolchain::pick().is_err() || linker().is_none() {
        want(&DEBIAN_PACKAGES, "to compile the eBPF object");
    }
    if missing.is_empty() || options.check {
        return Ok(missing.len());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this is no Debian; install by hand: {}", missing.join(" "));
    }
    let why = format!("installs {} Debian packages (some minutes)", missing.len());
    let _step = Step::begin("packages", &why);
    options.consent.run("apt-get", &["-q", "update"], &why)?;
    let mut args = vec!["-q", "install", "--yes", "--no-install-recommends"];
    args.extend(missing);
    options.consent.run("apt-get", &args, &why)?;
    Ok(0)
}

fn is_installed(package: &str) -> bool {
    let asked = ["--show", "--showformat", "${db:Status-Status}", package];
    shell::read(shell::command("dpkg-query").args(asked)).is_ok_and(|said| said == "installed")
}

fn bpf_linker(options: Options) -> Result<usize> {
    if linker().is_some() {
        return Ok(0);
    }
    let what = format!("bpf-linker {LINKER_VERSION}");
    progress::line(format_args!("missing: {what}, to link the eBPF object"));
    if options.check {
        return Ok(1);
    }
    let _step = Step::begin(
        &what,
        "compiled into cargo's bin directory (about a minute)",
    );
    let mut install = shell::cargo();
    install.args([
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
    ]);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    shell::run(install.env("LLVM_PREFIX", LLVM_PREFIX))?;
    if linker().is_none() {
        bail!("bpf-linker was installed, but is not in cargo's bin directory or in PATH");
    }
    Ok(0)
}

fn guest_kernel(options: Options, series: Series) -> Result<usize> {
    if kernel::find(series).is_some() {
        return Ok(0);
    }
    progress::line(format_args!(
        "missing: a Linux {series} guest kernel, for the VM suite"
    ));
    if options.check {
        return Ok(1);
    }
    let _step = Step::begin(
        format!("kernel {series}"),
        "downloads and unpacks one Debian package",
    );
    kernel::fetch(series, options.consent)?;
    Ok(0)
}

/// What a guest with systemd needs beside programs: kernels, and systemd.
pub(crate) fn guests(consent: Consent) -> Result<()> {
    let options = Options {
        check: false,
        consent,
    };
    for series in Series::ALL {
        guest_kernel(options, series)?;
    }
    guest_manager(consent)
}

/// systemd for a guest. Only a benchmark has it, so `all` does not ask for it.
pub(crate) fn guest_manager(consent: Consent) -> Result<()> {
    if manager::is_here() {
        return Ok(());
    }
    let _step = Step::begin(
        "systemd",
        "downloads and unpacks Debian's packages for the guest (9 MB)",
    );
    manager::fetch(consent)
}
