//! What a starting agent finds of what was left behind.
//!
//! Looked at before anything is changed, and told as found: a hook without its
//! pin is said to be gone, though it is attached again a moment later.

use super::hooks::{HOOKS, Hook, HookKind, TierKind};
use super::maps::Maps;
use super::{boundary, standing, sys};
use merestone_abi::{AgentState, Glass, Settings, Stance};
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

/// What was there before this start.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing found or not found"
)]
pub struct Left {
    /// Whether an agent had ever pinned anything here.
    pub was_there: bool,
    /// Ids of the programs behind the pinned links, by hook; none where a pin
    /// is gone, or holds no link that is attached.
    pub links: BTreeMap<&'static str, Option<u32>>,
    /// Maps that had no pin.
    pub missing_maps: Vec<&'static str>,
    /// The generation and modes.
    pub settings: Settings,
    /// How many cgroups were guarded.
    pub guarded_groups: usize,
    /// How long the last agent had been silent; none where there was none, or
    /// no boot-wide clock to tell.
    pub silence: Option<Duration>,
    /// Whether the kernel saw the last agent end.
    pub end_seen: bool,
    /// Whether everything was refused because the agent was lost.
    pub denied_all: bool,
    /// Whether a break-glass was open.
    pub glass: Glass,
    /// Whether attempts on what is protected were refused.
    pub was_protected: bool,
}

/// Looks at the pins, without a change.
pub(super) fn look(pins: &Path) -> Left {
    let there = |name: &&str| pins.join(name).exists();
    let missing_maps: Vec<_> = merestone_abi::maps::PINNED
        .into_iter()
        .filter(|name| !there(name))
        .collect();
    if !pins.join(merestone_abi::maps::ABI).exists() && !pins.join("links").exists() {
        return Left::default();
    }
    let of_links = |hook: &&HookKind| hook.tier != TierKind::Link;
    let links = HOOKS.iter().filter(of_links).map(|hook| {
        let link = sys::get(&pins.join("links").join(hook.program)).ok();
        let info = link.and_then(|link| sys::link_info(link.as_fd()).ok());
        let program = info.filter(|info| !matches!(info.cgroup, Some((0, _))));
        (hook.shown, program.map(|info| info.program))
    });
    let mut left = Left {
        was_there: true,
        links: links.collect(),
        missing_maps,
        ..Left::default()
    };
    if left.missing_maps.is_empty()
        && let Ok(maps) = Maps::open(pins)
    {
        left.read(&maps);
    }
    left
}

impl Left {
    fn read(&mut self, maps: &Maps) {
        let state: AgentState = standing::state(maps).unwrap_or_default();
        self.settings = boundary::settings(maps).unwrap_or_default();
        self.guarded_groups = maps.groups.keys().flatten().take(1 << 16).count();
        self.silence = standing::silence(maps);
        self.end_seen = state.tgid == 0;
        self.was_protected = state.armed != 0;
        self.denied_all = matches!(maps.stance.get(&0, 0), Ok(Stance::DENY));
        self.glass = standing::glass(maps).unwrap_or_default();
    }

    /// The hooks this build attaches whose link was gone.
    pub fn missing_hooks(&self, hooks: &[Hook]) -> Vec<&'static str> {
        let attached = hooks.iter().filter(|hook| hook.refused.is_none());
        attached
            // Its links come and go; they are looked for anew.
            .filter(|hook| hook.tier != TierKind::Link.name())
            .filter(|hook| matches!(self.links.get(hook.name), Some(None) | None))
            .map(|hook| hook.name)
            .collect()
    }
}
