//! The candidates for finding an address among a million prefixes, each as the
//! smallest program that does nothing else.

use crate::asm::{self, Program};
use crate::bpf::{self, AttachType, MapKind};
use crate::sets;
use crate::stats::Spread;
use anyhow::Result;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// One structure of one size.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) structure: &'static str,
    pub(crate) prefixes: u32,
    /// The same address again and again; ns over a program that returns.
    pub(crate) same_ns: Spread,
    /// Another address of the set each time; ns over drawing it.
    pub(crate) random_ns: Spread,
    pub(crate) load_s: f64,
    /// One call a prefix instead of one for thousands, where it was tried.
    pub(crate) load_one_by_one_s: Option<f64>,
    pub(crate) bytes: u64,
}

const BATCH: usize = 4096;

struct Built {
    structure: &'static str,
    prefixes: u32,
    same: OwnedFd,
    random: OwnedFd,
    load_s: f64,
    load_one_by_one_s: Option<f64>,
    bytes: u64,
}

/// Builds all, then measures them in turns.
pub(crate) fn measure(sizes: &[u32], rounds: usize, repeat: u32) -> Result<Vec<Row>> {
    let floor = bpf::load(&asm::pass().0, AttachType::Egress)?;
    let drawing = bpf::load(
        &drawn(Program::default()).set(0, 1).exit().0,
        AttachType::Egress,
    )?;
    let packet = crate::packets::udp4([198, 18, 0, 9], 9, 64);
    let mut rows = Vec::new();
    for size in sizes {
        crate::say(&format!("structures: {size} prefixes"));
        let built = [
            mapped_trie(*size)?,
            short_trie(*size)?,
            direct_table(*size)?,
            hash_by_length(*size)?,
        ];
        let mut times = vec![(Vec::new(), Vec::new()); built.len()];
        for _ in 0..rounds {
            let (_, floor_ns) = bpf::test_run(&floor, &packet, repeat)?;
            let (_, drawing_ns) = bpf::test_run(&drawing, &packet, repeat)?;
            for (one, (same, random)) in built.iter().zip(&mut times) {
                let over = |program, floor: u32| -> Result<f64> {
                    let (_, ns) = bpf::test_run(program, &packet, repeat)?;
                    Ok(f64::from(ns) - f64::from(floor))
                };
                same.push(over(&one.same, floor_ns)?);
                random.push(over(&one.random, drawing_ns)?);
            }
        }
        for (one, (same, random)) in built.into_iter().zip(times) {
            rows.push(Row {
                structure: one.structure,
                prefixes: one.prefixes,
                same_ns: Spread::of(same),
                random_ns: Spread::of(random),
                load_s: one.load_s,
                load_one_by_one_s: one.load_one_by_one_s,
                bytes: one.bytes,
            });
        }
    }
    Ok(rows)
}

/// `r7` = 22 random bits: the number of a /24 in 128.0.0.0/2.
fn drawn(program: Program) -> Program {
    program.random().copy(7, 0).and(7, 0x3f_ffff)
}

/// `r7` = the /24 of [`sets::v4`]'s network, as an address in network order.
fn as_address(program: Program) -> Program {
    program.or(7, 0x0080_0000).shift_left(7, 8).network_order(7)
}

fn fixed(program: Program) -> Program {
    program.set(7, 0x0012_3456)
}

fn both(build: impl Fn(Program) -> Program) -> Result<(OwnedFd, OwnedFd)> {
    let load = |start: Program| bpf::load(&build(start).0, AttachType::Egress);
    Ok((
        load(fixed(Program::default()))?,
        load(drawn(Program::default()))?,
    ))
}

fn filled(map: &OwnedFd, elements: &[(Vec<u8>, [u8; 4])]) -> Result<f64> {
    let begun = Instant::now();
    for batch in elements.chunks(BATCH) {
        let keys: Vec<u8> = batch
            .iter()
            .flat_map(|(key, _)| key.iter().copied())
            .collect();
        let values: Vec<u8> = batch.iter().flat_map(|(_, value)| *value).collect();
        bpf::update_all(map, &keys, &values, batch.len())?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn one_by_one(map: &OwnedFd, elements: &[(Vec<u8>, [u8; 4])]) -> Result<f64> {
    let begun = Instant::now();
    for (key, value) in elements {
        bpf::update(map, key, value)?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// What Merestone has: one trie, IPv4 in mapped form, the boundary before it.
fn mapped_trie(size: u32) -> Result<Built> {
    let (four, six) = sets::split(size);
    let element = |address: Ipv6Addr, bits: u32| {
        let mut key = (32 + bits).to_ne_bytes().to_vec();
        key.extend([0; 4]);
        key.extend(address.octets());
        (key, [1, 0, 0, 0])
    };
    let elements: Vec<_> = (0..four)
        .map(|index| element(sets::v4(index).to_ipv6_mapped(), 120))
        .chain((0..six).map(|index| element(sets::v6(index), 48)))
        .collect();
    let trie = || bpf::map(MapKind::Trie, 24, 4, 1 << 20);
    let map = trie()?;
    let load_s = filled(&map, &elements)?;
    let load_one_by_one_s = Some(one_by_one(&trie()?, &elements)?);
    let (same, random) = both(|start| {
        as_address(start)
            .store(-24, 32 + 128)
            .store(-20, 0)
            .store(-16, 0)
            .store(-12, 0)
            .store(-8, 0xffff_0000_u32.cast_signed())
            .store_register(-4, 7)
            .look_up(&map, -24)
            .set(0, 1)
            .exit()
    })?;
    Ok(Built {
        structure: "trie, IPv4 and IPv6 in one (chosen)",
        prefixes: size,
        same,
        random,
        load_s,
        load_one_by_one_s,
        bytes: bpf::memory_bytes(&map)?,
    })
}

/// A trie for IPv4 alone, its key one word.
fn short_trie(size: u32) -> Result<Built> {
    let (four, _) = sets::split(size);
    let elements: Vec<_> = (0..four)
        .map(|index| {
            let mut key = (32 + 24_u32).to_ne_bytes().to_vec();
            key.extend([0; 4]);
            key.extend(sets::v4(index).octets());
            (key, [1, 0, 0, 0])
        })
        .collect();
    let map = bpf::map(MapKind::Trie, 12, 4, 1 << 20)?;
    let load_s = filled(&map, &elements)?;
    let (same, random) = both(|start| {
        as_address(start)
            .store(-12, 64)
            .store(-8, 0)
            .store_register(-4, 7)
            .look_up(&map, -12)
            .set(0, 1)
            .exit()
    })?;
    Ok(Built {
        structure: "trie, IPv4 alone",
        prefixes: four,
        same,
        random,
        load_s,
        load_one_by_one_s: None,
        bytes: bpf::memory_bytes(&map)?,
    })
}

/// DIR-24-8: a table of every /24; what is longer would be in a second one.
/// IPv4 alone: IPv6 has no such table.
fn direct_table(size: u32) -> Result<Built> {
    let (four, _) = sets::split(size);
    let map = bpf::map(MapKind::Array, 4, 4, 1 << 24)?;
    let elements: Vec<_> = (0..four)
        .map(|index| {
            let net = sets::v4(index).to_bits() >> 8;
            (net.to_ne_bytes().to_vec(), [1, 0, 0, 0])
        })
        .collect();
    let load_s = filled(&map, &elements)?;
    let (same, random) = both(|start| {
        start
            .or(7, 0x0080_0000)
            .store_register(-4, 7)
            .look_up(&map, -4)
            .skip_if(0, 0, 1)
            .load(0, 0, 0)
            .set(0, 1)
            .exit()
    })?;
    Ok(Built {
        structure: "DIR-24-8, IPv4 alone",
        prefixes: four,
        same,
        random,
        load_s,
        load_one_by_one_s: None,
        bytes: bpf::memory_bytes(&map)?,
    })
}

/// Lengths that the hash tries, the longest first; the prefixes are all of the
/// last, as a /48 is in a table of the world's.
const LENGTHS: i32 = 8;

/// A hash of (length, address), asked once a length.
fn hash_by_length(size: u32) -> Result<Built> {
    let (four, _) = sets::split(size);
    let elements: Vec<_> = (0..four)
        .map(|index| {
            let mut key = 24_u32.to_ne_bytes().to_vec();
            key.extend(sets::v4(index).octets());
            (key, [1, 0, 0, 0])
        })
        .collect();
    let map = bpf::map(MapKind::Hash, 8, 4, 1 << 20)?;
    let load_s = filled(&map, &elements)?;
    let (same, random) = both(|start| {
        let mut program = as_address(start).store_register(-4, 7);
        for length in (24..24 + LENGTHS).rev() {
            program = program.store(-8, length).look_up(&map, -8);
        }
        program.set(0, 1).exit()
    })?;
    Ok(Built {
        structure: "hash by length, 8 lengths",
        prefixes: four,
        same,
        random,
        load_s,
        load_one_by_one_s: None,
        bytes: bpf::memory_bytes(&map)?,
    })
}
