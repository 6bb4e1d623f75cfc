//! `merestone run` on a host that lacks something refuses, with one line that
//! says what to do, and leaves nothing behind.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it needs by panicking"
)]

mod support;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use support::{Host, binary, has_swtpm, is_root, swtpm};

/// The refusal: non-zero, one `error:` line, at most a `hint:`, nothing more.
fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it ran: {said}");
    let lines: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
    assert!(
        matches!(lines.len(), 1 | 2),
        "one line and a hint, not:\n{said}"
    );
    assert!(lines[0].starts_with("error: "), "{said}");
    assert!(
        lines.get(1).is_none_or(|hint| hint.starts_with("hint: ")),
        "{said}"
    );
    said
}

fn no_pins(host: &Host) {
    let pins = Path::new("/sys/fs/bpf").join(&host.name);
    assert!(!pins.exists(), "{} was left behind", pins.display());
}

#[test]
fn without_root_it_says_so_b56() {
    skip_unless!(
        is_root(),
        "without_root_it_says_so_b56: dropping root needs root"
    );
    let host = Host::new("noroot", "swtpm:host=127.0.0.1,port=2321");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(host.folder.path(), open).expect("opens the folder");
    // The build folder may be closed to others; the program itself is not.
    let program = host.file("merestone");
    std::fs::copy(binary("merestone"), &program).expect("copies");
    let output = Command::new(program)
        .args(["--config", &host.config.to_string_lossy(), "run"])
        .uid(65534)
        .gid(65534)
        .output()
        .expect("runs");
    let said = refusal(&output);
    assert!(said.contains("root") || said.contains("CAP_"), "{said}");
    no_pins(&host);
}

#[test]
fn without_cgroup_v2_it_says_so_b56() {
    skip_unless!(is_root(), "without_cgroup_v2_it_says_so_b56: needs root");
    let host = Host::new("nocgroup", "swtpm:host=127.0.0.1,port=2321");
    let script = r#"mount --make-rprivate / && while mountpoint=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts); [ -n "$mountpoint" ]; do umount -l "$mountpoint" || exit 9; done; exec "$@""#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(binary("merestone"))
        .args(["--config", &host.config.to_string_lossy(), "run"])
        .output()
        .expect("runs");
    let said = refusal(&output);
    assert!(said.contains("cgroup"), "{said}");
    no_pins(&host);
}

#[test]
fn an_unreadable_boundary_is_named() {
    skip_unless!(
        is_root(),
        "an_unreadable_boundary_is_named: needs root to get that far"
    );
    let host = Host::new("noboundary", "swtpm:host=127.0.0.1,port=2321");
    std::fs::remove_file(host.boundary()).expect("removes");
    let said = refusal(&host.merestone(&["run"]));
    assert!(said.contains("boundary.toml"), "{said}");
    no_pins(&host);
}

#[test]
fn a_faulty_boundary_is_refused_with_its_line() {
    let host = Host::new("faulty", "swtpm:host=127.0.0.1,port=2321");
    std::fs::write(
        host.boundary(),
        "name = \"x\"\n[[allow]]\ncidr = [\"10.0.0.1/8\"]\n",
    )
    .expect("writes");
    let output = host.merestone(&["policy", "check", &host.boundary().to_string_lossy()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("boundary.toml:3"), "{said}");
    no_pins(&host);
}

#[test]
fn a_wrong_tpm_address_is_named() {
    skip_unless!(
        is_root(),
        "a_wrong_tpm_address_is_named: needs root to get that far"
    );
    let host = Host::new("notpm", "swtpm:host=127.0.0.1,port=9");
    let said = refusal(&host.merestone(&["run"]));
    assert!(said.contains("port=9"), "{said}");
    no_pins(&host);
}

#[test]
fn a_required_tier_that_does_not_load_is_not_downgraded_b55() {
    skip_unless!(
        is_root() && has_swtpm(),
        "a_required_tier_that_does_not_load_is_not_downgraded_b55: needs root and swtpm"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let (_tpm, tcti) = swtpm(folder.path());
    let host = Host::new("require", &tcti);
    let text = std::fs::read_to_string(&host.config).expect("reads");
    let text = text.replace("[enforcement]", "[enforcement]\nrequire = [\"lsm\"]");
    std::fs::write(&host.config, text).expect("writes");
    let check: serde_json::Value =
        serde_json::from_slice(&host.merestone(&["check", "--json"]).stdout).expect("JSON");
    let lsm = check["tiers"]
        .as_array()
        .and_then(|tiers| tiers.iter().find(|tier| tier["name"] == "lsm"))
        .expect("check lists the tier")["active"]
        == true;
    skip_unless!(
        !lsm,
        "a_required_tier_that_does_not_load_is_not_downgraded_b55: BPF LSM loads on this kernel"
    );
    let said = refusal(&host.merestone(&["run"]));
    assert!(said.contains("lsm"), "{said}");
    no_pins(&host);
}
