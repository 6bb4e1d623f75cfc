//! Both sides over the loopback.

use super::ask::Target;
use super::wire::{Packet, Who};
use super::{Asker, Options, serve};
use crate::seal::Answerer;
use crate::signed::{self, Kind, Signers};
use base64ct::{Base64, Encoding as _};
use ed25519_dalek::SigningKey;
use merestone_evidence::{Digest, LandmarkStatement, SessionId, decode, sha256};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

const SESSION: SessionId = SessionId([3; 16]);

fn inline(key: &SigningKey) -> String {
    let key = Base64::encode_string(key.verifying_key().as_bytes());
    format!("ed25519:{key}")
}

/// A landmark in Frankfurt that measures `most` times, at this address.
fn landmark(key: &SigningKey, most: u64) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let options = Options {
        key: key.clone(),
        latitude: 50.1109,
        longitude: 8.6821,
        rounds: 5,
        most: Some(most),
    };
    thread::spawn(move || serve(socket, options, |_, _| {}).unwrap());
    at
}

fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    let patience = Some(Duration::from_millis(700));
    socket.set_read_timeout(patience).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Option<(Packet, usize)> {
    let mut buffer = [0; 2000];
    let length = socket.recv(&mut buffer).ok()?;
    Some((Packet::read(&buffer[..length])?, length))
}

#[test]
fn a_landmark_measures_the_session_that_asks_and_signs_it() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let address = landmark(&key, 1);
    let (answerer, session) = (Answerer::default(), SigningKey::from_bytes(&[8; 32]));
    answerer.open(SESSION, Digest([5; 32]), &session);
    let target = Target::parse(&format!("{}@{address}", inline(&key))).unwrap();
    let place = Asker::spawn(&[target], None, Duration::from_secs(60), answerer).unwrap();
    let began = Instant::now();
    while !place.waits() && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(20));
    }
    let evidence = place.take().unwrap();
    assert_eq!((evidence.session, evidence.landmarks.len()), (SESSION, 1));
    let signers = Signers::load(&[inline(&key)]).unwrap();
    let signed = signers
        .verify(Kind::Landmark, &evidence.landmarks[0], None)
        .unwrap();
    let statement: LandmarkStatement = decode(&signed.payload).unwrap();
    assert_eq!(statement.session, SESSION);
    assert_eq!(statement.session_key, session.verifying_key().to_bytes());
    assert_eq!((statement.sent, statement.latitude_e7), (5, 501_109_000));
    assert!(
        statement.answered >= 1 && statement.rtt_min_ns > 1000,
        "{statement:?}"
    );
    assert!(place.take().is_none(), "it is sealed once");
}

#[test]
fn neither_side_sends_more_than_it_was_sent_before_somebody_is_there() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let address = landmark(&key, 1);
    let socket = client(address);
    let who = Who {
        session: SESSION,
        key: SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
    };
    let hello = Packet::Hello(who).bytes();
    socket.send(&hello).unwrap();
    let (challenge, length) = receive(&socket).unwrap();
    assert!(length <= hello.len(), "{length} for {}", hello.len());
    assert!(receive(&socket).is_none(), "a hello gets one challenge");
    let Packet::Challenge {
        number: 0,
        challenge,
        landmark,
    } = challenge
    else {
        panic!("{challenge:?}");
    };
    assert_eq!(landmark, sha256(key.verifying_key().as_bytes()));
    // An answer that the key did not sign, or of another address, gets nothing.
    let answer = |signature| {
        Packet::Answer {
            number: 0,
            who,
            challenge,
            signature,
        }
        .bytes()
    };
    assert!(
        answer([0; 64]).len() <= length,
        "an answer is no longer than its challenge"
    );
    socket.send(&answer([0; 64])).unwrap();
    assert!(receive(&socket).is_none());
    let answerer = Answerer::default();
    answerer.open(SESSION, Digest([5; 32]), &SigningKey::from_bytes(&[8; 32]));
    let signature = answerer.answer(SESSION, &landmark, &challenge).unwrap();
    let elsewhere = client(address);
    elsewhere.send(&answer(signature)).unwrap();
    assert!(
        receive(&elsewhere).is_none(),
        "a challenge is of one address"
    );
    // Rightly answered, the measurement begins.
    socket.send(&answer(signature)).unwrap();
    let (packet, _) = receive(&socket).unwrap();
    assert!(
        matches!(packet, Packet::Challenge { number: 1, .. }),
        "{packet:?}"
    );
}

#[test]
fn what_is_lost_on_the_way_is_asked_for_again() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let real = landmark(&key, 2);
    // The first answer and the first statement are lost.
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = near.local_addr().unwrap();
    let (far, back) = (client(real), near.try_clone().unwrap());
    let (answers, agent) = (far.try_clone().unwrap(), std::sync::mpsc::channel());
    thread::spawn(move || {
        let (mut buffer, mut answered, mut hellos) = ([0; 2000], 0, 0);
        while let Ok((length, from)) = near.recv_from(&mut buffer) {
            agent.0.send(from).ok();
            match Packet::read(&buffer[..length]) {
                Some(Packet::Hello(_)) => hellos += 1,
                Some(_) => answered += 1,
                None => {}
            }
            if answered != 1 || hellos > 1 {
                far.send(&buffer[..length]).ok();
            }
        }
    });
    thread::spawn(move || {
        let to = agent.1.recv().unwrap();
        let (mut buffer, mut statements) = ([0; 2000], 0);
        loop {
            let Ok(length) = answers.recv(&mut buffer) else {
                continue;
            };
            let is_statement =
                matches!(Packet::read(&buffer[..length]), Some(Packet::Statement(_)));
            statements += u32::from(is_statement);
            if !is_statement || statements > 1 {
                back.send_to(&buffer[..length], to).ok();
            }
        }
    });
    let answerer = Answerer::default();
    answerer.open(SESSION, Digest([5; 32]), &SigningKey::from_bytes(&[8; 32]));
    let target = Target::parse(&format!("{}@{address}", inline(&key))).unwrap();
    let place = Asker::spawn(&[target], None, Duration::from_mins(10), answerer).unwrap();
    let began = Instant::now();
    // Within the first round: the next would be half a minute later.
    while !place.waits() && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(place.take().unwrap().landmarks.len(), 1);
}

#[test]
fn only_packets_of_the_one_form_are_read() {
    let who = Who {
        session: SESSION,
        key: [1; 32],
    };
    let all = [
        Packet::Hello(who),
        Packet::Challenge {
            number: 3,
            landmark: Digest([2; 32]),
            challenge: [4; 32],
        },
        Packet::Answer {
            number: 3,
            who,
            challenge: [4; 32],
            signature: [5; 64],
        },
        Packet::Statement(vec![1, 2, 3]),
    ];
    for packet in all {
        let bytes = packet.bytes();
        assert_eq!(Packet::read(&bytes), Some(packet.clone()));
        if !matches!(packet, Packet::Statement(_)) {
            for cut in 0..bytes.len() {
                assert_eq!(Packet::read(&bytes[..cut]), None, "{packet:?} cut at {cut}");
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert_eq!(Packet::read(&longer), None);
        }
    }
    assert_eq!(Packet::read(b"MSL1\x09"), None);
}

#[test]
fn the_session_key_answers_in_its_session_alone_and_signs_nothing_else() {
    let answerer = Answerer::default();
    let landmark = Digest([1; 32]);
    assert!(answerer.answer(SESSION, &landmark, &[0; 32]).is_none());
    answerer.open(SESSION, Digest([5; 32]), &SigningKey::from_bytes(&[8; 32]));
    assert!(answerer.answer(SESSION, &landmark, &[0; 32]).is_some());
    assert!(
        answerer
            .answer(SessionId([4; 16]), &landmark, &[0; 32])
            .is_none()
    );
    let message = merestone_evidence::answer_message(SESSION, &landmark, &[0; 32]);
    // A COSE Sig_structure begins with an array of four, 0x84; a hash has 32 bytes.
    assert!(message.starts_with(b"merestone/landmark-answer/v1\0"));
    answerer.close();
    assert!(answerer.answer(SESSION, &landmark, &[0; 32]).is_none());
    assert!(!format!("{answerer:?}").contains('8'), "no key in a log");
}

#[test]
fn a_target_is_a_key_and_an_address() {
    let key = SigningKey::from_bytes(&[7; 32]);
    assert!(Target::parse(&format!("{}@[2001:db8::1]:7101", inline(&key))).is_ok());
    for wrong in [
        "198.18.0.1:7101",
        "ed25519:AAAA@198.18.0.1:7101",
        "ed25519:AA",
        "",
    ] {
        assert!(Target::parse(wrong).is_err(), "{wrong}");
    }
    let message = signed::sign(Kind::Landmark, &key, b"x").unwrap();
    assert_eq!(signed::payload(&message).unwrap(), b"x");
}
