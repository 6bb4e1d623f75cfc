//! Landmarks: a packet is exactly one of ours, nothing counts but what a pinned landmark signed
//! of this session, and whatever area a policy names is judged.
//!
//! The first byte says what the others are: a packet, a statement beside two sound ones, one to
//! be signed first, a whole piece of evidence, or the GeoJSON of an area.
#![no_main]

use base64ct::{Base64, Encoding as _};
use coset::{CoseSign1Builder, TaggedCborSerializable as _};
use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use merestone_agent::landmark::doors::packet;
use merestone_evidence::{
    Blob, Digest, LandmarkKind, LandmarkStatement, LocationEvidence, LocationKind, SessionId,
    decode, encode, sha256,
};
use merestone_verify::Trust;
use merestone_verify::enrolment::{Kind, open, protected_header};
use merestone_verify::location::PlaceTrust;
use merestone_verify::location::doors::{Judged, Sealed, area, judge};
use std::sync::OnceLock;

const START_MS: u64 = 1_760_000_000_000;
/// Name, degrees north and east in ten-millionths, and the shortest round trip.
const LANDMARKS: [(&str, i32, i32, u64); 3] = [
    ("frankfurt", 501_100_000, 86_800_000, 1_000_000),
    ("berlin", 525_200_000, 134_050_000, 4_000_000),
    ("munich", 481_400_000, 115_800_000, 3_000_000),
];

fn key(number: usize) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(number).unwrap_or(0) + 1; 32])
}

fn trust() -> &'static PlaceTrust {
    static TRUST: OnceLock<PlaceTrust> = OnceLock::new();
    TRUST.get_or_init(|| {
        let mut text = "version = 1\n[location]\narea = [[46, 4], [46, 17], [56, 17], [56, 4]]\n".to_owned();
        for (number, (name, north, east, _)) in LANDMARKS.into_iter().enumerate() {
            let key = Base64::encode_string(key(number).verifying_key().as_bytes());
            let (north, east) = (f64::from(north) / 1e7, f64::from(east) / 1e7);
            text += &format!(
                "[[landmark]]\nname = \"{name}\"\nkey = \"ed25519:{key}\"\nlatitude = {north:.7}\nlongitude = {east:.7}\n"
            );
        }
        Trust::parse(&text, "trust.toml").expect("a policy").place
    })
}

fn statement(number: usize) -> LandmarkStatement {
    let (_, latitude_e7, longitude_e7, rtt_min_ns) = LANDMARKS[number];
    LandmarkStatement {
        kind: LandmarkKind,
        session: SessionId([1; 16]),
        session_key: [9; 32],
        transcript: sha256(b"challenges and answers"),
        sent: 16,
        answered: 15,
        rtt_min_ns,
        began_ms: START_MS + 2_000,
        ended_ms: START_MS + 3_000,
        latitude_e7,
        longitude_e7,
    }
}

fn signed(number: usize, payload: &[u8]) -> Blob {
    let key = key(number);
    let message = CoseSign1Builder::new()
        .protected(protected_header(Kind::Landmark, &key.verifying_key()))
        .payload(payload.to_vec())
        .create_signature(&[], |bytes| key.sign(bytes).to_vec())
        .build();
    Blob::from(message.to_tagged_vec().expect("it encodes"))
}

/// The sound statements from this one on.
fn from(number: usize) -> impl Iterator<Item = Blob> {
    (number..LANDMARKS.len()).map(|number| signed(number, &encode(&statement(number))))
}

fn evidence(landmarks: Vec<Blob>) -> LocationEvidence {
    LocationEvidence {
        kind: LocationKind,
        session: SessionId([1; 16]),
        landmarks,
        clouds: Vec::new(),
    }
}

fn judged(evidence: LocationEvidence, trust: &PlaceTrust) -> Judged {
    let sealed = Sealed {
        session: SessionId([1; 16]),
        key: [9; 32],
        digest: Digest([7; 32]),
        times_ms: (START_MS, START_MS + 10_000),
    };
    judge(&sealed, evidence, trust)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 5 {
        0 => {
            if let Some(again) = packet(rest) {
                assert!(again == rest[..rest.len().min(1200)]);
            }
        }
        1 => message(rest),
        2 => claims(rest),
        3 => {
            if let Ok(evidence) = decode::<LocationEvidence>(rest) {
                assert_eq!(encode(&evidence), rest);
                let sound: Vec<Blob> = from(0).collect();
                let all = evidence.landmarks.iter().all(|one| sound.contains(one));
                let told = judged(evidence, trust());
                let measured = told
                    .rounds
                    .iter()
                    .map(|round| round.measured.len())
                    .sum::<usize>();
                assert!(
                    measured == 0 || !told.faults.is_empty() || all || told.rounds[0].unpinned > 0
                );
            }
        }
        _ => geojson(rest),
    }
});

/// In the place of Frankfurt's, of which the sound one proves the place.
fn message(bytes: &[u8]) {
    let keys = [0, 1, 2].map(|number| key(number).verifying_key());
    let opened = open(Kind::Landmark, bytes, &keys);
    let all = [Blob::from(bytes.to_vec())]
        .into_iter()
        .chain(from(1))
        .collect();
    let told = judged(evidence(all), trust());
    if opened.is_err() {
        let measured = told.rounds.iter().flat_map(|round| &round.measured);
        assert!(!measured.into_iter().any(|one| one.landmark == "frankfurt"));
    }
}

fn claims(bytes: &[u8]) {
    let read = decode::<LandmarkStatement>(bytes);
    if let Ok(read) = &read {
        assert_eq!(encode(read), bytes);
    }
    let all = [signed(0, bytes)].into_iter().chain(from(1)).collect();
    let told = judged(evidence(all), trust());
    let mut measured = told.rounds.iter().flat_map(|round| &round.measured);
    if measured.any(|one| one.landmark == "frankfurt") {
        let read = read.expect("it counted");
        let sound = statement(0);
        assert_eq!(
            (read.session, read.session_key),
            (sound.session, sound.session_key)
        );
    }
    if bytes == encode(&statement(0)) {
        assert!(told.proven[1], "{told:?}");
    }
}

fn geojson(bytes: &[u8]) {
    if let Ok(mut place) = area(bytes) {
        place.landmarks.clone_from(&trust().landmarks);
        let told = judged(evidence(from(0).collect()), &place);
        assert_eq!(told.rounds.len(), 1);
        assert_eq!(told.rounds[0].measured.len(), 3);
    }
}
