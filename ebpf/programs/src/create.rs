//! `cgroup/sock_create`: marks sockets that no guarded cgroup may hold.
//!
//! A guarded task's socket is marked at birth, so that it stays judged after
//! the task has left its cgroup, ended, or given it away. In cgroups where only
//! process trees are guarded, every socket remembers its maker: a connection
//! opened before the GPU was is then judged too. Elsewhere an unguarded
//! process's sockets cost nothing.

use crate::decide;
use crate::emit;
use crate::guarded::{self, Subject};
use crate::sockets;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use merestone_abi::{EventKind, Hook, LostReason, Reason, Verdict};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `IPPROTO_MPTCP`, include/uapi/linux/in.h.
const MPTCP: u32 = 262;

/// Marks a new inet socket.
#[cgroup_sock(sock_create)]
pub(crate) fn sock_create(ctx: SockContext) -> i32 {
    let sk = ctx.sock.cast();
    if let Some(subject) = guarded::current(guarded::armed()) {
        // SAFETY: the context is valid.
        let protocol = unsafe { (&raw const (*ctx.sock).protocol).read_volatile() };
        // The kernel makes subflows as sockets of its own, in the cgroup of
        // the first but without its mark: only a cgroup can hold them.
        if subject.is_tree() && protocol == MPTCP {
            return refuse(&subject, Reason::FAMILY);
        }
        if !sockets::mark(sk, &subject) {
            emit::lost(LostReason::SOCKET_MARK);
            return refuse(&subject, Reason::NO_ROOM);
        }
        return ALLOW;
    }
    if guarded::in_tree_cgroup() && !sockets::own(sk, guarded::current_tgid()) {
        emit::lost(LostReason::SOCKET_MARK);
    }
    ALLOW
}

#[inline(never)]
fn refuse(subject: &Subject, reason: Reason) -> i32 {
    let decision = decide::refuse(reason);
    emit::count(Hook::SOCK_CREATE, decision.verdict, 0, subject.group, 0);
    emit::send(EventKind::FLOW, Hook::SOCK_CREATE, subject, |event| {
        emit::describe_current(event);
        event.verdict = decision.verdict;
        event.reason = decision.reason;
        event.generation = decision.generation;
    });
    if decision.verdict == Verdict::DENY {
        REFUSE
    } else {
        ALLOW
    }
}
