//! `measure systemd`: the program that systemd itself loads for a unit with
//! `IPAddressDeny=`, seen, compared with the rebuilt one, and measured beside
//! it. It runs where systemd is the first process, and refuses to anywhere else.
//!
//! What is claimed of systemd's program is read from the kernel and tried.

use crate::bpf::{self, AttachType};
use crate::inspect::{self, Seen};
use crate::page::{read, traffic_values};
use crate::stage::{self, Corner, FAR, QUIET, Wire};
use crate::stats::Spread;
use crate::traffic::{self, Effort, PREFIXES, Scenario};
use crate::worker::Worker;
use crate::{Agent, Node, asm, packets, say, sets};
use anyhow::{Context as _, Result, ensure};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Denied, and beyond the wire.
const DENIED: &str = "203.0.113.9";
const WAYS: [(AttachType, &str, &str); 2] = [
    (AttachType::Egress, "egress", "sd_fw_egress"),
    (AttachType::Ingress, "ingress", "sd_fw_ingress"),
];
const DECISION_ROUNDS: usize = 21;
const REPEAT: u32 = 2_000;
const WHOLE: Effort = Effort {
    rounds: 21,
    connects: 60,
    datagrams: 128,
    round_trips: 60,
    stream_ms: 20,
};
const QUICK: Effort = Effort { rounds: 3, ..WHOLE };

/// Measures and prints a part of the page.
pub(crate) fn measure(quick: bool) -> Result<String> {
    let version = version()?;
    let node = Node::new()?;
    let corner = Corner::new()?;
    // Before the agent starts, so that its link program is on this wire and on
    // none of the others.
    let guarded = Wire::new()?;
    let agent = agent(&corner)?;
    let plain = [Wire::new()?, Wire::new()?, Wire::new()?, Wire::new()?];
    for wire in &plain {
        wire.route("203.0.113.0/24")?;
    }
    let (floor, rebuilt) = (corner.below("floor")?, corner.below("rebuilt")?);
    let _floor = stage::floor(&floor)?;
    let _rebuilt = stage::systemd(&rebuilt, PREFIXES)?;
    let nothing = corner.below("nothing")?;

    say("systemd starts a unit with IPAddressDeny=");
    let mut unit = Unit::start(&plain[2])?;
    let start = |name, wire, cgroup: &Path, node: Option<&Path>| -> Result<Scenario<'_>> {
        let worker = Worker::start(Wire::near(wire).as_path(), cgroup, node)?;
        Ok(Scenario { name, wire, worker })
    };
    let mut others = [
        start("nothing", &plain[0], &nothing, None)?,
        start("programs that only return", &plain[1], &floor, None)?,
        start("rebuilt", &plain[3], &rebuilt, None)?,
    ];
    let pairs = programs(&unit.cgroup, &rebuilt)?;
    let [free, _, copy] = &mut others;
    let seen = proof(&mut unit, &mut free.worker, &mut copy.worker, &pairs)?;
    let decisions = decisions(&pairs)?;
    let [free, floor, copy] = others;
    let mut scenarios = [
        free,
        floor,
        Scenario {
            name: "systemd's own program, 1,000 prefixes",
            wire: &plain[2],
            worker: unit.worker.take().context("no worker")?,
        },
        Scenario {
            name: "systemd's design rebuilt, 1,000 prefixes",
            ..copy
        },
        start(
            "Merestone, unguarded process",
            &guarded,
            &traffic::below(&agent, "free")?,
            None,
        )?,
        start(
            "Merestone, guarded, 1,000 prefixes",
            &guarded,
            &traffic::below(&agent, "held")?,
            Some(&node.0),
        )?,
    ];
    let traffic = traffic::rounds(&mut scenarios, if quick { QUICK } else { WHOLE })?;
    let mut page = head(&version, traffic.first())?;
    page.push_str(&seen);
    page.push_str(&decisions);
    traffic_values(&mut page, &traffic, is_counted())?;
    Ok(page)
}

/// Merestone beside it, with the same prefixes.
fn agent(corner: &Corner) -> Result<Agent> {
    let mut agent = Agent::start("guest", &corner.below("agent")?)?;
    let kernel = agent.kernel.as_mut().context("no kernel")?;
    kernel.install(&sets::tables(PREFIXES))?;
    // The links' thread ends with it; the pins hold.
    agent.kernel = None;
    Ok(agent)
}

/// Whether this machine's clock counts its instructions, as `cargo xtask` says
/// on the kernel's command line of such a machine.
fn is_counted() -> bool {
    read("/proc/cmdline")
        .split_whitespace()
        .any(|word| word == "merestone.counted=1")
}

fn head(version: &str, first: Option<&traffic::Measured>) -> Result<String> {
    let mut page = String::new();
    let clock = if is_counted() {
        "The clock counts instructions"
    } else {
        "The clock counts nanoseconds, of an emulator where this is one"
    };
    writeln!(
        page,
        "### Linux {}, {version}\n\nSecurity modules: {}. {clock}. {} rounds of calls, {DECISION_ROUNDS} of decisions.\n",
        read("/proc/sys/kernel/osrelease"),
        read("/sys/kernel/security/lsm"),
        first.map_or(0, |first| first.values[0].len()),
    )?;
    Ok(page)
}

/// Of the first process, which must be systemd.
fn version() -> Result<String> {
    let first = read("/proc/1/comm");
    ensure!(
        first == "systemd",
        "the first process is `{first}`, not systemd; `cargo xtask bench egress` runs this where it is"
    );
    let said = systemctl(&["--version"])?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

fn systemctl(words: &[&str]) -> Result<String> {
    let output = Command::new("systemctl")
        .args(words)
        .output()
        .context("cannot run systemctl")?;
    let error = String::from_utf8_lossy(&output.stderr);
    let shown = words.join(" ");
    ensure!(
        output.status.success(),
        "systemctl {shown}: {}",
        error.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A unit of systemd that is a worker, stopped when this is dropped.
#[derive(Debug)]
struct Unit {
    name: String,
    file: PathBuf,
    pipes: tempfile::TempDir,
    cgroup: PathBuf,
    worker: Option<Worker>,
}

impl Unit {
    fn start(wire: &Wire) -> Result<Self> {
        let name = format!("merestone-bench-{}.service", std::process::id());
        let units = Path::new("/run/systemd/system");
        fs::create_dir_all(units)?;
        let mut unit = Self {
            file: units.join(&name),
            cgroup: Path::new("/sys/fs/cgroup/system.slice").join(&name),
            name,
            pipes: tempfile::tempdir()?,
            worker: None,
        };
        let pipe = |name: &str| -> Result<(PathBuf, File)> {
            let path = unit.pipes.path().join(name);
            let made = Command::new("mkfifo").arg(&path).status()?;
            ensure!(made.success(), "cannot make a pipe");
            // For reading too, so that neither end waits for the other.
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            Ok((path, file))
        };
        let (orders, answers) = (pipe("orders")?, pipe("answers")?);
        let text = format!(
            "[Unit]\nDefaultDependencies=no\n\n[Service]\nType=exec\nExecStart={} worker {} {}\n\
             StandardInput=file:{}\nStandardOutput=file:{}\nLimitMEMLOCK=infinity\n{}",
            std::env::current_exe()?.display(),
            wire.near().display(),
            unit.cgroup.display(),
            orders.0.display(),
            answers.0.display(),
            sets::unit(PREFIXES)
        );
        fs::write(&unit.file, text)?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["start", &unit.name])?;
        unit.worker = Some(Worker::started(orders.1, answers.1)?);
        Ok(unit)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        systemctl(&["stop", &self.name]).ok();
        fs::remove_file(&self.file).ok();
    }
}

/// One way's program of systemd and the rebuilt one.
struct Pair {
    way: &'static str,
    ids: [u32; 2],
    seen: [Seen; 2],
}

/// The only program each way, on the unit's cgroup and on that of the rebuilt.
fn programs(unit: &Path, rebuilt: &Path) -> Result<Vec<Pair>> {
    let only = |cgroup: &Path, at| -> Result<u32> {
        let ids = inspect::attached(File::open(cgroup)?.as_fd(), at)?;
        let [id] = ids[..] else {
            anyhow::bail!("{} programs on {}, not one", ids.len(), cgroup.display());
        };
        Ok(id)
    };
    let mut pairs = Vec::new();
    for (at, way, name) in WAYS {
        let ids = [only(unit, at)?, only(rebuilt, at)?];
        let seen = [inspect::look(ids[0])?, inspect::look(ids[1])?];
        ensure!(
            seen[0].name == name,
            "the unit's {way} program is `{}`, not systemd's `{name}`",
            seen[0].name
        );
        pairs.push(Pair { way, ids, seen });
    }
    Ok(pairs)
}

/// That systemd's program is the one on the unit's cgroup and that it refuses
/// and lets pass; and whether the rebuilt one is the same.
fn proof(unit: &mut Unit, free: &mut Worker, copy: &mut Worker, pairs: &[Pair]) -> Result<String> {
    let members = read(&unit.cgroup.join("cgroup.procs").to_string_lossy());
    let main = systemctl(&["show", "--property=MainPID", "--value", &unit.name])?;
    ensure!(
        members == main.trim() && !members.is_empty(),
        "the worker is not the unit's only process"
    );
    let worker = unit.worker.as_mut().context("no worker")?;
    let mut refused = |to: &str| -> Result<[bool; 3]> {
        let order = format!("refused {to}:{QUIET}");
        let answer = [worker.ask(&order)?, copy.ask(&order)?, free.ask(&order)?];
        Ok(answer.map(|answer| answer.first().is_some_and(|refused| *refused > 0.0)))
    };
    ensure!(
        refused(DENIED)? == [true, true, false],
        "a denied address is not refused by both, or is without them"
    );
    ensure!(refused(FAR)? == [false; 3], "an allowed address is refused");
    let mut text = format!(
        "Seen on the unit's cgroup, of which the measured process is the only member, by asking the kernel \
         (`BPF_PROG_QUERY`, `BPF_OBJ_GET_INFO_BY_FD`):\n\
         one program each way. A datagram to {DENIED}, which is not allowed, was refused with `EPERM` in the unit \
         and under the rebuilt program and\nleft without them; one to {FAR}, allowed, left in all three.\n\n\
         | way | systemd's | instructions | machine code | maps (kind, key, value, elements, flags) | rebuilt |\n\
         |---|---|---|---|---|---|\n"
    );
    for Pair { way, seen, .. } in pairs {
        let [theirs, ours] = seen;
        writeln!(
            text,
            "| {way} | `{}` | {} | {} bytes | {} | {} |",
            theirs.name,
            theirs.instructions.len(),
            theirs.native_bytes,
            shapes(theirs),
            compared(theirs, ours)
        )?;
    }
    text.push('\n');
    Ok(text)
}

fn shapes(seen: &Seen) -> String {
    let shapes = seen.maps.iter().map(|[kind, key, value, most, flags]| {
        let kind = if *kind == 11 {
            "trie".to_owned()
        } else {
            kind.to_string()
        };
        format!("{kind} {key} {value} {most} {flags}")
    });
    shapes.collect::<Vec<_>>().join("; ")
}

/// In words, whether the rebuilt program is the same but for its name.
fn compared(theirs: &Seen, ours: &Seen) -> String {
    let mut differences = Vec::new();
    if theirs.kind != ours.kind {
        differences.push(format!("kind {}", ours.kind));
    }
    if theirs.instructions != ours.instructions {
        let pairs = theirs.instructions.iter().zip(&ours.instructions);
        let at = pairs.take_while(|(theirs, ours)| theirs == ours).count();
        say(&format!("theirs {:x?}", theirs.instructions));
        say(&format!("ours {:x?}", ours.instructions));
        differences.push(format!(
            "{} instructions, other from the {}th on",
            ours.instructions.len(),
            at + 1
        ));
    }
    if theirs.maps != ours.maps {
        differences.push(format!("maps {}", shapes(ours)));
    }
    if differences.is_empty() {
        return "the same, instruction by instruction and map by map".to_owned();
    }
    format!("**differs**: {}", differences.join(", "))
}

/// ns a decision of both, over a program that only returns.
fn decisions(pairs: &[Pair]) -> Result<String> {
    say("decisions");
    let egress = pairs.first().context("no pairs")?;
    let floor = bpf::load(&asm::pass().0, AttachType::Egress)?;
    let programs = [
        floor,
        bpf::program(egress.ids[0])?,
        bpf::program(egress.ids[1])?,
    ];
    let (four, six) = (
        packets::udp4([198, 18, 0, 9], 443, 64),
        packets::udp6(
            std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).octets(),
            443,
            64,
        ),
    );
    let mut text = String::from(
        "One decision of the egress program (`BPF_PROG_TEST_RUN`), over a program that only returns:\n\n\
         | packet | systemd's | rebuilt | rebuilt over systemd's |\n|---|---|---|---|\n",
    );
    for (name, packet) in [("IPv4, allowed", four), ("IPv6, allowed", six)] {
        let mut times: [Vec<f64>; 3] = Default::default();
        for round in 0..=DECISION_ROUNDS {
            let mut ns = [0.0; 3];
            for step in 0..programs.len() {
                // Each goes first as often as last.
                let index = (round + step) % programs.len();
                let (answer, time) = bpf::test_run(&programs[index], &packet, REPEAT)?;
                ensure!(answer == 1, "{name} was refused");
                ns[index] = f64::from(time);
            }
            if round > 0 {
                times[0].push(ns[1] - ns[0]);
                times[1].push(ns[2] - ns[0]);
                times[2].push(ns[2] / ns[1]);
            }
        }
        let [theirs, ours, ratio] = times.map(Spread::of);
        writeln!(
            text,
            "| {name} | {} | {} | {} |",
            theirs.shown(0),
            ours.shown(0),
            ratio.percent()
        )?;
    }
    Ok(text)
}
