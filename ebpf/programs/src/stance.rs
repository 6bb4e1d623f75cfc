//! What holds when the agent is gone.
//!
//! The programs need no agent: by default its end changes nothing. Where the
//! operator wants everything refused then, the kernel itself notices, at the
//! exit of the agent's last thread, or by a heartbeat that stays away. Nothing
//! here depends on the agent to act.

use crate::emit;
use crate::guarded::Subject;
use crate::maps::{AGENT, HEARTBEAT, STANCE};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use merestone_abi::{Attempt, EventKind, Hook, Reason, Stance, Verdict};

/// Whether everything of guarded groups is refused now.
#[inline(always)]
pub(crate) fn denies_all() -> bool {
    match STANCE.get(0) {
        Some(&Stance::HOLD) | None => false,
        Some(&Stance::WATCH) => is_silent(),
        Some(_) => true,
    }
}

/// Whether the agent's heartbeat stayed away too long. The monotonic clock
/// does not count a suspend, in which nobody could have beaten.
#[inline(never)]
fn is_silent() -> bool {
    let (Some(agent), Some(beat)) = (AGENT.get(0), HEARTBEAT.get(0)) else {
        return true;
    };
    // SAFETY: the helper takes no arguments and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    now.saturating_sub(*beat) > agent.patience_ns
}

/// Whether a process is the agent.
#[inline(always)]
pub(crate) fn is_agent(tgid: u32) -> bool {
    AGENT.get(0).is_some_and(|agent| agent.tgid == tgid)
}

/// The agent's last thread ends.
#[inline(always)]
pub(crate) fn agent_ended() {
    let Some(agent) = AGENT.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: `agent` is a map value.
    let tgid = unsafe { (*agent).tgid };
    // SAFETY: as above.
    unsafe { (*agent).tgid = 0 };
    // SAFETY: as above.
    let denies = unsafe { (*agent).deny_on_loss } != 0;
    if denies && let Some(stance) = STANCE.get_ptr_mut(0) {
        // SAFETY: a map value.
        unsafe { *stance = Stance::DENY };
    }
    let subject = Subject {
        group: 0,
        tgid,
        boundary: 0,
    };
    emit::send(EventKind::TAMPER, Hook::EXIT, &subject, |event| {
        emit::describe_current(event);
        event.other = tgid;
        event.major = u32::from(Attempt::AGENT_ENDED.0);
        event.verdict = Verdict::ALLOW;
        event.reason = Reason::AGENT_LOST;
    });
}
