//! What this crate reads out of a message, another reader finds there too.
//!
//! Messages are made by that other reader and then broken at random. A question
//! that is taken must be the one question of the message, of the same name; an
//! address that is taken must belong to that name by the records as a whole.
//! Not compared: messages the other refuses for what lies behind the part that
//! is read here.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper is a failing test"
)]

use merestone_dns::{KEY_BYTES, Step, Walk, answered, key_text, question};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, ResourceRecord, TYPE};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A generator that repeats itself: a failure is found again (Knuth, MMIX).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap()
    }
}

const NAMES: [&str; 5] = [
    "a.example",
    "B.storage.Example.eu",
    "edge.cdn.test",
    "x-1._tcp.example",
    "eu",
];

fn name(text: &'static str) -> Name<'static> {
    Name::new(text).unwrap()
}

/// A plain question, or an answer with aliases and addresses.
fn message(dice: &mut Dice) -> Vec<u8> {
    let asked = NAMES[dice.roll(NAMES.len())];
    let is_answer = dice.roll(2) == 1;
    let mut packet = if is_answer {
        Packet::new_reply(7)
    } else {
        Packet::new_query(7)
    };
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = if dice.roll(2) == 0 {
        TYPE::A
    } else {
        TYPE::AAAA
    };
    packet.questions.push(Question::new(
        name(asked),
        kind.into(),
        CLASS::IN.into(),
        false,
    ));
    let mut owner = asked;
    for _ in 0..if is_answer { 1 + dice.roll(5) } else { 0 } {
        let of = if dice.roll(4) == 0 {
            NAMES[dice.roll(NAMES.len())]
        } else {
            owner
        };
        let data = match dice.roll(3) {
            0 => {
                let target = NAMES[dice.roll(NAMES.len())];
                if of == owner {
                    owner = target;
                }
                RData::CNAME(CNAME(name(target)))
            }
            1 => RData::A(A {
                address: 0xcb00_7100 | u32::from(dice.byte()),
            }),
            _ => RData::AAAA(AAAA {
                address: 0x2001_0db8 << 96 | u128::from(dice.byte()),
            }),
        };
        let record = ResourceRecord::new(name(of), CLASS::IN, 60, data);
        packet.answers.push(record);
    }
    packet.build_bytes_vec_compressed().unwrap()
}

fn lower(name: &Name<'_>) -> String {
    name.to_string().to_ascii_lowercase()
}

/// The addresses that belong to the question's name, by the other reader.
fn reference(packet: &Packet<'_>) -> Vec<[u8; 16]> {
    let mut owner = lower(&packet.questions[0].qname);
    let mut found = Vec::new();
    for record in &packet.answers {
        if record.class != CLASS::IN || lower(&record.name) != owner {
            continue;
        }
        match &record.rdata {
            RData::CNAME(CNAME(target)) => owner = lower(target),
            RData::A(A { address }) => {
                found.push(Ipv4Addr::from(*address).to_ipv6_mapped().octets());
            }
            RData::AAAA(AAAA { address }) => found.push(Ipv6Addr::from(*address).octets()),
            _ => {}
        }
    }
    found
}

#[test]
fn a_second_reader_finds_what_was_read_b47() {
    let mut dice = Dice(1);
    let (mut questions, mut addresses) = (0, 0);
    for _ in 0..200_000 {
        let mut bytes = message(&mut dice);
        for _ in 0..dice.roll(4) {
            let at = dice.roll(bytes.len());
            bytes[at] = dice.byte();
        }
        if dice.roll(8) == 0 {
            bytes.truncate(dice.roll(bytes.len() + 1));
        }
        let Ok(packet) = Packet::parse(&bytes) else {
            continue;
        };
        let mut text = [0; KEY_BYTES];
        if let Some((_, key)) = question(&bytes) {
            questions += 1;
            assert_eq!(packet.questions.len(), 1, "{bytes:02x?}");
            assert!(packet.answers.is_empty(), "{bytes:02x?}");
            let asked = lower(&packet.questions[0].qname);
            assert_eq!(key_text(&key, &mut text), asked, "{bytes:02x?}");
        }
        if let Some((asked, key, records)) = answered(&bytes) {
            assert_eq!(packet.questions.len(), 1, "{bytes:02x?}");
            let own = lower(&packet.questions[0].qname);
            assert_eq!(key_text(&key, &mut text), own, "{bytes:02x?}");
            let known = reference(&packet);
            let mut walk = Walk::new(asked.end);
            for _ in 0..records.min(32) {
                match walk.next(bytes.as_slice()) {
                    Some(Step::Address(address)) => {
                        addresses += 1;
                        assert!(known.contains(&address.bytes), "{bytes:02x?}");
                    }
                    Some(Step::Other) => {}
                    None => break,
                }
            }
        }
    }
    assert!(questions > 10_000, "{questions}");
    assert!(addresses > 10_000, "{addresses}");
}
