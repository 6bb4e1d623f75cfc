//! Where a real agent is, by landmarks in network namespaces of their own.
//!
//! Delay is made by a relay in this process: the kernel here has no netem.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::BufRead as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use support::{Host, Kept, binary, eventually, has_swtpm, is_root, swtpm, verify};

/// Degrees north and east, and the delay each way.
const STAND: [(&str, f64, f64, u64); 3] = [
    ("frankfurt", 50.11, 8.68, 0),
    ("berlin", 52.52, 13.405, 3),
    ("munich", 48.14, 11.58, 3),
];
const EUROPE: &str =
    r#"{"type":"Polygon","coordinates":[[[-25,30],[45,30],[45,72],[-25,72],[-25,30]]]}"#;
const AUSTRALIA: &str =
    r#"{"type":"Polygon","coordinates":[[[112,-44],[154,-44],[154,-10],[112,-10],[112,-44]]]}"#;

fn ip(words: &str) -> bool {
    let done = Command::new("ip").args(words.split(' ')).status();
    done.is_ok_and(|status| status.success())
}

/// A network of its own, with one cable to this one; both go when dropped.
struct Network {
    name: String,
    address: String,
}

impl Network {
    fn new(number: usize) -> Self {
        let name = format!("merestone-lm-{number}");
        let link = format!("mslm{number}");
        // What an interrupted run left.
        ip(&format!("netns del {name}"));
        let (here, there) = (4 * number + 1, 4 * number + 2);
        let address = format!("198.18.77.{there}");
        let all = [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth9 netns {name}"),
            format!("addr add 198.18.77.{here}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add {address}/30 dev eth9"),
            format!("-n {name} link set eth9 up"),
        ];
        let made = Self { name, address };
        for words in all {
            assert!(ip(&words), "ip {words}");
        }
        made
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
    }
}

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

/// A landmark in its own network: its public key, and where to ask it.
fn landmark(folder: &Path, number: usize, network: &Network) -> (Kept, String, SocketAddr) {
    let (name, latitude, longitude, _) = STAND[number];
    let key = folder.join(format!("{name}.pem"));
    let made = Command::new(binary("merestone"))
        .args(["landmark", "keygen", "--out"])
        .arg(&key)
        .output()
        .expect("merestone runs");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    let public = said.lines().find(|line| line.starts_with("ed25519:"));
    let public = public.expect("a key").to_owned();
    let listen = format!("{}:7101", network.address);
    let mut child = Command::new("ip")
        .args(["netns", "exec", &network.name])
        .arg(binary("merestone"))
        .args(["landmark", "serve", "--listen", &listen, "--key"])
        .arg(&key)
        .args(["--latitude", &latitude.to_string()])
        .args(["--longitude", &longitude.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the landmark starts");
    let mut lines = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("reads");
    assert!(line.starts_with("measuring on"), "{line}");
    thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (Kept(child), public, listen.parse().expect("an address"))
}

/// The verdict with these landmarks pinned, and this area.
#[expect(clippy::panic, reason = "says what the verifier said")]
fn judged(host: &Host, bundle: &Path, area: &str, keys: &[String]) -> (Option<i32>, Value) {
    let base = fs::read_to_string(host.file("trust.toml")).expect("reads");
    let mut text = base.replace("[require]\n", "[require]\nlocation_level = \"L3\"\n");
    for ((name, latitude, longitude, _), key) in STAND.iter().zip(keys) {
        write!(
            text,
            "\n[[landmark]]\nname = \"{name}\"\nkey = \"{key}\"\nlatitude = {latitude}\nlongitude = {longitude}\n"
        )
        .expect("a string takes it");
    }
    fs::write(host.file("area.geojson"), area).expect("writes");
    text += "\n[location]\narea = \"area.geojson\"\n";
    let path = host.file("place.toml");
    fs::write(&path, text).expect("writes");
    let output = verify(bundle, &path);
    let verdict = serde_json::from_slice(&output.stdout);
    let verdict = verdict.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), verdict)
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
    let networks: Vec<Network> = (0..3).map(Network::new).collect();
    let mut running = Vec::new();
    let (mut keys, mut targets) = (Vec::new(), Vec::new());
    for (number, network) in networks.iter().enumerate() {
        let (kept, key, at) = landmark(host.folder.path(), number, network);
        let at = match STAND[number].3 {
            0 => at,
            delay_ms => relay(at, Duration::from_millis(delay_ms)),
        };
        targets.push(format!("\"{key}@{at}\""));
        keys.push(key);
        running.push(kept);
    }
    let mut config = fs::read_to_string(&host.config).expect("reads");
    write!(
        config,
        "[location]\nlandmarks = [{}]\ninterval = \"10s\"\n",
        targets.join(", ")
    )
    .expect("a string takes it");
    fs::write(&host.config, config).expect("writes");
    let agent = host.start();
    let mut last = None;
    eventually("a round of three landmarks is sealed", || {
        let (bundle, _) = host.verify("place");
        let (code, verdict) = judged(&host, &bundle, EUROPE, &keys);
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
    let (code, outside) = judged(&host, &bundle, AUSTRALIA, &keys);
    assert_eq!(
        (code, &outside["location"]["rounds"][0]["place"]),
        (Some(2), &Value::from("outside"))
    );
    let swapped: Vec<String> = keys.iter().rev().cloned().collect();
    let (code, moved) = judged(&host, &bundle, EUROPE, &swapped);
    assert_eq!(code, Some(2), "a key pinned at another's place: {moved:#}");
    let (code, few) = judged(&host, &bundle, EUROPE, &keys[..1]);
    assert_eq!(code, Some(2), "one of three pinned: {few:#}");
    let (code, none) = judged(&host, &bundle, EUROPE, &[]);
    assert_eq!(code, Some(3), "none pinned: {none:#}");
    drop(agent);
}
