//! Two network namespaces and a wire between them; the host's own network is
//! never touched.

use crate::shell;
use crate::undo::Undo;
use anyhow::Result;

/// Where the inference server lives.
pub(crate) const INSIDE: &str = "merestone-demo-in";
/// Where the sniffer, the client and the address outside the boundary live.
pub(crate) const OUTSIDE: &str = "merestone-demo-out";
/// The server's address, inside the boundary.
pub(crate) const SERVER: &str = "198.18.0.1";
/// An address outside the boundary (RFC 5737).
pub(crate) const OUTSIDE_V4: &str = "203.0.113.7";
/// An IPv6 address outside the boundary (RFC 3849).
pub(crate) const OUTSIDE_V6: &str = "2001:db8:66::7";

/// The namespaces; dropping them takes them away.
#[derive(Debug)]
pub(crate) struct Net {
    _undo: Undo,
}

impl Net {
    /// Makes both, and the wire.
    pub(crate) fn make() -> Result<Self> {
        remove();
        let undo = Undo::new(remove);
        let steps = [
            format!("netns add {INSIDE}"),
            format!("netns add {OUTSIDE}"),
            format!("link add wire0 netns {INSIDE} type veth peer name wire1 netns {OUTSIDE}"),
            format!("-n {INSIDE} addr add {SERVER}/24 dev wire0"),
            format!("-n {INSIDE} addr add fd00:6d65::1/64 dev wire0 nodad"),
            format!("-n {OUTSIDE} addr add 198.18.0.9/24 dev wire1"),
            format!("-n {OUTSIDE} addr add fd00:6d65::9/64 dev wire1 nodad"),
            format!("-n {OUTSIDE} addr add {OUTSIDE_V4}/32 dev wire1"),
            format!("-n {OUTSIDE} addr add {OUTSIDE_V6}/128 dev wire1 nodad"),
            format!("-n {INSIDE} link set lo up"),
            format!("-n {OUTSIDE} link set lo up"),
            format!("-n {INSIDE} link set wire0 up"),
            format!("-n {OUTSIDE} link set wire1 up"),
            format!("-n {INSIDE} route add 203.0.113.0/24 via 198.18.0.9"),
            format!("-n {INSIDE} route add 2001:db8:66::/64 via fd00:6d65::9"),
        ];
        for step in steps {
            shell::run(shell::command("ip").args(step.split(' ')))?;
        }
        Ok(Self { _undo: undo })
    }
}

fn remove() {
    for name in [INSIDE, OUTSIDE] {
        // Not there is what is wanted.
        if shell::succeeds(shell::command("ip").args(["netns", "del", name])) {}
    }
}
