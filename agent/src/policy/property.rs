//! Random boundaries: the compiled tables against the rules read by definition.
//!
//! The reference here shares no code with the compiler: it keeps its own model
//! of a rule, masks addresses by family with integer arithmetic, and walks all
//! rules for every question. Both start from the same text only.

use super::{LOOPBACK_RULE, compile, lookup, mapped, parse};
use merestone_abi::Verdict;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// xorshift64*: the same boundaries on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap() % limit
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// A rule as the text says it.
struct Model {
    number: u16,
    deny: bool,
    cidr: Vec<(IpAddr, u32)>,
    ports: Option<Vec<(u16, u16)>>,
    protocols: Option<Vec<&'static str>>,
}

const FOUR: &[&str] = &[
    "10.0.0.0",
    "10.128.0.0",
    "10.1.2.3",
    "10.1.2.200",
    "127.0.0.1",
    "127.9.0.0",
    "192.0.2.1",
    "0.0.0.0",
    "255.255.255.255",
];
const SIX: &[&str] = &[
    "::",
    "::1",
    "2001:db8::1",
    "2001:db8:8000::",
    "64:ff9b::a01:203",
    "64:ff9b::c000:201",
    "64:ff9b:0:0:1::",
    "2002:a01:203::9",
    "2002:c000:201::",
    "2002:7f00:1::",
    "::fffe:0:0",
    "ffff::",
];
const FOUR_BITS: &[u32] = &[0, 1, 8, 9, 15, 16, 24, 25, 31, 32];
const SIX_BITS: &[u32] = &[0, 1, 16, 24, 32, 33, 47, 48, 80, 90, 95, 96, 112, 127, 128];
const PORTS: &[(u16, u16)] = &[
    (1, 65535),
    (80, 80),
    (443, 443),
    (1, 1023),
    (80, 443),
    (8000, 65535),
];
const PROTOCOLS: &[u8] = &[1, 6, 17, 33, 41, 47, 50, 58, 132, 136, 255];

fn network(random: &mut Random) -> (IpAddr, u32) {
    if random.below(2) == 0 {
        let bits = random.pick(FOUR_BITS);
        let address: Ipv4Addr = random.pick(FOUR).parse().unwrap();
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        (Ipv4Addr::from(u32::from(address) & mask).into(), bits)
    } else {
        let bits = random.pick(SIX_BITS);
        let address: Ipv6Addr = random.pick(SIX).parse().unwrap();
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        (Ipv6Addr::from(u128::from(address) & mask).into(), bits)
    }
}

fn model(random: &mut Random, number: u16) -> Model {
    let cidr = (0..=random.below(4)).map(|_| network(random)).collect();
    let ports: Option<Vec<_>> =
        (random.below(2) == 0).then(|| (0..=random.below(2)).map(|_| random.pick(PORTS)).collect());
    let portless: &[&[&str]] = &[
        &["icmp"],
        &["tcp", "icmp"],
        &["udp"],
        &["icmp", "udp", "tcp"],
    ];
    let portful: &[&[&str]] = &[&["tcp"], &["udp"], &["tcp", "udp"]];
    let choices = if ports.is_some() { portful } else { portless };
    let protocols = (random.below(2) == 0).then(|| random.pick(choices).to_vec());
    Model {
        number,
        deny: random.below(3) == 0,
        cidr,
        ports,
        protocols,
    }
}

fn text(models: &[Model]) -> String {
    let mut text = "name = \"random\"\n".to_owned();
    for model in models {
        let word = if model.deny { "deny" } else { "allow" };
        let cidr: Vec<_> = model
            .cidr
            .iter()
            .map(|(a, bits)| format!("\"{a}/{bits}\""))
            .collect();
        write!(text, "[[{word}]]\ncidr = [{}]\n", cidr.join(", ")).unwrap();
        if let Some(ports) = &model.ports {
            let ports: Vec<_> = ports
                .iter()
                .map(|(low, high)| format!("\"{low}-{high}\""))
                .collect();
            writeln!(text, "ports = [{}]", ports.join(", ")).unwrap();
        }
        if let Some(protocols) = &model.protocols {
            writeln!(text, "protocols = {protocols:?}").unwrap();
        }
    }
    text
}

/// The most specific of the model's networks that holds the address.
fn specificity(cidr: &[(IpAddr, u32)], address: IpAddr) -> Option<u32> {
    let holds = |(network, bits): &(IpAddr, u32)| match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differing = u32::from(*network) ^ u32::from(address);
            differing.leading_zeros() >= *bits
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differing = u128::from(*network) ^ u128::from(address);
            differing.leading_zeros() >= *bits
        }
        _ => false,
    };
    cidr.iter()
        .filter(|n| holds(n))
        .map(|(_, bits)| *bits)
        .max()
}

#[derive(Clone, Copy)]
struct Question {
    address: IpAddr,
    protocol: u8,
    port: u16,
    fragment: bool,
}

fn applies(model: &Model, question: &Question) -> bool {
    let Question {
        protocol,
        port,
        fragment,
        ..
    } = *question;
    let named = model.protocols.as_ref().is_none_or(|list| {
        list.iter().any(|word| match *word {
            "tcp" => protocol == 6,
            "udp" => protocol == 17,
            _ => protocol == 1 || protocol == 58,
        })
    });
    let with_ports = [6, 17, 33, 132, 136].contains(&protocol);
    named
        && model.ports.as_ref().is_none_or(|ranges| {
            with_ports
                && (fragment
                    || ranges
                        .iter()
                        .any(|(low, high)| (*low..=*high).contains(&port)))
        })
}

/// Verdict and rule, by definition.
fn by_definition(models: &[Model], question: &Question) -> (bool, u16) {
    let best = |deny: bool| {
        models
            .iter()
            .filter(|model| model.deny == deny && applies(model, question))
            .filter_map(|model| {
                let bits = specificity(&model.cidr, question.address)?;
                Some((std::cmp::Reverse(bits), model.number))
            })
            .min()
            .map(|(_, number)| number)
    };
    match (best(true), best(false)) {
        (Some(rule), _) => (false, rule),
        (None, Some(rule)) => (true, rule),
        (None, None) => (false, 0),
    }
}

/// As above, the inner IPv4 address judged as well.
fn expected(models: &[Model], question: &Question) -> (bool, u16) {
    let outer = by_definition(models, question);
    let inner = match question.address {
        IpAddr::V6(address) => match address.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
            }
            _ => None,
        },
        IpAddr::V4(_) => None,
    };
    let Some(inner) = inner.filter(|_| outer.0) else {
        return outer;
    };
    let inner = by_definition(
        models,
        &Question {
            address: inner.into(),
            ..*question
        },
    );
    if inner.0 { outer } else { inner }
}

fn question(random: &mut Random) -> Question {
    let protocol = random.pick(PROTOCOLS);
    let fragment = random.below(4) == 0;
    let with_ports = [6, 17, 33, 132, 136].contains(&protocol) && !fragment;
    let address = if random.below(2) == 0 {
        let near: Ipv4Addr = random.pick(FOUR).parse().unwrap();
        let bit = u32::try_from(random.below(40)).unwrap();
        let flip = 1_u32.checked_shl(bit).unwrap_or(0);
        IpAddr::from(Ipv4Addr::from(u32::from(near) ^ flip))
    } else {
        let near: Ipv6Addr = random.pick(SIX).parse().unwrap();
        let bit = u32::try_from(random.below(160)).unwrap();
        let flip = 1_u128.checked_shl(bit).unwrap_or(0);
        let address = Ipv6Addr::from(u128::from(near) ^ flip);
        address
            .to_ipv4_mapped()
            .map_or(IpAddr::V6(address), IpAddr::V4)
    };
    Question {
        address,
        protocol,
        port: if with_ports {
            random.pick(&[0, 1, 80, 81, 443, 8000, 65535])
        } else {
            0
        },
        fragment,
    }
}

#[test]
fn compiled_tables_answer_as_the_rules_do_by_definition() {
    let mut asked = 0_u32;
    let mut allowed = 0_u32;
    for seed in 1..=600 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let count = u16::try_from(1 + random.below(7)).unwrap();
        let mut models: Vec<Model> = (1..=count)
            .map(|number| model(&mut random, number))
            .collect();
        let text = text(&models);
        models.push(Model {
            number: LOOPBACK_RULE,
            deny: false,
            cidr: vec![
                ("127.0.0.0".parse().unwrap(), 8),
                ("::1".parse().unwrap(), 128),
            ],
            ports: None,
            protocols: None,
        });
        let boundary = parse(Path::new("r.toml"), text.clone().into()).unwrap();
        let compiled = compile(&boundary).unwrap();
        for _ in 0..300 {
            let ask = question(&mut random);
            let got = lookup(
                &compiled,
                mapped(ask.address),
                ask.protocol,
                ask.port,
                ask.fragment,
            );
            let got = (got.verdict == Verdict::ALLOW, got.rule);
            let Question {
                address,
                protocol,
                port,
                fragment,
            } = ask;
            assert_eq!(
                got,
                expected(&models, &ask),
                "seed {seed}: {address} protocol {protocol} port {port} fragment {fragment}\n{text}"
            );
            asked += 1;
            allowed += u32::from(got.0);
        }
    }
    // A generator that only ever asks what is denied would prove nothing.
    assert!(allowed * 10 > asked, "{allowed} of {asked}");
    assert!(allowed * 10 < asked * 9, "{allowed} of {asked}");
    println!("{asked} questions, {allowed} allowed");
}
