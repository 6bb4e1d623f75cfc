//! A cgroup, nodes and pins of a test's own, and what its children said.

use crate::support::said;
use merestone_abi::{
    Event, EventKind, Hook, LOOPBACK_RULE, RULE_ENTRIES, Reason, RuleEntry, RuleSet, Verdict,
    protocol,
};
use merestone_agent::bpf::{EventStream, Kernel, Options, TablePrefix, Tables, unload};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const NVIDIA: u32 = 195;
/// `/dev/full`: opens without a driver of its own, and nobody else opens it.
pub(crate) const STAND_IN: (u32, u32) = (1, 7);

/// A test's place.
pub(crate) struct Stage {
    cgroup: PathBuf,
    pins: PathBuf,
    pub(crate) home: PathBuf,
}

impl Stage {
    /// None, and a word on why, where the test cannot run.
    pub(crate) fn set(name: &str) -> Option<Self> {
        let root = crate::support::place(name)?;
        let name = format!("merestone-ways-{name}");
        let stage = Self {
            cgroup: root.join(&name),
            pins: Path::new("/sys/fs/bpf").join(&name),
            home: std::env::temp_dir().join(&name),
        };
        stage.clear();
        fs::create_dir(&stage.cgroup).unwrap();
        fs::create_dir(&stage.home).unwrap();
        stage.node("gpu", NVIDIA, 0);
        stage.node("rdma", 231, 192);
        stage.node("tun", 10, 200);
        stage.node("vhost", 10, 241);
        stage.node("full", STAND_IN.0, STAND_IN.1);
        Some(stage)
    }

    fn node(&self, name: &str, major: u32, minor: u32) {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            self.home.join(name),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            rustix::fs::makedev(major, minor),
        )
        .unwrap();
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(self.pins.clone());
        options.cgroup_root.clone_from(&self.cgroup);
        options
    }

    pub(crate) fn start(options: &Options, tables: &Tables) -> Option<(Kernel, EventStream)> {
        match Kernel::start(options, tables) {
            Ok(started) => Some(started),
            Err(error) if error.to_string().contains("bpf file system") => {
                println!("SKIPPED: ways_out: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn run(&self, cgroup: &str, orders: &str) -> String {
        said(&self.output(cgroup, orders))
    }

    pub(crate) fn output(&self, cgroup: &str, orders: &str) -> Output {
        self.command(cgroup, orders).output().unwrap()
    }

    pub(crate) fn command(&self, cgroup: &str, orders: &str) -> Command {
        let cgroup = self.cgroup.join(cgroup);
        fs::create_dir_all(&cgroup).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(super::ORDERS, orders)
            .env("MERESTONE_TEST_CGROUP", cgroup)
            .env("MERESTONE_TEST_HOME", &self.home)
            .stdout(Stdio::piped());
        command
    }

    fn clear(&self) {
        if self.pins.exists() {
            unload(&self.pins).ok();
        }
        fs::remove_dir_all(&self.home).ok();
        for _ in 0..100 {
            if !self.cgroup.exists() {
                return;
            }
            for below in fs::read_dir(&self.cgroup).into_iter().flatten().flatten() {
                fs::remove_dir(below.path()).ok();
            }
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

/// The events that have come by now.
pub(crate) fn events(stream: &mut EventStream) -> Vec<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut found = Vec::new();
        let patience = Duration::from_millis(300);
        while let Ok(Ok(event)) = tokio::time::timeout(patience, stream.next()).await {
            found.push(event);
        }
        found
    })
}

pub(crate) fn has(
    events: &[Event],
    kind: EventKind,
    hook: Hook,
    verdict: Verdict,
    reason: Reason,
) -> bool {
    events.iter().any(|event| {
        event.kind == kind
            && event.hook == hook
            && event.verdict == verdict
            && event.reason == reason
    })
}

/// Everything over one protocol, and loopback.
pub(crate) fn tables(allowed: u8, deputies: u8) -> Tables {
    let mut tables = Tables {
        deputies,
        ..Tables::default()
    };
    let nets = [
        ([0; 16], 0, allowed, 1),
        (mapped([127, 0, 0, 0]), 104, protocol::ANY, LOOPBACK_RULE),
    ];
    for (address, bits, protocol, rule) in nets {
        let mut entries = [RuleEntry::default(); RULE_ENTRIES];
        entries[0] = RuleEntry {
            port_low: 0,
            port_high: u16::MAX,
            rule,
            protocol,
            action: Verdict::ALLOW.0,
        };
        let set = u32::try_from(tables.sets.len()).unwrap();
        tables.sets.push(RuleSet {
            length: 1,
            reserved: 0,
            entries,
        });
        tables.prefixes.push(TablePrefix {
            boundary: 0,
            address,
            bits,
            set,
        });
    }
    tables
}

fn mapped(v4: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets()
}
