//! From landmarks over real sockets, through a real software TPM, to the verifier's verdict.
//!
//! Delay is made by a relay in between: the kernels these tests run on need not have netem.

use crate::{
    host::{Host, export_all, faults, judge_with},
    inputs::{epoch_inputs, session_inputs},
    support::Swtpm,
};
use base64ct::{Base64, Encoding as _};
use ed25519_dalek::SigningKey;
use merestone_agent::landmark::{Asker, Options, Place, Target, serve};
use merestone_evidence::{Bundle, Cause, LocationEvidence, decode};
use merestone_verify::Verdict;
use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// Seed of its key, degrees north and east.
const STAND: [(u8, f64, f64); 3] = [(1, 50.11, 8.68), (2, 52.52, 13.405), (3, 48.14, 11.58)];
const EUROPE: &str = "[[30, -25], [30, 45], [72, 45], [72, -25]]";
const AUSTRALIA: &str = "[[-44, 112], [-44, 154], [-10, 154], [-10, 112]]";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn inline(seed: u8) -> String {
    let key = Base64::encode_string(key(seed).verifying_key().as_bytes());
    format!("ed25519:{key}")
}

/// Passes packets on, each way after a delay, as a long cable would.
fn relay(to: SocketAddr, delay: Duration) -> SocketAddr {
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    far.connect(to).unwrap();
    let at = near.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        // The first packet says whom the answers are for; one asker uses one relay at a time.
        while let Ok((length, from)) = near.recv_from(&mut buffer) {
            thread::sleep(delay);
            far.send(&buffer[..length]).unwrap();
            far.set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            near.set_nonblocking(true).unwrap();
            while let Ok(length) = far.recv(&mut buffer) {
                thread::sleep(delay);
                near.send_to(&buffer[..length], from).unwrap();
                // What the agent says next comes at once, or it is done.
                let until = Instant::now() + Duration::from_millis(50);
                let mut asked = near.recv_from(&mut buffer);
                while asked.is_err() && Instant::now() < until {
                    thread::sleep(Duration::from_micros(50));
                    asked = near.recv_from(&mut buffer);
                }
                if let Ok((length, _)) = asked {
                    thread::sleep(delay);
                    far.send(&buffer[..length]).unwrap();
                }
            }
            near.set_nonblocking(false).unwrap();
        }
    });
    at
}

/// Landmarks behind these delays, as the agent's configuration names them.
fn landmarks(delays: [Duration; 3]) -> Vec<Target> {
    let one = |((seed, latitude, longitude), delay): ((u8, f64, f64), Duration)| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let options = Options {
            key: key(seed),
            latitude,
            longitude,
            rounds: 8,
            most: None,
        };
        thread::spawn(move || serve(socket, options, |_, _| {}).unwrap());
        let at = if delay.is_zero() {
            at
        } else {
            relay(at, delay)
        };
        Target::parse(&format!("{}@{at}", inline(seed))).unwrap()
    };
    STAND.into_iter().zip(delays).map(one).collect()
}

fn waited(place: &Place) -> LocationEvidence {
    let until = Instant::now() + Duration::from_secs(40);
    while !place.waits() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    place.take().unwrap()
}

fn trust(host: &Host, area: &str, pinned: &[(u8, f64, f64)]) -> String {
    let landmarks = pinned.iter().map(|(seed, latitude, longitude)| {
        let key = inline(*seed);
        format!("[[landmark]]\nname = \"stand {seed}\"\nkey = \"{key}\"\nlatitude = {latitude}\nlongitude = {longitude}\n")
    });
    let landmarks = landmarks.collect::<Vec<_>>().concat();
    host.trust_text("location_level = \"L3\"\n")
        + &format!("{landmarks}[location]\narea = {area}\n")
}

/// An agent measured with this delay, and what it exports.
fn measured(swtpm: &Swtpm, dir: &std::path::Path, delays_ms: [u64; 3]) -> (Host, Vec<u8>) {
    let mut host = Host::start(swtpm, dir);
    host.core.start_session(session_inputs()).unwrap();
    let place = Asker::spawn(
        &landmarks(delays_ms.map(Duration::from_millis)),
        None,
        Duration::from_secs(600),
        host.core.answerer(),
    );
    let evidence = waited(&place.unwrap());
    assert_eq!(evidence.landmarks.len(), 3);
    let mut inputs = epoch_inputs(1);
    inputs.location = Some(evidence);
    host.record(2);
    host.core.close_epoch(inputs, Cause::Work).unwrap();
    host.core
        .close_epoch(epoch_inputs(1), Cause::Shutdown)
        .unwrap();
    let bytes = export_all(dir);
    (host, bytes)
}

fn located(verdict: &Verdict) -> (&'static str, Option<&'static str>) {
    let location = verdict.location.as_ref().unwrap();
    let round = location.rounds.first();
    (location.level, round.and_then(|round| round.place))
}

#[test]
fn three_landmarks_show_where_the_agent_is_and_nothing_else_passes_for_it() {
    let name = "three_landmarks_show_where_the_agent_is";
    let Some(swtpm) = Swtpm::start_or_skip(name) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (host, bytes) = measured(&swtpm, dir.path(), [0, 2, 2]);
    let verdict = judge_with(&bytes, &trust(&host, EUROPE, &STAND));
    assert_eq!(verdict.exit, 0, "{}", faults(&verdict));
    assert_eq!(located(&verdict), ("L3", Some("contained")));
    for one in &verdict.location.as_ref().unwrap().rounds[0].measured {
        println!(
            "{}: {} us, within {} km",
            one.landmark, one.rtt_us, one.within_km
        );
    }
    let outside = judge_with(&bytes, &trust(&host, AUSTRALIA, &STAND));
    assert_eq!(
        (outside.exit, located(&outside)),
        (2, ("L0", Some("outside"))),
        "{}",
        faults(&outside)
    );
    // A landmark short of what is asked for, and none that is pinned.
    let two = judge_with(&bytes, &trust(&host, EUROPE, &STAND[..2]));
    assert_eq!(two.exit, 2, "{}", faults(&two));
    let strangers = STAND.map(|(seed, north, east)| (seed + 10, north, east));
    let strangers = judge_with(&bytes, &trust(&host, EUROPE, &strangers));
    assert_eq!(strangers.exit, 3, "{}", faults(&strangers));
    // The next session shows nothing of its own, and cannot take this one's.
    drop(host);
    let mut next = Host::start(&swtpm, dir.path());
    next.core.start_session(session_inputs()).unwrap();
    let bundle: Bundle = decode(&bytes).unwrap();
    let replayed: LocationEvidence = decode(&bundle.location.unwrap()[0]).unwrap();
    let mut inputs = epoch_inputs(1);
    inputs.location = Some(replayed);
    next.core.close_epoch(inputs, Cause::Shutdown).unwrap();
    let both = export_all(dir.path());
    let refused = judge_with(&both, &trust(&next, EUROPE, &STAND));
    assert_eq!(refused.exit, 2, "{}", faults(&refused));
    assert!(
        faults(&refused).contains("session from"),
        "{}",
        faults(&refused)
    );
    let both: Bundle = decode(&both).unwrap();
    assert_eq!(
        both.location.unwrap().len(),
        1,
        "a round is sealed in its own session"
    );
}

#[test]
fn a_host_that_is_far_away_or_seems_so_does_not_pass() {
    let Some(swtpm) = Swtpm::start_or_skip("a_host_that_is_far_away") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (host, bytes) = measured(&swtpm, dir.path(), [16; 3]);
    let verdict = judge_with(&bytes, &trust(&host, EUROPE, &STAND));
    assert_eq!(
        (verdict.exit, located(&verdict)),
        (2, ("L0", Some("overlaps"))),
        "{}",
        faults(&verdict)
    );
    for one in &verdict.location.as_ref().unwrap().rounds[0].measured {
        // Light never takes less than it was delayed: 32 ms there and back are 4,800 km.
        assert!(one.within_km >= 4_800, "{one:?}");
        println!(
            "{}: {} us, within {} km",
            one.landmark, one.rtt_us, one.within_km
        );
    }
}

#[test]
fn n70_one_machine_beside_every_landmark_at_once_is_faster_than_light() {
    let Some(swtpm) = Swtpm::start_or_skip("n70_one_machine_beside_every_landmark") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    // All of them are on this machine, whatever they say of where they stand.
    let (host, bytes) = measured(&swtpm, dir.path(), [0; 3]);
    let verdict = judge_with(&bytes, &trust(&host, EUROPE, &STAND));
    assert_eq!(verdict.exit, 1, "{}", faults(&verdict));
    assert!(
        faults(&verdict).contains("faster than light"),
        "{}",
        faults(&verdict)
    );
}
