//! With BPF LSM: root outside the agent is refused, told of, and gains nothing;
//! with a break-glass open the same attempts pass, are told of no less, and
//! what they changed is put back.
//!
//! One test of many steps: each start of an agent is half a minute of the
//! verifier's time on an emulated processor.

use crate::agent::Agent;
use crate::attack::{self, LINK_GET_FD_BY_ID, MAP_GET_FD_BY_ID, PROG_GET_FD_BY_ID};
use crate::outcome;
use crate::stage::Stage;
use merestone_abi::Glass;
use std::time::Duration;

/// One thing that root tries.
struct Try {
    what: String,
    /// The attempt that is told of; empty where the kernel itself refuses.
    told: &'static str,
    /// What the call says when it is refused.
    says: &'static str,
    /// What undoes it when it was let through; none where the watch does, or
    /// where there is nothing to undo.
    undo: Option<&'static str>,
    /// Whether to try it with a break-glass, too.
    is_for_glass: bool,
}

fn tried(what: impl Into<String>, told: &'static str) -> Try {
    Try {
        what: what.into(),
        told,
        says: "EPERM",
        undo: None,
        is_for_glass: true,
    }
}

/// On what is pinned, and what it is reached through.
fn on_pins(armed: u32) -> Vec<Try> {
    let mut all: Vec<Try> = [
        ("detach", "PIN_OPEN"),
        ("settings", "PIN_OPEN"),
        ("groups", "PIN_OPEN"),
        ("armed", "PIN_OPEN"),
        ("unpin", "UNPIN"),
        ("bind-and-unpin", "UNPIN"),
        ("put-pin", "UNPIN"),
        ("cover-state", "MOUNT_OVER"),
    ]
    .into_iter()
    .map(|(what, told)| tried(what, told))
    .collect();
    // Let through, these would be in the way of those that follow: the watch
    // needs a look to mend what they leave.
    for (what, told) in [
        ("replace", "PIN_OPEN"),
        ("unpin-all", "UNPIN"),
        ("move-pins", "UNPIN"),
        ("mount-over", "MOUNT_OVER"),
        ("mount-over-pins", "MOUNT_OVER"),
        ("unmount-lazily", "UNMOUNT"),
    ] {
        all.push(Try {
            is_for_glass: false,
            ..tried(what, told)
        });
    }
    // Busy, when it is let through.
    all.push(Try {
        is_for_glass: false,
        ..tried("unmount", "UNMOUNT")
    });
    all.push(tried(format!("map-by-id {armed}"), "MAP_FD"));
    all.push(tried(format!("write-by-program {armed}"), "MAP_FD"));
    all.push(tried(format!("read-map-by-id {armed}"), "MAP_FD"));
    all
}

/// On the agent's process.
fn on_agent(stage: &Stage, pid: u32) -> Vec<Try> {
    let of_agent = |what: &str, told| tried(format!("{what} {pid}"), told);
    let mut all = vec![
        of_agent("trace", "TRACE"),
        of_agent("limit", "LIMIT"),
        of_agent("take-descriptor", "TRACE"),
        // fs/proc/base.c answers so for every refusal.
        Try {
            says: "EACCES",
            ..of_agent("memory", "TRACE")
        },
        Try {
            undo: Some("thaw"),
            ..tried("freeze", "CGROUP")
        },
        tried("freeze-above", "CGROUP"),
        tried("cgroup-kill", "CGROUP"),
        tried("sysrq", "KERNEL"),
    ];
    for (what, file) in [
        ("memory-limit", "memory.max"),
        ("threads-limit", "pids.max"),
        ("processor-limit", "cpu.max"),
    ] {
        if stage.cgroup.join("agent").join(file).exists() {
            all.push(tried(what, "CGROUP"));
        } else {
            println!("SKIPPED: {what}: this hierarchy has no such controller");
        }
    }
    for (what, told) in [
        ("kill", "KILL"),
        ("stop", "KILL"),
        ("term", "KILL"),
        ("usr1", "KILL"),
        // It writes where there is nothing: EFAULT when it is let through.
        ("write-memory", "TRACE"),
    ] {
        all.push(Try {
            is_for_glass: false,
            ..of_agent(what, told)
        });
    }
    all
}

/// On the kernel under it.
fn on_kernel() -> Vec<Try> {
    let mut all = vec![
        Try {
            undo: Some("ftrace-on"),
            ..tried("ftrace", "KERNEL")
        },
        tried("kexec", "KERNEL"),
        // The verifier finds that there is no such helper (EINVAL).
        Try {
            says: "Invalid argument (os error 22)",
            ..tried("write-user", "KERNEL")
        },
        tried(
            format!("modify-return {}", attack::function("security_bpf")),
            "OVERRIDE",
        ),
    ];
    if std::path::Path::new("/dev/mem").exists() {
        all.push(tried("device-memory", "KERNEL"));
    }
    // Since 6.12 a later LSM program cannot answer in our place: the verifier
    // takes no positive result there, and the first refusal counts.
    if is_before_6_12() {
        let hook = attack::function("bpf_lsm_bpf");
        all.push(tried(format!("override {hook}"), "OVERRIDE"));
    }
    all
}

fn is_before_6_12() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (6, 12),
        _ => true,
    }
}

/// Of what is wrong one line each, so that a run in a guest tells all of it.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn check(&mut self, is_right: bool, words: impl FnOnce() -> String) {
        if !is_right {
            let words = words();
            println!("FAULT: {words}");
            self.0.push(words);
        }
    }

    fn told(&mut self, agent: &Agent, line: &str, after: &str) {
        let is_told = agent.says_within(line, Duration::from_secs(10));
        self.check(is_told, || format!("{after}: never told {line:?}"));
    }
}

fn refused(stage: &Stage, agent: &Agent, all: &[Try], faults: &mut Faults) {
    for one in all {
        agent.forget();
        let said = stage.attack(&one.what);
        faults.check(said == one.says, || format!("{}: {said}", one.what));
        let told = format!("event: TAMPER {} DENY TAMPER", one.told);
        faults.told(agent, &told, &one.what);
        let changed = agent.said("found:");
        faults.check(changed.is_none(), || {
            format!("{} changed something: {changed:?}", one.what)
        });
    }
    let sent = stage.send(false);
    faults.check(sent == "EPERM", || format!("not held any more: {sent}"));
}

/// The same attempts with an operator let in: they work, so that what was
/// refused is no accident of the test; and are told of; and are put back.
fn let_through(stage: &Stage, agent: &mut Agent, all: &[Try], faults: &mut Faults) {
    let everything: u32 = Glass::NAMES.iter().map(|(bit, _)| bit).sum();
    agent.order(&format!("glass {everything} 600"));
    agent.says("glass is set");
    for one in all.iter().filter(|one| one.is_for_glass) {
        agent.forget();
        let said = stage.attack(&one.what);
        faults.check(said == "done", || {
            format!("{} with a break-glass: {said}", one.what)
        });
        let undone = one.undo.map(|undo| stage.attack(undo));
        faults.check(undone.is_none_or(|said| said == "done"), || {
            format!("{} cannot be undone", one.what)
        });
        let told = format!("event: TAMPER {} ALLOW TAMPER", one.told);
        faults.told(agent, &told, &one.what);
    }
    // Two looks of the watch.
    std::thread::sleep(Duration::from_millis(1200));
    let sent = stage.send(false);
    faults.check(sent == "EPERM", || format!("not put back: {sent}"));
    agent.forget();
    agent.order("glass 0 0");
    agent.says("glass is set");
}

/// Ids are small numbers; whoever tries them all meets ours.
fn by_id(stage: &Stage, agent: &Agent, faults: &mut Faults) {
    let commands = [
        (LINK_GET_FD_BY_ID, "LINK_FD"),
        (PROG_GET_FD_BY_ID, "PROGRAM_FD"),
        (MAP_GET_FD_BY_ID, "MAP_FD"),
    ];
    let all = commands.map(|(command, told)| tried(format!("any-by-id {command}"), told));
    refused(stage, agent, &all, faults);
}

/// A controller that is switched off and on has new files, and a bpf file
/// system that was mounted anew is another one: both are protected again.
fn made_anew(stage: &Stage, agent: &mut Agent, faults: &mut Faults) {
    if stage.cgroup.join("agent/memory.max").exists() {
        let said = stage.attack("switch-memory");
        faults.check(said == "done", || format!("switch-memory: {said}"));
        std::thread::sleep(Duration::from_millis(1200));
        refused(stage, agent, &[tried("memory-limit", "CGROUP")], faults);
    }
    agent.forget();
    agent.order(&format!("glass {} 600", Glass::MOUNT));
    agent.says("glass is set");
    let said = stage.attack("unmount-lazily");
    faults.check(said == "done", || {
        format!("unmount with a break-glass: {said}")
    });
    faults.told(agent, "found: UNMOUNT", "unmount-lazily");
    // Two looks of the watch.
    std::thread::sleep(Duration::from_millis(1200));
    agent.order("glass 0 0");
    std::thread::sleep(Duration::from_millis(1200));
    let all = [
        ("unpin", "UNPIN"),
        ("put-pin", "UNPIN"),
        ("detach", "PIN_OPEN"),
        ("settings", "PIN_OPEN"),
        ("move-pins", "UNPIN"),
        ("mount-over-pins", "MOUNT_OVER"),
        ("unmount-lazily", "UNMOUNT"),
    ];
    let all = all.map(|(what, told)| tried(what, told));
    refused(stage, agent, &all, faults);
}

fn a_break_glass_ends_by_itself(stage: &Stage, mut agent: Agent, faults: &mut Faults) {
    agent.forget();
    agent.order(&format!("glass {} 20", Glass::SIGNAL));
    agent.says("glass is set");
    let begin = std::time::Instant::now();
    let said = stage.attack("unpin");
    faults.check(said == "EPERM", || format!("it does not name pins: {said}"));
    let said = stage.attack(&format!("kill {}", agent.pid()));
    faults.check(said == "done", || format!("it names signals: {said}"));
    agent.ended();
    std::thread::sleep(Duration::from_secs(20).saturating_sub(begin.elapsed()));
    for attack in ["detach", "unpin", "unpin-all", "settings", "unmount-lazily"] {
        let said = stage.attack(attack);
        faults.check(said == "EPERM", || {
            format!("{attack} without an agent: {said}")
        });
    }
    let sent = stage.send(false);
    faults.check(sent == "EPERM", || {
        format!("not held without an agent: {sent}")
    });
}

fn succession(stage: &Stage, faults: &mut Faults) {
    // Another file with the same bytes is no successor.
    let other = Agent::start(stage, &stage.copy, "tamper");
    let took_over = other.said("ready");
    faults.check(took_over.is_none(), || "a stranger took over".to_owned());
    drop(other);
    // The agent's own executable is.
    let mut agent = stage.agent("tamper");
    faults.check(agent.said("ready").is_some(), || {
        "the agent's own file may not take over".to_owned()
    });
    faults.told(&agent, "event: TAMPER UNPIN DENY TAMPER", "an agent's end");
    faults.check(stage.send(false) == "EPERM", || {
        "let go by a restart".to_owned()
    });
    agent.forget();
    agent.order(&format!("glass {} 300", Glass::SUCCEED));
    agent.says("glass is set");
    agent.stop();
    let other = Agent::start(stage, &stage.copy, "tamper");
    faults.check(other.said("ready").is_some(), || {
        "a build that was let in may not take over".to_owned()
    });
    faults.check(stage.send(false) == "EPERM", || {
        "let go by an upgrade".to_owned()
    });
    other.stop();
}

#[test]
fn root_outside_the_agent_can_take_nothing_away_b57_b58() {
    let Some(stage) = Stage::set("refused") else {
        return;
    };
    let mut agent = stage.agent("tamper own-cgroup");
    if agent.said("tier: tamper true").is_none() {
        println!("SKIPPED: root_outside_the_agent: BPF LSM does not load here");
        return;
    }
    let tiers = outcome::tiers(&agent);
    let mut faults = Faults::default();
    let sent = stage.send(true);
    faults.check(sent == "EPERM", || format!("not held at all: {sent}"));
    let mut all = on_pins(agent.ids().2);
    all.extend(on_agent(&stage, agent.pid()));
    all.extend(on_kernel());
    refused(&stage, &agent, &all, &mut faults);
    by_id(&stage, &agent, &mut faults);
    // The kernel itself refuses to loosen what a link attached.
    for attack in ["cgroup-detach", "cgroup-attach"] {
        let said = stage.attack(attack);
        faults.check(said != "done", || format!("{attack}: {said}"));
    }
    let_through(&stage, &mut agent, &all, &mut faults);
    made_anew(&stage, &mut agent, &mut faults);
    a_break_glass_ends_by_itself(&stage, agent, &mut faults);
    succession(&stage, &mut faults);
    assert!(faults.0.is_empty(), "{:#?}", faults.0);
    outcome::shown(
        "root_outside_the_agent_can_take_nothing_away_b57_b58",
        "denied",
        &tiers,
    );
}
