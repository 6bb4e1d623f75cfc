//! The agent under attack, a workload, and an attacker: processes of this
//! executable, each with its role.

use crate::attack;
use crate::stage::{CGROUP, NODE, PINS, ROLE, STATE, Stage, WHAT};
use merestone_abi::{Attempt, Glass, Grant, NAME_BYTES, RULE_ENTRIES, RuleEntry, RuleSet, Verdict};
use merestone_agent::bpf::{
    Kernel, OnLoss, Options, TableName, TablePrefix, TableResolver, TableSelect, Tables,
};
use merestone_agent::policy::Selector;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Not a test: what a child process runs.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let what = std::env::var(WHAT).unwrap();
    match role.as_str() {
        "agent" => run(&what),
        "workload" => println!("said: {}", workload(&what)),
        "flood" => println!("said: {}", flood()),
        "stranger" => println!("said: {}", stranger()),
        "attacker" => println!("said: {}", attack::obey(&what)),
        other => panic!("{other}"),
    }
}

fn place(name: &str) -> PathBuf {
    PathBuf::from(std::env::var(name).unwrap())
}

fn workload(what: &str) -> String {
    let procs = place(CGROUP).join("server/cgroup.procs");
    fs::write(procs, std::process::id().to_string()).unwrap();
    if what == "open" {
        // There is no driver: the open fails, and guards no less.
        fs::File::open(place(NODE)).unwrap_err();
    }
    let sent =
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", "127.0.0.1:9"));
    match sent {
        Ok(_) => "sent".to_owned(),
        Err(error) => attack::errno(&error),
    }
}

/// Sends more than the ring holds reports of; how many left.
fn flood() -> String {
    let procs = place(CGROUP).join("server/cgroup.procs");
    fs::write(procs, std::process::id().to_string()).unwrap();
    let sent = (1..2000_u16).filter(|port| {
        // A socket and a port each, so that each is a report of its own.
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", ("127.0.0.1", *port)).is_ok()
    });
    sent.count().to_string()
}

/// Opens the GPU in a cgroup that nobody has guarded, then sends.
fn stranger() -> String {
    let procs = place(CGROUP).join("agent/cgroup.procs");
    fs::write(procs, std::process::id().to_string()).unwrap();
    let opened = fs::File::open(place(NODE)).unwrap_err();
    attack::errno(&opened)
}

/// Nothing is allowed but, where asked for, loopback.
fn tables(loopback: bool) -> Tables {
    if !loopback {
        return Tables::default();
    }
    let mut entries = [RuleEntry::default(); RULE_ENTRIES];
    entries[0] = RuleEntry {
        port_low: 0,
        port_high: u16::MAX,
        rule: 1,
        protocol: 0,
        action: Verdict::ALLOW.0,
    };
    let set = RuleSet {
        length: 1,
        reserved: 0,
        entries,
    };
    let address = std::net::Ipv4Addr::new(127, 0, 0, 0)
        .to_ipv6_mapped()
        .octets();
    let prefix = TablePrefix {
        boundary: 0,
        address,
        bits: 104,
        set: 0,
    };
    Tables {
        prefixes: vec![prefix],
        sets: vec![set],
        ..Tables::default()
    }
}

/// Names, a resolver, and a boundary of its own for the server's cgroup; under
/// neither boundary anything is reached.
fn speak(tables: &mut Tables) {
    let mut name = [0; NAME_BYTES];
    for (slot, byte) in name.iter_mut().zip(*b"gro.elpmaxe") {
        *slot = byte;
    }
    let name = TableName {
        denied: None,
        boundary: 0,
        name,
        bits: 96,
        set: 0,
    };
    let mut denied = TableName {
        denied: Some(1),
        ..name
    };
    denied.name[..3].copy_from_slice(b"ten");
    tables.names.extend([name, denied]);
    let address = std::net::Ipv4Addr::new(198, 18, 0, 53).to_ipv6_mapped();
    tables.resolvers.push(TableResolver {
        boundary: 0,
        address: address.octets(),
        bits: 128,
        trusted: true,
    });
    let own = place(CGROUP);
    let own = own.file_name().unwrap().to_string_lossy().into_owned();
    tables.selects.push(TableSelect {
        selector: Selector::Cgroup(format!("/{own}/server")),
        boundary: 1,
    });
    tables.sets.push(RuleSet {
        length: 0,
        reserved: 0,
        entries: [RuleEntry::default(); RULE_ENTRIES],
    });
}

fn options(has: &impl Fn(&str) -> bool) -> Options {
    let mut options = Options::new(place(PINS));
    options.cgroup_root = place(CGROUP);
    options.tamper = has("tamper");
    options.patience = Duration::from_secs(2);
    options.places = vec![place(STATE)];
    if has("deny-all") {
        options.on_loss = OnLoss::DenyAll;
    }
    if has("small") {
        options.limits.groups = 1;
        options.limits.ring_bytes = 4096;
    }
    options
}

/// What the test must know of what was found and made.
fn introduce(kernel: &Kernel) {
    for tier in kernel.tiers() {
        println!("tier: {} {}", tier.name, tier.active);
    }
    let (link, program, map) = attack::ids(&place(PINS));
    println!("ids: {link} {program} {map}");
    let left = kernel.left();
    println!(
        "left: there={} links={} maps={} end_seen={} denied_all={} groups={} generation={}",
        left.was_there,
        left.missing_hooks(kernel.hooks()).len(),
        left.missing_maps.len(),
        left.end_seen,
        left.denied_all,
        left.guarded_groups,
        left.settings.generation,
    );
}

/// The agent: looks every half second, and does as its input says.
fn run(what: &str) {
    let has = |word: &str| what.split(' ').any(|one| one == word);
    if has("own-cgroup") {
        let procs = place(CGROUP).join("agent/cgroup.procs");
        fs::write(procs, std::process::id().to_string()).unwrap();
    }
    let options = options(&has);
    let mut tables = tables(has("loopback"));
    if has("language") {
        speak(&mut tables);
    }
    let begin = Instant::now();
    let (mut kernel, mut events) = match Kernel::start(&options, &tables) {
        Ok(started) => started,
        Err(error) => {
            println!("refused: {error}");
            return;
        }
    };
    println!("started in {:?}", begin.elapsed());
    introduce(&kernel);
    println!("ready");
    let orders = orders();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut look = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                event = events.next() => {
                    let event = event.unwrap();
                    kernel.follow(&event).unwrap();
                    let attempt = Attempt(u8::try_from(event.major).unwrap_or(0));
                    println!(
                        "event: {} {} {} {} {}",
                        event.kind.name().unwrap_or("?"),
                        attempt.name().unwrap_or("-"),
                        event.verdict.name().unwrap_or("-"),
                        event.reason.name().unwrap_or("-"),
                        kernel.target_of(attempt, &event),
                    );
                }
                _ = look.tick() => {
                    for order in orders.lock().unwrap().drain(..) {
                        obey(&mut kernel, &order);
                    }
                    let found = kernel.watch().unwrap();
                    for one in &found {
                        if one.attempt == Attempt::BOUNDARY {
                            kernel.install(&tables).unwrap();
                        }
                        let name = one.attempt.name().unwrap_or("?");
                        println!("found: {name} {} {:?}", one.target, one.repaired);
                    }
                }
            }
        }
    });
}

fn obey(kernel: &mut Kernel, order: &str) {
    let mut words = order.split(' ');
    match words.next() {
        Some("glass") => {
            let actions: u32 = words.next().unwrap().parse().unwrap();
            let seconds: u64 = words.next().unwrap().parse().unwrap();
            let until_boot_ns = merestone_agent::clock::boot_ns() + seconds * 1_000_000_000;
            let glass = Glass {
                until_boot_ns,
                actions,
                ..Glass::default()
            };
            kernel.set_glass(glass).unwrap();
            println!("glass is set");
        }
        Some("grant") => {
            let grant = Grant {
                group: 1,
                until_boot_ns: u64::MAX,
                limit_bytes: 1 << 20,
                id: 7,
                ..Grant::default()
            };
            kernel.grant(0, &grant).unwrap();
            println!("granted");
        }
        Some("lost") => {
            let lost = kernel.lost().unwrap();
            println!("lost: {}", lost.iter().map(|(_, count)| count).sum::<u64>());
        }
        Some("eat") => {
            // More than the cgroup may have.
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1_u8; 1 << 20]);
            }
        }
        Some("full") => {
            let prefix = TablePrefix {
                boundary: 0,
                address: [0; 16],
                bits: 0,
                set: 0,
            };
            let too_many = Tables {
                prefixes: vec![prefix; 1 << 21],
                ..Tables::default()
            };
            println!("full: {}", kernel.install(&too_many).unwrap_err());
        }
        _ => panic!("{order}"),
    }
}

fn orders() -> Arc<Mutex<Vec<String>>> {
    let orders = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&orders);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    });
    orders
}

/// A running agent, seen from the test.
pub(super) struct Agent {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    pub(super) fn start(stage: &Stage, program: &Path, options: &str) -> Self {
        let mut child = stage.command(program, "agent", options).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (into, output) = (Arc::clone(&lines), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if std::env::var_os("MERESTONE_TAMPER_TALK").is_some() {
                    println!("agent: {line}");
                }
                into.lock().unwrap().push(line);
            }
        });
        let mut agent = Self { child, lines };
        agent.wait_ready();
        agent
    }

    fn wait_ready(&mut self) {
        // An emulated processor spends half a minute in the verifier.
        let deadline = Instant::now() + Duration::from_secs(300);
        while Instant::now() < deadline {
            let said = self.said("ready").is_some() || self.said("refused").is_some();
            if said || self.child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!(
            "the agent does not get ready: {:?}",
            self.lines.lock().unwrap()
        );
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line with `text` in it.
    pub(super) fn said(&self, text: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().find(|line| line.contains(text)).cloned()
    }

    /// The same, waited for; how long it took.
    pub(super) fn says(&self, text: &str) -> Duration {
        let begin = Instant::now();
        while self.said(text).is_none() {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "never said {text:?}: {:#?}",
                self.lines.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        begin.elapsed()
    }

    /// Whether it says that in time.
    pub(super) fn says_within(&self, text: &str, limit: Duration) -> bool {
        let begin = Instant::now();
        while self.said(text).is_none() {
            if begin.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// The ids of the egress link, its program, and the map ARMED.
    pub(super) fn ids(&self) -> (u32, u32, u32) {
        let line = self.said("ids: ").unwrap();
        let words = line.split_once("ids: ").unwrap().1.split(' ');
        let mut ids = words.map(|word| word.parse().unwrap());
        let mut next = || ids.next().unwrap();
        (next(), next(), next())
    }

    pub(super) fn forget(&self) {
        self.lines.lock().unwrap().clear();
    }

    pub(super) fn order(&mut self, order: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    /// SIGTERM, which its parent may send; the process is gone afterwards.
    pub(super) fn stop(mut self) {
        crate::sys::kill(self.pid(), libc::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until something else ended it.
    pub(super) fn ended(mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            crate::sys::kill(self.pid(), libc::SIGCONT).ok();
            crate::sys::kill(self.pid(), libc::SIGTERM).ok();
            self.child.wait().ok();
        }
    }
}
