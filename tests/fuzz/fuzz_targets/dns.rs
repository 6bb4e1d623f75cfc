//! A DNS message: no panic, the same reading twice, nothing learned from bytes
//! after the end, and what is accepted means the same to an independent parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_dns::{
    Address, HEADER_BYTES, KEY_BYTES, Key, MESSAGE_BYTES, Step, Walk, Work, answered, key_text,
    pattern_key, question,
};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Packet, ResourceRecord};
use std::collections::BTreeSet;

fuzz_target!(|bytes: &[u8]| {
    let asked = question(bytes);
    assert_eq!(asked, question(bytes));
    if let Some((asked, key)) = asked {
        assert_eq!(in_rubbish(bytes).0, Some((asked, key)));
        one_question(bytes, &key);
        whatever_its_case(bytes, asked.end, asked.name);
    } else {
        assert_eq!(in_rubbish(bytes).0, None);
    }
    let Some((asked, key, records)) = answered(bytes) else {
        assert_eq!(in_rubbish(bytes).1, None);
        return;
    };
    assert_eq!(in_rubbish(bytes).1, Some((asked, key, records)));
    let learned = learn(bytes, asked.end, records);
    assert_eq!(learned, learn(bytes, asked.end, records));
    if let Ok(packet) = Packet::parse(bytes) {
        assert_eq!(packet.questions.len(), 1);
        let name = lower(&packet.questions[0].qname.to_string());
        same_name(&key, &name);
        for address in &learned {
            belongs(&packet.answers, &name, address);
        }
    }
});

/// As the kernel reads: into an array with rubbish after the message.
type Read<A> = Option<A>;
fn in_rubbish(
    bytes: &[u8],
) -> (
    Read<(merestone_dns::Asked, Key)>,
    Read<(merestone_dns::Asked, Key, u16)>,
) {
    let mut work = Work::new();
    work.message = [b'r'; MESSAGE_BYTES];
    work.lookup.key = [b'r'; KEY_BYTES];
    let length = bytes.len().min(MESSAGE_BYTES);
    work.message[..length].copy_from_slice(&bytes[..length]);
    work.length = length as u32;
    if work.length <= HEADER_BYTES {
        return (None, None);
    }
    work.walk();
    work.write_key();
    let key = work.lookup.key;
    let asked = (bytes.len() == length)
        .then(|| work.question().ok())
        .flatten();
    let answer = work.answer().ok();
    (
        asked.map(|asked| (asked, key)),
        answer.map(|(asked, records)| (asked, key, records)),
    )
}

fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// The key says the name, and a rule of that name finds it.
fn same_name(key: &Key, name: &str) {
    let mut text = [0; KEY_BYTES];
    let own = key_text(key, &mut text);
    if name.len() < KEY_BYTES {
        assert_eq!(own, name);
    }
    if let Some((pattern, bits)) = pattern_key(name) {
        assert_eq!(&pattern, key);
        assert_eq!(bits as usize, (name.len() + 1) * 8);
    }
}

/// A question that passes carries nothing but its one name.
fn one_question(bytes: &[u8], key: &Key) {
    let packet = Packet::parse(bytes).expect("what is in form can be parsed");
    assert_eq!(packet.questions.len(), 1);
    assert!(packet.answers.is_empty() && packet.name_servers.is_empty());
    assert!(packet.additional_records.is_empty());
    assert!(bytes.len() <= MESSAGE_BYTES);
    let name = lower(&packet.questions[0].qname.to_string());
    same_name(key, &name);
    if let Some(opt) = packet.opt() {
        // Nothing but a cookie of a length that cookies have.
        let codes: Vec<(u16, usize)> = opt
            .opt_codes
            .iter()
            .map(|option| (option.code, option.data.len()))
            .collect();
        assert!(
            matches!(codes.as_slice(), [] | [(10, 8 | 16..=40)]),
            "{codes:?}"
        );
    }
}

/// The name's digest is that of the name in any case.
fn whatever_its_case(bytes: &[u8], end: u32, name: u64) {
    let mut other = bytes.to_vec();
    let letters = other
        .get_mut(HEADER_BYTES as usize..end as usize - 4)
        .expect("the question lies within");
    // Lengths of labels are below 64, where no letter is.
    letters.make_ascii_uppercase();
    let (asked, _) = question(&other).expect("letters are letters");
    assert_eq!(asked.name, name);
}

fn learn(bytes: &[u8], end: u32, records: u16) -> Vec<Address> {
    let mut walk = Walk::new(end);
    let mut learned = Vec::new();
    for _ in 0..records.min(64) {
        match walk.next(bytes) {
            Some(Step::Address(address)) => learned.push(address),
            Some(Step::Other) => {}
            None => break,
        }
    }
    learned
}

/// What was learned is an address of the name, or of an alias of it.
fn belongs(answers: &[ResourceRecord<'_>], name: &str, learned: &Address) {
    let mut names = BTreeSet::from([name.to_owned()]);
    let found = answers.iter().any(|record| {
        let owner = lower(&record.name.to_string());
        if record.class != CLASS::IN || !names.contains(&owner) {
            return false;
        }
        match &record.rdata {
            RData::CNAME(alias) => {
                names.insert(lower(&alias.0.to_string()));
                false
            }
            RData::A(four) => {
                let mut mapped = [0; 16];
                mapped[10..12].fill(0xff);
                mapped[12..].copy_from_slice(&four.address.to_be_bytes());
                mapped == learned.bytes && learned.ttl_s <= record.ttl
            }
            RData::AAAA(six) => {
                six.address.to_be_bytes() == learned.bytes && learned.ttl_s <= record.ttl
            }
            _ => false,
        }
    });
    assert!(found, "{learned:?} is nobody's");
}
