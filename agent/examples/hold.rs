//! Runs the kernel part alone, for tests of enforcement.
//!
//! `hold PIN_DIR CGROUP_ROOT CIDR[,CIDR…] [--audit] [--tree PATH] [--ring BYTES] [--stop-reading]
//! [--kill-families] [--tamper] [--deny-all] [--groups N] [--tasks N]`
//!
//! Allows the networks (`-` for none) and loopback, prints `ready` when all is
//! attached, then one JSON object an event until it is killed. It does not
//! remove its pins: enforcement stays. `hold --unload PIN_DIR` removes them;
//! `hold --probe` says which hooks load here.
#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use merestone_abi::{
    Attempt, Deputies, Event, Glass, LOOPBACK_RULE, RULE_ENTRIES, RuleEntry, RuleSet, Verdict,
};
use merestone_agent::bpf::{
    EventStream, Hook, Kernel, Left, OnLoss, Options, TablePrefix, Tables, Tier, probe, unload,
};
use std::env;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut words = env::args().skip(1);
    let first = words
        .next()
        .context("usage: hold PIN_DIR CGROUP_ROOT CIDRS")?;
    if first == "--unload" {
        let pins = words.next().context("usage: hold --unload PIN_DIR")?;
        return Ok(unload(pins.as_ref())?);
    }
    if first == "--probe" {
        let preflight = probe("".as_ref())?;
        for hook in preflight.hooks {
            println!(
                "{:28} {}",
                hook.name,
                hook.refused.as_deref().unwrap_or("loads")
            );
        }
        return Ok(());
    }
    let mut options = Options::new(PathBuf::from(first));
    options.cgroup_root = words.next().context("no CGROUP_ROOT")?.into();
    let mut tables = tables(&words.next().context("no CIDRS")?)?;
    let mut reading = true;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--audit" => tables.audit = true,
            "--tree" => options
                .tree_roots
                .push(words.next().context("--tree PATH")?.into()),
            "--ring" => {
                options.limits.ring_bytes = words.next().context("--ring BYTES")?.parse()?;
            }
            "--kill-families" => options.kill_families = true,
            "--groups" => {
                options.limits.groups = words.next().context("--groups N")?.parse()?;
            }
            "--tasks" => {
                options.limits.tasks = words.next().context("--tasks N")?.parse()?;
            }
            "--stop-reading" => reading = false,
            "--tamper" => options.tamper = true,
            "--deny-all" => options.on_loss = OnLoss::DenyAll,
            other => bail!("unknown argument {other}"),
        }
    }
    let (mut kernel, mut events) = Kernel::start(&options, &tables)?;
    println!("{}", found(kernel.left(), kernel.hooks()));
    for tier in kernel.tiers() {
        println!(
            "# tier {} active={} {}",
            tier.name, tier.active, tier.detail
        );
    }
    for program in kernel.programs() {
        let verified = program.verified.unwrap_or_default();
        println!(
            "# program {} id={} tag={:016x} verified={verified}",
            program.name, program.id, program.tag
        );
    }
    println!("ready");
    if !reading {
        std::future::pending::<()>().await;
    }
    tell(&mut kernel, &mut events, tables).await
}

/// What was there before this start.
fn found(left: &Left, hooks: &[Hook]) -> serde_json::Value {
    serde_json::json!({"found": {
        "was_there": left.was_there,
        "missing_hooks": if left.was_there { left.missing_hooks(hooks) } else { Vec::new() },
        "missing_maps": left.missing_maps,
        "groups": left.guarded_groups,
        "silence_ms": left.silence.map(|silence| silence.as_millis()),
        "end_seen": left.end_seen,
        "denied_all": left.denied_all,
    }})
}

/// Prints events and obeys orders until it is killed.
async fn tell(kernel: &mut Kernel, events: &mut EventStream, mut tables: Tables) -> Result<()> {
    let mut orders = orders();
    let mut reap = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            event = events.next() => {
                let event = event?;
                kernel.follow(&event)?;
                println!("{}", json(&event));
            }
            Some(order) = orders.recv() => println!("{}", obey(kernel, &mut tables, &order)?),
            _ = reap.tick() => {
                for finding in kernel.watch()? {
                    if finding.attempt == Attempt::BOUNDARY {
                        kernel.install(&tables)?;
                    }
                    println!("{}", serde_json::json!({"tampered": {
                        "attempt": finding.attempt.name(),
                        "target": finding.target,
                        "repaired": finding.repaired,
                    }}));
                }
                for group in kernel.reap(Instant::now())? {
                    println!("{}", serde_json::json!({"kind": "RELEASED", "group": group}));
                }
            }
        }
    }
}

/// Lines of the input; none ever where there is no input.
fn orders() -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn obey(kernel: &mut Kernel, live: &mut Tables, order: &str) -> Result<serde_json::Value> {
    let mut words = order.split_whitespace();
    match words.next() {
        Some("status") => {
            let tier = |tier: Tier| {
                let Tier {
                    name,
                    active,
                    detail,
                } = tier;
                serde_json::json!({"name": name, "active": active, "detail": detail})
            };
            let status = serde_json::json!({
                "tiers": kernel.tiers().into_iter().map(tier).collect::<Vec<_>>(),
                "uncovered": kernel.uncovered(),
                "lost": kernel.lost()?,
            });
            Ok(serde_json::json!({ "status": status }))
        }
        Some("boundary") => {
            let mut tables = tables(words.next().context("boundary CIDRS")?)?;
            for word in words {
                match word {
                    "audit" => tables.audit = true,
                    "deny-deputies" => {
                        tables.deputies = Deputies::DENY_LOOPBACK | Deputies::DENY_UNIX;
                    }
                    other => bail!("unknown mode {other:?}"),
                }
            }
            let installed = kernel.install(&tables)?;
            *live = tables;
            Ok(serde_json::json!({ "installed": installed }))
        }
        Some("glass") => {
            let seconds: u64 = words.next().context("glass SECONDS ACTIONS")?.parse()?;
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let now_s = u64::try_from(now.tv_sec)?;
            kernel.set_glass(Glass {
                until_boot_ns: (now_s + seconds) * 1_000_000_000,
                actions: words.next().context("glass SECONDS ACTIONS")?.parse()?,
                ..Glass::default()
            })?;
            Ok(serde_json::json!({ "glass": seconds }))
        }
        _ => bail!("unknown order {order:?}"),
    }
}

/// One rule a network, in the order given; every prefix carries the rules of
/// the shorter ones around it.
fn tables(cidrs: &str) -> Result<Tables> {
    let mut nets = vec![
        ("127.0.0.0/8".parse::<IpNet>()?, LOOPBACK_RULE),
        ("::1/128".parse()?, LOOPBACK_RULE),
    ];
    for (number, cidr) in (1..).zip(cidrs.split(',').filter(|cidr| *cidr != "-")) {
        nets.push((cidr.parse().with_context(|| cidr.to_owned())?, number));
    }
    let mut tables = Tables::default();
    for (net, _) in &nets {
        let mut covering: Vec<_> = nets
            .iter()
            .filter(|(other, _)| other.contains(net))
            .collect();
        covering.sort_by_key(|(other, _)| std::cmp::Reverse(other.prefix_len()));
        let mut entries = [RuleEntry::default(); RULE_ENTRIES];
        for (slot, (_, rule)) in entries.iter_mut().zip(&covering) {
            *slot = RuleEntry {
                port_low: 0,
                port_high: u16::MAX,
                rule: *rule,
                protocol: 0,
                action: Verdict::ALLOW.0,
            };
        }
        let set = u32::try_from(tables.sets.len())?;
        tables.sets.push(RuleSet {
            length: u32::try_from(covering.len().min(RULE_ENTRIES))?,
            reserved: 0,
            entries,
        });
        tables.prefixes.push(prefix(net, set));
    }
    Ok(tables)
}

fn prefix(net: &IpNet, set: u32) -> TablePrefix {
    let (address, bits) = match net {
        IpNet::V4(net) => (net.network().to_ipv6_mapped(), 96 + net.prefix_len()),
        IpNet::V6(net) => (net.network(), net.prefix_len()),
    };
    TablePrefix {
        boundary: 0,
        address: address.octets(),
        bits,
        set,
    }
}

fn json(event: &Event) -> serde_json::Value {
    let address = match IpAddr::from(Ipv6Addr::from(event.address)).to_canonical() {
        IpAddr::V6(v6) if v6.is_unspecified() => None,
        known => Some(known.to_string()),
    };
    let comm: Vec<u8> = event
        .comm
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    serde_json::json!({
        "kind": event.kind.name(),
        "hook": event.hook.name(),
        "verdict": event.verdict.name(),
        "reason": event.reason.name(),
        "group": event.group,
        "cgroup": event.cgroup,
        "tgid": event.tgid,
        "pid": event.pid,
        "other": event.other,
        "comm": String::from_utf8_lossy(&comm),
        "address": address,
        "port": event.port,
        "protocol": event.protocol,
        "family": event.family,
        "rule": event.rule,
        "generation": event.generation,
        "length": event.length,
        "cookie": event.cookie,
        "major": event.major,
        "minor": event.minor,
        "class": event.class.0,
        "boot_ns": event.boot_ns,
    })
}
