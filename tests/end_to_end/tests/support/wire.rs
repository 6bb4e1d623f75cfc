//! Two network namespaces on one wire, where nothing leads further.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Two network namespaces on one wire, taken away when dropped.
pub(crate) struct Wire {
    pub(crate) inside: String,
    pub(crate) outside: String,
}

pub(crate) fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split(' '))
        .output()
        .expect("ip runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {said}");
}

impl Wire {
    /// 198.18.53.2 inside, which sends everything to 198.18.53.9 outside.
    pub(crate) fn new() -> Self {
        let name = |end: &str| format!("merestone-live-{}-{end}", std::process::id());
        let wire = Self {
            inside: name("a"),
            outside: name("b"),
        };
        let Self { inside, outside } = &wire;
        ip(&format!("netns add {inside}"));
        ip(&format!("netns add {outside}"));
        ip(&format!(
            "-n {inside} link add wire type veth peer name wire netns {outside}"
        ));
        for (network, address) in [(inside, "198.18.53.2"), (outside, "198.18.53.9")] {
            ip(&format!("-n {network} link set lo up"));
            ip(&format!("-n {network} addr add {address}/24 dev wire"));
            ip(&format!("-n {network} link set wire up"));
        }
        ip(&format!("-n {inside} route add default via 198.18.53.9"));
        ip(&format!("-n {outside} addr add 203.0.113.7/32 dev lo"));
        wire
    }
}

/// Does something in a network namespace; a socket that it makes stays of it.
pub(crate) fn within<T: Send>(network: &str, work: impl FnOnce() -> T + Send) -> T {
    let entered = || {
        let file = File::open(format!("/run/netns/{network}")).expect("opens the namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("enters the namespace");
        work()
    };
    // A thread of its own: it never comes back.
    std::thread::scope(|scope| scope.spawn(entered).join().expect("the work is done"))
}

impl Drop for Wire {
    fn drop(&mut self) {
        for network in [&self.inside, &self.outside] {
            Command::new("ip")
                .args(["netns", "del", network])
                .output()
                .ok();
        }
    }
}
