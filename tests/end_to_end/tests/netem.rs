//! Where a real agent is, by landmarks over cables that the kernel makes long, unsteady and lossy.
//!
//! Five landmarks, each in a network namespace of its own behind a veth pair with a netem qdisc at
//! either end. What is asked of the verifier is what geography allows: a host near them is
//! contained, one that is far away overlaps, one that is elsewhere is outside, and delay, which is
//! all that a host can add, only ever widens a disc.
//!
//! It runs where the kernel has netem, as those of the guests of `cargo xtask vm` do, and says so
//! where it does not.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says what it needs by panicking"
)]

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::landmarks::{AUSTRALIA, Landmark, Pin, configure, has_netem, judged};
use support::{Host, Kept, has_swtpm, is_root, swtpm};

/// Degrees north and east. The decoy says what its key is pinned for, and stands beside the host.
const STAND: [(&str, f64, f64); 5] = [
    ("frankfurt", 50.11, 8.68),
    ("berlin", 52.52, 13.405),
    ("munich", 48.14, 11.58),
    ("sydney", -33.87, 151.21),
    ("decoy", 48.86, 2.35),
];
/// Around Europe at a distance: emulated processors take their time to answer, and a signal that
/// was 20 ms under way may have come from Iceland or Kazakhstan.
const AREA: &str =
    r#"{"type":"Polygon","coordinates":[[[-50,5],[70,5],[70,80],[-50,80],[-50,5]]]}"#;
const FRANKFURT: usize = 0;
const MUNICH: usize = 2;
const SYDNEY: usize = 3;
const DECOY: usize = 4;
/// Emulated processors, sixteen challenges and their losses, five landmarks in turn.
const PATIENCE: Duration = Duration::from_secs(240);
/// What a signal takes in a round trip of so many microseconds, in kilometres.
const KM_PER_MS: u64 = 150;

/// The agent, its landmarks, and from when on the evidence is looked at.
struct Stage {
    // Ends first: the pins of an agent that runs cannot be taken away.
    agent: Option<Kept>,
    host: Host,
    landmarks: Vec<Landmark>,
    began: String,
}

impl Stage {
    fn new(tcti: &str) -> Self {
        let host = Host::new("netem", tcti);
        let landmarks: Vec<Landmark> = (0..)
            .zip(STAND)
            .map(|(number, stand)| Landmark::start(host.folder.path(), number, stand))
            .collect();
        let targets = landmarks
            .iter()
            .map(|landmark| (landmark.key.as_str(), landmark.address));
        configure(&host, &targets.collect::<Vec<_>>());
        Self {
            agent: None,
            host,
            landmarks,
            began: String::new(),
        }
    }

    /// A new session, measured over these cables.
    fn session(&mut self, cables: [&str; 5]) {
        if let Some(mut agent) = self.agent.take() {
            let pid = i32::try_from(agent.0.id()).ok();
            let pid = pid.and_then(rustix::process::Pid::from_raw).expect("a pid");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("is ours");
            assert!(agent.0.wait().expect("ends").success());
        }
        for (landmark, words) in self.landmarks.iter().zip(cables) {
            landmark.network.netem(words);
        }
        self.agent = Some(self.host.start());
        let status = self.host.status();
        let began = status["started"].as_str().expect("says when it started");
        began.clone_into(&mut self.began);
    }

    fn pins(&self, numbers: &[usize]) -> Vec<Pin<'_>> {
        let pins = numbers.iter().map(|number| self.landmarks[*number].pin());
        pins.collect()
    }

    /// What this session has sealed so far, and a trust policy without a place.
    fn report(&self) -> PathBuf {
        let bundle = self.host.file("netem.merestone");
        let file = bundle.to_string_lossy();
        let from = ["report", "--from", &self.began, "--out", &file, "--force"];
        self.host.ask(&from);
        self.host.trust(&[]);
        bundle
    }

    /// The report once a round after the first `before` is as wanted, with all rounds and the number
    /// of that one.
    fn until(
        &self,
        what: &str,
        before: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> (PathBuf, Vec<Value>, usize) {
        let began = Instant::now();
        let all: Vec<usize> = (0..STAND.len()).collect();
        loop {
            let bundle = self.report();
            let (_, verdict) = judged(&self.host, &bundle, AREA, &self.pins(&all));
            let rounds = rounds(&verdict);
            let found = rounds.iter().skip(before).position(&wanted);
            if let Some(found) = found {
                return (bundle, rounds, before + found);
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: {rounds:#?}\n{}",
                self.host.log()
            );
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// The exit code, and what is said of the first round.
    fn judge(&self, bundle: &Path, area: &str, pins: &[Pin<'_>]) -> (Option<i32>, Value) {
        let (code, verdict) = judged(&self.host, bundle, area, pins);
        let round = rounds(&verdict).first().cloned().unwrap_or_default();
        println!(
            "{code:?} {} {}: {}",
            verdict["location"]["level"],
            round["place"],
            why(&verdict)
        );
        (code, verdict)
    }
}

fn rounds(verdict: &Value) -> Vec<Value> {
    let rounds = verdict["location"]["rounds"].as_array();
    rounds.cloned().unwrap_or_default()
}

fn why(verdict: &Value) -> String {
    let checks = verdict["checks"].as_array().cloned().unwrap_or_default();
    let found = checks.iter().find(|check| check["id"] == "location");
    let detail = found.and_then(|check| check["detail"].as_str());
    detail.unwrap_or_default().to_owned()
}

fn measured<'r>(round: &'r Value, name: &str) -> Option<&'r Value> {
    let all = round["measured"].as_array()?;
    all.iter().find(|one| one["landmark"] == name)
}

fn rtt_us(round: &Value, name: &str) -> u64 {
    measured(round, name).map_or(0, |one| one["rtt_us"].as_u64().unwrap_or_default())
}

/// No measurement is shorter than its cable, and every disc has room for it.
fn never_nearer(rounds: &[Value], name: &str, least_us: u64) {
    for one in rounds.iter().filter_map(|round| measured(round, name)) {
        let (rtt_us, within_km) = (one["rtt_us"].as_u64(), one["within_km"].as_u64());
        let (rtt_us, within_km) = (rtt_us.expect("a time"), within_km.expect("a length"));
        println!("{name}: {rtt_us} us over a cable of {least_us} us, within {within_km} km");
        assert!(rtt_us >= least_us, "{name}: {one:#}");
        assert!(within_km * 1000 >= least_us * KM_PER_MS, "{name}: {one:#}");
    }
}

fn place(round: &Value) -> &str {
    round["place"].as_str().unwrap_or_default()
}

#[test]
fn netem_between_the_agent_and_its_landmarks_never_makes_it_seem_nearer_n66_n70_n71() {
    let name = "netem_between_the_agent_and_its_landmarks";
    skip_unless!(is_root(), format!("{name}: needs root"));
    let is_guest = std::env::var_os("XTASK_VM").is_some();
    skip_unless!(
        is_guest || has_netem(),
        format!("{name}: this kernel has no netem; `cargo xtask vm` has kernels that do")
    );
    assert!(has_netem(), "the guest's kernel has sch_netem");
    let folder = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = if is_guest {
        (None, "device:/dev/tpmrm0".to_owned())
    } else {
        skip_unless!(has_swtpm(), format!("{name}: needs swtpm"));
        let (tpm, tcti) = swtpm(folder.path());
        (Some(tpm), tcti)
    };
    let mut stage = Stage::new(&tcti);
    near(&mut stage);
    far(&mut stage);
    elsewhere(&mut stage);
}

/// In Frankfurt, over cables that jitter and lose.
fn near(stage: &mut Stage) {
    stage.session([
        "delay 1ms 500us loss 10%",
        "delay 3ms 1ms loss 10%",
        "delay 3ms 1ms loss 10%",
        "delay 90ms 5ms",
        "delay 0ms",
    ]);
    let european = [FRANKFURT, 1, MUNICH];
    let all = |round: &Value| {
        let names = STAND.map(|(name, ..)| name);
        names.iter().all(|name| measured(round, name).is_some())
    };
    let (bundle, found, whole) = stage.until("all five measure in spite of the losses", 0, all);
    never_nearer(&found, "frankfurt", 1_000);
    never_nearer(&found, "berlin", 4_000);
    never_nearer(&found, "munich", 4_000);
    never_nearer(&found, "sydney", 170_000);
    let (code, verdict) = stage.judge(&bundle, AREA, &stage.pins(&european));
    assert_eq!(code, Some(0), "{verdict:#}");
    assert_eq!(verdict["location"]["level"], "L3");
    let round = &rounds(&verdict)[whole];
    assert_eq!(place(round), "contained");
    assert_eq!(round["unpinned"], 2, "who is not pinned counts for nothing");
    let (code, verdict) = stage.judge(&bundle, AUSTRALIA, &stage.pins(&european));
    assert_eq!(
        (code, place(&rounds(&verdict)[whole])),
        (Some(2), "outside")
    );
    let before = rtt_us(&found[whole], "frankfurt");
    let lost = stage.landmarks.iter().flat_map(Landmark::said);
    let lost: Vec<String> = lost.filter(|line| !line.contains("16 of 16")).collect();
    println!("lost and measured in spite of it: {lost:#?}");

    // A cable that is cut: the round goes without, and is asked again when it is mended.
    stage.landmarks[MUNICH].network.netem("loss 100%");
    stage.landmarks[FRANKFURT].network.netem("delay 8ms 500us");
    let what = "a round without Munich, and Frankfurt farther";
    let (bundle, found, without) = stage.until(what, found.len(), |round| {
        measured(round, "munich").is_none() && rtt_us(round, "frankfurt") >= 15_000
    });
    println!("frankfurt: {before} us before, and now:");
    never_nearer(&found[without..], "frankfurt", 15_000);
    let (code, verdict) = stage.judge(&bundle, AREA, &stage.pins(&european));
    assert_eq!(code, Some(0), "{verdict:#}");
    let round = &rounds(&verdict)[without];
    assert!(round["measured"].as_array().map_or(0, Vec::len) < 3);
    stage.landmarks[MUNICH].network.netem("delay 3ms 1ms");
    stage.until("Munich measures again", found.len(), |round| {
        rtt_us(round, "munich") >= 4_000
    });
}

/// Where light would take 25 ms to each of them, or where somebody would have it so.
fn far(stage: &mut Stage) {
    stage.session(["delay 25ms"; 5]);
    let all = |round: &Value| measured(round, "munich").is_some();
    let (bundle, found, _) = stage.until("a round", 0, all);
    for (name, ..) in STAND {
        never_nearer(&found, name, 50_000);
    }
    let (code, verdict) = stage.judge(&bundle, AREA, &stage.pins(&[FRANKFURT, 1, MUNICH]));
    assert_eq!(code, Some(2), "{verdict:#}");
    assert_eq!(verdict["location"]["level"], "L0");
    assert_eq!(place(&rounds(&verdict)[0]), "overlaps");
}

/// In Sydney, with a landmark of a liar's beside it that says it is in Paris.
fn elsewhere(stage: &mut Stage) {
    let far = "delay 60ms 5ms";
    stage.session([far, far, far, "delay 1ms", "delay 0ms"]);
    let all = |round: &Value| measured(round, "decoy").is_some();
    let (bundle, found, _) = stage.until("a round", 0, all);
    never_nearer(&found, "frankfurt", 110_000);
    let european = [FRANKFURT, 1, MUNICH];
    // Nobody near it: wherever it is, it is not shown to be in Europe.
    let (code, verdict) = stage.judge(&bundle, AREA, &stage.pins(&european));
    assert_eq!(
        (code, place(&rounds(&verdict)[0])),
        (Some(2), "overlaps"),
        "{verdict:#}"
    );
    // One near it: it is in Sydney, though the operator states Germany.
    let honest = [FRANKFURT, 1, MUNICH, SYDNEY];
    let (code, verdict) = stage.judge(&bundle, AREA, &stage.pins(&honest));
    assert_eq!((code, place(&rounds(&verdict)[0])), (Some(2), "outside"));
    assert_eq!(verdict["location"]["countries"][0], "DE");
    // A landmark that answers sooner than its pinned place allows contradicts the honest one.
    let mut pins = stage.pins(&honest);
    pins.push(stage.landmarks[DECOY].pin());
    let (code, verdict) = stage.judge(&bundle, AREA, &pins);
    assert_eq!(code, Some(1), "{verdict:#}");
    assert!(why(&verdict).contains("faster than light"), "{verdict:#}");
    // One that the operator runs himself counts for nothing, however near it says he is.
    let mut own = stage.pins(&european);
    own.push(Pin {
        independent: false,
        ..stage.landmarks[DECOY].pin()
    });
    let (code, verdict) = stage.judge(&bundle, AREA, &own);
    assert_eq!(
        (code, place(&rounds(&verdict)[0])),
        (Some(2), "overlaps"),
        "{verdict:#}"
    );
}
