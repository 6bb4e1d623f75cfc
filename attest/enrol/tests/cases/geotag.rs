//! A geotag from the TPM's memory to the verdict (L1), and every way we know to spoil it.

use crate::evidence::key::Key;
use crate::evidence::nv::{self, Nv, NvAttest};
use crate::evidence::{Maker, START, Tpm, demand, judge};
use crate::support::{Vendor, authority, enrol, request};
use base64ct::{Base64, Encoding as _};
use merestone_enrol::{EnrolError, Terms, geotag};
use merestone_evidence::{
    Blob, Bundle, Digest, EnrolRequest, Geotag, GeotagKind, GeotagOffer, NvHeld, Site, encode,
    geotag_offer, sha256,
};
use merestone_verify::{Grade, Verdict};

const GEOTAG: u32 = 0x0180_4D47;
/// authwrite, writelocked, writedefine, ownerread, authread, `no_da`, written.
const LOCKED: u32 = 1 << 2 | 1 << 11 | 1 << 13 | 1 << 17 | 1 << 18 | 1 << 25 | 1 << 29;

pub(crate) fn tag(country: &str) -> Geotag {
    Geotag {
        kind: GeotagKind,
        site: Site {
            region: None,
            country: Some(country.into()),
            facility: Some("FRA-2".into()),
        },
        position: Some((50_110_900, 8_682_100)),
        written_ms: START - 1,
        by: Some("an auditor".into()),
    }
}

fn public(attributes: u32, content: &[u8]) -> Vec<u8> {
    nv::public(GEOTAG, attributes, u16::try_from(content.len()).unwrap())
}

fn certify(key: &Key, tpm: &Tpm, public: &[u8], content: &[u8], extra: Digest) -> NvAttest {
    let mut attest = nv::attest(key, tpm, public, extra, 0);
    attest.contents = content.to_vec();
    attest
}

/// A request that offers a geotag; `change` is called before it is signed.
pub(crate) fn offering(change: impl Fn(&mut NvAttest, &mut Vec<u8>)) -> EnrolRequest {
    let key = Key::p256();
    let mut request = request(&Vendor::new(), &key);
    let content = encode(&tag("DE"));
    let mut public = public(LOCKED, &content);
    let extra = geotag_offer(&request.ak_name);
    let mut attest = certify(&key, &Maker::new().tpm, &public, &content, extra);
    change(&mut attest, &mut public);
    request.geotag = Some(GeotagOffer {
        held: NvHeld {
            index: GEOTAG,
            public,
        },
        certified: attest.signed(&key),
    });
    request
}

pub(crate) fn terms() -> Terms {
    Terms {
        geotag: true,
        ..Terms::default()
    }
}

#[test]
fn a_geotag_is_vouched_for_only_where_the_authority_says_so() {
    let (vendor, key) = (Vendor::new(), authority(1));
    let request = offering(|_, _| {});
    let silent = enrol(&vendor, &request, Terms::default(), &key, 5).unwrap();
    assert_eq!(silent.claims.geotag, None);
    let said = enrol(&vendor, &request, terms(), &key, 5).unwrap();
    let (vouched, read) = geotag(&request).unwrap();
    assert_eq!(said.claims.geotag, Some(vouched));
    assert_eq!(read, tag("DE"));
    let none = crate::support::request(&vendor, &Key::p256());
    let refused = enrol(&vendor, &none, terms(), &key, 5).unwrap_err();
    assert!(matches!(refused, EnrolError::NoGeotag), "{refused}");
}

#[test]
fn n30b_a_geotag_that_is_not_locked_or_not_certified_for_this_key_is_not_vouched_for() {
    type Change = fn(&mut NvAttest, &mut Vec<u8>);
    let changes: [Change; 8] = [
        // Another public area than the one certified.
        |_, public| *public = self::public(LOCKED & !(1 << 11), &encode(&tag("DE"))),
        |attest, public| {
            *public = self::public(LOCKED & !(1 << 11), &encode(&tag("DE")));
            attest.name = nv::name(public);
        },
        // A lock that a reset opens.
        |attest, public| {
            *public = self::public(LOCKED & !(1 << 13) | 1 << 14, &encode(&tag("DE")));
            attest.name = nv::name(public);
        },
        |attest, _| attest.extra = vec![1; 32],
        |attest, _| attest.kind = 0x8018,
        |attest, _| attest.contents[0] ^= 1,
        |attest, _| attest.offset = 1,
        |attest, _| attest.after = vec![1],
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let error = geotag(&offering(change)).unwrap_err();
        assert_eq!(error.grade(), Grade::Untrusted, "{number}: {error}");
    }
    let mut other = offering(|_, _| {});
    let offer = other.geotag.as_mut().unwrap();
    offer.certified.signature = Key::p256_from(9).sign(&offer.certified.attest);
    assert!(geotag(&other).is_err());
}

/// What a session shows of the geotag.
struct Shown {
    attributes: u32,
    content: Vec<u8>,
    is_certified: bool,
    counts: bool,
}

impl Shown {
    fn good() -> Self {
        Self {
            attributes: LOCKED,
            content: encode(&tag("DE")),
            is_certified: true,
            counts: false,
        }
    }

    fn bundle(&self) -> Bundle {
        let mut maker = Maker::new();
        let public = public(self.attributes, &self.content);
        let held = NvHeld {
            index: GEOTAG,
            public: public.clone(),
        };
        let counters = self.counts.then(|| Nv::new().declared());
        maker.session = Box::new(move |statement| {
            statement.geotag = Some(held.clone());
            statement.counters.clone_from(&counters);
        });
        let mut bundle = maker.bundle();
        let session = &mut bundle.sessions[0];
        let extra = sha256(&session.statement);
        let attest = certify(&maker.key, &maker.tpm, &public, &self.content, extra);
        session.nv_start = self.is_certified.then(|| vec![attest.signed(&maker.key)]);
        bundle
    }
}

/// Judged by a policy that pins the authority, which vouched for the geotag of `offering`.
fn judged(bundle: &Bundle, more: &str) -> Verdict {
    let key = authority(1);
    let vendor = Vendor::new();
    let accepted = enrol(&vendor, &offering(|_, _| {}), terms(), &key, 5).unwrap();
    let mut bundle = bundle.clone();
    bundle.enrolments = Some(vec![Blob::from(accepted.certificate)]);
    let pinned = Base64::encode_string(key.verifying_key().as_bytes());
    let trust =
        format!("version = 1\n\n[authority]\nkeys = [\"ed25519:{pinned}\"]\n\n[require]\n{more}");
    judge(&bundle, &trust)
}

const L1: &str = "location_level = \"L1\"\ncountry = \"DE\"\n";

#[test]
fn a_geotag_that_every_session_shows_is_level_1() {
    let verdict = judged(&Shown::good().bundle(), L1);
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    let location = verdict.location.unwrap();
    assert_eq!(location.level, "L1");
    assert!(location.assumption.contains("not moved"));
    assert!(location.facilities.contains("FRA-2"));
    let check = verdict.checks.iter().find(|check| check.id == "location");
    assert!(check.unwrap().detail.contains("50.110900 8.682100"));
}

#[test]
fn n66_a_geotag_that_is_gone_other_or_open_fails_the_place_whatever_is_asked() {
    let spoilt = [
        Shown {
            is_certified: false,
            ..Shown::good()
        },
        Shown {
            content: encode(&tag("FR")),
            ..Shown::good()
        },
        Shown {
            attributes: LOCKED & !(1 << 11),
            ..Shown::good()
        },
        // Of the same contents, writable after the next reset.
        Shown {
            attributes: LOCKED & !(1 << 13) | 1 << 14,
            ..Shown::good()
        },
    ];
    for (number, shown) in spoilt.into_iter().enumerate() {
        for more in ["", L1] {
            let verdict = judged(&shown.bundle(), more);
            assert_eq!(verdict.exit, 2, "{number}: {:#?}", verdict.checks);
            demand(&verdict, 2, "location");
            assert_eq!(verdict.location.as_ref().unwrap().level, "L0");
        }
    }
    let verdict = judged(&Maker::new().bundle(), "");
    demand(&verdict, 2, "location");
}

#[test]
fn a_geotag_that_nobody_vouches_for_is_the_operators_word() {
    let maker = Maker::new();
    let verdict = judge(&Shown::good().bundle(), &maker.trust());
    assert_eq!(verdict.exit, 0, "{:#?}", verdict.checks);
    assert_eq!(verdict.location.unwrap().level, "L0");
    let asks = format!("{}\n[require]\nlocation_level = \"L1\"\n", maker.trust());
    demand(&judge(&Shown::good().bundle(), &asks), 3, "location");
}

#[test]
fn n30b_counters_under_another_name_than_the_enrolled_one_are_refused() {
    let (vendor, key) = (Vendor::new(), authority(1));
    let mut offer = request(&vendor, &Key::p256());
    offer.nv = vec![merestone_evidence::NvIndex {
        index: nv::SESSIONS,
        name: nv::name(&nv::public(nv::SESSIONS, nv::PLAIN | 1 << 14, 8)),
    }];
    let terms = Terms {
        nv: vec![nv::SESSIONS],
        ..Terms::default()
    };
    let accepted = enrol(&vendor, &offer, terms, &key, 5).unwrap();
    let shown = Shown {
        counts: true,
        ..Shown::good()
    };
    let mut bundle = shown.bundle();
    bundle.enrolments = Some(vec![Blob::from(accepted.certificate)]);
    let pinned = Base64::encode_string(key.verifying_key().as_bytes());
    let trust = format!("version = 1\n\n[authority]\nkeys = [\"ed25519:{pinned}\"]\n");
    demand(&judge(&bundle, &trust), 1, "nv.certified");
}
