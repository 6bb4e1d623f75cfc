//! A place of a test's own: mounts, pins, a cgroup, a GPU node, and the copy
//! of this executable that attacks.

use crate::{agent::Agent, sys};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a process of this executable is to do, and where.
pub(super) const ROLE: &str = "MERESTONE_TAMPER_ROLE";
pub(super) const PINS: &str = "MERESTONE_TAMPER_PINS";
pub(super) const CGROUP: &str = "MERESTONE_TAMPER_CGROUP";
pub(super) const NODE: &str = "MERESTONE_TAMPER_NODE";
pub(super) const STATE: &str = "MERESTONE_TAMPER_STATE";
pub(super) const WHAT: &str = "MERESTONE_TAMPER_WHAT";

const NVIDIA: u32 = 195;

/// A test's place.
pub(super) struct Stage {
    folder: PathBuf,
    pub(super) bpffs: PathBuf,
    pub(super) pins: PathBuf,
    pub(super) cgroup: PathBuf,
    node: PathBuf,
    pub(super) copy: PathBuf,
}

impl Stage {
    /// None, and a word on why, where the test cannot run.
    pub(super) fn set(name: &str) -> Option<Self> {
        let place = crate::support::place(name)?;
        let name = format!("merestone-tamper-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        let stage = Self {
            bpffs: folder.join("bpf"),
            pins: folder.join("bpf/merestone"),
            cgroup: place.join(&name),
            node: folder.join("gpu"),
            copy: folder.join("attacker"),
            folder,
        };
        stage.clear();
        fs::create_dir_all(&stage.bpffs).unwrap();
        fs::create_dir_all(stage.cgroup.join("server")).unwrap();
        // Where there are controllers here, the agent's limits are attacked too.
        for above in [&place, &stage.cgroup] {
            for controller in ["+memory", "+pids", "+cpu"] {
                fs::write(above.join("cgroup.subtree_control"), controller).ok();
            }
        }
        fs::create_dir_all(stage.cgroup.join("agent")).unwrap();
        fs::create_dir_all(stage.state()).unwrap();
        sys::own_mounts().unwrap();
        // The folder is a mount of its own so that the copy can be run.
        sys::mount("bpf", &stage.bpffs.to_string_lossy(), 0).unwrap();
        fs::copy(std::env::current_exe().unwrap(), &stage.copy).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &stage.node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
            rustix::fs::makedev(NVIDIA, 0),
        )
        .unwrap();
        Some(stage)
    }

    pub(super) fn command(&self, program: &Path, role: &str, what: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["--exact", "agent::role", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(WHAT, what)
            .env(PINS, &self.pins)
            .env(CGROUP, &self.cgroup)
            .env(NODE, &self.node)
            .env(STATE, self.state())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    fn run(&self, program: &Path, role: &str, what: &str) -> String {
        let output = self.command(program, role, what).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said.lines().find_map(|line| line.split_once("said: "));
        line.unwrap_or_else(|| panic!("{role} {what} said {said:?}"))
            .1
            .to_owned()
    }

    /// A directory of the agent's that nothing may be mounted over.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// What becomes of a datagram to loopback of a process in the guarded
    /// cgroup, after it opened the GPU if `open`.
    pub(super) fn send(&self, open: bool) -> String {
        let what = if open { "open" } else { "" };
        self.run(&std::env::current_exe().unwrap(), "workload", what)
    }

    /// What a process of another role says.
    pub(super) fn other(&self, role: &str) -> String {
        self.run(&std::env::current_exe().unwrap(), role, "")
    }

    /// What becomes of an attack by somebody else's program.
    pub(super) fn attack(&self, what: &str) -> String {
        let said = self.run(&self.copy, "attacker", what);
        println!("attack {what}: {said}");
        said
    }

    /// The agent, in this executable.
    pub(super) fn agent(&self, options: &str) -> Agent {
        Agent::start(self, &std::env::current_exe().unwrap(), options)
    }

    fn clear(&self) {
        // Outside a namespace of its own there is nothing mounted.
        sys::unmount(&self.bpffs.to_string_lossy(), libc::MNT_DETACH).ok();
        fs::remove_dir_all(&self.folder).ok();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.cgroup.exists() && Instant::now() < deadline {
            fs::remove_dir(self.cgroup.join("server")).ok();
            fs::remove_dir(self.cgroup.join("agent")).ok();
            fs::remove_dir(&self.cgroup).ok();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}
