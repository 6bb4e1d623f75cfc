//! The agent under test, behind one face: the real `merestone run`, or the
//! `hold` example, which loads the same programs with nothing around them.
//!
//! It never enforces anything itself and never decides what a leak is.

mod agent;
mod event;
mod example;

use crate::cgroup;
use crate::cleanup;
use anyhow::{Context as _, Result, bail};
pub use event::{Log, SeenEvent};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where pins go; each suite has its own directory below.
const BPFFS: &str = "/sys/fs/bpf";

/// How long the agent may take to start: an emulated processor spends most of
/// a minute in the kernel's verifier.
const START: Duration = Duration::from_mins(5);

/// What the agent is told to hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Boundary {
    /// Networks inside.
    pub allow: Vec<String>,
    /// Report only.
    pub audit: bool,
    /// Refuse deputies rather than report them.
    pub deny_deputies: bool,
}

impl Default for Boundary {
    /// The lab's inside. The translation prefixes are inside too, so that only
    /// the address within the address can refuse them.
    fn default() -> Self {
        let allow = [
            "198.18.0.0/16",
            "fd00:6d65::/32",
            "64:ff9b::/96",
            "2002::/16",
        ];
        Self {
            allow: allow.map(str::to_owned).to_vec(),
            audit: false,
            deny_deputies: false,
        }
    }
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Active tiers by name.
    pub tiers: Vec<String>,
    /// Ways out it says it does not cover.
    pub uncovered: Vec<String>,
    /// Lost events by reason.
    pub lost: BTreeMap<String, u64>,
    /// Exact decisions by hook, verdict and protocol, where the agent says.
    pub counters: Vec<Counter>,
    /// The agent's version.
    pub version: String,
    /// Whether it has a canary.
    pub canary: bool,
}

/// How often one hook decided so on one protocol.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Counter {
    /// As `abi` names it.
    pub hook: String,
    /// As `abi` names it.
    pub verdict: String,
    /// As `abi` names its bucket.
    pub protocol: String,
    /// How often.
    #[serde(alias = "value")]
    pub count: u64,
}

/// One guarded group, as far as the suite looks at it.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct GuardedGroup {
    /// Its processes.
    pub processes: Vec<GuardedProcess>,
    /// Packets let through at egress.
    pub allowed: u64,
    /// Decisions refused, at any hook.
    pub denied: u64,
    /// Decisions reported only.
    pub audited: u64,
}

/// A process of a group.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
pub struct GuardedProcess {
    /// Process id.
    pub pid: u32,
}

impl Counter {
    fn list(value: &Value) -> serde_json::Result<Vec<Self>> {
        serde_json::from_value(value.clone())
    }
}

impl Status {
    /// Reads the fields wherever the answer has them.
    fn from_json(value: &Value) -> Self {
        let list = |name: &str| value.get(name).and_then(Value::as_array).cloned();
        let tiers = list("tiers").unwrap_or_default();
        let active = tiers
            .iter()
            .filter(|tier| tier.get("active").and_then(Value::as_bool).unwrap_or(false));
        let name = |tier: &Value| tier.get("name").and_then(Value::as_str).map(str::to_owned);
        let uncovered = list("uncovered").unwrap_or_default();
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        Self {
            tiers: active.filter_map(name).collect(),
            uncovered: uncovered.iter().map(text).collect(),
            lost: lost(value.get("lost")),
            counters: value
                .get("counters")
                .and_then(|counters| Counter::list(counters).ok())
                .unwrap_or_default(),
            version: value
                .get("version")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            canary: value.get("canary").is_some_and(|canary| !canary.is_null()),
        }
    }

    /// Whether the LSM tier decides as well.
    pub fn lsm(&self) -> bool {
        self.tiers
            .iter()
            .any(|tier| tier.to_lowercase().contains("lsm"))
    }

    /// Whether the agent owns up to not covering `word`.
    pub fn declares(&self, word: &str) -> Option<&str> {
        let word = word.to_lowercase();
        let entry = self
            .uncovered
            .iter()
            .find(|entry| entry.to_lowercase().contains(&word));
        entry.map(String::as_str)
    }
}

/// `{"ring_full": 3}`, `[["ring_full", 3]]` or `[{"reason": "ring_full", "count": 3}]`.
fn lost(value: Option<&Value>) -> BTreeMap<String, u64> {
    match value {
        Some(Value::Object(map)) => map
            .iter()
            .filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?)))
            .collect(),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(|entry| {
                let reason = entry.get("reason").or_else(|| entry.get(0))?;
                let count = entry.get("count").or_else(|| entry.get(1))?;
                Some((reason.as_str()?.to_owned(), count.as_u64()?))
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// Which program is under test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Flavour {
    /// `merestone run`.
    Agent(PathBuf),
    /// `hold`.
    Example(PathBuf),
}

impl Flavour {
    /// `$MERESTONE_BIN`, else `$MERESTONE_HOLD`, else whichever lies where
    /// cargo would have put it beside this executable; the agent first.
    pub fn find() -> Result<Option<Self>> {
        let named = |key: &str| std::env::var_os(key).map(PathBuf::from);
        let exists = |path: PathBuf| {
            let known = path.exists();
            known
                .then_some(path.clone())
                .with_context(|| format!("{} is not there", path.display()))
        };
        if let Some(path) = named("MERESTONE_BIN") {
            return exists(path).map(|path| Some(Self::Agent(path)));
        }
        if let Some(path) = named("MERESTONE_HOLD") {
            return exists(path).map(|path| Some(Self::Example(path)));
        }
        let own = std::env::current_exe()?;
        let near = own.ancestors().skip(1).take(2);
        Ok(near
            .map(|place| place.join("examples/hold"))
            .find(|path| path.exists())
            .map(Self::Example))
    }
}

/// The places one holder uses.
#[derive(Clone, Debug)]
pub struct Places {
    /// Configuration, state, sockets.
    pub home: PathBuf,
    /// Where links and maps are pinned.
    pub pins: PathBuf,
    /// The cgroup v2 root it attaches to.
    pub cgroups: PathBuf,
}

/// Pin directories of other agents on this host. Their boundary refuses as
/// well, so a suite beside them proves nothing of the agent under test.
pub fn others() -> Vec<String> {
    let own = format!("{}{}", cgroup::NAME, std::process::id());
    let entries = fs::read_dir(BPFFS).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("merestone") && *name != own)
        .collect()
}

/// Waits a while for other agents to go; says so when they do not.
pub fn wait_alone() -> Result<()> {
    for _ in 0..600 {
        if others().is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!(
        "other agents hold this host: {}; stop them, and remove their pins with merestone unload",
        others().join(", ")
    )
}

/// The agent under test, running or not.
#[derive(Debug)]
pub struct Holder {
    flavour: Flavour,
    places: Places,
    boundary: Boundary,
    child: Option<Child>,
    /// What it reported.
    pub log: Arc<Log>,
}

impl Holder {
    /// Starts it and waits until it enforces.
    pub fn start(flavour: Flavour, cgroups: &Path) -> Result<Self> {
        let name = format!("{}{}", cgroup::NAME, std::process::id());
        let places = Places {
            home: std::env::temp_dir().join(&name),
            pins: Path::new(BPFFS).join(&name),
            cgroups: cgroups.to_owned(),
        };
        for stale in cgroup::stale(Path::new(BPFFS)) {
            drop(fs::remove_dir_all(stale));
        }
        for stale in cgroup::stale(&std::env::temp_dir()) {
            drop(fs::remove_dir_all(stale));
        }
        wait_alone()?;
        fs::create_dir_all(&places.home)?;
        let doomed = places.clone();
        cleanup::later(move || {
            // Both may be gone already.
            drop(fs::remove_dir_all(&doomed.pins));
            drop(fs::remove_dir_all(&doomed.home));
        });
        let mut holder = Self {
            flavour,
            places,
            boundary: Boundary::default(),
            child: None,
            log: Arc::new(Log::default()),
        };
        holder.launch()?;
        Ok(holder)
    }

    /// Starts the process and waits until it says it enforces.
    pub fn launch(&mut self) -> Result<()> {
        let log = Arc::clone(&self.log);
        let child = match &self.flavour {
            Flavour::Agent(program) => agent::launch(program, &self.places, &self.boundary, log)?,
            Flavour::Example(program) => {
                example::launch(program, &self.places, &self.boundary, log)?
            }
        };
        let pid = i32::try_from(child.id())?;
        cleanup::later(move || {
            if still_ours(pid) {
                drop(crate::sys::kill(pid, libc::SIGCONT));
                drop(crate::sys::kill(pid, libc::SIGKILL));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        self.child = Some(child);
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                let said = self.log.complaint();
                bail!("the agent under test ended with {status}: {said}");
            }
            let ready = match &self.flavour {
                Flavour::Agent(program) => agent::ready(program, &self.places),
                Flavour::Example(_) => self.log.answer("ready").is_some(),
            };
            if ready {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the agent under test does not get ready within {START:?}")
    }

    /// Asks it for its state.
    pub fn status(&mut self) -> Result<Status> {
        let value = match &self.flavour {
            Flavour::Agent(program) => agent::status(program, &self.places)?,
            Flavour::Example(_) => {
                let child = self.child.as_mut().context("the agent does not run")?;
                example::ask(child, &self.log, "status", "status")?
            }
        };
        Ok(Status::from_json(&value))
    }

    /// The guarded groups with their counts; `hold` does not say them.
    pub fn guarded(&self) -> Result<Vec<GuardedGroup>> {
        match &self.flavour {
            Flavour::Agent(program) => {
                let groups = agent::guarded(program, &self.places)?;
                Ok(serde_json::from_value(groups)?)
            }
            Flavour::Example(_) => Ok(Vec::new()),
        }
    }

    /// Gives it another boundary and waits until it is in force.
    pub fn reload(&mut self, boundary: Boundary) -> Result<()> {
        let child = self.child.as_mut().context("the agent does not run")?;
        match &self.flavour {
            Flavour::Agent(program) => agent::reload(program, &self.places, &boundary)?,
            Flavour::Example(_) => example::reload(child, &self.log, &boundary)?,
        }
        self.boundary = boundary;
        Ok(())
    }

    /// SIGKILL, and the process is gone when this returns.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent does not run")?;
        child.kill()?;
        child.wait()?;
        self.log.forget_answers();
        Ok(())
    }

    /// The agent's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it says its counters: `hold` does not.
    pub fn counts(&self) -> bool {
        matches!(self.flavour, Flavour::Agent(_))
    }

    /// `merestone drill`: none where this agent has no such command.
    pub fn drill(&self) -> Result<Option<bool>> {
        match &self.flavour {
            Flavour::Agent(program) => agent::drill(program, &self.places),
            Flavour::Example(_) => Ok(None),
        }
    }

    /// SIGSTOP: nobody reads the ring buffer any more.
    pub fn freeze(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    fn signal(&self, signal: i32) -> Result<()> {
        let child = self.child.as_ref().context("the agent does not run")?;
        Ok(crate::sys::kill(i32::try_from(child.id())?, signal)?)
    }
}

/// Whether `pid` is still a child of this process: ids are used again.
fn still_ours(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.is_some_and(|parent| parent.trim() == std::process::id().to_string())
}
