//! `cgroup_skb/ingress`: what comes in for a socket, before it can be read.
//!
//! Today it only learns from DNS answers ([`crate::dns`]). It refuses nothing:
//! what a guarded process may receive is not the boundary's question. Where
//! nothing is guarded, or no boundary has names, it costs two array reads.

use crate::{dns, guarded, names};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

const PASS: i32 = 1;

/// Looks at each incoming packet.
#[cgroup_skb(ingress)]
pub(crate) fn ingress(ctx: SkBuffContext) -> i32 {
    if guarded::armed() != 0 && names::in_force() {
        dns::learn_from(ctx.skb.skb);
    }
    PASS
}
