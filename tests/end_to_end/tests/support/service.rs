//! A gateway with an inference server as its child, in a guarded group that is
//! alone with its network namespace.

use super::client::Client;
use super::wire::{Wire, within};
use super::{Cgroup, Host, Kept, Node, binary};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where clients ask; the server itself is on loopback behind it.
pub(crate) const GATEWAY: &str = "198.18.53.2:8000";
pub(crate) const SERVER: &str = "127.0.0.1:8001";
pub(crate) const METRICS: &str = "127.0.0.1:8002";
/// Emulated processors take their time.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The gateway with the server as its child, in the group and inside.
pub(crate) struct Service<'a> {
    gateway: Kept,
    group: &'a Cgroup,
    log: PathBuf,
}

impl<'a> Service<'a> {
    pub(crate) fn start(host: &Host, wire: &Wire, group: &'a Cgroup, node: &Node) -> Self {
        let log = host.file("gateway.log");
        let out = fs::File::create(&log).expect("makes the log");
        let mut command = Command::new("/bin/sh");
        // In its cgroup before its first own instruction.
        command.args([
            "-c",
            r#"echo $$ > "$1/cgroup.procs" && shift && exec "$@""#,
            "sh",
        ]);
        command.arg(&group.0);
        // Not `ip netns exec`: it hides the cgroups behind a /sys of its own.
        command.args(["nsenter", &format!("--net=/run/netns/{}", wire.inside)]);
        command
            .arg(binary("merestone"))
            .args(["gateway", "--config"]);
        command.arg(&host.config).args(["--listen", GATEWAY]);
        command.args(["--to", &format!("http://{SERVER}"), "--require-receipts"]);
        command.args(["--metrics", METRICS, "--"]);
        command.arg(binary("merestone-inference"));
        command.arg(SERVER).arg(&node.0);
        command.stdin(Stdio::null());
        command.stdout(out.try_clone().expect("clones")).stderr(out);
        let service = Self {
            gateway: Kept(command.spawn().expect("the gateway starts")),
            group,
            log,
        };
        service.eventually("the server listens", || {
            within(&wire.inside, || Client::connect(address(SERVER)).is_some())
        });
        service.eventually("the agent takes the gateway's records", || {
            within(&wire.inside, || {
                let client = Client::connect(address(METRICS));
                client.is_some_and(|mut client| client.ask("GET /-/ready", "", b"").status == 200)
            })
        });
        service
    }

    #[expect(clippy::panic, reason = "says what the gateway said")]
    fn eventually(&self, what: &str, mut wanted: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted() {
            if Instant::now() > deadline {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                panic!("not within {PATIENCE:?}: {what}\n{said}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As a service manager does; the server goes with it.
    pub(crate) fn stop(mut self) {
        let id = i32::try_from(self.gateway.0.id()).ok();
        let id = id.and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::TERM).expect("is there");
        let status = self.gateway.0.wait().expect("ends");
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        assert!(status.success(), "{status}\n{said}");
        let left = fs::read_to_string(self.group.0.join("cgroup.procs"));
        assert_eq!(left.expect("reads"), "", "nobody is left in the group");
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // A gateway that is killed leaves its child, which would keep the cgroup.
        fs::write(self.group.0.join("cgroup.kill"), "1").ok();
    }
}
