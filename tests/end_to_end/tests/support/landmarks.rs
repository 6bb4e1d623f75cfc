//! Landmarks in networks of their own, and what the verifier makes of their measurements.

use super::{Host, Kept, binary, verify};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub(crate) const EUROPE: &str =
    r#"{"type":"Polygon","coordinates":[[[-25,30],[45,30],[45,72],[-25,72],[-25,30]]]}"#;
pub(crate) const AUSTRALIA: &str =
    r#"{"type":"Polygon","coordinates":[[[112,-44],[154,-44],[154,-10],[112,-10],[112,-44]]]}"#;

fn does(program: &str, words: &str) -> bool {
    let done = Command::new(program)
        .args(words.split(' '))
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}

/// Whether this kernel can delay packets, tried on a network made for it.
pub(crate) fn has_netem() -> bool {
    let name = format!("merestone-nm-{}", std::process::id());
    let tried = does("ip", &format!("netns add {name}"))
        && does("ip", &format!("-n {name} link set lo up"))
        && does(
            "tc",
            &format!("-n {name} qdisc add dev lo root netem delay 1ms"),
        );
    does("ip", &format!("netns del {name}"));
    tried
}

/// A network of its own, with one cable to this one; both go when dropped.
pub(crate) struct Network {
    name: String,
    link: String,
    address: String,
}

impl Network {
    pub(crate) fn new(number: usize) -> Self {
        let name = format!("merestone-lm-{number}");
        let link = format!("mslm{number}");
        // What an interrupted run left.
        does("ip", &format!("netns del {name}"));
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
        let made = Self {
            name,
            link,
            address,
        };
        for words in all {
            assert!(does("ip", &words), "ip {words}");
        }
        made
    }

    /// The cable from now on, each way: `delay 5ms 1ms loss 10%`, as `tc-netem(8)` has it.
    pub(crate) fn netem(&self, words: &str) {
        let Self { name, link, .. } = self;
        for all in [
            format!("qdisc replace dev {link} root netem {words}"),
            format!("-n {name} qdisc replace dev eth9 root netem {words}"),
        ] {
            assert!(does("tc", &all), "tc {all}");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        does("ip", &format!("netns del {}", self.name));
    }
}

/// A landmark in its own network.
pub(crate) struct Landmark {
    pub(crate) name: &'static str,
    /// Where it says that it stands: degrees north and east.
    pub(crate) at: (f64, f64),
    pub(crate) key: String,
    pub(crate) address: SocketAddr,
    pub(crate) network: Network,
    said: Arc<Mutex<Vec<String>>>,
    _running: Kept,
}

impl Landmark {
    pub(crate) fn start(
        folder: &Path,
        number: usize,
        (name, latitude, longitude): (&'static str, f64, f64),
    ) -> Self {
        let network = Network::new(number);
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
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Self {
            name,
            at: (latitude, longitude),
            key: public,
            address: listen.parse().expect("an address"),
            network,
            said,
            _running: Kept(child),
        }
    }

    /// What it printed: a line a measurement.
    pub(crate) fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }

    /// How the verifier's policy names it.
    pub(crate) fn pin(&self) -> Pin<'_> {
        Pin {
            name: self.name,
            key: &self.key,
            at: self.at,
            independent: true,
        }
    }
}

/// A landmark, as a policy has it.
#[derive(Clone, Copy)]
pub(crate) struct Pin<'l> {
    pub(crate) name: &'l str,
    pub(crate) key: &'l str,
    pub(crate) at: (f64, f64),
    pub(crate) independent: bool,
}

/// Makes the agent of `host` ask these landmarks.
pub(crate) fn configure(host: &Host, targets: &[(&str, SocketAddr)]) {
    let mut config = fs::read_to_string(&host.config).expect("reads");
    let targets: Vec<String> = targets
        .iter()
        .map(|(key, at)| format!("\"{key}@{at}\""))
        .collect();
    write!(
        config,
        "[location]\nlandmarks = [{}]\ninterval = \"10s\"\n",
        targets.join(", ")
    )
    .expect("a string takes it");
    fs::write(&host.config, config).expect("writes");
}

/// The verdict of a policy that wants the place measured: these landmarks pinned, and this area.
/// The rest is the policy that `enroll trust` wrote.
#[expect(clippy::panic, reason = "says what the verifier said")]
pub(crate) fn judged(
    host: &Host,
    bundle: &Path,
    area: &str,
    pins: &[Pin<'_>],
) -> (Option<i32>, Value) {
    let base = fs::read_to_string(host.file("trust.toml")).expect("reads");
    let mut text = base.replace("[require]\n", "[require]\nlocation_level = \"L3\"\n");
    for pin in pins {
        let (latitude, longitude) = pin.at;
        write!(
            text,
            "\n[[landmark]]\nname = \"{}\"\nkey = \"{}\"\nlatitude = {latitude}\nlongitude = {longitude}\nindependent = {}\n",
            pin.name, pin.key, pin.independent
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
