//! What a GPU's maker published of its firmware and driver: NVIDIA's own manifests beside the
//! report of a real H100, and manifests of a maker that only exists here.

use crate::gpu::{Gpu, certified, sample};
use crate::support::{Maker, START, demand, judge};
use base64ct::{Base64, Encoding as _};
use merestone_verify::Trust;
use merestone_verify::ek::{Anchors, certificates};
use merestone_verify::gpu::{GpuError, Manifest, Reference, Report, RimError};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha384};
use std::collections::BTreeSet;

const SPACES: &str = "xmlns=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\"";
const VALUES: &str = "xmlns:ns2=\"http://www.w3.org/2001/04/xmlenc#sha384\"";
const DS: &str = "xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"";
const CANONICAL: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const ECDSA: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const DIGEST: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";

/// The maker's signer of manifests: its key, its certificate and the root's.
struct Signs {
    key: SigningKey,
    certificate: String,
    root: String,
}

impl Signs {
    fn new() -> Self {
        let root = SigningKey::from_slice(&[3; 48]).unwrap();
        let key = SigningKey::from_slice(&[4; 48]).unwrap();
        Self {
            certificate: certified("Signer", &key, ("Values", &root), Some(&[0; 48])),
            root: certified("Values", &root, ("Values", &root), None),
            key,
        }
    }

    /// A manifest whose measurements, numbered from 0, have these values; written as it is
    /// canonical, so that what it is compared with here is not made by the code that is tested.
    fn manifest(&self, version: &str, measurements: &[(u8, &[u8])]) -> String {
        let resource = |(index, values): &(u8, &[u8])| {
            let values = values.iter().enumerate();
            let values = values.map(|(at, value)| {
                let value = hex::encode([*value; 48]);
                format!(" ns2:Hash{at}=\"{value}\"")
            });
            let values: Vec<_> = values.collect();
            format!(
                "<Resource active=\"True\" alternatives=\"{}\" index=\"{index}\" name=\"M\" \
                 size=\"48\" type=\"Measurement\"{}></Resource>",
                values.len(),
                values.concat()
            )
        };
        let resources: String = measurements.iter().map(resource).collect();
        let meta = format!("<Meta colloquialVersion=\"{version}\" product=\"GH100\"></Meta>");
        let start = format!(
            "<SoftwareIdentity {SPACES} {VALUES} name=\"GH100\">\n  {meta}<Payload>{resources}</Payload>\n"
        );
        let digest = Sha384::digest(format!("{start}</SoftwareIdentity>"));
        let digest = Base64::encode_string(&digest);
        let method = |name: &str, is: &str| format!("<ds:{name} Algorithm=\"{is}\"></ds:{name}>");
        let info = [
            method("CanonicalizationMethod", CANONICAL),
            method("SignatureMethod", ECDSA),
            "<ds:Reference URI=\"\"><ds:Transforms>".to_owned(),
            method("Transform", ENVELOPED),
            method("Transform", CANONICAL),
            "</ds:Transforms>".to_owned(),
            method("DigestMethod", DIGEST),
            format!("<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>"),
        ]
        .concat();
        let signed = format!("<ds:SignedInfo {SPACES} {DS} {VALUES}>{info}</ds:SignedInfo>");
        let signature: Signature = self.key.sign(signed.as_bytes());
        let signature = Base64::encode_string(&signature.to_bytes());
        let certificate: String = self
            .certificate
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        format!(
            "{start}<ds:Signature {DS}><ds:SignedInfo>{info}</ds:SignedInfo>\
             <ds:SignatureValue>{signature}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>\
             <ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>\
             </ds:Signature></SoftwareIdentity>"
        )
    }

    /// Lines of `[gpu]`.
    fn trust(&self, manifests: &[&str], more: &str) -> String {
        let root = &self.root;
        let manifests: Vec<_> = manifests.iter().map(|one| format!("'''{one}'''")).collect();
        let manifests = manifests.join(", ");
        format!("rims = [{manifests}]\nrim_roots = ['''{root}''']\n{more}")
    }
}

fn text(name: &str) -> String {
    String::from_utf8(sample(name)).unwrap()
}

fn nvidias() -> Reference {
    let names = ["driver-550.90.07.rim.xml", "vbios-96.00.9F.00.01.rim.xml"];
    Reference {
        anchors: Anchors {
            roots: certificates(&sample("rim-root.pem")).unwrap(),
            intermediates: Vec::new(),
        },
        manifests: names
            .iter()
            .map(|name| Manifest::read(&sample(name)).unwrap())
            .collect(),
        may_be_expired: false,
    }
}

#[test]
fn n63_a_real_h100s_measurements_are_those_that_nvidia_signed() {
    let reference = nvidias();
    let [driver, vbios] = reference.manifests.as_slice() else {
        panic!("two manifests");
    };
    assert_eq!(
        (driver.version.as_str(), driver.product.as_str()),
        ("550.90.07", "GH100")
    );
    assert_eq!((driver.values.len(), vbios.values.len()), (21, 12));
    let bytes = sample("hopper-report.bin");
    let report = Report::parse(&bytes).unwrap();
    let none = BTreeSet::new();
    let compared = reference.compare(&report, &none, START / 1000).unwrap();
    // This GPU's first video decoder is off: one measurement fewer than the manifests have.
    assert_eq!((compared.equal, compared.without_value), (32, 32));
    assert_eq!(compared.driver, driver.digest.to_string());

    // Its signers' certificates ended in the first half of 2026.
    let late = 1_800_000_000;
    let expired = reference.compare(&report, &none, late);
    assert!(expired.unwrap_err().to_string().contains("valid"));
    let lenient = Reference {
        may_be_expired: true,
        ..reference.clone()
    };
    lenient.compare(&report, &none, late).unwrap();
    let early = lenient.compare(&report, &none, 1_500_000_000);
    assert!(early.is_err(), "not yet valid is not expired");

    let held = BTreeSet::from([driver.certificates[1].sha256()]);
    let found = reference.compare(&report, &held, START / 1000);
    assert!(matches!(found, Err(GpuError::OnHold { .. })), "{found:?}");
    let alone = Reference {
        manifests: vec![driver.clone()],
        ..reference.clone()
    };
    let found = alone.compare(&report, &none, START / 1000);
    let want = GpuError::NoManifest {
        of: "vbios",
        version: Some("96.00.9F.00.01".into()),
        id: Some("NV_GPU_VBIOS_1010_0200_882_96009F0001".into()),
    };
    assert_eq!(found, Err(want));
    // The device's root signs no manifests.
    let chain = text("hopper-chain.pem");
    let device = certificates(chain.as_bytes()).unwrap().pop().unwrap();
    let other = Reference {
        anchors: Anchors {
            roots: vec![device],
            intermediates: Vec::new(),
        },
        ..reference
    };
    let found = other.compare(&report, &none, START / 1000);
    assert!(matches!(found, Err(GpuError::Certificate(_))), "{found:?}");
}

#[test]
fn n63_a_measurement_that_nvidia_did_not_sign_is_found_wherever_it_counts() {
    let reference = nvidias();
    let none = BTreeSet::new();
    let sound = sample("hopper-report.bin");
    let counted: BTreeSet<u8> = reference
        .manifests
        .iter()
        .flat_map(|one| one.values.keys().copied())
        .collect();
    for index in 1..=64_u8 {
        // 45 bytes to the record, 55 a block, of which 7 are its head.
        let mut changed = sound.clone();
        changed[45 + 55 * usize::from(index - 1) + 7] ^= 1;
        let report = Report::parse(&changed).unwrap();
        let found = reference.compare(&report, &none, START / 1000);
        if counted.contains(&index) && index != 36 {
            let Err(GpuError::Unlike { at, .. }) = found else {
                panic!("{index}: {found:?}");
            };
            assert_eq!(at, [index]);
        } else {
            assert!(found.is_ok(), "{index}: {found:?}");
        }
    }
}

#[test]
fn whatever_is_changed_in_a_manifest_what_is_read_is_what_was_signed() {
    let bytes = sample("vbios-96.00.9F.00.01.rim.xml");
    let sound = Manifest::read(&bytes).unwrap();
    let key = |one: &Manifest| one.certificates[0].p384_point().unwrap().to_vec();
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(5) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 7);
        match Manifest::read(&changed) {
            Ok(read) => {
                let is_same = (&read.version, &read.product, &read.values)
                    == (&sound.version, &sound.product, &sound.values);
                assert!(is_same && key(&read) == key(&sound), "byte {at}");
            }
            Err(_) => refused += 1,
        }
        if at % 305 == 0 {
            let cut = Manifest::read(&bytes[..at]);
            assert!(cut.is_err(), "cut at {at}");
        }
    }
    // What may change is space between the signature's own elements, and certificates but for the
    // signer's key: those are the path's to judge.
    assert!(refused > bytes.len() / 5 * 3 / 4, "{refused}");
}

#[test]
fn manifests_that_others_spoiled_are_refused() {
    // Of NVIDIA's own tests.
    let read = |name: &str| Manifest::read(&sample(name));
    let signature = read("driver-other-signature.rim.xml");
    assert_eq!(signature, Err(RimError::Signature));
    let values = read("driver-535.86.09-changed.rim.xml");
    assert_eq!(values, Err(RimError::Changed));
    // Sound in itself: whose key that is, is the question.
    let chain = read("driver-other-chain.rim.xml").unwrap();
    let nvidias = nvidias().anchors;
    let report = sample("hopper-report.bin");
    let other = Reference {
        anchors: nvidias,
        manifests: vec![Manifest {
            version: "550.90.07".into(),
            ..chain
        }],
        may_be_expired: true,
    };
    let report = Report::parse(&report).unwrap();
    let found = other.compare(&report, &BTreeSet::new(), START / 1000);
    assert!(matches!(found, Err(GpuError::Certificate(_))), "{found:?}");
}

#[test]
fn a_second_payload_or_signature_or_another_algorithm_is_refused() {
    let signs = Signs::new();
    let sound = signs.manifest("575.1.2", &[(0, &[1])]);
    Manifest::read(sound.as_bytes()).unwrap();
    let payload = signs.manifest("575.1.2", &[(0, &[7])]);
    let payload = payload.split_once("<Payload>").unwrap().1;
    let payload = payload.split_once("</Payload>").unwrap().0;
    let payload = format!("<Payload>{payload}</Payload>");
    let signature = sound.split_once("<ds:Signature ").unwrap().1;
    let signature = signature.rsplit_once("</SoftwareIdentity>").unwrap().0;
    for (from, to) in [
        ("<Payload>", format!("{payload}<Payload>")),
        (
            "</SoftwareIdentity>",
            format!("<ds:Signature {signature}</SoftwareIdentity>"),
        ),
        ("URI=\"\"", "URI=\"#a\"".to_owned()),
        ("#ecdsa-sha384", "#ecdsa-sha256".to_owned()),
        ("#enveloped-signature", "#base64".to_owned()),
        ("xml-c14n11", "xml-c14n11#WithComments".to_owned()),
        (
            "<ds:Transforms>",
            "<ds:Transforms><ds:Transform Algorithm=\"x\"/>".to_owned(),
        ),
        (
            "</ds:X509Certificate>",
            "AAAA</ds:X509Certificate>".to_owned(),
        ),
        ("index=\"0\"", "index=\"255\"".to_owned()),
        (
            "<SoftwareIdentity",
            "<!DOCTYPE a []><SoftwareIdentity".to_owned(),
        ),
    ] {
        let changed = sound.replacen(from, &to, 1);
        assert_ne!(changed, sound, "{from}");
        assert!(Manifest::read(changed.as_bytes()).is_err(), "{from}");
    }
    // The one place that is not signed is the signature itself: nothing is read from there.
    let hidden = format!("<ds:Object>{payload}</ds:Object><ds:KeyInfo>");
    let hidden = sound.replacen("<ds:KeyInfo>", &hidden, 1);
    let read = Manifest::read(hidden.as_bytes()).unwrap();
    assert_eq!(read.values[&1], [[1; 48]]);
    let none = signs.manifest("575.1.2", &[]);
    assert!(Manifest::read(none.as_bytes()).is_err(), "nothing counts");
    let twice = signs.manifest("575.1.2", &[(0, &[1]), (0, &[1])]);
    assert!(Manifest::read(twice.as_bytes()).is_err(), "one index twice");
    assert!(Manifest::read(&vec![b' '; (1 << 20) + 1]).is_err());
}

#[test]
fn n63_a_gpu_passes_where_it_is_as_its_maker_published_and_nowhere_else() {
    let (maker, gpu, signs) = (Maker::new(), Gpu::new(), Signs::new());
    let bundle = gpu.bundle(&maker);
    let driver = signs.manifest("575.1.2", &[(0, &[9, 1])]);
    let vbios = signs.manifest("96.00.9F.00.01", &[(1, &[2])]);
    let judged = |manifests: &[&str], more: &str| {
        let lines = signs.trust(manifests, more);
        judge(&bundle, &gpu.trust(&maker, &lines))
    };
    let foreign = {
        let key = SigningKey::from_slice(&[5; 48]).unwrap();
        let certificate = certified("Signer", &key, ("Values", &key), Some(&[0; 48]));
        let foreign = Signs {
            key,
            certificate,
            root: String::new(),
        };
        foreign.manifest("575.1.2", &[(0, &[1])])
    };
    demand(&judged(&[&foreign, &vbios], ""), 1, "gpu.measurements");
    let verdict = judged(&[&driver, &vbios], "");
    demand(&verdict, 0, "gpu.measurements");
    let open: Vec<_> = verdict.not_checked.iter().map(|one| one.id).collect();
    assert!(!open.contains(&"gpu.measurements"), "{open:?}");
    let compared = verdict.gpus_attested[0].reference.as_ref().unwrap();
    assert_eq!((compared.equal, compared.without_value), (2, 1));

    demand(&judged(&[&driver], ""), 3, "gpu.measurements");
    let other = signs.manifest("575.1.2", &[(0, &[9, 8])]);
    demand(&judged(&[&other, &vbios], ""), 2, "gpu.measurements");
    // Another product's of the same version beside it takes nothing away.
    demand(
        &judged(&[&other, &driver, &vbios], ""),
        0,
        "gpu.measurements",
    );
    let overlap = signs.manifest("96.00.9F.00.01", &[(0, &[1]), (1, &[2])]);
    demand(&judged(&[&driver, &overlap], ""), 2, "gpu.measurements");
    let beyond = signs.manifest("96.00.9F.00.01", &[(60, &[61])]);
    demand(&judged(&[&driver, &beyond], ""), 2, "gpu.measurements");
    let held = certificates(signs.certificate.as_bytes()).unwrap()[0].sha256();
    let held = format!("on_hold = \"{held}\"");
    demand(&judged(&[&driver, &vbios], &held), 2, "gpu.measurements");
}

#[test]
fn a_decoder_that_is_off_is_not_compared_and_one_that_is_on_is() {
    let (maker, signs) = (Maker::new(), Signs::new());
    let driver = signs.manifest("575.1.2", &[(0, &[1]), (35, &[99])]);
    let vbios = signs.manifest("96.00.9F.00.01", &[(1, &[2])]);
    for (decoder, exit) in [(0xaa, 2), (0x55, 0)] {
        let mut gpu = Gpu::new();
        gpu.decoder = decoder;
        let trust = gpu.trust(&maker, &signs.trust(&[&driver, &vbios], ""));
        demand(
            &judge(&gpu.bundle(&maker), &trust),
            exit,
            "gpu.measurements",
        );
    }
}

#[test]
fn a_manifest_whose_signer_has_expired_fails_unless_the_policy_lets_it_be() {
    let (maker, signs) = (Maker::new(), Signs::new());
    let mut gpu = Gpu::new();
    gpu.vbios = [0, 0x5e, 0, 0x96, 1];
    // NVIDIA's, signed in June 2023 for two years; the values are not this GPU's.
    let real = text("vbios-96.00.5E.00.01.rim.xml");
    let driver = signs.manifest("575.1.2", &[(40, &[1])]);
    let root = format!("{}{}", signs.root, text("rim-root.pem"));
    let says = |more: &str| {
        let lines =
            format!("rims = ['''{driver}''', '''{real}''']\nrim_roots = ['''{root}''']\n{more}");
        let verdict = judge(&gpu.bundle(&maker), &gpu.trust(&maker, &lines));
        demand(&verdict, 2, "gpu.measurements");
        let mut checks = verdict.checks.iter();
        let check = checks.find(|one| one.id == "gpu.measurements").unwrap();
        check.detail.clone()
    };
    let strict = says("");
    assert!(strict.contains("valid"), "{strict}");
    let lenient = says("rims_may_be_expired = true");
    assert!(lenient.contains("maker signed"), "{lenient}");
}

#[test]
fn a_policy_with_a_manifest_that_does_not_hold_names_its_line() {
    let (maker, gpu, signs) = (Maker::new(), Gpu::new(), Signs::new());
    let driver = signs.manifest("575.1.2", &[(0, &[1])]);
    let root = &signs.root;
    let changed = driver.replace("575.1.2", "575.1.3");
    for (lines, want) in [
        (format!("rims = ['''{driver}''']"), "rim_roots"),
        (format!("rim_roots = ['''{root}''']"), "without rims"),
        (signs.trust(&[&changed], ""), "not what was signed"),
        (signs.trust(&["<a>"], ""), "manifest"),
        (signs.trust(&["absent.xml"], ""), "file"),
    ] {
        let text = gpu.trust(&maker, &lines);
        let error = Trust::parse(&text, "trust.toml").unwrap_err();
        let before = text.split("rim").next().unwrap();
        assert!(error.detail.contains(want), "{error}");
        assert_eq!(error.line, 1 + before.matches('\n').count(), "{error}");
    }
}
