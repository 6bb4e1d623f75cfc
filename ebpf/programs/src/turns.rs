//! Turns on connections that a guarded group serves: when a request began, when
//! its answer ended, how many bytes went each way. Nothing is asked of the
//! server.
//!
//! Two programs of their own, so that watching can neither hold nor refuse
//! anything: they judge nothing and let every packet be. A connection is
//! followed from the first request seen on it; who listens on its local port is
//! the server. Cleartext HTTP/1 has a turn for each request, cleartext HTTP/2
//! for each stream (`streams`); anything else, TLS among it, one for the whole
//! connection. A turn that cannot be recorded is counted as lost.

use crate::decide;
use crate::egress;
use crate::emit;
use crate::guarded;
use crate::listener;
use crate::maps::{FRAMES, TURN_ENDS, TURNS};
use crate::packet;
use crate::sockets;
use crate::streams;
use aya_ebpf::bindings::{__sk_buff, BPF_ANY, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_sk_release, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use core::arch::asm;
use merestone_abi::{Form, LostReason, Reason, TURN_HEAD, Turn, TurnState, protocol};

const PASS: i32 = 1;
/// `TCP_LISTEN`, include/net/tcp_states.h.
const LISTEN: u32 = 10;
/// Flags of a TCP header (RFC 9293 §3.1).
const FIN: u8 = 0x01;
const RST: u8 = 0x04;

/// Follows what comes in.
#[cgroup_skb(ingress)]
pub(crate) fn turns_in(ctx: SkBuffContext) -> i32 {
    if guarded::epoch() != 0 {
        came_in(ctx.skb.skb);
    }
    PASS
}

/// Follows what goes out.
#[cgroup_skb(egress)]
pub(crate) fn turns_out(ctx: SkBuffContext) -> i32 {
    if guarded::epoch() != 0 {
        went_out(ctx.skb.skb);
    }
    PASS
}

/// A TCP segment, as far as a turn needs it.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    /// The packet's sender and receiver, IPv4 mapped.
    from: [u8; 16],
    to: [u8; 16],
    from_port: u16,
    to_port: u16,
    flags: u8,
    /// Of the payload's first byte (RFC 9293 §3.4); of none but data's.
    pub(crate) sequence: u32,
    /// Where the payload begins, and its length.
    pub(crate) at: u32,
    pub(crate) payload: u32,
}

impl Segment {
    const EMPTY: Self = Self {
        from: [0; 16],
        to: [0; 16],
        from_port: 0,
        to_port: 0,
        flags: 0,
        sequence: 0,
        at: 0,
        payload: 0,
    };
}

#[inline(never)]
fn came_in(skb: *mut __sk_buff) {
    let Some(subject) = egress::subject_of(skb, guarded::armed()) else {
        return;
    };
    let mut segment = Segment::EMPTY;
    if !parse(skb, &mut segment) {
        return;
    }
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    if segment.payload != 0 {
        match TURNS.get_ptr_mut(cookie) {
            Some(turn) => {
                more(skb, turn, &segment);
                by_stream(skb, turn, &segment, true);
            }
            None => {
                follow(skb, cookie, subject.group, &segment);
                if let Some(turn) = TURNS.get_ptr_mut(cookie) {
                    // SAFETY: a map value.
                    if unsafe { (*turn).form } == Form::HTTP2 {
                        streams::begin(turn, &segment);
                    }
                    by_stream(skb, turn, &segment, true);
                }
            }
        }
    }
    if segment.flags & (FIN | RST) != 0
        && let Some(turn) = TURNS.get_ptr_mut(cookie)
    {
        if segment.flags & RST == 0 {
            // A client may send its end before it has the answer.
            // SAFETY: a map value.
            unsafe { (*turn).half_closed = 1 };
            return;
        }
        end(turn, TurnState::RESET);
        forget(cookie, turn);
    }
}

#[inline(never)]
fn went_out(skb: *mut __sk_buff) {
    // Only what is followed already: that asks for no group.
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let Some(turn) = TURNS.get_ptr_mut(cookie) else {
        return;
    };
    let mut segment = Segment::EMPTY;
    if !parse(skb, &mut segment) {
        return;
    }
    // SAFETY: a map value.
    if segment.payload != 0 && unsafe { (*turn).state } == TurnState::OPEN {
        answer(skb, turn, &segment);
        by_stream(skb, turn, &segment, false);
    }
    if segment.flags & FIN != 0 {
        // SAFETY: a map value.
        let state = if unsafe { (*turn).half_closed } == 0 {
            TurnState::SERVER_CLOSED
        } else {
            TurnState::CLIENT_CLOSED
        };
        end(turn, state);
        forget(cookie, turn);
    }
}

#[inline(always)]
fn by_stream(skb: *mut __sk_buff, turn: *mut Turn, segment: &Segment, asked: bool) {
    // SAFETY: a map value.
    if unsafe { (*turn).form } == Form::STREAMS {
        streams::pass(skb, turn, segment, asked);
    }
}

/// A connection that is over. Streams that were under way on it are found by
/// the agent: their connection is followed no more.
#[inline(always)]
fn forget(cookie: u64, turn: *mut Turn) {
    // SAFETY: a map value.
    if unsafe { (*turn).form } == Form::STREAMS {
        FRAMES.remove(cookie).ok();
    }
    TURNS.remove(cookie).ok();
}

/// The first bytes seen on a connection from its other end.
#[inline(never)]
fn follow(skb: *mut __sk_buff, cookie: u64, group: u64, segment: &Segment) {
    let mut turn = Turn {
        started_ns: now(),
        request_ns: 0,
        answered_ns: 0,
        last_ns: 0,
        request_bytes: u64::from(segment.payload),
        response_bytes: 0,
        cookie,
        group,
        peer: segment.from,
        owner: 0,
        number: 0,
        peer_port: segment.from_port,
        local_port: segment.to_port,
        form: Form::OTHER,
        state: TurnState::CLIENT,
        head_bytes: 0,
        half_closed: 0,
        head: [0; TURN_HEAD],
    };
    turn.request_ns = turn.started_ns;
    if let Some(owner) = owner(skb, segment) {
        turn.state = TurnState::OPEN;
        turn.owner = owner;
    }
    let is_server = turn.state == TurnState::OPEN;
    if TURNS.insert(cookie, turn, u64::from(BPF_ANY)).is_err() {
        if is_server {
            emit::lost(LostReason::TURNS_FULL);
        }
        return;
    }
    if is_server && let Some(turn) = TURNS.get_ptr_mut(cookie) {
        read_head(skb, turn, segment.at, segment.payload);
        // SAFETY: a map value.
        unsafe { (*turn).form = form_of(&(*turn).head) };
    }
}

/// More from a client: of the same request, or the next one.
#[inline(always)]
fn more(skb: *mut __sk_buff, turn: *mut Turn, segment: &Segment) {
    // SAFETY: a map value; so below.
    let (state, form, answered) = unsafe { ((*turn).state, (*turn).form, (*turn).answered_ns) };
    if state != TurnState::OPEN {
        return;
    }
    let now = now();
    if form == Form::HTTP1 && answered != 0 && begins_request(skb, segment) {
        end(turn, TurnState::NEXT);
        // SAFETY: as above. The answer's end belongs to the turn before.
        unsafe {
            (*turn).state = TurnState::OPEN;
            (*turn).number += 1;
            (*turn).started_ns = now;
            (*turn).answered_ns = 0;
            (*turn).last_ns = 0;
            (*turn).request_bytes = 0;
            (*turn).response_bytes = 0;
        }
        read_head(skb, turn, segment.at, segment.payload);
    }
    // SAFETY: as above.
    unsafe { (*turn).request_ns = now };
    // SAFETY: as above; only the address is taken.
    emit::add(
        unsafe { &raw mut (*turn).request_bytes },
        u64::from(segment.payload),
    );
}

/// A part of the answer. An interim one (RFC 9110 §15.2) is none yet.
#[inline(always)]
fn answer(skb: *mut __sk_buff, turn: *mut Turn, segment: &Segment) {
    // SAFETY: a map value; so below.
    if unsafe { (*turn).form == Form::HTTP1 && (*turn).answered_ns == 0 } {
        if let Ok(status) = packet::load::<[u8; 12]>(skb, segment.at)
            && is_interim(&status)
        {
            if status[11] != b'1' {
                return;
            }
            // SAFETY: as above.
            unsafe { (*turn).form = Form::SWITCHED };
        }
    }
    let now = now();
    // SAFETY: as above.
    unsafe {
        if (*turn).answered_ns == 0 {
            (*turn).answered_ns = now;
        }
        (*turn).last_ns = now;
    }
    // SAFETY: as above; only the address is taken.
    emit::add(
        unsafe { &raw mut (*turn).response_bytes },
        u64::from(segment.payload),
    );
}

/// `HTTP/1.x 1..`
#[inline(always)]
fn is_interim(status: &[u8; 12]) -> bool {
    status[0] == b'H' && status[5] == b'1' && status[8] == b' ' && status[9] == b'1'
}

/// Hands a turn to the agent. It wakes nobody: the agent looks by itself.
#[inline(always)]
pub(crate) fn end(turn: *mut Turn, state: TurnState) {
    // SAFETY: a map value. Of a connection of streams, they are the turns.
    if unsafe { (*turn).state != TurnState::OPEN || (*turn).form == Form::STREAMS } {
        return;
    }
    // SAFETY: as above.
    unsafe { (*turn).state = state };
    // SAFETY: as above; copied as it is.
    let ended = unsafe { &*turn };
    if TURN_ENDS
        .output::<Turn>(ended, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        emit::lost(LostReason::TURNS_FULL);
    }
}

#[inline(always)]
fn begins_request(skb: *mut __sk_buff, segment: &Segment) -> bool {
    packet::load(skb, segment.at).is_ok_and(|first: [u8; 4]| is_request(first))
}

/// Whether that is how a request line begins: `GET `, `POST`, …
#[inline(always)]
fn is_request(first: [u8; 4]) -> bool {
    is_upper(first[0])
        && is_upper(first[1])
        && is_upper(first[2])
        && (is_upper(first[3]) || first[3] == b' ')
}

#[inline(always)]
fn is_upper(byte: u8) -> bool {
    byte.wrapping_sub(b'A') < 26
}

#[inline(always)]
fn form_of(head: &[u8; TURN_HEAD]) -> Form {
    if head[0] == 0x16 && head[1] == 0x03 {
        return Form::TLS;
    }
    let first = [head[0], head[1], head[2], head[3]];
    if first == *b"PRI " {
        return Form::HTTP2;
    }
    if is_request(first) {
        return Form::HTTP1;
    }
    Form::OTHER
}

#[inline(always)]
pub(crate) fn read_head(skb: *mut __sk_buff, turn: *mut Turn, at: u32, payload: u32) {
    // SAFETY: a map value.
    unsafe { (*turn).head = [0; TURN_HEAD] };
    // The verifier of Linux 6.1 sees no bound but a mask: whole, or 64 at most.
    if payload >= TURN_HEAD as u32 {
        read_part(skb, turn, at, TURN_HEAD as u32);
    } else {
        let short = if payload > 64 { 64 } else { payload };
        let mut last = u64::from(short.wrapping_sub(1));
        // SAFETY: only the register is changed. Written out, because the
        // compiler would leave out what it knows.
        unsafe { asm!("{0} &= 63", inout(reg) last) };
        let length = last as u32 + 1;
        read_part(skb, turn, at, length);
    }
}

/// `length` bytes of the packet from `at`, [`TURN_HEAD`] at most.
#[inline(always)]
fn read_part(skb: *mut __sk_buff, turn: *mut Turn, at: u32, length: u32) {
    // SAFETY: a map value; `length` bytes of its `head` are written.
    let read =
        unsafe { bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*turn).head).cast(), length) };
    // SAFETY: as above.
    unsafe { (*turn).head_bytes = if read == 0 { length as u8 } else { 0 } };
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes no arguments and cannot fail.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Extension headers are left alone: a connection with them is not followed.
#[inline(never)]
fn parse(skb: *mut __sk_buff, segment: &mut Segment) -> bool {
    read(skb, segment).is_ok()
}

#[inline(always)]
fn read(skb: *mut __sk_buff, segment: &mut Segment) -> Result<(), Reason> {
    let ip: [u8; 20] = packet::load(skb, 0)?;
    // SAFETY: the context is valid; volatile, because the verifier wants the
    // field loaded whole.
    let length = unsafe { (&raw const (*skb).len).read_volatile() };
    let tcp_at = match ip[0] >> 4 {
        4 => {
            let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff;
            if ip[9] != protocol::TCP || fragment != 0 {
                return Err(Reason::UNPARSABLE);
            }
            segment.from = decide::mapped([ip[12], ip[13], ip[14], ip[15]]);
            segment.to = decide::mapped([ip[16], ip[17], ip[18], ip[19]]);
            u32::from(ip[0] & 15) * 4
        }
        6 => {
            if ip[6] != protocol::TCP {
                return Err(Reason::UNPARSABLE);
            }
            segment.from = packet::load(skb, 8)?;
            segment.to = packet::load(skb, 24)?;
            40
        }
        _ => return Err(Reason::UNPARSABLE),
    };
    let tcp: [u8; 14] = packet::load(skb, tcp_at)?;
    segment.from_port = u16::from_be_bytes([tcp[0], tcp[1]]);
    segment.to_port = u16::from_be_bytes([tcp[2], tcp[3]]);
    segment.flags = tcp[13];
    segment.sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    segment.at = tcp_at + u32::from(tcp[12] >> 4) * 4;
    segment.payload = length.saturating_sub(segment.at);
    Ok(())
}

/// Who listens where the segment goes; none where nobody does, so that this
/// side opened the connection.
#[inline(always)]
fn owner(skb: *mut __sk_buff, segment: &Segment) -> Option<u32> {
    // From port 0, which no connection has: only a listener is found.
    let (mut tuple, size) = listener::tuple((&segment.from, 0), (&segment.to, segment.to_port));
    let found = listener::find(skb.cast(), &mut tuple, size, protocol::TCP);
    if found.is_null() {
        return None;
    }
    // SAFETY: a socket that is held until it is released below; volatile,
    // because the verifier wants the field loaded whole.
    let state = unsafe { (&raw const (*found).state).read_volatile() };
    let owner = sockets::owner(found.cast());
    // SAFETY: it was found, and is released once.
    unsafe { bpf_sk_release(found.cast()) };
    (state == LISTEN).then_some(owner)
}
