//! The agent itself, with a software TPM: it guards a cgroup while its arms are
//! measured, and is off the kernel while the others are.

#[path = "../../../attest/tpm/tests/support/start.rs"]
mod start;

use crate::say;
use crate::stage::{Process, is_ready, program, value};
use anyhow::{Context as _, Result, ensure};
use merestone_agent::bpf;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A number of NVIDIA's that no device has: the hook decides before open(2) fails.
const NODE: (u32, u32) = (195, 199);
/// For the agent's start and end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the agents of this run told, as they said themselves before they ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Records bound to digests (R2).
    pub(crate) bound: u64,
    /// Turns that the kernel saw (R1), those that a bound record amends among them.
    pub(crate) observed: u64,
    /// Events and turns lost, and records without a receipt.
    pub(crate) lost: u64,
    /// How often an agent was started.
    pub(crate) starts: u64,
}

/// A cgroup, and the agent that guards it when it is asked to.
pub(crate) struct Real {
    pub(crate) cgroup: PathBuf,
    pub(crate) node: PathBuf,
    /// Where it takes records.
    pub(crate) socket: PathBuf,
    pub(crate) told: Told,
    /// `/-/ready` of the gateway that has to have receipts.
    gateway: Option<u16>,
    config: PathBuf,
    log: PathBuf,
    agent: Option<Child>,
    _tpm: Process,
}

impl Real {
    /// The cgroup, the node and the TPM; no agent yet.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "loading eBPF programs needs root"
        );
        bpf::object()?;
        let root = bpf::hierarchy()?;
        let name = format!("merestone-gateway-cost-{}", std::process::id());
        let (tpm, port) = start::start(&folder.join("tpm")).context("no software TPM")?;
        let this = Self {
            cgroup: root.join(&name),
            node: folder.join("gpu"),
            socket: folder.join("real.sock"),
            told: Told::default(),
            gateway: None,
            config: folder.join("merestone.toml"),
            log: folder.join("agent.log"),
            agent: None,
            _tpm: Process(tpm),
        };
        std::fs::create_dir(&this.cgroup)?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &this.node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR,
            rustix::fs::makedev(NODE.0, NODE.1),
        )?;
        std::fs::write(folder.join("boundary.toml"), "name = \"loopback\"\n")?;
        // Everything else as it comes: epochs of 10 s, log, counters, records.
        let text = format!(
            "boundary = \"{folder}/boundary.toml\"\nstate_dir = \"{folder}/state\"\n\
             [api]\nsocket = \"{folder}/api.sock\"\n[metrics]\nlisten = \"\"\n\
             [records]\nsocket = \"{folder}/real.sock\"\n\
             [enforcement]\npin_dir = \"/sys/fs/bpf/{name}\"\nrequire = [\"records\"]\n\
             [canary]\nenabled = false\n[tpm]\ntcti = \"swtpm:host=127.0.0.1,port={port}\"\n",
            folder = folder.display(),
        );
        std::fs::write(&this.config, text)?;
        Ok(this)
    }

    /// The gateway that is to be ready before anything guarded is measured.
    pub(crate) const fn await_gateway(&mut self, metrics: u16) {
        self.gateway = Some(metrics);
    }

    fn ask(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(program()?);
        command.arg("--config").arg(&self.config).args(words);
        Ok(command.output()?)
    }

    /// Starts the agent and has the group guarded; nothing where it is.
    pub(crate) fn begin(&mut self) -> Result<()> {
        if self.agent.is_some() {
            return Ok(());
        }
        let log = std::fs::File::create(&self.log)?;
        let mut command = Command::new(program()?);
        command.arg("--config").arg(&self.config).arg("run");
        command.env("TSS2_LOG", "all+none").stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        self.agent = Some(command.spawn()?);
        self.told.starts += 1;
        let until = Instant::now() + PATIENCE;
        while !self.ask(&["status"])?.status.success() {
            self.in_time(until)?;
        }
        // One that enters, opens and leaves is enough: the group is the cgroup.
        let mut open = Command::new("sh");
        open.args(["-c", "echo $$ > \"$1\" && cat \"$2\"", "sh"]);
        open.arg(self.cgroup.join("cgroup.procs")).arg(&self.node);
        open.output()?;
        if let Some(port) = self.gateway {
            while !is_ready(port) {
                self.in_time(until)?;
            }
        }
        Ok(())
    }

    fn in_time(&mut self, until: Instant) -> Result<()> {
        let ended = self
            .agent
            .as_mut()
            .map(Child::try_wait)
            .transpose()?
            .flatten();
        let said = || std::fs::read_to_string(&self.log).unwrap_or_default();
        ensure!(ended.is_none(), "the agent ended: {}", said());
        ensure!(
            Instant::now() < until,
            "the agent does not guard: {}",
            said()
        );
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    /// Counts what it told, ends it and takes its programs away.
    pub(crate) fn end(&mut self) -> Result<()> {
        let Some(mut agent) = self.agent.take() else {
            return Ok(());
        };
        if let Some(port) = self.gateway {
            // What it has not told yet it would tell another session, or nobody.
            let until = Instant::now() + PATIENCE;
            while value(port, "merestone_gateway_queue_places_taken ")? > 0.0 {
                ensure!(Instant::now() < until, "records wait for the agent");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let status = self.ask(&["status", "--json"])?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        let count = |key: &str| status["records"][key].as_u64().unwrap_or(0);
        self.told.bound += count("bound");
        self.told.observed += count("observed");
        let lost = status["lost"].as_array().into_iter().flatten();
        self.told.lost += count("unreceipted");
        self.told.lost += lost.filter_map(|one| one[1].as_u64()).sum::<u64>();
        let id = Pid::from_child(&agent);
        kill_process(id, Signal::TERM)?;
        let until = Instant::now() + PATIENCE;
        while agent.try_wait()?.is_none() {
            if Instant::now() > until {
                agent.kill()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let unload = self.ask(&["unload", "--yes"])?;
        ensure!(
            unload.status.success(),
            "{}",
            String::from_utf8_lossy(&unload.stderr)
        );
        Ok(())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // It went before.
        self.gateway = None;
        if let Err(error) = self.end() {
            say(&format!("the agent's end: {error:#}"));
        }
        let until = Instant::now() + Duration::from_secs(5);
        while self.cgroup.exists() && Instant::now() < until {
            std::fs::remove_dir(&self.cgroup).ok();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
