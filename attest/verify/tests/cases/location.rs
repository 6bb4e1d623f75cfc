//! L3: what landmarks measured, and every way in which it is not that.

use crate::support::{Maker, START, demand, judge};
use coset::{CoseSign1Builder, TaggedCborSerializable as _};
use ed25519_dalek::{Signer as _, SigningKey};
use merestone_evidence::{
    Blob, Bundle, LandmarkKind, LandmarkStatement, LocationEvidence, LocationKind, SessionId,
    encode, sha256,
};
use merestone_verify::enrolment::{Kind, protected_header};
use merestone_verify::{Location, Verdict};

/// Name, seed of its key, degrees north and east.
type Landmark = (&'static str, u8, f64, f64);

const FRANKFURT: Landmark = ("frankfurt", 1, 50.11, 8.68);
const BERLIN: Landmark = ("berlin", 2, 52.52, 13.405);
const MUNICH: Landmark = ("munich", 3, 48.14, 11.58);
const ALL: [Landmark; 3] = [FRANKFURT, BERLIN, MUNICH];
/// Around all of them.
const AREA: &str = "area = [[46, 4], [46, 17], [56, 17], [56, 4]]";
/// 150, 600 and 450 km: their common part lies around Frankfurt.
const NEAR: [u64; 3] = [1000, 4000, 3000];

#[expect(clippy::cast_possible_truncation, reason = "degrees times ten million")]
fn e7(degrees: f64) -> i32 {
    (degrees * 1e7) as i32
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn statement(landmark: Landmark, rtt_us: u64) -> LandmarkStatement {
    let (_, _, latitude, longitude) = landmark;
    LandmarkStatement {
        kind: LandmarkKind,
        session: SessionId([1; 16]),
        session_key: [9; 32],
        transcript: sha256(b"challenges and answers"),
        sent: 16,
        answered: 15,
        rtt_min_ns: rtt_us * 1000,
        began_ms: START + 2_000,
        ended_ms: START + 3_000,
        latitude_e7: e7(latitude),
        longitude_e7: e7(longitude),
    }
}

fn signed(seed: u8, payload: &[u8]) -> Blob {
    let key = key(seed);
    let message = CoseSign1Builder::new()
        .protected(protected_header(Kind::Landmark, &key.verifying_key()))
        .payload(payload.to_vec())
        .create_signature(&[], |bytes| key.sign(bytes).to_vec())
        .build();
    Blob::from(message.to_tagged_vec().unwrap())
}

fn round(statements: impl IntoIterator<Item = Blob>) -> Vec<u8> {
    encode(&LocationEvidence {
        kind: LocationKind,
        session: SessionId([1; 16]),
        landmarks: statements.into_iter().collect(),
        clouds: Vec::new(),
    })
}

/// A round in which each landmark measured the time beside it, after a change.
fn measured(rtts_us: [u64; 3], change: impl Fn(&mut LandmarkStatement)) -> Vec<u8> {
    round(ALL.into_iter().zip(rtts_us).map(|(landmark, rtt_us)| {
        let mut statement = statement(landmark, rtt_us);
        change(&mut statement);
        signed(landmark.1, &encode(&statement))
    }))
}

/// A bundle whose epoch of this number sealed this evidence.
fn sealed(epoch: u64, evidence: Vec<u8>) -> Bundle {
    let mut maker = Maker::new();
    let digest = sha256(&evidence);
    maker.epoch = Box::new(move |number, statement| {
        statement.location = (number == epoch).then_some(digest);
    });
    let mut bundle = maker.bundle();
    bundle.location = Some(vec![Blob::from(evidence)]);
    bundle
}

fn pinned(landmark: Landmark, more: &str) -> String {
    use base64ct::{Base64, Encoding as _};
    let (name, seed, latitude, longitude) = landmark;
    let key = Base64::encode_string(key(seed).verifying_key().as_bytes());
    format!(
        "[[landmark]]\nname = \"{name}\"\nkey = \"ed25519:{key}\"\nlatitude = {latitude}\nlongitude = {longitude}\n{more}\n"
    )
}

fn trust(location: &str, more: &str) -> String {
    let landmarks: String = ALL.iter().map(|landmark| pinned(*landmark, "")).collect();
    let node = Maker::new().trust();
    format!(
        "{node}\n{landmarks}[location]\n{location}\n[require]\nlocation_level = \"L3\"\n{more}\n"
    )
}

fn strict() -> String {
    trust(AREA, "")
}

fn detail(verdict: &Verdict) -> String {
    let checks = verdict.checks.iter().filter(|check| check.id == "location");
    checks
        .map(|check| check.detail.clone())
        .collect::<Vec<_>>()
        .join("\n")
}

#[track_caller]
fn refused(bundle: &Bundle, trust: &str, exit: u8, why: &str) -> Option<Location> {
    let verdict = judge(bundle, trust);
    demand(&verdict, exit, "location");
    assert!(
        detail(&verdict).contains(why),
        "{why:?} not in: {}",
        detail(&verdict)
    );
    verdict.location
}

#[test]
fn a_host_within_light_of_three_landmarks_is_contained() {
    let bundle = sealed(1, measured(NEAR, |_| {}));
    let verdict = judge(&bundle, &strict());
    demand(&verdict, 0, "location");
    let location = verdict.location.unwrap();
    assert_eq!((location.level, location.source), ("L3", "landmarks"));
    assert!(
        location.assumption.contains("faster than light"),
        "{}",
        location.assumption
    );
    assert_eq!(location.rounds[0].place, Some("contained"));
    let first = &location.rounds[0].measured[0];
    assert_eq!((first.within_km, first.rtt_us), (150, 1000));
}

#[test]
fn overlaps_is_not_a_pass_and_outside_fails_even_where_nobody_asks() {
    let far = sealed(1, measured([6000, 6000, 6000], |_| {}));
    refused(&far, &strict(), 2, "overlaps");
    let verdict = judge(&far, &strict().replace("L3", "L0"));
    demand(&verdict, 0, "policy.age");
    assert_eq!(verdict.location.unwrap().level, "L0");
    let south = "area = [[38, -5], [38, 3], [44, 3], [44, -5]]";
    let near = sealed(1, measured(NEAR, |_| {}));
    for trust in [trust(south, ""), trust(south, "").replace("L3", "L0")] {
        refused(&near, &trust, 2, "outside");
    }
}

#[test]
fn n70_measurements_faster_than_light_are_refused() {
    // 300 km between Frankfurt and Munich, and 30 km from each.
    let nowhere = sealed(1, measured([200, 4000, 200], |_| {}));
    refused(&nowhere, &strict(), 1, "faster than light");
    let at_once = sealed(1, measured([0, 4000, 3000], |_| {}));
    refused(&at_once, &strict(), 1, "no time");
    let none = sealed(1, measured(NEAR, |statement| statement.answered = 0));
    refused(&none, &strict(), 1, "no answer");
    let more = sealed(1, measured(NEAR, |statement| statement.answered = 17));
    refused(&more, &strict(), 1, "more answers than challenges");
}

#[test]
fn n71_landmarks_of_the_party_that_is_checked_do_not_count() {
    let bundle = sealed(1, measured(NEAR, |_| {}));
    let node = Maker::new().trust();
    let of = |more: &str| {
        let landmarks: String = ALL.iter().map(|landmark| pinned(*landmark, more)).collect();
        format!("{node}\n{landmarks}[location]\n{AREA}\n[require]\nlocation_level = \"L3\"\n")
    };
    refused(&bundle, &of("independent = false"), 2, "no measurement");
    refused(
        &bundle,
        &of("operator = \"one company\""),
        2,
        "1 independent parties",
    );
    demand(&judge(&bundle, &of("")), 0, "location");
    let one = of("operator = \"one company\"").replace(AREA, &format!("{AREA}\nmin_landmarks = 1"));
    demand(&judge(&bundle, &one), 0, "location");
}

#[test]
fn n72_a_measurement_of_another_time_or_too_old_fails() {
    // Sealed again in a later epoch: its time is not that epoch's.
    let early = measured(NEAR, |statement| {
        statement.began_ms = START - 70_000;
        statement.ended_ms = START - 69_000;
    });
    refused(&sealed(1, early), &strict(), 2, "the epoch that sealed it");
    let later = measured(NEAR, |statement| statement.ended_ms = START + 200_000);
    refused(&sealed(1, later), &strict(), 2, "the epoch that sealed it");
    let backwards = measured(NEAR, |statement| statement.ended_ms = START - 1);
    refused(
        &sealed(1, backwards),
        &strict(),
        1,
        "an end before the beginning",
    );
    let stale = trust(&format!("{AREA}\nmax_age_s = 15"), "");
    let bundle = sealed(1, measured(NEAR, |_| {}));
    refused(
        &bundle,
        &stale,
        2,
        "no measurement shows the host in the area",
    );
    let replayed = trust(AREA, "max_clock_step_s = 5");
    refused(
        &sealed(3, measured(NEAR, |_| {})),
        &replayed,
        2,
        "the epoch that sealed it",
    );
}

#[test]
fn a_measurement_of_another_session_or_key_is_refused() {
    let other = sealed(
        1,
        measured(NEAR, |statement| statement.session = SessionId([2; 16])),
    );
    refused(&other, &strict(), 1, "session");
    let other = sealed(
        1,
        measured(NEAR, |statement| statement.session_key = [8; 32]),
    );
    refused(&other, &strict(), 1, "key");
    let whole = encode(&LocationEvidence {
        kind: LocationKind,
        session: SessionId([2; 16]),
        landmarks: Vec::new(),
        clouds: Vec::new(),
    });
    refused(
        &sealed(1, whole),
        &strict(),
        1,
        "the location evidence is of session",
    );
}

#[test]
fn a_landmark_that_nobody_pinned_counts_for_nothing() {
    let strangers =
        round(ALL.map(|landmark| signed(landmark.1 + 10, &encode(&statement(landmark, 1000)))));
    let told = refused(&sealed(1, strangers), &strict(), 3, "no pinned landmark");
    assert_eq!(told.unwrap().rounds[0].unpinned, 3);
    let nothing = Maker::new().bundle();
    refused(&nothing, &strict(), 3, "no pinned landmark");
    // Nor does one that stands elsewhere than where it is pinned, whatever it says.
    let moved = measured(NEAR, |statement| statement.latitude_e7 = 100_000_000);
    refused(&sealed(1, moved), &strict(), 2, "stands at");
    let unnamed = trust("", "");
    refused(
        &sealed(1, measured(NEAR, |_| {})),
        &unnamed,
        3,
        "names no area",
    );
}

#[test]
fn n66_a_spoiled_byte_of_a_measurement_changes_the_verdict() {
    let good = measured(NEAR, |_| {});
    let message = signed(1, &encode(&statement(FRANKFURT, 1000)));
    let others = [
        signed(2, &encode(&statement(BERLIN, 4000))),
        signed(3, &encode(&statement(MUNICH, 3000))),
    ];
    demand(&judge(&sealed(1, good.clone()), &strict()), 0, "location");
    for at in (0..message.len()).step_by(3) {
        let mut spoiled = message.to_vec();
        spoiled[at] ^= 1;
        let evidence = round(core::iter::once(Blob::from(spoiled)).chain(others.clone()));
        let verdict = judge(&sealed(1, evidence), &strict());
        assert_ne!(verdict.exit, 0, "byte {at}");
    }
    // Spoiled after it was sealed: no epoch has its digest any more.
    let mut bundle = sealed(1, good);
    let spoiled = bundle.location.take().map(|mut all| {
        let mut bytes = all.remove(0).to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        vec![Blob::from(bytes)]
    });
    bundle.location = spoiled;
    refused(&bundle, &strict(), 1, "no epoch of the file has its digest");
    // Left out: the digest is sealed, and there is nothing to judge.
    bundle.location = None;
    refused(&bundle, &strict(), 3, "no pinned landmark");
    let not_evidence = sealed(1, b"nothing".to_vec());
    refused(&not_evidence, &strict(), 1, "location evidence 0");
}

#[test]
fn a_signature_as_something_else_is_no_measurement() {
    let key = key(1);
    let payload = encode(&statement(FRANKFURT, 1000));
    let message = CoseSign1Builder::new()
        .protected(protected_header(Kind::Enrolment, &key.verifying_key()))
        .payload(payload)
        .create_signature(&[], |bytes| key.sign(bytes).to_vec())
        .build();
    let evidence = round([Blob::from(message.to_tagged_vec().unwrap())]);
    refused(&sealed(1, evidence), &strict(), 1, "content type");
    let evidence = round([signed(1, b"not a statement")]);
    refused(
        &sealed(1, evidence),
        &strict(),
        1,
        "statement of landmark \"frankfurt\"",
    );
}

#[test]
fn n74_faults_of_places_in_a_trust_policy_name_their_line() {
    let fault = |text: &str, why: &str| {
        let error = merestone_verify::Trust::parse(text, "trust.toml").unwrap_err();
        assert!(error.to_string().contains(why), "{text}: {error}");
        assert!(error.line > 1, "{error}");
    };
    fault(
        "version = 1\n[location]\narea = [[0, 0], [1, 1]]\n",
        "three points",
    );
    fault(
        "version = 1\n[location]\narea = \"eu.geojson\"\n",
        "no files are read here",
    );
    fault(
        "version = 1\n[location]\nmin_landmarks = 0\n",
        "a landmark at least",
    );
    fault("version = 1\n[location]\nplanet = \"earth\"\n", "planet");
    let twice = format!(
        "version = 1\n{}{}",
        pinned(FRANKFURT, ""),
        pinned(FRANKFURT, "")
    );
    fault(&twice, "a second of that name");
    let off = pinned(FRANKFURT, "").replace("50.11", "95");
    fault(&format!("version = 1\n{off}"), "latitude");
}
