//! Turns: one request and its answer on a connection that a guarded group
//! serves, as the kernel sees them pass.

use crate::GroupId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a request's beginning that are kept: enough for a request line.
pub const TURN_HEAD: usize = 96;
/// Connections of guarded groups that are followed at once.
pub const MAX_TURNS: u32 = 65_536;
/// Frames that are read of one segment; one with more is read no further.
pub const MAX_FRAMES: u32 = 64;
/// Bytes of an HTTP/2 frame's header (RFC 9113 §4.1).
pub const FRAME_HEADER: usize = 9;
/// Bytes of the ring buffer of finished turns.
pub const TURN_RING_BYTES: u32 = 4 << 20;

/// What is spoken on a connection, by its first bytes.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(transparent)]
pub struct Form(pub u8);

impl Form {
    /// None of the others: one turn for the whole connection.
    pub const OTHER: Self = Self(0);
    /// HTTP/1.x in the clear: one turn a request (RFC 9112).
    pub const HTTP1: Self = Self(1);
    /// HTTP/2 in the clear (RFC 9113 §3.4) whose frames are not followed: one
    /// turn for the whole connection, or for the rest of it.
    pub const HTTP2: Self = Self(2);
    /// TLS (RFC 8446 §5.1): one turn for the whole connection.
    pub const TLS: Self = Self(3);
    /// HTTP/1.x that became something else by a 101 answer (RFC 9110 §15.2.2).
    pub const SWITCHED: Self = Self(4);
    /// A stream of HTTP/2 in the clear (RFC 9113 §5): one turn each.
    pub const STREAM: Self = Self(5);
    /// The connection of such streams: no turn of its own.
    pub const STREAMS: Self = Self(6);
}

/// How far a turn is.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(transparent)]
pub struct TurnState(pub u8);

impl TurnState {
    /// Not a turn: this side opened the connection.
    pub const CLIENT: Self = Self(0);
    /// Under way.
    pub const OPEN: Self = Self(1);
    /// Ended by the next request on the connection.
    pub const NEXT: Self = Self(2);
    /// Ended by the server's end of the connection, or of the stream.
    pub const SERVER_CLOSED: Self = Self(3);
    /// Ended by the server's end of the connection, after the client's.
    pub const CLIENT_CLOSED: Self = Self(4);
    /// Ended by a reset from the client; a stream's by either side, or because
    /// the connection ended before it.
    pub const RESET: Self = Self(5);
}

/// One turn. Bytes are TCP payload as it passed the socket's own hooks:
/// retransmissions count again. Of a stream they are its frames with their
/// headers, each once. Times are nanoseconds since boot.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Turn {
    /// First byte of the request.
    pub started_ns: u64,
    /// Last byte of the request so far.
    pub request_ns: u64,
    /// First byte of the answer; 0 while there is none.
    pub answered_ns: u64,
    /// Last byte of the answer so far.
    pub last_ns: u64,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the answer.
    pub response_bytes: u64,
    /// The socket's cookie: with [`Turn::number`], unique since boot.
    pub cookie: u64,
    /// The guarded group that serves.
    pub group: GroupId,
    /// Who asked, IPv4 mapped.
    pub peer: [u8; 16],
    /// The process that made the listening socket; 0 where nobody knows.
    pub owner: u32,
    /// Position on the connection, from 0; of a stream its identifier.
    pub number: u32,
    /// The client's port.
    pub peer_port: u16,
    /// The server's port.
    pub local_port: u16,
    /// What is spoken.
    pub form: Form,
    /// How far it is.
    pub state: TurnState,
    /// Bytes of [`Turn::head`] that are the request's.
    pub head_bytes: u8,
    /// 1 once the client has sent its end of the connection.
    pub half_closed: u8,
    /// The request's first bytes.
    pub head: [u8; TURN_HEAD],
}

/// How far the frames of one direction were read.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct FrameSide {
    /// TCP sequence number of the next frame's first byte.
    pub next: u32,
    /// Bytes of that frame's header which an earlier segment had.
    pub head: [u8; FRAME_HEADER],
    /// How many.
    pub have: u8,
    /// 1 once `next` is known.
    pub known: u8,
    /// Zero.
    pub zero: u8,
}

/// A connection of HTTP/2 whose frames are followed.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Frames {
    /// What the client sends.
    pub asked: FrameSide,
    /// What the server sends.
    pub answered: FrameSide,
}

/// A stream of a connection.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct StreamKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The stream's identifier.
    pub stream: u32,
    /// Zero.
    pub zero: u32,
}

const _: () = {
    assert!(size_of::<FrameSide>() == 16);
    assert!(size_of::<StreamKey>() == 16);
    assert!(size_of::<Turn>() == 192);
    assert!(core::mem::offset_of!(Turn, head) == 96);
};
