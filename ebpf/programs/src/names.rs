//! What names add to a verdict: which questions may be asked at all, and
//! whether an address is one that a resolver gave for a listed name.
//!
//! A boundary without rules for names pays one array read where it would deny,
//! and one for port 53. Questions themselves are read in [`crate::dns`].

use crate::decide::{self, Decision, Destination};
use crate::guarded::Subject;
use crate::maps::{LEARNED, RESOLVERS, SETTINGS};
use crate::selected;
use crate::verdicts;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::maps::lpm_trie::Key;
use merestone_abi::{
    GENERATION_SLOTS, LEARNED_SLOTS, LearnedKey, PREFIX_HEADER_BITS, Reason, Resolver,
    ResolverPrefix, SocketMark, Verdict, protocol,
};
use merestone_dns::{PORT, SECURE_PORT};

/// Whether the live generation has rules for names, in some boundary.
#[inline(always)]
pub(crate) fn in_force() -> bool {
    let Some(settings) = SETTINGS.get(0) else {
        return false;
    };
    let flags = u16::from_le_bytes(settings.names);
    flags >> (8 * (settings.generation % GENERATION_SLOTS)) & 1 == 1
}

/// What somebody is in a boundary that has rules for names: a value of
/// [`Resolver`]. None: the boundary has none.
#[inline(always)]
pub(crate) fn resolver(address: &[u8; 16], boundary: u16, generation: u32) -> Option<u32> {
    let key = Key::new(
        PREFIX_HEADER_BITS + 128,
        ResolverPrefix {
            generation: (generation as u16).to_be_bytes(),
            boundary: boundary.to_be_bytes(),
            address: *address,
        },
    );
    RESOLVERS.get(key).copied()
}

/// Refuses what the rules allow and names do not: DNS that cannot be read,
/// over TCP or TLS, and a stub on loopback, which asks in its own name. A
/// question over UDP passes here; it is read when it leaves.
#[inline(always)]
pub(crate) fn hold(to: &Destination, boundary: u16, decision: &mut Decision) {
    if (to.port == PORT || to.port == SECURE_PORT) && in_force() {
        hold_dns(to, boundary, decision);
    }
}

#[inline(never)]
fn hold_dns(to: &Destination, boundary: u16, decision: &mut Decision) {
    let Some(kind) = resolver(&to.address, boundary, decision.generation) else {
        return;
    };
    let is_question = to.port == PORT && to.protocol == protocol::UDP;
    let is_stub = kind != Resolver::TRUSTED && decide::is_loopback(&to.address);
    if !is_question || is_stub {
        decision.verdict = Verdict::DENY;
        decision.reason = Reason::NAME_FORM;
        decision.rule = 0;
    }
}

/// Judges by the names that have the address. Asked only where no rule for
/// addresses matched: a deny was found before.
#[inline(always)]
pub(crate) fn judge(to: &Destination, boundary: u16, decision: &mut Decision) {
    if decision.reason == Reason::NO_RULE && in_force() {
        // SAFETY: the helper takes no arguments and cannot fail.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        judge_learned(to, boundary, decision, now);
    }
}

/// Lets a TCP connection go on that was opened while a name had the address:
/// how long a name's address holds says nothing of connections. Asked only
/// where nothing else lets it pass, of a socket that remembers that it was let
/// through to this very destination.
///
/// A function of its own: what it needs of the stack is given back before a
/// question is looked at.
#[inline(never)]
pub(crate) fn outlive(
    mark: *const SocketMark,
    subject: &Subject,
    to: &Destination,
    decision: &mut Decision,
) {
    if decision.reason == Reason::NO_RULE
        && to.protocol == protocol::TCP
        && in_force()
        && verdicts::had_allowed(mark, subject.group, to)
    {
        judge_learned(to, selected::boundary(subject), decision, 0);
    }
}

/// Of all names that have the address, and had it longer than until `now`.
#[inline(never)]
fn judge_learned(to: &Destination, boundary: u16, decision: &mut Decision, now: u64) {
    let mut key = LearnedKey {
        generation: (decision.generation as u16).to_be_bytes(),
        boundary: boundary.to_be_bytes(),
        slot: 0,
        address: to.address,
    };
    for slot in 0..LEARNED_SLOTS {
        key.slot = slot;
        // SAFETY: an entry that is removed or replaced meanwhile is one that
        // was true a moment ago.
        let Some(learned) = (unsafe { LEARNED.get(key) }) else {
            continue;
        };
        if learned.expires_boot_ns <= now {
            continue;
        }
        // Of several names the one that refuses counts, as among other rules.
        let before = decision.verdict;
        decision.verdict = Verdict::DENY;
        if !decide::apply(learned.set, to, decision) {
            decision.verdict = before;
        } else if decision.verdict == Verdict::DENY {
            return;
        }
    }
}
