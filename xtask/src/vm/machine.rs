//! One virtual machine, from power-on to power-off: OVMF, a TPM, a kernel, the
//! guest's output line by line.
//!
//! It never outlives this program, writes nothing outside its directory, and
//! has no network.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    shell::{self, Running},
    swtpm, undo,
    vm::{archive::Archive, kernel::Kernel, modules},
};

/// Modules of Debian's cloud kernels that the agent's tests need: disks, every
/// way out of a host that a test tries, and what they stand on.
const MODULES: [&str; 37] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "veth",
    "dummy",
    "tun",
    "ipvlan",
    "macvlan",
    "bridge",
    "vsock",
    "vsock_loopback",
    "vmw_vsock_virtio_transport_common",
    "sctp",
    "dccp",
    "dccp_ipv4",
    "dccp_ipv6",
    "mptcp_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "tls",
    "xfrm_user",
    "esp4",
    "ip_gre",
    "sch_ingress",
    "sch_netem",
    "cls_bpf",
    "l2tp_ip",
    "smc",
    "ipip",
    "sit",
    "vxlan",
    "authenc",
    "echainiv",
    "cls_u32",
    "act_pedit",
    "nfsv3",
];
const FIRMWARE: [&str; 2] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_VARS_4M.fd",
];
/// 6.1 needs the LSM list; IMA keeps no list without a policy.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check ima_policy=tcb \
                            lsm=landlock,lockdown,yama,integrity,apparmor,bpf";
const VARIABLES: &str = "variables.fd";
/// How often a machine is powered on, where its kernel does not come up.
const TRIES: u32 = 3;
/// A kernel that has not come up by then does not come up.
const BEGINS_WITHIN: Duration = Duration::from_mins(10);
const BEGINS: &str = "merestone-guest begins";
const ENDS: &str = "merestone-guest ends ";
/// What a guest says that is to lose its power.
const MAY_LOSE_POWER: &str = "merestone-guest may lose its power";
const OUTPUT_BYTES: u64 = 128 << 20;
const POWER_OFF: Duration = Duration::from_secs(10);

/// What to boot, and with what.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    /// Thrown away by the caller; short, for the TPM's socket is in it.
    pub(crate) directory: &'a Path,
    /// The ext4 image.
    pub(crate) disk: &'a Path,
    /// The guest's clock counts its instructions, a nanosecond each, whatever else this machine
    /// does meanwhile; only while it idles the clock goes on by itself.
    pub(crate) counted: bool,
    pub(crate) limit: Duration,
}

/// The kernel did not come up: its last words.
#[derive(Debug)]
struct NotBegun(String);

impl std::fmt::Display for NotBegun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "its kernel did not come up{}", self.0)
    }
}

impl std::error::Error for NotBegun {}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The command ended, with that status.
    Status(i32),
    /// The machine lost its power.
    PowerLost,
}

impl Machine<'_> {
    /// Boots, hands every line of the command to `line`, and returns the
    /// command's exit status. What it left is unpacked into `out`.
    pub(crate) fn run(&self, out: &Path, mut line: impl FnMut(&str)) -> Result<i32> {
        self.prepare()?;
        self.insert_tpm("tpm")?;
        match self.power_on("tpm", "", out, &mut line)? {
            End::Status(status) => Ok(status),
            End::PowerLost => bail!("the guest asked for a loss of power"),
        }
    }

    /// Makes what the first boot finds: an initramfs and fresh firmware variables.
    pub(crate) fn prepare(&self) -> Result<()> {
        fs::write(self.directory.join("initramfs"), self.initramfs()?)?;
        let [_, template] = FIRMWARE;
        fs::copy(template, self.directory.join(VARIABLES))
            .with_context(|| format!("no {template}: run `cargo xtask setup`"))?;
        Ok(())
    }

    /// Makes a TPM of that name.
    pub(crate) fn insert_tpm(&self, name: &str) -> Result<()> {
        swtpm::manufacture(&self.directory.join(name))
    }

    /// One boot with the TPM of that name, from power-on until the guest turns itself off or says
    /// that it may lose its power, which it then does.
    ///
    /// A kernel that does not come up is the emulator's doing: nothing of ours ran by then, so the
    /// machine is put back as it was and tried again, and that is said.
    pub(crate) fn power_on(
        &self,
        tpm: &str,
        more: &str,
        out: &Path,
        line: &mut impl FnMut(&str),
    ) -> Result<End> {
        let (tpm, variables) = (self.directory.join(tpm), self.directory.join(VARIABLES));
        let kept = tempfile::tempdir_in(self.directory)?;
        let copy = |from: &Path, to: &Path| {
            let mut copy = shell::command("cp");
            shell::read(
                copy.args(["--archive", "--no-target-directory"])
                    .args([from, to]),
            )
        };
        copy(&tpm, &kept.path().join("tpm"))?;
        copy(&variables, &kept.path().join(VARIABLES))?;
        for _try in 1..TRIES {
            match self.power_on_once(&tpm, more, out, line) {
                Err(error) if error.is::<NotBegun>() => {
                    // Ctrl-C ends QEMU too.
                    undo::yield_to_interruption();
                    line(&format!("the guest is booted again: {error}"));
                    fs::remove_dir_all(&tpm)?;
                    copy(&kept.path().join("tpm"), &tpm)?;
                    copy(&kept.path().join(VARIABLES), &variables)?;
                }
                ended => return ended,
            }
        }
        self.power_on_once(&tpm, more, out, line)
    }

    fn power_on_once(
        &self,
        tpm: &Path,
        more: &str,
        out: &Path,
        line: &mut impl FnMut(&str),
    ) -> Result<End> {
        let output = self.directory.join("output");
        File::create(&output)?.set_len(OUTPUT_BYTES)?;
        let (_swtpm, socket) = swtpm::start_for_machine(tpm)?;
        let (initramfs, variables) = (
            self.directory.join("initramfs"),
            self.directory.join(VARIABLES),
        );
        let mut qemu = self.qemu(&initramfs, &variables, &output, &socket, more);
        let mut qemu = Running::start(&mut qemu)?;
        let end = self.follow(&mut qemu, line)?;
        match end {
            End::Status(_) => {
                // The guest turns itself off; what it does not, dropping does.
                shell::within(POWER_OFF, || !matches!(qemu.ended(), Ok(None)));
                unpack(&output, out)?;
            }
            End::PowerLost => qemu.kill(),
        }
        Ok(end)
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    fn qemu(
        &self,
        initramfs: &Path,
        variables: &Path,
        output: &Path,
        tpm: &Path,
        more: &str,
    ) -> std::process::Command {
        let mut qemu = swtpm::dies_with_us("qemu-system-x86_64");
        // KVM is not there in many test machines; TCG is the same everywhere.
        qemu.args([
            "-machine",
            "q35",
            "-cpu",
            "max,la57=off",
            "-m",
            "2048",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]);
        // One thread runs the processors in turns. With a thread for each, one sometimes runs the
        // breakpoint of a place that the other is patching (a static key, the trampoline of an
        // LSM program) after the kernel has put it away, which is a panic that no machine has.
        // It costs 4 % of the time. Instructions are counted of one processor alone.
        let processors = if self.counted { "1" } else { "2" };
        qemu.args(["-accel", "tcg,thread=single", "-smp", processors]);
        let counted = if self.counted {
            qemu.args(["-icount", "shift=0"]);
            " merestone.counted=1"
        } else {
            ""
        };
        let [code, _] = FIRMWARE;
        qemu.arg("-drive")
            .arg(format!("if=pflash,format=raw,readonly=on,file={code}"));
        qemu.arg("-drive")
            .arg(format!("if=pflash,format=raw,file={}", variables.display()));
        qemu.arg("-chardev")
            .arg(format!("socket,id=tpm,path={}", tpm.display()));
        qemu.args([
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
            "-device",
            "tpm-crb,tpmdev=tpm0",
        ]);
        for disk in [self.disk, output] {
            qemu.arg("-drive")
                .arg(format!("if=virtio,format=raw,file={}", disk.display()));
        }
        qemu.arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initramfs);
        qemu.arg("-append")
            .arg(format!("{COMMAND_LINE}{counted}{more}"));
        qemu.arg("-serial")
            .arg(format!("file:{}", self.console().display()));
        qemu.args(["-serial", "stdio"]).stdout(Stdio::piped());
        qemu
    }

    fn initramfs(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "modules", "proc", "root", "sys"] {
            archive.directory(directory)?;
        }
        let busybox =
            fs::read("/bin/busybox").context("no /bin/busybox: run `cargo xtask setup`")?;
        archive.program("bin/busybox", &busybox)?;
        archive.link("bin/sh", "busybox")?;
        archive.program("init", include_bytes!("guest/initramfs.sh"))?;
        let mut order = String::new();
        for (name, bytes) in modules::in_order(self.kernel, &MODULES)? {
            archive.file(&format!("modules/{name}.ko"), &bytes)?;
            order.push_str(&name);
            order.push('\n');
        }
        archive.file("modules/order", order.as_bytes())?;
        archive.finish()
    }

    fn follow(&self, qemu: &mut Running, line: &mut impl FnMut(&str)) -> Result<End> {
        let (sender, receiver) = mpsc::channel();
        let lines = qemu.lines()?;
        thread::spawn(move || lines.for_each(|line| if sender.send(line).is_err() {}));
        let deadline = Instant::now() + self.limit;
        let begins_by = Instant::now() + BEGINS_WITHIN;
        let mut begun = false;
        loop {
            let by = if begun {
                deadline
            } else {
                deadline.min(begins_by)
            };
            let left = by.saturating_duration_since(Instant::now());
            let text = match receiver.recv_timeout(left) {
                Ok(text) => text,
                Err(_) if !begun && Instant::now() < deadline => {
                    return Err(NotBegun(self.last_words()).into());
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "the guest did not end within {} s{}",
                        self.limit.as_secs(),
                        self.last_words()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the guest ended without a result{}", self.last_words())
                }
            };
            // The firmware writes to this line too, before Linux does.
            if !begun {
                begun = text.ends_with(BEGINS);
            } else if let Some((before, status)) = text.split_once(ENDS) {
                if !before.is_empty() {
                    line(before);
                }
                let status = status.trim().parse();
                return status
                    .map(End::Status)
                    .context("the guest's last line is broken");
            } else if text.ends_with(MAY_LOSE_POWER) {
                return Ok(End::PowerLost);
            } else {
                line(&text);
            }
        }
    }

    /// The end of the kernel's console, for a guest that went wrong.
    fn last_words(&self) -> String {
        let console = fs::read(self.console()).unwrap_or_default();
        let console = String::from_utf8_lossy(&console).into_owned();
        let lines: Vec<&str> = console.lines().rev().take(30).collect();
        let mut text = String::from("; its console says:\n");
        for line in lines.into_iter().rev() {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn unpack(output: &Path, out: &Path) -> Result<()> {
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    fs::create_dir_all(out)?;
    let mut tar = shell::command("tar");
    shell::read(
        tar.args(["--no-same-owner", "-xf"])
            .arg(output)
            .arg("-C")
            .arg(out),
    )?;
    Ok(())
}
