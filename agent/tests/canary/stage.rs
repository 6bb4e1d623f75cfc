//! A place of a test's own, and the agent in it.

#[path = "../../../attest/tpm/tests/support/start.rs"]
mod start;

use crate::sys;
use merestone_agent::ledger::Reader;
use merestone_evidence::{Body, Entry, EpochStatement, decode};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Two agents on one host would each guard the other's canary.
static ALONE: Mutex<()> = Mutex::new(());

/// Files, a software TPM, a network with a route to nowhere.
pub(super) struct Stage {
    pub(super) folder: tempfile::TempDir,
    pub(super) cgroup_root: PathBuf,
    tpm: Child,
    _alone: MutexGuard<'static, ()>,
}

fn run(words: &[&str]) {
    let (program, words) = words.split_first().unwrap();
    let said = Command::new(program).args(words).output().unwrap();
    assert!(said.status.success(), "{program} {words:?}: {said:?}");
}

/// Waits until something holds.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Stage {
    /// None, and a word on why, where the test cannot run.
    pub(super) fn set(name: &str) -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let hierarchy = crate::support::place(name)?;
        for tool in ["swtpm", "ip"] {
            if Command::new(tool).arg("-V").output().is_err() {
                println!("SKIPPED: {name}: {tool} is not installed");
                return None;
            }
        }
        sys::apart().unwrap();
        run(&["mount", "--make-rprivate", "/"]);
        let folder = tempfile::tempdir().unwrap();
        let bpffs = folder.path().join("bpf");
        fs::create_dir(&bpffs).unwrap();
        run(&["mount", "-t", "bpf", "bpf", &bpffs.to_string_lossy()]);
        // What escapes goes to a neighbour that is not there.
        for words in [
            "link set lo up",
            "link add canary0 type veth peer name canary1",
            "link set canary0 up",
            "link set canary1 up",
            "addr add 198.18.7.1/24 dev canary0",
            "-6 addr add fd00:6d65:7::1/64 dev canary0 nodad",
            "route add default via 198.18.7.2",
            "-6 route add default via fd00:6d65:7::2",
        ] {
            let words: Vec<_> = ["ip"].into_iter().chain(words.split(' ')).collect();
            run(&words);
        }
        let (tpm, port) = start::start(&folder.path().join("swtpm")).unwrap();
        let stage = Self {
            folder,
            cgroup_root: hierarchy,
            tpm,
            _alone: alone,
        };
        stage.configure(port, "");
        Some(stage)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, port: u16, more: &str) {
        let boundary = "name = \"canary\"\n[[allow]]\ncidr = [\"198.18.7.0/24\"]\n";
        fs::write(self.file("boundary.toml"), boundary).unwrap();
        let folder = self.folder.path().display();
        let text = format!(
            "node = \"canary\"\nboundary = \"{folder}/boundary.toml\"\nstate_dir = \"{folder}/state\"\n\
             [api]\nsocket = \"{folder}/sock\"\n[metrics]\nlisten = \"\"\n\
             [enforcement]\npin_dir = \"{folder}/bpf/merestone\"\ntamper = false\n\
             [tpm]\ntcti = \"swtpm:host=127.0.0.1,port={port}\"\n\
             [evidence]\nepoch = \"1s\"\nheartbeat = \"2s\"\n\
             [canary]\ninterval = \"1s\"\n{more}"
        );
        fs::write(self.file("merestone.toml"), text).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if program != env!("CARGO_BIN_EXE_merestone") {
            command.args(["--bounding-set", "-mknod", env!("CARGO_BIN_EXE_merestone")]);
        }
        command.arg("--config").arg(self.file("merestone.toml"));
        command.env("TSS2_LOG", "all+none");
        command
    }

    /// An operator's command.
    pub(super) fn ask(&self, words: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_merestone"));
        command.args(words).output().unwrap()
    }

    /// The same, its JSON.
    pub(super) fn json(&self, words: &[&str]) -> Value {
        serde_json::from_slice(&self.ask(words).stdout).unwrap()
    }

    /// A running agent that has a guarded canary, or one that cannot have.
    pub(super) fn agent(&self, words: &[&str]) -> Agent {
        let agent = self.agent_by(env!("CARGO_BIN_EXE_merestone"), words);
        eventually("the canary is guarded", || {
            self.json(&["status", "--json"])["canary"]["guarded"] == true
        });
        agent
    }

    /// An agent without `CAP_MKNOD`.
    pub(super) fn agent_without_mknod(&self) -> Agent {
        self.agent_by("setpriv", &[])
    }

    fn agent_by(&self, program: &str, words: &[&str]) -> Agent {
        let log = fs::File::create(self.file("log")).unwrap();
        let mut command = self.command(program);
        command.arg("run").args(words).stderr(log);
        let mut child = command.spawn().unwrap();
        eventually("the agent answers", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", self.log());
            self.ask(&["guarded"]).status.success()
        });
        Agent(child)
    }

    /// What the agent said.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap()
    }

    /// The pins of links.
    pub(super) fn links(&self) -> Vec<PathBuf> {
        let links = fs::read_dir(self.file("bpf/merestone/links")).unwrap();
        links.map(|link| link.unwrap().path()).collect()
    }

    /// The epochs of the last session.
    pub(super) fn epochs(&self) -> Vec<EpochStatement> {
        let reader = Reader::open(&self.file("state")).unwrap();
        let session = reader.sessions().unwrap().len() as u64;
        let epochs = reader.epochs(session).unwrap();
        let statement = |epoch: &merestone_evidence::SealedEpoch| decode(&epoch.statement).unwrap();
        epochs.iter().map(statement).collect()
    }

    /// The canary's entries in the log: run, way out, result.
    pub(super) fn entries(&self) -> Vec<(String, String, String)> {
        let reader = Reader::open(&self.file("state")).unwrap();
        let leaves = reader.leaves(0, reader.hashes().unwrap().len() as u64);
        let entries = leaves.unwrap();
        let entries = entries.iter().map(|leaf| decode::<Entry>(leaf).unwrap());
        let canary = |entry: Entry| match entry.body {
            Body::Canary {
                run,
                vector,
                result,
                detail: _,
            } => Some((run, vector, result)),
            _ => None,
        };
        entries.filter_map(canary).collect()
    }

    /// Cgroups and processes of the canary of agent `pid`.
    pub(super) fn traces(&self, pid: u32) -> Vec<String> {
        let cgroup = self.cgroup_root.join(format!("merestone-canary-{pid}"));
        let mut found: Vec<_> = cgroup
            .exists()
            .then(|| cgroup.display().to_string())
            .into_iter()
            .collect();
        found.extend(
            processes(&cgroup.to_string_lossy())
                .iter()
                .map(u32::to_string),
        );
        found
    }
}

/// Processes with `word` among their arguments.
pub(super) fn processes(word: &str) -> Vec<u32> {
    let named = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|one| one == word.as_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap();
    let pids = pids.filter_map(|one| one.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(named).collect()
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tpm.kill().ok();
        self.tpm.wait().ok();
        let bpffs = self.file("bpf");
        // With the mount go the pins, and with them the programs.
        Command::new("umount").arg("-l").arg(bpffs).status().ok();
    }
}

/// The agent's process.
pub(super) struct Agent(Child);

impl Agent {
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it in order, or not.
    pub(super) fn end(mut self, signal: i32) {
        sys::kill(self.pid(), signal).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
