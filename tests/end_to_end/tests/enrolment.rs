//! Enrolment with real commands, from a TPM that a vendor manufactured to a verdict: the host's
//! side with swtpm, the authority's without a TPM, everything between them in files.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{Host, Kept, binary, has_swtpm, is_root, swtpm};

fn has_setup() -> bool {
    has_swtpm()
        && Command::new("swtpm_setup")
            .arg("--version")
            .output()
            .is_ok()
}

/// A vendor of TPMs: a root, an intermediate, and the chips it makes.
struct Vendor(tempfile::TempDir);

impl Vendor {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let ca = format!(
            "statedir = {at}\nsigningkey = {at}/signkey.pem\nissuercert = {at}/issuer.pem\ncertserial = {at}/serial\n"
        );
        fs::write(folder.path().join("ca.conf"), ca).expect("writes");
        let options = "--platform-manufacturer Test\n--platform-version 1\n--platform-model test\n";
        fs::write(folder.path().join("ca.options"), options).expect("writes");
        let tool = "create_certs_tool = /usr/bin/swtpm_localca\n";
        let setup = format!(
            "{tool}create_certs_tool_config = {at}/ca.conf\ncreate_certs_tool_options = {at}/ca.options\nactive_pcr_banks = sha256\n"
        );
        fs::write(folder.path().join("setup.conf"), setup).expect("writes");
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same as text.
    fn named(&self, name: &str) -> String {
        self.file(name).to_string_lossy().into_owned()
    }

    /// A chip with an RSA-2048 endorsement key and its certificate, in `folder`.
    fn manufacture(&self, folder: &Path) {
        let state = folder.join("swtpm");
        fs::create_dir_all(&state).expect("makes the state");
        let output = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--config"])
            .arg(self.file("setup.conf"))
            .arg("--tpm-state")
            .arg(&state)
            .output()
            .expect("swtpm_setup runs");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// What an authority would write that buys from this vendor.
    fn policy(&self, file: &Path) {
        let text = format!(
            "version = 1\n[ek]\nroots = [{:?}]\nintermediates = [{:?}]\n",
            self.named("swtpm-localca-rootca-cert.pem"),
            self.named("issuer.pem"),
        );
        fs::write(file, text).expect("writes");
    }
}

/// A command of the authority, in its own folder.
fn desk(folder: &Path, words: &[&str]) -> Output {
    Command::new(binary("merestone-verify"))
        .current_dir(folder)
        .args(words)
        .output()
        .expect("merestone-verify runs")
}

#[track_caller]
fn demand(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{words:?} is not in: {said}");
}

/// Everything that is carried, by its name.
struct Bench {
    host: Host,
    vendor: Vendor,
    tcti: String,
    // Dropped last: the TPM's process, and the folder of its state.
    _tpm: Kept,
    _state: tempfile::TempDir,
}

impl Bench {
    fn new(name: &str) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let vendor = Vendor::new();
        vendor.manufacture(state.path());
        let (tpm, tcti) = swtpm(state.path());
        let host = Host::new(name, &tcti);
        vendor.policy(&host.file("authority.toml"));
        let bench = Self {
            host,
            vendor,
            tcti,
            _tpm: tpm,
            _state: state,
        };
        demand(
            &bench.desk("enroll keygen --out authority.pem"),
            0,
            "pin it",
        );
        bench
    }

    fn desk(&self, words: &str) -> Output {
        let words: Vec<_> = words.split(' ').collect();
        desk(self.host.folder.path(), &words)
    }

    fn path(&self, name: &str) -> String {
        self.host.file(name).to_string_lossy().into_owned()
    }

    fn request(&self, more: &[&str]) {
        let out = self.path("request");
        let words = [&["enroll", "request", "--out", &out, "--force"], more].concat();
        self.host.ask(&words);
    }

    fn challenge_and_complete(&self, name: &str) {
        let challenge =
            format!("enroll challenge request --trust authority.toml --out {name}.challenge");
        demand(
            &self.desk(&challenge),
            0,
            "leads to CN=swtpm-localca-rootca",
        );
        let (challenge, answer) = (
            self.path(&format!("{name}.challenge")),
            self.path(&format!("{name}.answer")),
        );
        self.host
            .ask(&["enroll", "complete", &challenge, "--out", &answer]);
    }

    fn accept(&self, name: &str, more: &str) -> Output {
        self.desk(&format!(
            "enroll accept {name}.answer --request request --state {name}.challenge.state --trust authority.toml --key authority.pem --out {name}.cose{more}"
        ))
    }
}

#[test]
fn a_host_is_enrolled_by_files_and_its_bundle_is_believed_without_a_pinned_key() {
    skip_unless!(
        is_root() && has_setup(),
        "a_host_is_enrolled_by_files: needs root, swtpm and swtpm_setup"
    );
    let bench = Bench::new("enrol");
    let host = &bench.host;
    bench.request(&[]);
    bench.challenge_and_complete("one");
    let state = host.file("one.challenge.state");
    let mode = fs::metadata(&state).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the secret is for nobody else");
    demand(
        &bench.accept("one", " --site country=DE,facility=FRA-2"),
        0,
        "place: country DE, facility FRA-2",
    );
    // N26: a secret counts once, even for the same answer.
    fs::rename(host.file("one.cose"), host.file("kept.cose")).expect("renames");
    demand(&bench.accept("one", ""), 1, "was accepted before");
    let (certificate, key) = (bench.path("kept.cose"), bench.path("authority.pem.pub"));
    host.ask(&["enroll", "install", &certificate, "--authority", &key]);
    demand(&bench.desk("enroll show kept.cose"), 0, &host.name);

    let bundle = sealed(&bench);
    judged(&bench, &bundle);
}

/// The agent runs for a while; gives the bundle of it.
fn sealed(bench: &Bench) -> PathBuf {
    let host = &bench.host;
    let agent = host.start();
    support::eventually("an epoch is sealed", || {
        let began = host.ask(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&began).expect("JSON");
        status["evidence"].to_string().contains("epoch")
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    let (bundle, _) = host.verify("bundle");
    drop(agent);
    bundle
}

/// Verdicts over the bundle under policies that name no node at all.
fn judged(bench: &Bench, bundle: &Path) {
    let host = &bench.host;
    let roots = format!(
        "ek_roots = [{:?}]\nek_intermediates = [{:?}]\n",
        bench.vendor.named("swtpm-localca-rootca-cert.pem"),
        bench.vendor.named("issuer.pem"),
    );
    let require = "[require]\nsoftware_tpm = true\n";
    let verdict = |more: &str| {
        let key = bench.path("authority.pem.pub");
        let text = format!("version = 1\n[authority]\nkeys = [{key:?}]\n{more}{require}");
        fs::write(host.file("by-authority.toml"), text).expect("writes");
        support::verify(bundle, &host.file("by-authority.toml"))
    };
    let good = verdict(&roots);
    demand(&good, 0, "CN=swtpm-localca-rootca");
    demand(&good, 0, "the authority states DE, FRA-2");
    demand(&verdict(""), 0, "the authority's word");

    // Another authority, another vendor, another place: right exit each.
    demand(&bench.desk("enroll keygen --out other.pem"), 0, "pin it");
    let other = format!(
        "version = 1\n[authority]\nkeys = [{:?}]\n{require}",
        bench.path("other.pem.pub")
    );
    fs::write(host.file("other.toml"), other).expect("writes");
    let refused = support::verify(bundle, &host.file("other.toml"));
    demand(&refused, 1, "which is not one that is believed");
    let stranger = Vendor::new();
    let folder = tempfile::tempdir().expect("a folder");
    stranger.manufacture(folder.path());
    let strange = format!(
        "ek_roots = [{:?}]\n",
        stranger.named("swtpm-localca-rootca-cert.pem")
    );
    demand(&verdict(&strange), 1, "ek.chain");

    // Revoked: untrusted from then on; a list that is asked for and not there: indeterminate.
    demand(
        &verdict("max_revocation_age_s = 60\n"),
        3,
        "asks for a list of revocations",
    );
    let revoke = |since: &str, out: &str| {
        bench.desk(&format!(
            "enroll revoke kept.cose --since {since} --reason sold --key authority.pem --out {out}"
        ))
    };
    demand(&revoke("2000-01-01T00:00:00Z", "revoked"), 0, "sold");
    let list = |name: &str| format!("revocations = [{:?}]\n", bench.path(name));
    demand(&verdict(&list("revoked")), 1, "is revoked");
    demand(&revoke("2100-01-01T00:00:00Z", "later"), 0, "sold");
    demand(
        &verdict(&(list("later") + "max_revocation_age_s = 3600\n")),
        0,
        "by the list of",
    );
}

#[test]
fn a_p256_endorsement_key_is_enrolled_and_another_tpm_is_not() {
    skip_unless!(
        has_setup(),
        "a_p256_endorsement_key_is_enrolled: needs swtpm and swtpm_setup"
    );
    let bench = Bench::new("enrol-ecc");
    let host = &bench.host;
    certify_ecc(&bench);
    // It has both, and takes the P-256 key first.
    bench.request(&[]);
    bench.challenge_and_complete("ecc");
    demand(&bench.accept("ecc", ""), 0, "signed by");
    // Renewed with the RSA key, naming the certificate before.
    bench.request(&["--ek", "rsa"]);
    bench.challenge_and_complete("rsa");
    demand(&bench.accept("rsa", " --replaces ecc.cose"), 0, "replaces");
    for name in ["ecc.cose", "rsa.cose"] {
        host.ask(&["enroll", "install", &bench.path(name)]);
    }

    // N24, N26: the challenge carried to another TPM stays shut there.
    let state = tempfile::tempdir().expect("a folder");
    bench.vendor.manufacture(state.path());
    let (_tpm, tcti) = swtpm(state.path());
    let challenge = "enroll challenge request --trust authority.toml --out stolen.challenge";
    demand(&bench.desk(challenge), 0, "leads to");
    let set = format!("tpm.tcti={tcti}");
    let (challenge, answer) = (bench.path("stolen.challenge"), bench.path("stolen.answer"));
    let words = [
        "--set", &set, "enroll", "complete", &challenge, "--out", &answer,
    ];
    demand(&host.merestone(&words), 1, "is for the attestation key");
    assert!(!host.file("stolen.answer").exists());

    // N27a: a vendor that nobody pins.
    let stranger = Vendor::new();
    let folder = tempfile::tempdir().expect("a folder");
    stranger.manufacture(folder.path());
    stranger.policy(&host.file("authority.toml"));
    let challenge = "enroll challenge request --trust authority.toml --out strange.challenge";
    demand(&bench.desk(challenge), 1, "was not signed by");
    assert!(!host.file("strange.challenge").exists());
    assert!(!host.file("strange.challenge.state").exists());
}

/// Certifies the P-256 endorsement key with the vendor's intermediate, as its own tool does only
/// for P-384, and writes the certificate where the TPM's specification has it.
fn certify_ecc(bench: &Bench) {
    let folder = bench.host.folder.path();
    let run = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let output = Command::new(words[0])
            .args(&words[1..])
            .current_dir(folder)
            .env("TPM2TOOLS_TCTI", &bench.tcti)
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {said}");
    };
    run("tpm2_createek -G ecc -c ek.ctx -u ek.pem -f pem");
    run("tpm2_flushcontext -t");
    let (issuer, key) = (
        bench.vendor.named("issuer.pem"),
        bench.vendor.named("signkey.pem"),
    );
    run(&format!(
        "swtpm_cert --type ek --tpm2 --decryption --pubkey ek.pem --signkey {key} --issuercert {issuer} \
--tpm-manufacturer id:54455354 --tpm-model Hand-made --tpm-version id:00010002 --tpm-spec-family 2.0 \
--tpm-spec-level 0 --tpm-spec-revision 164 --serial 77 --days 3650 --out-cert ek.der"
    ));
    let file = fs::metadata(folder.join("ek.der")).expect("is there");
    run(&format!(
        "tpm2_nvdefine 0x01C0000A -C o -s {} -a ownerread|ownerwrite|authread",
        file.len()
    ));
    run("tpm2_nvwrite 0x01C0000A -C o -i ek.der");
}
