//! Why the kernel part did not do what was asked, and what to do about it.

use super::hooks::TierKind;
use std::io;
use std::path::PathBuf;

/// A failure of the kernel part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A debug build made without the object.
    #[error("this build carries no kernel programs; run `cargo xtask build`")]
    NoObject,
    /// Not root.
    #[error("loading kernel programs needs root; run as root or from the service unit")]
    NotRoot,
    /// The agent's process id means nothing outside its container.
    #[error(
        "this process has a PID namespace of its own, so the kernel cannot tell the agent's end; \
         run it with hostPID, or set `[enforcement] tamper = false` and `on_agent_loss = \"hold\"`"
    )]
    OwnPidNamespace,
    /// There is no cgroup v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted; boot with `systemd.unified_cgroup_hierarchy=1` or \
         `mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )]
    NoCgroup2,
    /// The configured root is not in a cgroup v2 hierarchy.
    #[error("{path} is not in a cgroup v2 hierarchy; correct `[enforcement] cgroup_root`")]
    NotCgroup2 {
        /// What was configured.
        path: PathBuf,
    },
    /// The pin directory is not on bpffs.
    #[error(
        "{path} is not on a bpf file system, so enforcement would end with the agent; \
         `mount -t bpf bpf /sys/fs/bpf` or correct `[enforcement] pin_dir`"
    )]
    NotBpffs {
        /// What was configured.
        path: PathBuf,
    },
    /// The kernel describes no types.
    #[error(
        "/sys/kernel/btf/vmlinux cannot be read, so no kernel program can be loaded; \
         boot a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// The pins are of another version.
    #[error(
        "the pins in {path} were made under contract {got}, this build has {expected}; \
         stop what is guarded, remove {path}, and start again"
    )]
    OtherAbi {
        /// The pin directory.
        path: PathBuf,
        /// What the pins hold.
        got: u32,
        /// What this build has.
        expected: u32,
    },
    /// A tier that was asked for is not to be had.
    #[error(
        "`[enforcement] require` asks for `{tier}`, and this kernel does not give it: {detail}"
    )]
    Required {
        /// The tier's name.
        tier: String,
        /// Why not.
        detail: String,
    },
    /// The boundary has names, and nothing could learn their addresses.
    #[error(
        "the boundary lists names, and this kernel does not give the tier `names`: {detail}; \
         write the destinations as cidr, or boot a kernel that gives it"
    )]
    NoNames {
        /// Why not.
        detail: String,
    },
    /// `require` names something that is no tier.
    #[error(
        "`[enforcement] require` names `{tier}`; known tiers are {}",
        TierKind::ALL.map(TierKind::name).join(", ")
    )]
    UnknownTier {
        /// What was named.
        tier: String,
    },
    /// A program or map that the object must have is not in it.
    #[error("the kernel object has no `{name}`; build agent and object together")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The boundary does not fit.
    #[error("the boundary has {got} {what}, the kernel maps hold {limit}; merge or drop some")]
    TooLarge {
        /// Prefixes or rule sets.
        what: &'static str,
        /// How many it has.
        got: usize,
        /// How many fit.
        limit: usize,
    },
    /// The object or one of its programs was not accepted.
    #[error("the kernel refused `{name}`: {detail}")]
    Refused {
        /// Program, or `object`.
        name: String,
        /// The last line of what it said.
        detail: String,
    },
    /// A map operation failed.
    #[error("kernel map `{name}`: {detail}")]
    Map {
        /// The map.
        name: &'static str,
        /// What failed.
        detail: String,
    },
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, e.g. `cannot open`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The line of an error chain that says most: the innermost cause.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{}: {inner_text}", first_line(&text));
        }
        cause = inner.source();
    }
    first_line(&text)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
