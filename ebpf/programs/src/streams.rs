//! HTTP/2 in the clear, stream by stream, by the headers of its frames (RFC
//! 9113 §4.1). No byte of a body is read, and of a header block only its
//! beginning is kept.
//!
//! Each direction is followed by TCP's sequence numbers, so that what is sent
//! again counts once. Where a frame cannot be found (a segment came before one
//! that it follows, a header makes no sense, or a segment has more frames than
//! are read) sight is lost for good: from there on the connection is one turn,
//! and its form says so. It never guesses where the next frame begins.

use crate::emit;
use crate::maps::{FRAMES, STREAMS, TURNS};
use crate::packet;
use crate::turns::{self, Segment};
use aya_ebpf::bindings::{__sk_buff, BPF_ANY};
use merestone_abi::{
    FRAME_HEADER, Form, FrameSide, Frames, LostReason, MAX_FRAMES, StreamKey, TURN_HEAD, Turn,
    TurnState,
};

/// RFC 9113 §3.4.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// PRIORITY_UPDATE (RFC 9218 §7.1); what is beyond is taken for lost sight.
const LAST_KIND: u8 = 0x10;
/// Flags (RFC 9113 §6.2).
const END_STREAM: u8 = 0x01;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

/// What one step says: the segment has no more, has more, or makes no sense.
const DONE: u32 = 0;
const MORE: u32 = 1;
const LOST: u32 = 2;

/// How far a segment is read.
#[repr(C)]
struct Walk {
    cookie: u64,
    /// Where the payload begins in the packet.
    at: u32,
    /// Its length.
    payload: u32,
    /// Of the payload, the first byte not read; less than `payload`.
    offset: u32,
    /// 1 for what the client sends.
    asked: u32,
    side: FrameSide,
}

/// A frame, by its header.
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Begins to follow a connection whose client said the whole preface at once.
#[inline(never)]
pub(crate) fn begin(turn: *mut Turn, segment: &Segment) {
    // SAFETY: a map value.
    let (cookie, head) = unsafe { ((*turn).cookie, &(*turn).head) };
    if segment.payload < PREFACE.len() as u32 || head[..PREFACE.len()] != PREFACE {
        return;
    }
    let frames = Frames {
        asked: FrameSide {
            next: segment.sequence.wrapping_add(PREFACE.len() as u32),
            known: 1,
            ..FrameSide::default()
        },
        answered: FrameSide::default(),
    };
    if FRAMES.insert(cookie, frames, u64::from(BPF_ANY)).is_ok() {
        // SAFETY: as above.
        unsafe { (*turn).form = Form::STREAMS };
    }
}

/// Reads the frames of a segment of a followed connection.
#[inline(never)]
pub(crate) fn pass(skb: *mut __sk_buff, turn: *mut Turn, segment: &Segment, asked: bool) {
    // SAFETY: a map value.
    let cookie = unsafe { (*turn).cookie };
    let Some(frames) = FRAMES.get_ptr_mut(cookie) else {
        return;
    };
    // SAFETY: a map value; each direction's side is written by that one alone,
    // under the socket's lock.
    let side = unsafe {
        if asked {
            &raw mut (*frames).asked
        } else {
            &raw mut (*frames).answered
        }
    };
    let mut walk = Walk {
        cookie,
        at: segment.at,
        payload: segment.payload,
        offset: 0,
        asked: u32::from(asked),
        // SAFETY: as above.
        side: unsafe { *side },
    };
    if read(skb, &mut walk, segment.sequence) {
        // SAFETY: as above.
        unsafe { *side = walk.side };
    } else {
        lose_sight(turn, segment, asked);
    }
}

/// Stops following: what passes from this segment on is one turn.
#[inline(always)]
fn lose_sight(turn: *mut Turn, segment: &Segment, asked: bool) {
    let now = turns::now();
    let bytes = u64::from(segment.payload);
    // SAFETY: a map value.
    unsafe {
        FRAMES.remove((*turn).cookie).ok();
        (*turn).form = Form::HTTP2;
        (*turn).started_ns = now;
        (*turn).request_ns = now;
        if asked {
            (*turn).answered_ns = 0;
            (*turn).last_ns = 0;
            (*turn).request_bytes = bytes;
            (*turn).response_bytes = 0;
        } else {
            (*turn).answered_ns = now;
            (*turn).last_ns = now;
            (*turn).request_bytes = 0;
            (*turn).response_bytes = bytes;
        }
    }
}

#[inline(always)]
fn read(skb: *mut __sk_buff, walk: &mut Walk, sequence: u32) -> bool {
    if walk.side.known == 0 {
        walk.side.known = 1;
        walk.side.next = sequence;
    }
    let from = walk.side.next.wrapping_add(u32::from(walk.side.have));
    let offset = from.wrapping_sub(sequence);
    if (offset as i32) < 0 {
        // What came before this is missing.
        return false;
    }
    if offset >= walk.payload {
        return true;
    }
    walk.offset = offset;
    for _ in 0..MAX_FRAMES {
        match merestone_frame(skb, walk) {
            MORE => {}
            DONE => return true,
            _ => return false,
        }
    }
    false
}

/// One frame, for the verifier to walk once; see `decide::merestone_decide`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn merestone_frame(skb: *mut __sk_buff, walk: *mut Walk) -> u32 {
    // SAFETY: the caller passes a reference; the verifier wants the check.
    let Some(walk) = (unsafe { walk.as_mut() }) else {
        return LOST;
    };
    let mut header = [0_u8; FRAME_HEADER];
    let read = header_of(skb, walk, &mut header);
    if read == 0 {
        return DONE;
    }
    let frame = Frame {
        length: u32::from_be_bytes([0, header[0], header[1], header[2]]),
        kind: header[3],
        flags: header[4],
        stream: u32::from_be_bytes([header[5], header[6], header[7], header[8]]),
    };
    if !is_sane(&frame) {
        return LOST;
    }
    let body = walk.offset.wrapping_add(read);
    let whole = frame.length + FRAME_HEADER as u32;
    if frame.kind == RST_STREAM {
        reset(walk, frame.stream);
    } else if frame.kind <= HEADERS || frame.kind == CONTINUATION {
        if walk.asked != 0 {
            ask(skb, walk, &frame, body);
        } else {
            answer(walk, &frame);
        }
    }
    walk.side.next = walk.side.next.wrapping_add(whole);
    walk.side.have = 0;
    walk.offset = body.wrapping_add(frame.length);
    if walk.offset < walk.payload {
        MORE
    } else {
        DONE
    }
}

/// The next header; how many of its bytes are of this segment, 0 where it goes
/// on in the next.
#[inline(always)]
fn header_of(skb: *mut __sk_buff, walk: &mut Walk, header: &mut [u8; FRAME_HEADER]) -> u32 {
    let at = walk.at.wrapping_add(walk.offset);
    let left = walk.payload.wrapping_sub(walk.offset);
    let have = u32::from(walk.side.have);
    if have == 0 && left >= FRAME_HEADER as u32 {
        return match packet::load(skb, at) {
            Ok(found) => {
                *header = found;
                FRAME_HEADER as u32
            }
            // What cannot be loaded is not read on.
            Err(_reason) => 0,
        };
    }
    let mut read = 0;
    for place in 0..FRAME_HEADER {
        if place as u32 >= have {
            if read >= left {
                walk.side.have = place as u8;
                return 0;
            }
            let Ok([byte]) = packet::load::<[u8; 1]>(skb, at.wrapping_add(read)) else {
                return 0;
            };
            walk.side.head[place] = byte;
            read += 1;
        }
        header[place] = walk.side.head[place];
    }
    read
}

/// Whether that can be a frame: what RFC 9113 §6 says of each type's stream and
/// length.
#[inline(always)]
fn is_sane(frame: &Frame) -> bool {
    let is_of_stream = frame.stream != 0;
    if frame.stream >> 31 != 0 || frame.kind > LAST_KIND {
        return false;
    }
    match frame.kind {
        DATA | HEADERS | CONTINUATION => is_of_stream,
        RST_STREAM => is_of_stream && frame.length == 4,
        SETTINGS => !is_of_stream && frame.length <= 6 * 64,
        PING => !is_of_stream && frame.length == 8,
        GOAWAY => !is_of_stream,
        WINDOW_UPDATE => frame.length == 4,
        _ => true,
    }
}

/// A part of a request, or its beginning.
#[inline(always)]
fn ask(skb: *mut __sk_buff, walk: &Walk, frame: &Frame, body: u32) {
    let key = key(walk, frame.stream);
    let turn = match STREAMS.get_ptr_mut(&key) {
        Some(turn) => turn,
        // A client's streams are odd (RFC 9113 §5.1.1). What comes for one that
        // is over already is not told.
        None if frame.kind == HEADERS && frame.stream & 1 == 1 => {
            match open(skb, walk, frame, body) {
                Some(turn) => turn,
                None => return,
            }
        }
        None => return,
    };
    // SAFETY: a map value.
    unsafe { (*turn).request_ns = turns::now() };
    // SAFETY: as above; only the address is taken.
    emit::add(unsafe { &raw mut (*turn).request_bytes }, size(frame));
}

/// A part of an answer, or its end.
#[inline(always)]
fn answer(walk: &Walk, frame: &Frame) {
    let key = key(walk, frame.stream);
    let Some(turn) = STREAMS.get_ptr_mut(&key) else {
        return;
    };
    let now = turns::now();
    // SAFETY: a map value.
    unsafe {
        if (*turn).answered_ns == 0 {
            (*turn).answered_ns = now;
        }
        (*turn).last_ns = now;
    }
    // SAFETY: as above; only the address is taken.
    emit::add(unsafe { &raw mut (*turn).response_bytes }, size(frame));
    if frame.kind != CONTINUATION && frame.flags & END_STREAM != 0 {
        turns::end(turn, TurnState::SERVER_CLOSED);
        STREAMS.remove(&key).ok();
    }
}

#[inline(always)]
fn size(frame: &Frame) -> u64 {
    u64::from(frame.length) + FRAME_HEADER as u64
}

#[inline(always)]
fn reset(walk: &Walk, stream: u32) {
    let key = key(walk, stream);
    if let Some(turn) = STREAMS.get_ptr_mut(&key) {
        turns::end(turn, TurnState::RESET);
        STREAMS.remove(&key).ok();
    }
}

/// A new stream: what is known of the connection, and the request's beginning.
#[inline(always)]
fn open(skb: *mut __sk_buff, walk: &Walk, frame: &Frame, body: u32) -> Option<*mut Turn> {
    let connection = TURNS.get_ptr(walk.cookie)?;
    let key = key(walk, frame.stream);
    // SAFETY: a map value, copied as it is.
    if STREAMS
        .insert(&key, unsafe { &*connection }, u64::from(BPF_ANY))
        .is_err()
    {
        emit::lost(LostReason::TURNS_FULL);
        return None;
    }
    let turn = STREAMS.get_ptr_mut(&key)?;
    let now = turns::now();
    // SAFETY: a map value.
    unsafe {
        (*turn).started_ns = now;
        (*turn).answered_ns = 0;
        (*turn).last_ns = 0;
        (*turn).request_bytes = 0;
        (*turn).response_bytes = 0;
        (*turn).number = frame.stream;
        (*turn).form = Form::STREAM;
        (*turn).state = TurnState::OPEN;
        (*turn).head_bytes = 0;
        (*turn).half_closed = 0;
        (*turn).head = [0; TURN_HEAD];
    }
    // RFC 9113 §6.2: a length of padding, a stream and a weight may come first.
    let mut skip = 0;
    if frame.flags & PADDED != 0 {
        skip += 1;
    }
    if frame.flags & PRIORITY != 0 {
        skip += 5;
    }
    let begins = body.wrapping_add(skip);
    let here = walk.payload.wrapping_sub(begins);
    let block = frame.length.wrapping_sub(skip);
    if (here as i32) > 0 && (block as i32) > 0 {
        let length = if here < block { here } else { block };
        turns::read_head(skb, turn, walk.at.wrapping_add(begins), length);
    }
    Some(turn)
}

#[inline(always)]
fn key(walk: &Walk, stream: u32) -> StreamKey {
    StreamKey {
        cookie: walk.cookie,
        stream,
        zero: 0,
    }
}
