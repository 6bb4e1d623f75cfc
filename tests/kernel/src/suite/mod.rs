//! The runner: one lab, all cases, one table.
//!
//! Without root every case is reported as skipped, by name. Without an agent
//! to test, the controls still run, and so does the suite's own proof that it
//! would notice a leak.
//!
//! `$MERESTONE_QUICK=1` leaves that proof out and restarts the agent once
//! instead of three times, `$MERESTONE_STORM` is the number
//! of processes in the storm (10,000), `$MERESTONE_FLOOD` of datagrams in the
//! flood (60,000): for emulated processors. `$MERESTONE_OUTCOMES` is a file to
//! write what was seen to, `$MERESTONE_ACCEPT=1` leaves out the comparison with
//! what is committed.

mod case;
mod child;
pub(crate) mod endurance;
mod report;
mod soak;
mod verdict;

use crate::catalog::{Tree, VECTORS, Vector};
use crate::cgroup::Corner;
use crate::cleanup;
use crate::holder::{Flavour, Holder, Status};
use crate::lab::{Lab, Phase};
use crate::sniffer::Sniffer;
use crate::sys;
use anyhow::{Context as _, Result, bail};
use report::{Report, say};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use verdict::Outcome;

/// Where device nodes can be made that can be opened.
const NODES: [&str; 2] = ["/dev", "/run"];

/// What the runs share.
#[derive(Debug)]
pub(crate) struct Suite {
    lab: Lab,
    sniffer: Sniffer,
    corner: Corner,
    probe: PathBuf,
    node: PathBuf,
    holder: Option<Holder>,
    status: Status,
    /// Tells the cgroups of a vector's later runs from those that an earlier
    /// one had guarded.
    round: u32,
}

/// What the command line and the environment ask for.
#[derive(Debug, Default)]
struct Orders {
    list: bool,
    filters: Vec<String>,
}

impl Orders {
    fn read() -> Self {
        let mut orders = Self::default();
        for word in std::env::args().skip(1) {
            match word.as_str() {
                "--list" => orders.list = true,
                // Of cargo's own flags none means anything here.
                flag if flag.starts_with('-') => {}
                _ => orders.filters.push(word),
            }
        }
        orders
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| name.contains(filter.as_str()))
    }
}

/// A number from the environment, for slow machines.
pub(crate) fn number(key: &str, default: u32) -> u32 {
    let given = std::env::var(key).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether the machine is an emulated one, where every second is ten.
pub(crate) fn quick() -> bool {
    number("MERESTONE_QUICK", 0) != 0
}

/// The suite's `main`.
pub fn main() -> ExitCode {
    let orders = Orders::read();
    let vectors: Vec<&Vector> = VECTORS
        .iter()
        .filter(|vector| orders.wants(vector.name))
        .collect();
    let trials: Vec<_> = endurance::TRIALS
        .iter()
        .filter(|trial| orders.wants(trial.name))
        .collect();
    if orders.list {
        for name in vectors
            .iter()
            .map(|v| v.name)
            .chain(trials.iter().map(|t| t.name))
        {
            say(&format!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    if sys::effective_user() != 0 {
        for name in vectors
            .iter()
            .map(|v| v.name)
            .chain(trials.iter().map(|t| t.name))
        {
            say(&format!("test {name} ... skipped: needs root"));
        }
        let count = vectors.len() + trials.len();
        say(&format!(
            "egress suite: 0 passed, 0 failed, {count} skipped"
        ));
        return ExitCode::SUCCESS;
    }
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run(&vectors, &trials)));
    cleanup::now();
    match outcome {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            say(&format!("the egress suite could not run: {error:#}"));
            ExitCode::FAILURE
        }
        Err(_panic) => ExitCode::FAILURE,
    }
}

fn run(vectors: &[&'static Vector], trials: &[&endurance::Trial]) -> Result<bool> {
    let begin = std::time::Instant::now();
    cleanup::on_signals()?;
    let mut suite = Suite::new()?;
    let minutes = number("MERESTONE_SOAK_MINUTES", 0);
    if minutes > 0 {
        let flavour = Flavour::find()?.context("no agent to test; set MERESTONE_BIN")?;
        suite.hold(flavour)?;
        return soak::run(&mut suite, minutes);
    }
    let mut report = Report::new(vectors);
    if !quick() {
        suite.all(&mut report, vectors, Phase::Teeth);
    }
    match Flavour::find()? {
        None => {
            suite.all(&mut report, vectors, Phase::Control);
            report.no_agent(vectors, trials);
        }
        Some(flavour) => {
            suite.hold(flavour)?;
            Report::agent(&suite.status);
            for phase in [Phase::Control, Phase::Cgroup, Phase::Tree] {
                suite.all(&mut report, vectors, phase);
            }
            for trial in trials {
                let outcome = if trial.needs_lsm && !suite.status.lsm() {
                    Outcome::Absent("BPF LSM does not load here".to_owned())
                } else {
                    Outcome::of_trial((trial.run)(&mut suite))
                };
                report.trial(trial, outcome);
            }
            report.compare(&suite.status)?;
        }
    }
    Ok(report.finish(begin.elapsed()))
}

impl Suite {
    fn new() -> Result<Self> {
        let corner = Corner::new()?;
        let node = make_node()?;
        let lab = Lab::new().context("cannot build the lab")?;
        let sniffer = Sniffer::new(&lab.outside)?;
        Ok(Self {
            lab,
            sniffer,
            corner,
            probe: find_probe()?,
            node,
            holder: None,
            status: Status::default(),
            round: 0,
        })
    }

    fn hold(&mut self, flavour: Flavour) -> Result<()> {
        let mut holder = Holder::start(flavour, &self.corner.root)?;
        self.status = holder.status()?;
        self.holder = Some(holder);
        Ok(())
    }

    /// The agent under test.
    fn holder(&mut self) -> Result<&mut Holder> {
        self.holder.as_mut().context("there is no agent to test")
    }

    fn all(&mut self, report: &mut Report, vectors: &[&'static Vector], phase: Phase) {
        for vector in vectors {
            if phase == Phase::Tree && vector.tree == Tree::Outside {
                continue;
            }
            if report.is_absent(vector) {
                continue;
            }
            let outcome = case::judge(self, vector, phase);
            report.vector(vector, phase, outcome);
        }
    }
}

/// The probe beside this executable, or where `$MERESTONE_PROBE` says.
fn find_probe() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MERESTONE_PROBE") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    // A test executable lies in deps/, one below the binaries.
    let mut near = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|place| place.join("egress-probe"));
    near.find(|path| path.exists())
        .context("egress-probe is not beside the suite; set MERESTONE_PROBE")
}

/// A node with the GPU's major number; that no driver answers it is no matter.
fn make_node() -> Result<PathBuf> {
    let name = format!("{}{}", crate::cgroup::NAME, std::process::id());
    for place in NODES {
        for stale in crate::cgroup::stale(Path::new(place)) {
            drop(std::fs::remove_file(stale));
        }
        let path = Path::new(place).join(&name);
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from_raw_mode(0o666),
            rustix::fs::makedev(195, 0),
        );
        if made.is_ok() {
            let doomed = path.clone();
            cleanup::later(move || drop(std::fs::remove_file(doomed)));
            return Ok(path);
        }
    }
    bail!("cannot make a device node in any of {NODES:?}; is CAP_MKNOD missing?")
}
