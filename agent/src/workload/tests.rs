//! Paths as runtimes make them, and names as an attacker would choose them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{cgroup_path, classify_cgroup, gpu_holders, inspect, proc};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const IN: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const POD: &str = "6a3e5f0c-1b2d-4e8f-9a7b-0c1d2e3f4a5b";
const POD_: &str = "6a3e5f0c_1b2d_4e8f_9a7b_0c1d2e3f4a5b";

/// Path, runtime, container, pod, unit. `@` stands for the container's id, `%` for the inner one's.
type Row = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    bool,
    Option<&'static str>,
);

const TABLE: &[Row] = &[
    ("/", None, None, false, None),
    (
        "/system.slice/vllm.service",
        None,
        None,
        false,
        Some("vllm.service"),
    ),
    (
        "/system.slice/vllm.service/workers",
        None,
        None,
        false,
        Some("vllm.service"),
    ),
    (
        "/user.slice/user-0.slice/session-3.scope",
        None,
        None,
        false,
        Some("session-3.scope"),
    ),
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod#.slice/cri-containerd-@.scope",
        Some("containerd"),
        Some("@"),
        true,
        None,
    ),
    (
        "/kubepods.slice/kubepods-pod#.slice/crio-@.scope",
        Some("crio"),
        Some("@"),
        true,
        None,
    ),
    (
        "/kubepods.slice/kubepods-pod#.slice/crio-@.scope/container",
        Some("crio"),
        Some("@"),
        true,
        None,
    ),
    (
        "/kubepods.slice/kubepods-pod#.slice/crio-conmon-@.scope",
        None,
        None,
        true,
        None,
    ),
    (
        "/kubepods/burstable/pod*/@",
        Some("cri"),
        Some("@"),
        true,
        None,
    ),
    ("/kubepods/pod*/@", Some("cri"), Some("@"), true, None),
    (
        "/system.slice/containerd.service/kubepods-besteffort-pod#.slice:cri-containerd:@",
        Some("containerd"),
        Some("@"),
        false,
        None,
    ),
    ("/docker/@", Some("docker"), Some("@"), false, None),
    (
        "/system.slice/docker-@.scope",
        Some("docker"),
        Some("@"),
        false,
        None,
    ),
    (
        "/system.slice/docker-@.scope/init",
        Some("docker"),
        Some("@"),
        false,
        None,
    ),
    (
        "/docker/@/system.slice/cron.service",
        Some("docker"),
        Some("@"),
        false,
        Some("cron.service"),
    ),
    (
        "/machine.slice/libpod-@.scope/container",
        Some("podman"),
        Some("@"),
        false,
        None,
    ),
    (
        "/machine.slice/libpod-payload-@",
        Some("podman"),
        Some("@"),
        false,
        None,
    ),
    (
        "/machine.slice/libpod-conmon-@.scope",
        None,
        None,
        false,
        None,
    ),
    (
        "/libpod_parent/libpod-@",
        Some("podman"),
        Some("@"),
        false,
        None,
    ),
    (
        "/machine.slice/machine-libpod_pod_%.slice/libpod-@.scope/container",
        Some("podman"),
        Some("@"),
        false,
        None,
    ),
    (
        "/system.slice/nerdctl-@.scope",
        Some("nerdctl"),
        Some("@"),
        false,
        None,
    ),
    ("/default/@", Some("unknown"), Some("@"), false, None),
    (
        "/ecs/0123456789abcdef0123456789abcdef/@",
        Some("unknown"),
        Some("@"),
        false,
        None,
    ),
    (
        "/ecs/0123456789abcdef0123456789abcdef-3086577139",
        Some("ecs"),
        Some("0123456789abcdef0123456789abcdef-3086577139"),
        false,
        None,
    ),
    ("/lxc.payload.web", Some("lxc"), Some("web"), false, None),
    ("/lxc/web", Some("lxc"), Some("web"), false, None),
    (
        "/machine.slice/systemd-nspawn@web.service/payload",
        Some("nspawn"),
        Some("web"),
        false,
        None,
    ),
    (
        "/machine.slice/machine-web.scope",
        Some("nspawn"),
        Some("web"),
        false,
        None,
    ),
    (
        "/docker/@/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod#.slice/cri-containerd-%.scope",
        Some("containerd"),
        Some("%"),
        true,
        None,
    ),
    (
        "/docker/@/kubelet/kubepods/besteffort/pod*/%",
        Some("cri"),
        Some("%"),
        true,
        None,
    ),
    // Names that look like a runtime's and are not.
    (
        "/system.slice/docker-compose.service",
        None,
        None,
        false,
        Some("docker-compose.service"),
    ),
    (
        "/system.slice/docker-abc.scope",
        None,
        None,
        false,
        Some("docker-abc.scope"),
    ),
    ("/podman/podcast", None, None, false, None),
    (
        "/kubepods.slice/kubepods-podevil.slice",
        None,
        None,
        false,
        None,
    ),
    ("/x.slice/pod-..-..-..", None, None, false, None),
    ("/.scope/.service", None, None, false, None),
    ("/a.slice:b", None, None, false, None),
];

#[test]
fn each_form_of_a_cgroup_path_is_classified() {
    let fill = |text: &str| {
        text.replace('@', ID)
            .replace('%', IN)
            .replace('#', POD_)
            .replace('*', POD)
    };
    // The nspawn unit's own name has an `@`.
    let fill_path =
        |text: &str| fill(&text.replace("nspawn@", "nspawn\u{1}")).replace('\u{1}', "@");
    for (path, runtime, container, pod, unit) in TABLE {
        let path = fill_path(path);
        let found = classify_cgroup(Path::new(&path));
        assert_eq!(found.runtime, *runtime, "{path}");
        assert_eq!(found.container_id, container.map(fill), "{path}");
        assert_eq!(found.pod_uid.is_some(), *pod, "{path}");
        assert!(found.pod_uid.is_none_or(|uid| uid == POD), "{path}");
        assert_eq!(found.unit.as_deref(), *unit, "{path}");
    }
}

#[test]
fn a_nested_container_names_the_outer_one_and_a_monitor_is_no_container() {
    let nested = format!("/docker/{ID}/kubelet/kubepods/pod{POD}/{IN}");
    let found = classify_cgroup(Path::new(&nested));
    assert_eq!(found.outer_container_id.as_deref(), Some(ID));
    let monitor = format!("/machine.slice/libpod-conmon-{ID}.scope");
    assert!(classify_cgroup(Path::new(&monitor)).monitor);
}

#[test]
fn names_below_a_users_own_manager_are_marked_as_the_users_choice() {
    let forged = format!("/user.slice/user-1000.slice/user@1000.service/docker-{ID}.scope");
    assert!(classify_cgroup(Path::new(&forged)).delegated);
    let real = format!("/system.slice/docker-{ID}.scope");
    assert!(!classify_cgroup(Path::new(&real)).delegated);
}

#[test]
fn a_hostile_process_name_does_not_move_the_start_time() {
    let fields = "S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
    for name in ["sh", ") S 1 1", "a b", "(((", "\n0::/fake", "x) R 9 9 9 9"] {
        let stat = format!("7 ({name}) {fields}\n");
        assert_eq!(
            proc::start_time_ticks(stat.as_bytes()),
            Some(4242),
            "{name}"
        );
    }
    for broken in ["", "7", "7 (sh", "7 (sh) S 1", ") "] {
        assert_eq!(proc::start_time_ticks(broken.as_bytes()), None, "{broken}");
    }
}

#[test]
fn the_cgroup_line_is_found_beside_version_1_lines_and_after_removal() {
    let hybrid = b"12:devices:/x\n1:name=systemd:/y\n0::/system.slice/a.service\n";
    assert_eq!(
        proc::cgroup(hybrid).as_deref(),
        Some("/system.slice/a.service")
    );
    assert_eq!(
        proc::cgroup(b"0::/gone (deleted)\n").as_deref(),
        Some("/gone")
    );
    assert_eq!(proc::cgroup(b"0::/\n").as_deref(), Some("/"));
    assert_eq!(proc::cgroup(b"1:name=systemd:/y\n"), None);
    assert_eq!(proc::cgroup(b"x0::/y\n"), None);
}

#[test]
fn control_characters_and_broken_text_are_escaped() {
    assert_eq!(proc::printable(b"a\x1b[31mb\n"), "a\\u{1b}[31mb\\n");
    assert_eq!(proc::printable(b"\xff\xfe ok"), "\\xff\\xfe ok");
    assert_eq!(
        proc::printable("gr\u{fc}n \u{202e}txt".as_bytes()),
        "gr\u{fc}n \\u{202e}txt"
    );
}

#[test]
fn the_own_process_is_inspected() {
    let own = inspect(std::process::id()).unwrap();
    assert_eq!(
        own.exe.as_deref(),
        std::env::current_exe().unwrap().to_str()
    );
    assert!(!own.exe_deleted);
    assert!(own.cgroup.starts_with('/'));
    let age = std::time::SystemTime::now()
        .duration_since(
            std::time::UNIX_EPOCH + std::time::Duration::from_millis(own.start_time_ms.unwrap()),
        )
        .unwrap();
    assert!(age.as_secs() < 3600, "{age:?}");
    assert_eq!(inspect(u32::MAX), None);
}

/// A running copy of `sleep` under a name; it ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(program: &Path) -> Self {
        let mut command = Command::new(program);
        Self(command.arg("60").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn digest_in_time(pid: u32) -> Option<String> {
    (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        inspect(pid)?.exe_sha256
    })
}

#[test]
fn the_digest_is_of_the_bytes_that_run_also_after_the_file_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("evil (deleted)\n\x1b[2J");
    fs::copy("/bin/sleep", &program).unwrap();
    let output = Command::new("sha256sum")
        .arg("/bin/sleep")
        .output()
        .unwrap();
    let expected = String::from_utf8(output.stdout).unwrap();
    let sleeper = Sleeper::start(&program);
    let before = inspect(sleeper.0.id()).unwrap();
    assert!(!before.exe_deleted);
    assert!(before.exe.unwrap().ends_with("evil (deleted)\\n\\u{1b}[2J"));
    fs::remove_file(&program).unwrap();
    let mut other = fs::File::create(&program).unwrap();
    other.write_all(b"something else").unwrap();
    let digest = digest_in_time(sleeper.0.id()).unwrap();
    assert!(expected.starts_with(&digest), "{digest}");
    let after = inspect(sleeper.0.id()).unwrap();
    assert!(after.exe_deleted);
    assert!(after.exe.unwrap().ends_with("evil (deleted)\\n\\u{1b}[2J"));
}

#[test]
fn a_holder_of_a_character_device_is_found_by_its_numbers() {
    let null = fs::File::open("/dev/full").unwrap();
    let number = rustix::fs::fstat(&null).unwrap().st_rdev;
    let wanted = (rustix::fs::major(number), rustix::fs::minor(number));
    let holders = gpu_holders(|major, minor| (major, minor) == wanted);
    let own = holders
        .iter()
        .find(|holder| holder.pid == std::process::id());
    assert_eq!(own.unwrap().devices, BTreeSet::from([wanted]));
    drop(null);
}

#[test]
fn a_cgroup_is_found_by_its_id_and_not_after_it_is_gone() {
    let Some(root) = cgroup_root() else {
        println!(
            "skipped: a_cgroup_is_found_by_its_id_and_not_after_it_is_gone (no writable cgroup v2)"
        );
        return;
    };
    let name = format!("merestone-gpu-test-{}", std::process::id());
    let deep = root.join(&name).join("inner");
    if fs::create_dir_all(&deep).is_err() {
        println!(
            "skipped: a_cgroup_is_found_by_its_id_and_not_after_it_is_gone (no writable cgroup v2)"
        );
        return;
    }
    let id = fs::metadata(&deep).unwrap().ino();
    let found = cgroup_path(&root, id);
    let top = cgroup_path(&root, fs::metadata(&root).unwrap().ino());
    fs::remove_dir(&deep).unwrap();
    fs::remove_dir(root.join(&name)).unwrap();
    assert_eq!(found, Some(Path::new("/").join(&name).join("inner")));
    assert_eq!(top.as_deref(), Some(Path::new("/")));
    assert_eq!(cgroup_path(&root, id), None);
}

fn cgroup_root() -> Option<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    line.split(' ').nth(1).map(Into::into)
}
