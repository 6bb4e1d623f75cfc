//! What GPUs say of themselves: NVIDIA's own sample, and reports of a GPU that only exists here.

use crate::support::{Maker, demand, judge};
use merestone_evidence::{Bundle, GpuDevice, GpuReport, sha256};
use merestone_verify::ek::{Anchors, certificates};
use merestone_verify::gpu::{Report, SpdmError};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};
use std::path::Path;

const P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0, 0x22];
const EC: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const ECDSA_SHA384: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
const BASIC: &[u8] = &[0x06, 3, 0x55, 0x1d, 19];
const USAGE: &[u8] = &[0x06, 3, 0x55, 0x1d, 15];
const DICE: &[u8] = &[0x06, 6, 0x67, 0x81, 5, 5, 4, 1];

#[expect(clippy::disallowed_methods, reason = "a test reads its vectors")]
pub(crate) fn sample(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/gpu");
    std::fs::read(folder.join(name)).unwrap()
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = u16::try_from(contents.len()).unwrap();
    let mut out = vec![tag];
    match length {
        0..128 => out.push(u8::try_from(length).unwrap()),
        128..256 => out.extend([0x81, u8::try_from(length).unwrap()]),
        _ => {
            out.push(0x82);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(contents);
    out
}

fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

fn named(name: &str) -> Vec<u8> {
    let attribute = seq(&[COMMON_NAME, &tlv(0x0c, &[name.as_bytes()])]);
    seq(&[&tlv(0x31, &[&attribute])])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes])
}

/// A certificate in PEM; `fwid` makes it a GPU's, none an authority's.
pub(crate) fn certified(
    subject: &str,
    key: &SigningKey,
    issuer: (&str, &SigningKey),
    fwid: Option<&[u8]>,
) -> String {
    let point = key.verifying_key().to_sec1_point(false);
    let info = seq(&[&seq(&[EC, P384]), &bits(point.as_bytes())]);
    let extension = |oid: &[u8], value: &[u8]| seq(&[oid, &tlv(0x04, &[value])]);
    let extensions = match fwid {
        None => seq(&[
            &extension(BASIC, &seq(&[&[1, 1, 0xff]])),
            &extension(USAGE, &[3, 2, 2, 4]),
        ]),
        Some(digest) => {
            let sha384: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
            let id = seq(&[sha384, &tlv(0x04, &[digest])]);
            let device = seq(&[&[2, 1, 1], &info, &id]);
            seq(&[
                &extension(USAGE, &[3, 2, 7, 0x80]),
                &extension(DICE, &device),
            ])
        }
    };
    let algorithm = seq(&[ECDSA_SHA384]);
    let signed = seq(&[
        &tlv(0xa0, &[&[2, 1, 2]]),
        &[2, 1, 7],
        &algorithm,
        &named(issuer.0),
        &seq(&[
            &tlv(0x17, &[b"200101000000Z"]),
            &tlv(0x18, &[b"99991231235959Z"]),
        ]),
        &named(subject),
        &info,
        &tlv(0xa3, &[&extensions]),
    ]);
    let signature: Signature = issuer.1.sign(&signed);
    let der = seq(&[&signed, &algorithm, &bits(signature.to_der().as_bytes())]);
    let text = <base64ct::Base64 as base64ct::Encoding>::encode_string(&der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// A GPU and its maker.
pub(crate) struct Gpu {
    root: String,
    chain: String,
    key: SigningKey,
    firmware: [u8; 48],
    /// Number and OEM's part of its VBIOS's version, as SPDM has them.
    pub(crate) vbios: [u8; 5],
    /// What the report says of the first video decoder.
    pub(crate) decoder: u8,
}

impl Gpu {
    pub(crate) fn new() -> Self {
        let maker = SigningKey::from_slice(&[7; 48]).unwrap();
        let key = SigningKey::from_slice(&[9; 48]).unwrap();
        let firmware = [0x5a; 48];
        let root = certified("Maker", &maker, ("Maker", &maker), None);
        let chain = certified("GPU 1", &key, ("Maker", &maker), Some(&firmware));
        Self {
            root,
            chain,
            key,
            firmware,
            vbios: [0, 0x9f, 0, 0x96, 1],
            decoder: 0xaa,
        }
    }

    fn report(&self, nonce: [u8; 32]) -> Vec<u8> {
        let mut out = vec![0x11, 0xe0, 1, 0xff];
        out.extend(nonce);
        out.push(0);
        let block = |index: u8| [&[index, 1, 51, 0, 1, 48, 0][..], &[index; 48]].concat();
        let record = [block(1), block(2), block(36)].concat();
        out.extend([
            0x11,
            0x60,
            0,
            0,
            3,
            u8::try_from(record.len()).unwrap(),
            0,
            0,
        ]);
        out.extend(&record);
        out.extend([0x77; 32]);
        let opaque = [
            &[3, 0, 8, 0][..],
            b"575.1.2\0",
            &[6, 0, 8, 0],
            &self.vbios,
            &[0; 3],
            &[11, 0, 1, 0, self.decoder],
            &[20, 0, 48, 0],
            &self.firmware,
        ]
        .concat();
        out.extend(u16::try_from(opaque.len()).unwrap().to_le_bytes());
        out.extend(&opaque);
        let signature: Signature = self.key.sign(&out);
        out.extend(signature.to_bytes());
        out
    }

    /// A good bundle in which it reports.
    pub(crate) fn bundle(&self, maker: &Maker) -> Bundle {
        let mut bundle = maker.bundle();
        for session in &mut bundle.sessions {
            session.gpu_reports = Some(vec![GpuReport {
                uuid: "GPU-1".into(),
                report: self.report(sha256(&session.statement).0),
                certificates: self.chain.clone().into_bytes(),
            }]);
        }
        bundle
    }

    pub(crate) fn trust(&self, maker: &Maker, more: &str) -> String {
        let text = maker.trust();
        let root = &self.root;
        format!("{text}\n[gpu]\nroots = ['''{root}''']\n{more}")
    }
}

#[test]
fn a_real_h100s_report_is_read_and_its_signature_leads_to_nvidias_root() {
    let bytes = sample("hopper-report.bin");
    let chain = certificates(&sample("hopper-chain.pem")).unwrap();
    let report = Report::parse(&bytes).unwrap();
    assert_eq!(report.measurements.len(), 64);
    assert_eq!(report.driver().as_deref(), Some("550.90.07"));
    assert_eq!(report.vbios().as_deref(), Some("96.00.9F.00.01"));
    assert!(
        chain[0].subject().contains("GH100 A01 GSP FMC LF"),
        "{}",
        chain[0].subject()
    );
    for (subject, issuer) in chain.iter().zip(&chain[1..]) {
        subject.signed_by(issuer).unwrap();
    }
    assert_eq!(chain[0].firmware_id().as_deref(), report.firmware());
    report.signed_by(chain[0].p384_point().unwrap()).unwrap();
    let other = chain[1].p384_point().unwrap();
    assert_eq!(report.signed_by(other), Err(SpdmError::Signature));
}

#[test]
fn no_byte_of_a_real_report_can_be_changed() {
    let bytes = sample("hopper-report.bin");
    let chain = certificates(&sample("hopper-chain.pem")).unwrap();
    let point = chain[0].p384_point().unwrap();
    for at in (0..bytes.len()).step_by(13) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let believed = Report::parse(&changed).and_then(|report| report.signed_by(point));
        assert!(believed.is_err(), "byte {at}");
        let cut = Report::parse(&bytes[..at]);
        assert!(cut.is_err(), "cut at {at}");
    }
}

#[test]
fn n60_a_real_report_that_answers_another_question_is_refused() {
    let maker = Maker::new();
    let mut bundle = maker.bundle();
    bundle.sessions[0].gpu_reports = Some(vec![GpuReport {
        uuid: "GPU-1".into(),
        report: sample("hopper-report.bin"),
        certificates: sample("hopper-chain.pem"),
    }]);
    let pem = String::from_utf8(sample("hopper-chain.pem")).unwrap();
    let (_, root) = pem.rsplit_once("-----BEGIN").unwrap();
    let root = format!("-----BEGIN{root}");
    let text = maker.trust();
    let trust = format!("{text}\n[gpu]\nroots = ['''{root}''']\n");
    let verdict = judge(&bundle, &trust);
    demand(&verdict, 1, "gpu.attestation");
    let check = verdict
        .checks
        .iter()
        .find(|check| check.id == "gpu.attestation");
    assert!(check.unwrap().detail.contains("nonce"), "{check:?}");
}

#[test]
fn a_gpus_report_over_the_session_passes_and_is_not_called_bound_to_the_host_n62() {
    let (maker, gpu) = (Maker::new(), Gpu::new());
    let verdict = judge(&gpu.bundle(&maker), &gpu.trust(&maker, "required = true"));
    demand(&verdict, 0, "gpu.attestation");
    let one = &verdict.gpus_attested[0];
    assert_eq!(
        (one.driver.as_deref(), one.measurements),
        (Some("575.1.2"), 3)
    );
    let open: Vec<_> = verdict.not_checked.iter().map(|one| one.id).collect();
    assert!(
        open.contains(&"gpu.binding") && open.contains(&"gpu.measurements"),
        "{open:?}"
    );
}

#[test]
fn n34_a_makers_root_that_only_the_file_carries_is_not_believed() {
    let (maker, mut gpu) = (Maker::new(), Gpu::new());
    gpu.chain += &gpu.root;
    let other = SigningKey::from_slice(&[8; 48]).unwrap();
    gpu.root = certified("Maker", &other, ("Maker", &other), None);
    let bundle = gpu.bundle(&maker);
    demand(
        &judge(&bundle, &gpu.trust(&maker, "")),
        1,
        "gpu.attestation",
    );
    let verdict = judge(&bundle, &maker.trust());
    demand(&verdict, 0, "gpu.attestation");
    assert!(verdict.gpus_attested.is_empty(), "nobody is pinned");
}

#[test]
fn reports_of_another_firmware_or_twice_of_one_gpu_or_unsigned_are_refused() {
    let maker = Maker::new();
    let mut gpu = Gpu::new();
    gpu.firmware[0] ^= 1;
    demand(
        &judge(&gpu.bundle(&maker), &gpu.trust(&maker, "")),
        1,
        "gpu.attestation",
    );
    let gpu = Gpu::new();
    let mut bundle = gpu.bundle(&maker);
    let reports = bundle.sessions[0].gpu_reports.as_mut().unwrap();
    let mut twin = reports[0].clone();
    twin.uuid = "GPU-2".into();
    reports.push(twin);
    demand(
        &judge(&bundle, &gpu.trust(&maker, "")),
        1,
        "gpu.attestation",
    );
    let mut bundle = gpu.bundle(&maker);
    let report = &mut bundle.sessions[0].gpu_reports.as_mut().unwrap()[0].report;
    let last = report.len() - 1;
    report[last] ^= 1;
    demand(
        &judge(&bundle, &gpu.trust(&maker, "")),
        1,
        "gpu.attestation",
    );
}

#[test]
fn a_report_that_is_required_and_absent_is_indeterminate_and_pinned_measurements_are_held() {
    let (maker, gpu) = (Maker::new(), Gpu::new());
    let trust = gpu.trust(&maker, "required = true");
    demand(&judge(&maker.bundle(), &trust), 3, "gpu.attestation");
    let bundle = gpu.bundle(&maker);
    let first = judge(&bundle, &gpu.trust(&maker, ""));
    let digest = &first.gpus_attested[0].measurements_sha256;
    let pinned = gpu.trust(&maker, &format!("measurements = \"{digest}\""));
    let verdict = judge(&bundle, &pinned);
    demand(&verdict, 0, "gpu.measurements");
    assert!(
        verdict
            .not_checked
            .iter()
            .all(|one| one.id != "gpu.measurements")
    );
    let other = gpu.trust(&maker, &format!("measurements = \"{}\"", "0".repeat(64)));
    demand(&judge(&bundle, &other), 2, "gpu.measurements");
}

/// A host whose agent says that of its GPU.
fn in_state(state: Option<&str>) -> Maker {
    let mut maker = Maker::new();
    let state = state.map(str::to_owned);
    maker.session = Box::new(move |session| {
        session.gpu.devices = vec![GpuDevice {
            uuid: "GPU-1".into(),
            name: "H100".into(),
            pci: None,
            memory_bytes: None,
            vbios: None,
            confidential: state.clone(),
        }];
    });
    maker
}

#[test]
fn n61_a_gpu_in_developer_mode_or_with_confidential_computing_off_fails_though_it_reports() {
    let gpu = Gpu::new();
    for state in ["developer mode", "off"] {
        let maker = in_state(Some(state));
        let bundle = gpu.bundle(&maker);
        for more in ["", "required = true"] {
            let verdict = judge(&bundle, &gpu.trust(&maker, more));
            demand(&verdict, 2, "gpu.attestation");
        }
        // Nothing is asked of the GPUs, and nothing is called checked.
        demand(&judge(&bundle, &maker.trust()), 0, "gpu.attestation");
        // Without a report there is nothing to mistake, unless one is asked for.
        let silent = maker.bundle();
        demand(
            &judge(&silent, &gpu.trust(&maker, "")),
            0,
            "gpu.attestation",
        );
        let required = gpu.trust(&maker, "required = true");
        demand(&judge(&silent, &required), 2, "gpu.attestation");
    }
    for state in [
        Some("on"),
        Some("on; whether in developer mode is not told"),
        None,
    ] {
        let maker = in_state(state);
        let required = gpu.trust(&maker, "required = true");
        let verdict = judge(&gpu.bundle(&maker), &required);
        demand(&verdict, 0, "gpu.attestation");
        let check = verdict
            .checks
            .iter()
            .find(|check| check.id == "gpu.attestation")
            .unwrap();
        let told = state.unwrap_or("not told");
        assert!(check.detail.ends_with(told), "{}", check.detail);
        demand(&judge(&maker.bundle(), &required), 3, "gpu.attestation");
    }
}

#[test]
fn n63_a_certificate_on_hold_fails_and_absent_reference_values_are_not_checked() {
    let (maker, gpu) = (Maker::new(), Gpu::new());
    let bundle = gpu.bundle(&maker);
    let digest = |pem: &str| {
        certificates(pem.as_bytes()).unwrap()[0]
            .sha256()
            .to_string()
    };
    for held in [digest(&gpu.chain), digest(&gpu.root)] {
        let trust = gpu.trust(&maker, &format!("on_hold = \"{held}\""));
        demand(&judge(&bundle, &trust), 2, "gpu.attestation");
    }
    let other = format!("on_hold = [\"{}\"]", "1".repeat(64));
    let verdict = judge(&bundle, &gpu.trust(&maker, &other));
    demand(&verdict, 0, "gpu.attestation");
    let open = |one: &merestone_verify::NotChecked| one.id == "gpu.measurements";
    assert!(verdict.not_checked.iter().any(open), "no value is pinned");
}

#[test]
fn an_authority_is_no_gpu() {
    let maker = SigningKey::from_slice(&[7; 48]).unwrap();
    let root = certified("Maker", &maker, ("Maker", &maker), None);
    let anchors = Anchors {
        roots: certificates(root.as_bytes()).unwrap(),
        intermediates: Vec::new(),
    };
    let (case, mut gpu) = (Maker::new(), Gpu::new());
    gpu.chain = certified("CA", &gpu.key, ("Maker", &maker), None);
    assert_eq!(anchors.roots.len(), 1);
    demand(
        &judge(&gpu.bundle(&case), &gpu.trust(&case, "")),
        1,
        "gpu.attestation",
    );
}
