//! What is enforced, and which ways out are not.
//!
//! Every claim is of a hook that is attached. Whatever no attached hook sees
//! is on the uncovered list, in words that status, metric and evidence share.

use super::hooks::{Hook, TierKind};

/// A set of hooks, and whether all of it is attached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tier {
    /// `cgroup`, `lineage`, `lsm`, `link`, `kill`, `names`, `records` or `tamper`.
    pub name: &'static str,
    /// Whether every hook of it is attached.
    pub active: bool,
    /// The hooks, or the reason for the first that is not.
    pub detail: String,
}

pub(super) fn tiers(hooks: &[Hook]) -> Vec<Tier> {
    TierKind::ALL
        .into_iter()
        .map(|kind| {
            let of_tier = || hooks.iter().filter(move |hook| hook.tier == kind.name());
            let refused = of_tier().find_map(|hook| Some((hook.name, hook.refused.as_ref()?)));
            let names: Vec<_> = of_tier().map(|hook| hook.name).collect();
            Tier {
                name: kind.name(),
                active: refused.is_none() && !names.is_empty(),
                detail: match refused {
                    Some((name, why)) => format!("{name}: {why}"),
                    None => names.join(", "),
                },
            }
        })
        .collect()
}

/// Ways out that no hook of this build sees, whatever the kernel gives.
const NEVER: [&str; 7] = [
    "RDMA and NICs driven from user space, where the device was opened before the GPU was",
    "processes outside the group that are asked over loopback or a Unix socket, where the boundary does not refuse these deputies",
    "storage that lies elsewhere: block devices over the network, file handles of network file systems, and memory mapped from them before the GPU was opened",
    "names resolved by a local stub resolver on loopback, where the boundary lists no names",
    "data in questions to an allowed resolver, where the boundary lists no names",
    "files and memory shared with processes outside the group",
    "Unix socket pairs and Unix listeners that the group made and a process outside holds",
];

/// What only the tamper tier refuses; elsewhere the watch finds it afterwards.
const WITHOUT_TAMPER: &str = "root disabling the programs or editing their maps";

/// Ways out that only the LSM tier sees.
const WITHOUT_LSM: [&str; 14] = [
    "connected sockets passed from unguarded processes, or made in another cgroup",
    "replies on listening sockets passed by socket activation, or made in another cgroup",
    "connections a process tree inherited from an unguarded parent, until the agent has scanned it",
    "netlink beyond routing",
    "Unix sockets of processes outside the group, which are not even reported (deputies)",
    "GPU file descriptors passed to a process outside the group, until the agent has scanned it",
    "files of network file systems, names looked up there, and mounts of them",
    "kernel-owned sockets of tunnel devices opened before the GPU was",
    "packets that root in the group has the kernel wrap, copy or readdress below IP (tunnels, XFRM, tc)",
    "programs and settings that root in the group gives the kernel (bpf, modules, sysfs, keys that the kernel asks a program for)",
    "processes outside the group that it may debug, and so write into (ptrace)",
    "terminals that it types into for a process outside (TIOCSTI)",
    "AF_PACKET that bypasses the queueing discipline, and AF_XDP, set up before the GPU was opened",
    "AF_PACKET in the first second of a network namespace and the first moments of a link",
];

/// Ways out that only the LSM tier refuses, and the kill tier ends.
const WITHOUT_LSM_AND_KILL: &str = "vsock and other socket families that pass no network link";

/// What of them the kill tier leaves: a signal does not take a call back.
const WITH_KILL: &str =
    "one message on a socket of vsock or another family that was made before the GPU was opened";

/// Ways out that only the link tier sees, where LSM does not refuse the family.
const WITHOUT_LINK: &str =
    "AF_PACKET frames, and whatever other socket families send through a network link";

/// Before 6.6 the egress hook does not run where the packet's socket is not the
/// one that sends (include/linux/bpf-cgroup.h `BPF_CGROUP_RUN_PROG_INET_EGRESS`):
/// for IPv6 that is a listener's SYN-ACK. Seen to leave on 6.1, held on 6.12.
/// With LSM who connects in is refused before there is one.
const SYN_ACK: &str =
    "IPv6 SYN-ACKs to inbound connections, which carry no data (kernels before 6.6)";

/// Ways out that only the lineage tier sees.
const WITHOUT_LINEAGE: [&str; 3] = [
    "the boundary of a selected cgroup made since the reload, until the agent has seen its GPU opened",
    "children of guarded process trees",
    "processes that leave a guarded cgroup",
];

/// Ways out in cgroups where only process trees are guarded.
const IN_TREES: [&str; 2] = [
    "in process trees: children forked before the GPU was opened, until the agent has scanned them",
    "in process trees: MPTCP connections opened before the GPU was",
];

/// Ways out with these hooks on this kernel.
pub(super) fn uncovered(hooks: &[Hook]) -> Vec<String> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    uncovered_on(hooks, &release)
}

/// An unknown release counts as an old one: declared rather than claimed.
pub(super) fn is_at_least(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    matches!((number(), number()), (Some(major), Some(minor)) if (major, minor) >= version)
}

/// The same of the running kernel.
pub(super) fn kernel_is_at_least(version: (u32, u32)) -> bool {
    let name = rustix::system::uname();
    is_at_least(&name.release().to_string_lossy(), version)
}

fn uncovered_on(hooks: &[Hook], release: &str) -> Vec<String> {
    let is_active = |kind: TierKind| {
        let mut of_tier = hooks.iter().filter(|hook| hook.tier == kind.name());
        of_tier.all(|hook| hook.refused.is_none())
    };
    let kills =
        is_active(TierKind::Kill) && hooks.iter().any(|hook| hook.tier == TierKind::Kill.name());
    let mut list = Vec::new();
    if !is_active(TierKind::Lsm) {
        list.extend(WITHOUT_LSM);
        list.push(if kills {
            WITH_KILL
        } else {
            WITHOUT_LSM_AND_KILL
        });
        if !is_active(TierKind::Link) {
            list.push(WITHOUT_LINK);
        }
    }
    if !is_active(TierKind::Lineage) {
        list.extend(WITHOUT_LINEAGE);
    }
    if !is_at_least(release, (6, 6)) && !is_active(TierKind::Lsm) {
        list.push(SYN_ACK);
    }
    if !is_active(TierKind::Tamper) {
        list.push(WITHOUT_TAMPER);
    }
    list.extend(IN_TREES);
    list.extend(NEVER);
    list.into_iter().map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(tier: &'static str, refused: Option<&str>) -> Hook {
        Hook {
            name: "hook",
            tier,
            refused: refused.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn a_tier_with_one_hook_missing_is_not_claimed() {
        let hooks = [hook("lsm", None), hook("lsm", Some("EPERM"))];
        let lsm = tiers(&hooks).into_iter().find(|tier| tier.name == "lsm");
        let lsm = lsm.unwrap();
        assert!(!lsm.active);
        assert_eq!(lsm.detail, "hook: EPERM");
    }

    #[test]
    fn an_old_or_unknown_kernel_is_said_to_let_syn_acks_out_b35() {
        for (release, declared) in [
            ("6.1.0-56-cloud-amd64", true),
            ("6.5.13", true),
            ("6.6.0-rc1", false),
            ("6.12.117+deb12-cloud-amd64", false),
            ("7.0", false),
            ("weird", true),
        ] {
            let list = uncovered_on(&[hook("lsm", Some("EPERM"))], release);
            let found = list.iter().any(|way| way.contains("SYN-ACK"));
            assert_eq!(found, declared, "{release}");
        }
    }

    #[test]
    fn without_the_tamper_tier_root_is_declared_uncovered_b58() {
        let root = |hooks: &[Hook]| uncovered(hooks).iter().any(|way| way.starts_with("root "));
        assert!(root(&[hook("tamper", Some("EPERM"))]));
        assert!(!root(&[hook("tamper", None)]));
    }

    #[test]
    fn a_killed_family_is_declared_as_far_as_a_signal_is_late_b18() {
        let declares = |hooks: &[Hook], word: &str| {
            let list = uncovered_on(hooks, "6.12");
            list.iter().any(|way| way.contains(word))
        };
        let killed = [hook("lsm", Some("EPERM")), hook("kill", None)];
        assert!(declares(&killed, "one message"));
        assert!(!declares(&killed, "pass no network link"));
        let frames = [hook("lsm", Some("EPERM")), hook("link", Some("eth0"))];
        assert!(declares(&frames, "AF_PACKET frames"));
        assert!(!declares(
            &[hook("lsm", None), hook("link", Some("eth0"))],
            "AF_PACKET"
        ));
    }

    #[test]
    fn without_lsm_vsock_is_declared_uncovered() {
        let vsock = |hooks: &[Hook]| uncovered(hooks).iter().any(|way| way.contains("vsock"));
        assert!(vsock(&[hook("lsm", Some("EPERM"))]));
        assert!(!vsock(&[hook("lsm", None)]));
    }
}
