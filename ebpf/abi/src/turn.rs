//! Turns: one request and its answer on a connection that a guarded group
//! serves, as the kernel sees them pass.

use crate::GroupId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a request's beginning that are kept: enough for a request line.
pub const TURN_HEAD: usize = 96;
/// Connections of guarded groups that are followed at once.
pub const MAX_TURNS: u32 = 65_536;
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
    /// HTTP/2 in the clear (RFC 9113 §3.4): one turn for the whole connection.
    pub const HTTP2: Self = Self(2);
    /// TLS (RFC 8446 §5.1): one turn for the whole connection.
    pub const TLS: Self = Self(3);
    /// HTTP/1.x that became something else by a 101 answer (RFC 9110 §15.2.2).
    pub const SWITCHED: Self = Self(4);
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
    /// Ended by the server's end of the connection.
    pub const SERVER_CLOSED: Self = Self(3);
    /// Ended by the server's end of the connection, after the client's.
    pub const CLIENT_CLOSED: Self = Self(4);
    /// Ended by a reset from the client.
    pub const RESET: Self = Self(5);
}

/// One turn. Bytes are TCP payload as it passed the socket's own hooks:
/// retransmissions count again. Times are nanoseconds since boot.
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
    /// Position on the connection, from 0.
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

const _: () = {
    assert!(size_of::<Turn>() == 192);
    assert!(core::mem::offset_of!(Turn, head) == 96);
};
