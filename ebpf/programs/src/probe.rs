//! `parse_probe`: what the packet parser makes of a packet, for tests alone.
//!
//! BPF_PROG_TEST_RUN gives a packet no socket, so the egress program would let
//! it pass unread. This one reads it with the same function and writes what
//! came out into the packet's control block. The agent neither loads nor
//! attaches it, and it judges nothing.

use crate::decide::Destination;
use crate::packet;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

const PASS: i32 = 1;

/// Writes address (`cb[0..4]`), and port, protocol, fragment and reason
/// (`cb[4]`: 16, 8, 1 and 7 bits from the lowest).
#[cgroup_skb(egress)]
pub(crate) fn parse_probe(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let mut to = Destination {
        address: [0; 16],
        port: 0,
        protocol: 0,
        fragment: false,
        reserved: 0,
    };
    let reason = match packet::parse(skb, &mut to) {
        Ok(_) => 0,
        Err(reason) => reason.0,
    };
    for i in 0..4 {
        let at = 4 * i;
        let word = u32::from_ne_bytes([
            to.address[at],
            to.address[at + 1],
            to.address[at + 2],
            to.address[at + 3],
        ]);
        // SAFETY: the context is valid and `i` within the array; volatile,
        // because the verifier wants the words stored one by one.
        unsafe { (&raw mut (*skb).cb[i]).write_volatile(word) };
    }
    let rest = u32::from(to.port)
        | u32::from(to.protocol) << 16
        | u32::from(to.fragment) << 24
        | u32::from(reason) << 25;
    // SAFETY: as above.
    unsafe { (&raw mut (*skb).cb[4]).write_volatile(rest) };
    PASS
}
