//! Where a real agent is, by landmarks in network namespaces of their own.
//!
//! Delay is made by a relay in this process, for kernels without netem; the test `netem` has the
//! kernel's own.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;
use support::landmarks::{AUSTRALIA, EUROPE, Landmark, Pin, configure, judged};
use support::{Host, eventually, has_swtpm, is_root, swtpm};

/// Degrees north and east, and the delay each way.
const STAND: [(&str, f64, f64, u64); 3] = [
    ("frankfurt", 50.11, 8.68, 0),
    ("berlin", 52.52, 13.405, 3),
    ("munich", 48.14, 11.58, 3),
];
/// Passes packets of one asker at a time on, each after a delay.
fn relay(to: SocketAddr, delay: Duration) -> SocketAddr {
    let near = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let at = near.local_addr().expect("has one");
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        let mut asker: Option<(SocketAddr, UdpSocket)> = None;
        while let Ok((length, from)) = near.recv_from(&mut buffer) {
            if asker.as_ref().is_none_or(|(known, _)| *known != from) {
                let far = UdpSocket::bind("0.0.0.0:0").expect("binds");
                far.connect(to).expect("connects");
                let (back, near) = (
                    far.try_clone().expect("clones"),
                    near.try_clone().expect("clones"),
                );
                thread::spawn(move || answers(&back, &near, from, delay));
                asker = Some((from, far));
            }
            thread::sleep(delay);
            if let Some((_, far)) = &asker {
                far.send(&buffer[..length]).ok();
            }
        }
    });
    at
}

/// Passes what comes back on to the asker, each packet after a delay.
fn answers(back: &UdpSocket, near: &UdpSocket, asker: SocketAddr, delay: Duration) {
    let mut buffer = [0; 2000];
    while let Ok(length) = back.recv(&mut buffer) {
        thread::sleep(delay);
        near.send_to(&buffer[..length], asker).ok();
    }
}

#[test]
fn landmarks_show_where_the_agent_is() {
    skip_unless!(
        is_root() && has_swtpm(),
        "landmarks_show_where_the_agent_is: needs root and swtpm"
    );
    let tpm_folder = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = swtpm(tpm_folder.path());
    let host = Host::new("place", &tcti);
    let stand: Vec<Landmark> = (0..)
        .zip(STAND)
        .map(|(number, (name, north, east, _))| {
            Landmark::start(host.folder.path(), number, (name, north, east))
        })
        .collect();
    let targets = stand.iter().zip(STAND).map(|(landmark, (.., delay_ms))| {
        let at = match delay_ms {
            0 => landmark.address,
            delay_ms => relay(landmark.address, Duration::from_millis(delay_ms)),
        };
        (landmark.key.as_str(), at)
    });
    configure(&host, &targets.collect::<Vec<_>>());
    let pins: Vec<Pin<'_>> = stand.iter().map(Landmark::pin).collect();
    let agent = host.start();
    let mut last = None;
    eventually("a round of three landmarks is sealed", || {
        let (bundle, _) = host.verify("place");
        let (code, verdict) = judged(&host, &bundle, EUROPE, &pins);
        let rounds = verdict["location"]["rounds"].as_array().map_or(0, Vec::len);
        last = Some((bundle, code, verdict));
        rounds > 0
    });
    let (bundle, code, verdict) = last.expect("a verdict");
    assert_eq!(code, Some(0), "{verdict:#}");
    assert_eq!(verdict["location"]["level"], "L3");
    let round = &verdict["location"]["rounds"][0];
    assert_eq!(round["place"], "contained");
    for one in round["measured"].as_array().expect("a list") {
        println!(
            "{} {} us, within {} km",
            one["landmark"], one["rtt_us"], one["within_km"]
        );
    }
    let (code, outside) = judged(&host, &bundle, AUSTRALIA, &pins);
    assert_eq!(
        (code, &outside["location"]["rounds"][0]["place"]),
        (Some(2), &Value::from("outside"))
    );
    let mut swapped = pins.clone();
    swapped[0].key = pins[2].key;
    swapped[2].key = pins[0].key;
    let (code, moved) = judged(&host, &bundle, EUROPE, &swapped);
    assert_eq!(code, Some(2), "a key pinned at another's place: {moved:#}");
    let (code, few) = judged(&host, &bundle, EUROPE, &pins[..1]);
    assert_eq!(code, Some(2), "one of three pinned: {few:#}");
    let (code, none) = judged(&host, &bundle, EUROPE, &[]);
    assert_eq!(code, Some(3), "none pinned: {none:#}");
    drop(agent);
}
