//! ns a decision, by the kernel's own clock, for boundaries of several sizes.

use crate::asm;
use crate::bpf::{self, AttachType};
use crate::packets;
use crate::sets;
use crate::stage::{Corner, Wire};
use crate::stats::Spread;
use crate::worker::Worker;
use crate::{Agent, Amount, say};
use anyhow::{Context as _, Result, ensure};
use merestone_agent::{policy, run};
use std::path::Path;
use std::time::Instant;

/// Seconds from a file of so many prefixes to tables.
#[derive(Debug)]
pub(crate) struct FromFile {
    pub(crate) prefixes: u32,
    pub(crate) bytes: usize,
    pub(crate) parse_s: f64,
    pub(crate) compile_s: f64,
}

/// What a boundary of one size costs, over a program that only returns.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) prefixes: u32,
    pub(crate) floor_ns: Spread,
    pub(crate) remembered4_ns: Spread,
    pub(crate) remembered6_ns: Spread,
    pub(crate) anew_ns: Spread,
    pub(crate) first_ns: Spread,
    pub(crate) unguarded_ns: Spread,
    pub(crate) install_s: f64,
}

/// Parses and compiles a boundary file.
pub(crate) fn from_a_file(prefixes: u32) -> Result<FromFile> {
    say(&format!("a boundary file of {prefixes} prefixes"));
    let bytes = sets::file(prefixes).into_bytes();
    let length = bytes.len();
    let begun = Instant::now();
    let boundary = policy::parse(Path::new("measured.toml"), bytes)
        .map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let parse_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let compiled = policy::compile(&boundary).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let tables = run::tables(&compiled);
    let compile_s = begun.elapsed().as_secs_f64();
    ensure!(
        tables.prefixes.len() > prefixes as usize / 2,
        "it lost prefixes"
    );
    Ok(FromFile {
        prefixes,
        bytes: length,
        parse_s,
        compile_s,
    })
}

/// Measures every size; leaves 1,000 prefixes in the first agent and the most
/// in the second.
pub(crate) fn measure(
    amount: &Amount,
    mut small: Agent,
    mut large: Agent,
    corner: &Corner,
    wires: &[Wire; 2],
    node: &Path,
) -> Result<(Agent, Agent, Vec<Row>)> {
    let mut guarded = Worker::start(&wires[0].near(), &corner.below("small/tested")?, Some(node))?;
    let mut free = Worker::start(&wires[0].near(), &corner.below("small/free")?, None)?;
    let mut rows = Vec::new();
    for size in amount.sizes {
        rows.push(one(amount, &mut small, *size, &mut guarded, &mut free)?);
    }
    let install = |agent: &mut Agent, size: u32| -> Result<()> {
        let kernel = agent.kernel.as_mut().context("no kernel")?;
        kernel.install(&sets::tables(size))?;
        // The links' thread ends with it; the pins hold.
        agent.kernel = None;
        Ok(())
    };
    install(&mut small, 1_000)?;
    install(&mut large, *amount.sizes.last().context("no sizes")?)?;
    Ok((small, large, rows))
}

fn one(
    amount: &Amount,
    agent: &mut Agent,
    size: u32,
    guarded: &mut Worker,
    free: &mut Worker,
) -> Result<Row> {
    say(&format!("decisions: {size} prefixes"));
    let tables = sets::tables(size);
    let begun = Instant::now();
    let kernel = agent.kernel.as_mut().context("no kernel")?;
    kernel.install(&tables)?;
    let install_s = begun.elapsed().as_secs_f64();
    let floor = bpf::load(&asm::pass().0, AttachType::Egress)?;
    let packet = packets::udp4([198, 18, 0, 9], 443, 64);
    let (id, repeat) = (agent.egress, amount.repeat);
    let mut times: [Vec<f64>; 6] = Default::default();
    for _ in 0..amount.decision_rounds {
        let (_, floor_ns) = bpf::test_run(&floor, &packet, repeat)?;
        let floor_ns = f64::from(floor_ns);
        let over = |worker: &mut Worker, what: &str| -> Result<f64> {
            let answer = worker.ask(&format!("test {id} {what} {repeat}"))?;
            ensure!(answer.first() == Some(&1.0), "{what} was refused");
            Ok(answer.get(1).copied().unwrap_or_default() - floor_ns)
        };
        times[0].push(floor_ns);
        times[1].push(over(guarded, "udp4 198.18.0.9")?);
        times[2].push(over(guarded, "udp6 2001:db8::9")?);
        times[3].push(over(guarded, "icmp4 198.18.0.9")?);
        times[4].push(over(free, "udp4 198.18.0.9")?);
    }
    let alone = |program: &_| -> Result<Spread> {
        let run = |_| Ok(f64::from(bpf::test_run(program, &packet, 1)?.1));
        Ok(Spread::of((0..500).map(run).collect::<Result<_>>()?))
    };
    let once_ns = alone(&floor)?.median;
    for index in 0..500 {
        let to = match size {
            0 => std::net::Ipv4Addr::new(198, 18, 1, 9),
            _ => sets::v4(index * 1_201 % sets::split(size).0),
        };
        let answer = guarded.ask(&format!("test {id} udp4 {to} 1"))?;
        ensure!(answer.first() == Some(&1.0), "{to} was refused");
        times[5].push(answer.get(1).copied().unwrap_or_default() - once_ns);
    }
    let [floor, remembered4, remembered6, anew, unguarded, first] = times.map(Spread::of);
    Ok(Row {
        prefixes: size,
        floor_ns: floor,
        remembered4_ns: remembered4,
        remembered6_ns: remembered6,
        anew_ns: anew,
        first_ns: first,
        unguarded_ns: unguarded,
        install_s,
    })
}
