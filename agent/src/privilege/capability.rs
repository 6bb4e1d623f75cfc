//! Capabilities: those the agent cannot do without, and giving up the rest.
//!
//! A capability set belongs to a thread, not to a process (capabilities(7)):
//! [`drop_to`] must run before other threads are started, and refuses to when
//! it is too late.

use rustix::thread::{CapabilitySet, CapabilitySets};
use std::fmt;
use std::path::Path;

/// A capability the agent knows a use for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Capability {
    /// Opens what file modes keep from root: a TPM node of another group.
    DacOverride,
    /// Reads any file: executables to digest, measurement logs.
    DacReadSearch,
    /// Attaches programs that see packets.
    NetAdmin,
    /// Reads other processes' links in /proc: executables, open devices.
    SysPtrace,
    /// Finds loaded programs and maps by id (kernel/bpf/syscall.c,
    /// `bpf_prog_get_fd_by_id`), and mounts bpffs.
    SysAdmin,
    /// Raises its own limits for map memory on kernels before 5.11.
    SysResource,
    /// Loads tracing and LSM programs.
    Perfmon,
    /// Loads programs and makes maps.
    Bpf,
    /// Raw and packet sockets: ways out that the canary tries.
    NetRaw,
}

/// What each is called, its bit, and what is lost without it; bits are those
/// of include/uapi/linux/capability.h.
const TABLE: &[(Capability, &str, CapabilitySet, &str)] = &[
    (
        Capability::DacOverride,
        "CAP_DAC_OVERRIDE",
        CapabilitySet::DAC_OVERRIDE,
        "opening the TPM",
    ),
    (
        Capability::DacReadSearch,
        "CAP_DAC_READ_SEARCH",
        CapabilitySet::DAC_READ_SEARCH,
        "digesting executables",
    ),
    (
        Capability::NetAdmin,
        "CAP_NET_ADMIN",
        CapabilitySet::NET_ADMIN,
        "attaching to cgroups",
    ),
    (
        Capability::SysPtrace,
        "CAP_SYS_PTRACE",
        CapabilitySet::SYS_PTRACE,
        "finding processes that hold a GPU",
    ),
    (
        Capability::SysAdmin,
        "CAP_SYS_ADMIN",
        CapabilitySet::SYS_ADMIN,
        "reading back loaded programs",
    ),
    (
        Capability::SysResource,
        "CAP_SYS_RESOURCE",
        CapabilitySet::SYS_RESOURCE,
        "locking map memory",
    ),
    (
        Capability::Perfmon,
        "CAP_PERFMON",
        CapabilitySet::PERFMON,
        "loading tracing and LSM programs",
    ),
    (
        Capability::Bpf,
        "CAP_BPF",
        CapabilitySet::BPF,
        "loading eBPF programs",
    ),
    (
        Capability::NetRaw,
        "CAP_NET_RAW",
        CapabilitySet::NET_RAW,
        "the canary's raw sockets",
    ),
];

/// Those without which nothing can be enforced. `CAP_DAC_OVERRIDE` is needed on
/// some hosts only, see [`wanted`].
const REQUIRED: &[Capability] = &[
    Capability::DacReadSearch,
    Capability::NetAdmin,
    Capability::SysPtrace,
    Capability::SysAdmin,
    Capability::Perfmon,
    Capability::Bpf,
];

/// Those kept where they are held: since Linux 5.11 map memory is charged to
/// the cgroup and `RLIMIT_MEMLOCK` no longer matters (kernel/bpf/syscall.c).
const OPTIONAL: &[Capability] = &[Capability::SysResource];

impl Capability {
    fn row(self) -> (&'static str, CapabilitySet, &'static str) {
        TABLE
            .iter()
            .find(|(capability, ..)| *capability == self)
            .map_or(("", CapabilitySet::empty(), ""), |(_, name, bit, use_)| {
                (*name, *bit, *use_)
            })
    }

    /// Its name, as systemd and Kubernetes know it with and without `CAP_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// What needs it.
    #[must_use]
    pub fn purpose(self) -> &'static str {
        self.row().2
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of capabilities as the kernel reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capabilities(CapabilitySet);

impl Capabilities {
    /// Whether it holds one.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        self.0.contains(capability.row().1)
    }

    /// Those of the required ones that are missing, with what each is for.
    #[must_use]
    pub fn missing(self) -> Vec<Capability> {
        REQUIRED
            .iter()
            .copied()
            .filter(|capability| !self.has(*capability))
            .collect()
    }

    /// From the `CapEff` line of a /proc/PID/status.
    fn from_status(status: &str) -> Option<Self> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        let bits = u64::from_str_radix(line.trim(), 16).ok()?;
        Some(Self(CapabilitySet::from_bits_retain(bits)))
    }
}

/// Why the agent cannot run with the privileges it has.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// An ordinary user started it.
    #[error("this needs root: run it with sudo or as a service")]
    NotRoot,
    /// Root, but held short.
    #[error("missing {}: {}", list(missing), consequence(missing))]
    Missing {
        /// What is missing.
        missing: Vec<Capability>,
    },
    /// The kernel did not say.
    #[error("cannot read /proc/self/status: mount /proc")]
    Unknown,
    /// Other threads would keep what this one gives up.
    #[error("cannot give up capabilities with {found} threads running, got to do so with 1")]
    Threads {
        /// How many there are.
        found: usize,
    },
    /// The kernel refused.
    #[error("cannot give up capabilities: {action} failed with {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Something asked for after the drop is not there.
    #[error("{capability} did not survive the drop although it is needed for {}", capability.purpose())]
    Lost {
        /// Which.
        capability: Capability,
    },
}

fn list(missing: &[Capability]) -> String {
    let names: Vec<_> = missing.iter().map(|c| c.name()).collect();
    names.join(", ")
}

fn consequence(missing: &[Capability]) -> String {
    let first = missing.first().map_or("", |c| c.purpose());
    format!(
        "{first} would fail; grant them in the unit (CapabilityBoundingSet=, AmbientCapabilities=) \
         or in the pod (securityContext.capabilities.add)"
    )
}

/// The capabilities this thread can use now.
pub fn effective() -> Result<Capabilities, CapabilityError> {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| Capabilities::from_status(&status))
        .ok_or(CapabilityError::Unknown)
}

/// Refuses unless every required capability is there.
pub fn require_root_capabilities() -> Result<Capabilities, CapabilityError> {
    let held = effective()?;
    let missing = held.missing();
    if missing.is_empty() {
        return Ok(held);
    }
    if !rustix::process::geteuid().is_root() && missing.len() == REQUIRED.len() {
        return Err(CapabilityError::NotRoot);
    }
    Err(CapabilityError::Missing { missing })
}

/// What to keep: the required ones, those that are of use if held, and
/// `CAP_DAC_OVERRIDE` where the TPM's node belongs to a user and group that
/// this process is not (`tss:tss` on Debian).
#[must_use]
pub fn wanted(tpm_device: Option<&Path>) -> Vec<Capability> {
    let held = effective().ok();
    let holds = |capability: &&Capability| held.is_some_and(|held| held.has(**capability));
    let optional = OPTIONAL.iter().filter(holds);
    let mut wanted: Vec<Capability> = REQUIRED.iter().chain(optional).copied().collect();
    if tpm_device.is_some_and(|device| !opens_by_mode(device)) {
        wanted.insert(0, Capability::DacOverride);
    }
    wanted
}

/// Whether file modes alone let this process read and write `path`.
fn opens_by_mode(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = std::fs::metadata(path) else {
        return false;
    };
    // 0o6 is read and write; the first class that applies decides alone.
    let allowed = |shift: u32| (meta.mode() >> shift) & 0o6 == 0o6;
    if meta.uid() == rustix::process::geteuid().as_raw() {
        return allowed(6);
    }
    let groups = rustix::process::getgroups().unwrap_or_default();
    let ours = rustix::process::getegid().as_raw() == meta.gid()
        || groups.iter().any(|group| group.as_raw() == meta.gid());
    if ours { allowed(3) } else { allowed(0) }
}

/// What is left after a drop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dropped {
    /// Capabilities kept.
    pub kept: Vec<Capability>,
    /// How many others were given up.
    pub given_up: u32,
}

/// Gives up, for good, every capability but `keep`, and the way to gain any by
/// executing a program (`no_new_privs`). Call it before threads are started.
pub fn drop_to(keep: &[Capability]) -> Result<Dropped, CapabilityError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(CapabilityError::Threads { found: threads });
    }
    let refused = |action| {
        move |errno: rustix::io::Errno| CapabilityError::Refused {
            action,
            source: errno.into(),
        }
    };
    let held = rustix::thread::capabilities(None).map_err(refused("capget"))?;
    let mask = keep
        .iter()
        .fold(CapabilitySet::empty(), |mask, capability| {
            mask | capability.row().1
        });
    let kept = held.permitted & mask;
    if let Some(capability) = keep.iter().find(|c| !kept.contains(c.row().1)) {
        return Err(CapabilityError::Lost {
            capability: *capability,
        });
    }
    rustix::thread::clear_ambient_capability_set().map_err(refused("clearing the ambient set"))?;
    bound(mask)?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(refused("capset"))?;
    rustix::thread::set_no_new_privs(true).map_err(refused("no_new_privs"))?;
    Ok(Dropped {
        kept: keep.to_vec(),
        given_up: (held.permitted - kept).bits().count_ones(),
    })
}

/// Takes everything else out of the bounding set. That needs `CAP_SETPCAP`;
/// without it there is nothing to gain anyway, because of `no_new_privs`.
fn bound(mask: CapabilitySet) -> Result<(), CapabilityError> {
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if mask.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            // The first number the kernel does not know ends the list.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => {
                return Err(CapabilityError::Refused {
                    action: "shrinking the bounding set",
                    source: errno.into(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000000c001000000\nCapBnd:\t0\n";
        let held = Capabilities::from_status(status).unwrap();
        // Bits 24 (SYS_RESOURCE), 38 (PERFMON), 39 (BPF).
        for capability in [
            Capability::SysResource,
            Capability::Perfmon,
            Capability::Bpf,
        ] {
            assert!(held.has(capability), "{capability}");
        }
        assert_eq!(
            held.missing(),
            [
                Capability::DacReadSearch,
                Capability::NetAdmin,
                Capability::SysPtrace,
                Capability::SysAdmin
            ]
        );
        assert!(Capabilities::from_status("CapEff:\tzz\n").is_none());
        assert!(Capabilities::from_status("").is_none());
    }

    #[test]
    fn what_is_missing_is_one_line_that_says_what_to_do() {
        let missing = vec![Capability::NetAdmin, Capability::Bpf];
        let text = CapabilityError::Missing { missing }.to_string();
        assert!(
            text.starts_with(
                "missing CAP_NET_ADMIN, CAP_BPF: attaching to cgroups would fail; grant"
            ),
            "{text}"
        );
        assert!(!text.contains('\n'));
    }

    #[test]
    fn a_tpm_of_another_user_keeps_dac_override() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mine = wanted(Some(file.path()));
        assert!(!mine.contains(&Capability::DacOverride));
        let none = wanted(None);
        assert!(!none.contains(&Capability::DacOverride));
        let absent = wanted(Some(Path::new("/nonexistent/tpmrm0")));
        assert!(absent.contains(&Capability::DacOverride));
    }

    #[test]
    fn a_drop_is_refused_once_other_threads_run() {
        // The test harness itself runs threads.
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv().is_ok());
        let error = drop_to(&[]).unwrap_err();
        assert!(matches!(error, CapabilityError::Threads { found } if found > 1));
        drop(stop);
        assert!(!other.join().unwrap());
    }
}
