//! What the kernel has learned of names, for the operator.

use super::agent::Agent;
use crate::api::{LearnedInfo, NamesInfo};
use crate::bpf::{KernelError, LearnedAddress};
use crate::clock;
use std::collections::BTreeSet;

/// The addresses that names have now, by name.
pub(super) fn learned(agent: &Agent) -> Result<Vec<LearnedInfo>, KernelError> {
    let now = clock::boot_ns();
    let info = |learned: LearnedAddress| LearnedInfo {
        name: learned.name,
        address: learned.address,
        resolver: learned.resolver,
        seconds: learned.expires_boot_ns.saturating_sub(now) / 1_000_000_000,
        boundary: learned.boundary,
    };
    let mut names: Vec<_> = agent
        .parts
        .kernel
        .learned()?
        .into_iter()
        .map(info)
        .collect();
    names.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
    Ok(names)
}

/// How many; nothing but what the rules list where the kernel cannot be asked.
pub(super) fn count(agent: &Agent) -> NamesInfo {
    let listed = agent.parts.boundary.names.len();
    if listed == 0 {
        return NamesInfo::default();
    }
    let learned = agent.parts.kernel.learned().unwrap_or_else(|error| {
        tracing::error!(%error, "what is learned of names cannot be read");
        Vec::new()
    });
    let names: BTreeSet<_> = learned.iter().map(|one| one.name.as_str()).collect();
    let addresses: BTreeSet<_> = learned.iter().map(|one| one.address).collect();
    NamesInfo {
        listed,
        names: names.len(),
        addresses: addresses.len(),
    }
}
