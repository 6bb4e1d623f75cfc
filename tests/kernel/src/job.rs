//! What the suite tells a probe and what the probe answers: one JSON argument
//! in, JSON lines out.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The port every server of the lab listens on, besides 53.
pub const PORT: u16 = 7777;

/// One child process' orders.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Job {
    /// A vector of [`crate::catalog::VECTORS`], or `storm`, `sender`, `streamer`, `flood`, `shell`.
    pub vector: String,
    /// The node to open; none for a control.
    pub gpu: Option<PathBuf>,
    /// The cgroup directory the probe enters first.
    pub cgroup: PathBuf,
    /// A cgroup that nobody guards.
    pub elsewhere: PathBuf,
    /// A network namespace besides the one the probe starts in.
    pub alternate: PathBuf,
    /// The network namespace beyond the boundary.
    pub beyond: PathBuf,
    /// The destination outside the boundary, this case's own.
    pub denied4: Ipv4Addr,
    /// The same for IPv6.
    pub denied6: Ipv6Addr,
    /// What must not reach the wire.
    pub marker: String,
    /// How often, for the jobs that repeat.
    pub count: u32,
    /// How many at once, for the jobs that repeat.
    pub workers: u32,
    /// Whether only the process tree can be guarded.
    pub tree: bool,
}

/// The probe's own address in its namespace.
pub const HOME4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The same for IPv6.
pub const HOME6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6d65, 0, 0, 0, 0, 0, 2);
/// The destination inside the boundary.
pub const ALLOWED4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 9);
/// The same for IPv6.
pub const ALLOWED6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6d65, 0, 0, 0, 0, 0, 9);
/// The lab's Ethernet address inside.
pub const INSIDE_MAC: [u8; 6] = [2, 0x6d, 0x65, 0, 0, 2];
/// The lab's Ethernet address outside.
pub const OUTSIDE_MAC: [u8; 6] = [2, 0x6d, 0x65, 0, 0, 9];
/// The interface the probe sends through.
pub const INTERFACE: &str = "mre0";

impl Job {
    /// Where the case sends: outside, in the family asked for.
    pub fn denied(&self, v6: bool) -> IpAddr {
        if v6 {
            self.denied6.into()
        } else {
            self.denied4.into()
        }
    }

    /// [`Self::denied`] with the lab's port.
    pub fn target(&self, v6: bool) -> SocketAddr {
        SocketAddr::new(self.denied(v6), PORT)
    }
}

/// The allowed destination in the family asked for.
pub fn allowed(v6: bool) -> IpAddr {
    if v6 { ALLOWED6.into() } else { ALLOWED4.into() }
}

/// The probe's own address in the family asked for.
pub fn home(v6: bool) -> IpAddr {
    if v6 { HOME6.into() } else { HOME4.into() }
}

/// One line of a probe.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Line {
    /// About to open the GPU; waits for a line first.
    Ready,
    /// Waits for a connection from the case's denied address to this port.
    Listening {
        /// TCP port on the probe's own address.
        port: u16,
    },
    /// Tried to get out.
    Attempt {
        /// Who tried.
        pid: u32,
        /// The system call, in a word.
        what: String,
        /// None: the kernel said yes.
        errno: Option<i32>,
        /// How long the kernel took to say so.
        elapsed_us: u64,
    },
    /// Talked to the allowed destination; `errors` is empty if all was well.
    Inside {
        /// What did not work.
        errors: Vec<String>,
    },
    /// Socket families (and netlink protocols) that could be created.
    Families {
        /// `family/type/protocol`.
        created: Vec<String>,
    },
    /// Counts of a job that repeats: how often by outcome (`sent`, an errno name).
    Counts {
        /// Outcome and how often.
        outcomes: Vec<(String, u64)>,
    },
    /// The probe could not do its part.
    Broken {
        /// Why.
        why: String,
    },
    /// The vector is through; waits for the end of its input.
    Done,
}
