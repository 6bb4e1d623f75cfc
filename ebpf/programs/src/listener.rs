//! Who would answer on this host: the kernel's own look-up of a socket.
//!
//! What it finds is held until it is released; what it means is the caller's.

use crate::decide;
use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp};
use core::ffi::c_void;
use core::mem;
use core::ptr;
use merestone_abi::protocol;

/// Bytes of `struct bpf_sock_tuple` for each family; they say which it is.
const V4_BYTES: u32 = 12;
const V6_BYTES: u32 = 36;

/// An address, an IPv4 one mapped, and a port.
pub(crate) type Endpoint<'a> = (&'a [u8; 16], u16);

/// What is looked for, of both ends, and its size.
#[inline(always)]
pub(crate) fn tuple(from: Endpoint<'_>, to: Endpoint<'_>) -> (bpf_sock_tuple, u32) {
    // SAFETY: integers only.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    if decide::is_mapped(to.0) {
        // SAFETY: the union was zeroed whole.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        let [.., a, b, c, d] = *from.0;
        v4.saddr = u32::from_ne_bytes([a, b, c, d]);
        let [.., a, b, c, d] = *to.0;
        v4.daddr = u32::from_ne_bytes([a, b, c, d]);
        v4.sport = from.1.to_be();
        v4.dport = to.1.to_be();
        (tuple, V4_BYTES)
    } else {
        // SAFETY: as above.
        let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        // SAFETY: 16 bytes, as four words.
        v6.saddr = unsafe { mem::transmute::<[u8; 16], [u32; 4]>(*from.0) };
        // SAFETY: as above.
        v6.daddr = unsafe { mem::transmute::<[u8; 16], [u32; 4]>(*to.0) };
        v6.sport = from.1.to_be();
        v6.dport = to.1.to_be();
        (tuple, V6_BYTES)
    }
}

/// A full socket in the caller's network namespace, or null. To be released.
#[inline(always)]
pub(crate) fn find(
    ctx: *mut c_void,
    tuple: &mut bpf_sock_tuple,
    size: u32,
    protocol_number: u8,
) -> *mut bpf_sock {
    let here = BPF_F_CURRENT_NETNS as u64;
    let tuple = ptr::from_mut(tuple);
    if protocol_number == protocol::TCP {
        // SAFETY: the tuple has `size` bytes.
        unsafe { bpf_sk_lookup_tcp(ctx, tuple, size, here, 0) }
    } else {
        // SAFETY: as above.
        unsafe { bpf_sk_lookup_udp(ctx, tuple, size, here, 0) }
    }
}
