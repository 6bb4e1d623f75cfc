//! The kernel's packet parser against one written for this test.
//!
//! A million packets, most of them broken on purpose, go through the parser's
//! own code in the kernel (`parse_probe` by `BPF_PROG_TEST_RUN`) and through
//! [`expected`], which shares nothing with it and works on the whole packet as
//! a slice. Every field must agree: where the packet goes, by which protocol,
//! to which port, and why it is refused (B22 to B25).
//!
//! `$MERESTONE_PACKETS` is how many (1,000,000; in an emulated machine 50,000),
//! `$MERESTONE_SEED` the first number of the generator.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a failing helper is a failing test; a skipped one says so"
)]

use aya::programs::{CgroupSkb, ProgramError, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use merestone_agent::bpf::object;
use std::time::Instant;

/// struct `__sk_buff`, include/uapi/linux/bpf.h: its size and where `cb` is.
const CONTEXT: usize = 192;
const CB: usize = 48;

// As merestone_abi::Reason numbers them; written again, because this test
// shares nothing with what it checks.
const UNPARSABLE: u8 = 3;
const ROUTING_HEADER: u8 = 4;
const SOURCE_ROUTE: u8 = 5;
const UNKNOWN_HEADER: u8 = 6;

/// What a parser makes of a packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Reading {
    address: [u8; 16],
    port: u16,
    protocol: u8,
    fragment: bool,
    /// 0: parsed.
    reason: u8,
}

/// The independent parser: RFC 791, RFC 8200 and the refusals of docs/boundary.md.
fn expected(ethertype: u16, packet: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let outcome = match ethertype {
        0x0800 => version_4(packet, &mut reading),
        0x86dd => version_6(packet, &mut reading),
        _ => Err(UNPARSABLE),
    };
    if let Err(reason) = outcome {
        reading.reason = reason;
    }
    reading
}

/// Those whose header starts with a source and a destination port: TCP, UDP,
/// DCCP, SCTP, UDP-Lite.
fn starts_with_ports(protocol: u8) -> bool {
    [6, 17, 33, 132, 136].contains(&protocol)
}

fn port(packet: &[u8], at: usize, reading: &mut Reading) -> Result<(), u8> {
    if reading.fragment || !starts_with_ports(reading.protocol) {
        return Ok(());
    }
    let [_, _, high, low] = *packet
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(UNPARSABLE)?;
    reading.port = u16::from_be_bytes([high, low]);
    Ok(())
}

fn version_4(packet: &[u8], reading: &mut Reading) -> Result<(), u8> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(UNPARSABLE)?;
    let [
        first,
        _,
        _,
        _,
        _,
        _,
        flags,
        offset,
        _,
        protocol,
        ..,
        a,
        b,
        c,
        d,
    ] = *header;
    reading.address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    reading.protocol = protocol;
    let words = usize::from(first % 16);
    if first / 16 != 4 || words < 5 {
        return Err(UNPARSABLE);
    }
    let mut at = 20;
    while at < 4 * words {
        match *packet.get(at).ok_or(UNPARSABLE)? {
            0 => break,
            1 => at += 1,
            131 | 137 => return Err(SOURCE_ROUTE),
            _ => match *packet.get(at + 1).ok_or(UNPARSABLE)? {
                0 | 1 => return Err(UNPARSABLE),
                length => at += usize::from(length),
            },
        }
    }
    reading.fragment = u16::from_be_bytes([flags & 0x1f, offset]) > 0;
    port(packet, 4 * words, reading)
}

fn version_6(packet: &[u8], reading: &mut Reading) -> Result<(), u8> {
    // Field by field, as far as the packet goes.
    let version = packet.first().ok_or(UNPARSABLE)? >> 4;
    let mut next = *packet.get(6).ok_or(UNPARSABLE)?;
    reading.address = *packet
        .get(24..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(UNPARSABLE)?;
    reading.protocol = next;
    if version != 6 {
        return Err(UNPARSABLE);
    }
    let mut at = 40;
    // RFC 8200 §4.1: no chain of known headers is longer than eight.
    for _ in 0..8 {
        let size = match next {
            // GRE, ESP and ICMPv6 carry no ports but end the chain.
            47 | 50 | 58 => return port(packet, at, reading),
            number if starts_with_ports(number) => return port(packet, at, reading),
            43 => return Err(ROUTING_HEADER),
            0 | 44 | 51 | 60 => next,
            _ => return Err(UNKNOWN_HEADER),
        };
        let &[following, length, high, low] = packet
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(UNPARSABLE)?;
        at += match size {
            44 => 8,
            51 => 4 * (usize::from(length) + 2),
            _ => 8 * (usize::from(length) + 1),
        };
        reading.protocol = following;
        if next == 44 && (u16::from_be_bytes([high, low]) >> 3) > 0 {
            reading.fragment = true;
            let known = [47, 50, 58].contains(&following) || starts_with_ports(following);
            return if known { Ok(()) } else { Err(UNKNOWN_HEADER) };
        }
        next = following;
    }
    Err(UNPARSABLE)
}

/// xorshift64* (Vigna 2016): the same packets every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap();
        usize::try_from((self.next() >> 32) % limit).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[1]
    }

    fn one_of(&mut self, choices: &[u8]) -> u8 {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

const PROTOCOLS: [u8; 16] = [
    6, 17, 33, 132, 136, 1, 58, 47, 50, 51, 43, 44, 0, 60, 59, 135,
];

fn make_4(dice: &mut Dice) -> Vec<u8> {
    let options = 4 * dice.below(11);
    let words = u8::try_from(5 + options / 4).unwrap();
    let mut packet = vec![0x40 | words, 0];
    packet.extend(dice.bytes(4));
    // Mostly whole packets, now and then a fragment.
    let fragment = if dice.below(4) == 0 {
        dice.bytes(2)
    } else {
        vec![0x40, 0]
    };
    packet.extend(fragment);
    packet.extend([64, dice.one_of(&PROTOCOLS), 0, 0]);
    packet.extend(dice.bytes(8));
    while packet.len() < 20 + options {
        let kind = dice.one_of(&[0, 1, 1, 7, 68, 130, 131, 137, 148, 200]);
        let room = 20 + options - packet.len();
        packet.push(kind);
        if kind > 1 && room >= 2 {
            let length = 2 + dice.below(room.min(12) - 1);
            packet.push(u8::try_from(length).unwrap());
            packet.extend(dice.bytes(length.min(room) - 2));
        }
    }
    packet.extend(dice.bytes(4));
    let extra = dice.below(24);
    packet.extend(dice.bytes(extra));
    packet
}

fn make_6(dice: &mut Dice) -> Vec<u8> {
    let mut chain = Vec::new();
    let mut next = dice.one_of(&PROTOCOLS);
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet.extend(dice.bytes(32));
    for _ in 0..dice.below(10) {
        let following = dice.one_of(&PROTOCOLS);
        let units = u8::try_from(dice.below(3)).unwrap();
        let size = match next {
            0 | 43 | 60 | 135 => 8 * (usize::from(units) + 1),
            51 => 4 * (usize::from(units) + 2),
            44 => 8,
            _ => break,
        };
        let mut header = dice.bytes(size);
        header[0] = following;
        header[1] = units;
        if next == 44 && dice.below(3) > 0 {
            header[2] = 0;
            header[3] = 1;
        }
        chain.extend(header);
        next = following;
    }
    packet.extend(chain);
    packet.extend(dice.bytes(4));
    let extra = dice.below(24);
    packet.extend(dice.bytes(extra));
    packet
}

/// A frame: a packet as it should be, then, mostly, spoiled.
fn frame(dice: &mut Dice) -> (u16, Vec<u8>) {
    let v6 = dice.below(2) == 1;
    let mut packet = if v6 { make_6(dice) } else { make_4(dice) };
    let ethertype = match (dice.below(64), v6) {
        (0, _) => u16::from_be_bytes([0x08, dice.byte()]),
        (1, v6) => {
            if v6 {
                0x0800
            } else {
                0x86dd
            }
        }
        (_, true) => 0x86dd,
        (_, false) => 0x0800,
    };
    for _ in 0..dice.below(4) {
        let at = dice.below(packet.len().min(80));
        packet[at] = match dice.below(3) {
            0 => dice.byte(),
            1 => dice.one_of(&PROTOCOLS),
            _ => packet[at] ^ (1 << dice.below(8)),
        };
    }
    if dice.below(3) == 0 {
        let keep = 1 + dice.below(packet.len());
        packet.truncate(keep);
    }
    (ethertype, packet)
}

fn load(name: &str) -> Option<Ebpf> {
    let object = match object() {
        Ok(object) => object,
        Err(error) => {
            println!("SKIPPED: {name}: {error}");
            return None;
        }
    };
    let loaded = EbpfLoader::new().load(object);
    let mut ebpf = match loaded {
        Ok(ebpf) => ebpf,
        Err(error) => {
            println!("SKIPPED: {name}: cannot load maps (root needed): {error}");
            return None;
        }
    };
    let program: &mut CgroupSkb = ebpf.program_mut("parse_probe").unwrap().try_into().unwrap();
    program.load().unwrap();
    Some(ebpf)
}

fn in_kernel(program: &CgroupSkb, frame: &[u8]) -> Result<Reading, ProgramError> {
    let mut context = [0_u8; CONTEXT];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.ctx_out = Some(&mut context);
    program.test_run(options)?;
    let word = |i: usize| -> [u8; 4] { *context[CB + 4 * i..].first_chunk().unwrap() };
    let rest = u32::from_ne_bytes(word(4));
    let [low, high, protocol, flags] = rest.to_le_bytes();
    Ok(Reading {
        address: [word(0), word(1), word(2), word(3)]
            .concat()
            .try_into()
            .unwrap(),
        port: u16::from_le_bytes([low, high]),
        protocol,
        fragment: flags & 1 != 0,
        reason: flags >> 1,
    })
}

fn number(key: &str, default: u64) -> u64 {
    let given = std::env::var(key).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_million_broken_packets_are_read_alike_b22_b23_b24_b25() {
    let Some(ebpf) = load("a_million_broken_packets_are_read_alike_b22_b23_b24_b25") else {
        return;
    };
    let program: &CgroupSkb = ebpf.program("parse_probe").unwrap().try_into().unwrap();
    let emulated = std::env::var_os("XTASK_VM").is_some();
    let count = number(
        "MERESTONE_PACKETS",
        if emulated { 50_000 } else { 1_000_000 },
    );
    let mut dice = Dice(number("MERESTONE_SEED", 0x6d65_7265_7374_6f6e) | 1);
    let (mut refused, mut by_reason) = (0_u64, [0_u64; 128]);
    let begin = Instant::now();
    for round in 0..count {
        let (ethertype, packet) = frame(&mut dice);
        let frame = [&[2; 12][..], &ethertype.to_be_bytes(), &packet].concat();
        let kernel = match in_kernel(program, &frame) {
            Ok(reading) => reading,
            // Newer kernels take no frame without a whole header
            // (net/bpf/test_run.c `bpf_prog_test_run_skb`).
            Err(_) if packet.len() < if ethertype == 0x86dd { 40 } else { 20 } => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("packet {round}: {error:?}: {frame:02x?}"),
        };
        let ours = expected(ethertype, &packet);
        by_reason[usize::from(ours.reason)] += 1;
        assert_eq!(
            kernel, ours,
            "packet {round}: {ethertype:04x} {packet:02x?}"
        );
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{count} packets in {seconds:.1} s, {refused} too short for the kernel to run; parsed {}, \
         unparsable {}, routing header {}, source route {}, unknown header {}",
        by_reason[0],
        by_reason[usize::from(UNPARSABLE)],
        by_reason[usize::from(ROUTING_HEADER)],
        by_reason[usize::from(SOURCE_ROUTE)],
        by_reason[usize::from(UNKNOWN_HEADER)],
    );
    for reason in [0, UNPARSABLE, ROUTING_HEADER, SOURCE_ROUTE, UNKNOWN_HEADER] {
        let seen = by_reason[usize::from(reason)];
        assert!(
            seen * 1000 > count,
            "reason {reason} was met {seen} times only"
        );
    }
}
