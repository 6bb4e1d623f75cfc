//! The stand-in for a resolver, and the hosts that its answers name. It lives
//! in a network namespace of its own and says what reached it.

use super::wire;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// The one that the boundary trusts, and one beside it that it does not.
pub(crate) const TRUSTED: &str = "198.18.0.9";
pub(crate) const TRUSTED_V6: &str = "2001:db8:18::9";
pub(crate) const OTHER: &str = "198.18.0.8";

/// What [`super::stage::Stage::own_address`] makes an address of the host.
pub(crate) const OWN: &str = "203.0.113.61";

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// Serves until it is killed.
pub(crate) fn serve() {
    for port in [53, 443, 853, 8443] {
        let listener = TcpListener::bind(("::", port)).unwrap();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                kept.push(stream);
            }
        });
    }
    let secure = UdpSocket::bind(("::", 853)).unwrap();
    std::thread::spawn(move || while secure.recv(&mut [0; 2048]).is_ok_and(|_| told("secure")) {});
    let spoofer = UdpSocket::bind((OTHER, 5353)).unwrap();
    let servers: Vec<_> = [TRUSTED, TRUSTED_V6, OTHER]
        .map(|address| {
            let socket = UdpSocket::bind((address, 53)).unwrap();
            let spoofer = spoofer.try_clone().unwrap();
            std::thread::spawn(move || answer_all(&socket, &spoofer))
        })
        .into_iter()
        .collect();
    told("ready");
    for server in servers {
        server.join().unwrap();
    }
}

#[expect(
    clippy::print_stdout,
    reason = "what reached it is its answer to the test"
)]
fn told(what: &str) -> bool {
    println!("child: {what}");
    true
}

fn answer_all(socket: &UdpSocket, spoofer: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let question = &buffer[..length];
        if length < 17 {
            told(&format!("short {}", wire::hex(question)));
            continue;
        }
        told(&format!("asked {}", wire::name(question)));
        for answer in answers(question) {
            socket.send_to(&answer, from).unwrap();
        }
        spoof(question, from, spoofer);
    }
}

/// Answers from somebody who was not asked, or from another port.
fn spoof(question: &[u8], from: SocketAddr, spoofer: &UdpSocket) {
    if wire::name(question).starts_with("spoofed.") {
        let answer = wire::answer(question, 0, &[four([203, 0, 113, 40], 60)]);
        spoofer.send_to(&answer, from).unwrap();
    }
}

fn four(address: [u8; 4], ttl_s: u32) -> Vec<u8> {
    wire::record(12, A, ttl_s, &address)
}

/// What is answered depends on the first label alone.
#[expect(
    clippy::too_many_lines,
    clippy::match_same_arms,
    reason = "a table: a name, and what comes back"
)]
fn answers(question: &[u8]) -> Vec<Vec<u8>> {
    let end = u16::try_from(wire::end(question)).unwrap();
    let name = wire::name(question).to_ascii_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    let kind = u16::from_be_bytes([
        question[wire::end(question) - 4],
        question[wire::end(question) - 3],
    ]);
    let plain = |records: &[Vec<u8>]| vec![wire::answer(question, 0, records)];
    let edge = wire::labels("edge.cdn.test");
    match first {
        "registry" if kind == AAAA => {
            let address = "2001:db8:66::7".parse::<IpAddr>().unwrap();
            let IpAddr::V6(address) = address else {
                return Vec::new();
            };
            plain(&[wire::record(12, AAAA, 60, &address.octets())])
        }
        "registry" => plain(&[four([203, 0, 113, 7], 60)]),
        "brief" => plain(&[four([203, 0, 113, 8], 0)]),
        "full" | "half" => plain(&[four([203, 0, 113, 60], 60)]),
        "mine" => plain(&[four([203, 0, 113, 61], 60)]),
        // The alias's target is spelled out in its data, and pointed at.
        "alias" => plain(&[
            wire::record(12, CNAME, 60, &edge),
            wire::record(end + 12, A, 60, &[203, 0, 113, 9]),
        ]),
        // A stranger's record beside the right one, before and after it.
        "stranger" => plain(&[
            wire::record(12, CNAME, 60, &edge),
            wire::record(13, A, 60, &[203, 0, 113, 20]),
            wire::record(end + 12, A, 60, &[203, 0, 113, 21]),
            wire::record(end + 13, A, 60, &[203, 0, 113, 22]),
        ]),
        "rebinding" => {
            let never: [[u8; 4]; 8] = [
                [127, 0, 0, 1],
                [10, 1, 2, 3],
                [169, 254, 169, 254],
                [192, 168, 0, 1],
                [172, 16, 0, 1],
                [100, 64, 0, 1],
                [224, 0, 0, 1],
                [0, 0, 0, 0],
            ];
            plain(&never.map(|address| four(address, 60)))
        }
        "loop" => plain(&[wire::record(end, A, 60, &[203, 0, 113, 23])]),
        "cut" => {
            let mut answer = wire::answer(question, 0, &[four([203, 0, 113, 24], 60)]);
            answer.truncate(answer.len() - 1);
            vec![answer]
        }
        "long" => {
            let mut record = four([203, 0, 113, 25], 60);
            record[11] = 5;
            record.push(0);
            plain(&[record])
        }
        "truncated" => vec![wire::answer(
            question,
            0x0200,
            &[four([203, 0, 113, 26], 60)],
        )],
        "failed" => vec![wire::answer(question, 2, &[four([203, 0, 113, 27], 60)])],
        "otherid" => {
            let mut answer = wire::answer(question, 0, &[four([203, 0, 113, 28], 60)]);
            answer[0] ^= 1;
            vec![answer]
        }
        "othercase" => {
            let mut answer = wire::answer(question, 0, &[four([203, 0, 113, 29], 60)]);
            answer[13] ^= 0x20;
            vec![answer]
        }
        "othername" => {
            let other = wire::question(0, "registry.example.eu", A);
            let mut answer = wire::answer(&other, 0, &[four([203, 0, 113, 30], 60)]);
            answer[..2].copy_from_slice(&question[..2]);
            vec![answer]
        }
        "question" => vec![question.to_vec()],
        "twice" => vec![
            wire::answer(question, 3, &[]),
            wire::answer(question, 0, &[four([203, 0, 113, 31], 60)]),
            wire::answer(question, 0, &[four([203, 0, 113, 32], 60)]),
        ],
        "many" => {
            let records: Vec<_> = (100..164)
                .map(|last| four([203, 0, 113, last], 60))
                .collect();
            plain(&records)
        }
        "shared" => plain(&[four([203, 0, 113, 7], 60)]),
        _ => plain(&[four([203, 0, 113, 50], 60)]),
    }
}

/// Whether a host answers on TCP port 443 where nobody is guarded.
pub(crate) fn host(last: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(203, 0, 113, last).into(), 443)
}
