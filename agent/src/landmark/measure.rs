//! One measurement: challenges and answers, and the statement about them.

use super::LandmarkError;
use super::wire::{LARGEST, Packet, Who};
use crate::clock;
use crate::signed::{self, Kind};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use merestone_evidence::{Digest, LandmarkKind, LandmarkStatement, answer_message, encode};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long an answer may take: light is around the earth four times over.
const PATIENCE: Duration = Duration::from_millis(600);
/// Challenges without an answer after which nothing more is sent.
const MOST_UNANSWERED: u32 = 4;
/// Packets of others that are kept meanwhile.
const MOST_KEPT: usize = 256;

/// The key of a landmark and where it stands.
pub(super) struct Measurer {
    pub(super) socket: UdpSocket,
    pub(super) key: SigningKey,
    pub(super) id: Digest,
    pub(super) position: (i32, i32),
    pub(super) rounds: u32,
    /// What came from others while somebody was measured.
    pub(super) kept: VecDeque<(Packet, SocketAddr)>,
}

/// What was seen so far.
struct Seen {
    transcript: Sha256,
    sent: u32,
    answered: u32,
    shortest: Option<Duration>,
    began_ms: u64,
}

/// Whether `signature` is that of the session over a challenge of this landmark.
pub(super) fn holds(
    who: &Who,
    landmark: &Digest,
    challenge: &[u8; 32],
    signature: &[u8; 64],
) -> bool {
    let key = VerifyingKey::from_bytes(&who.key).ok();
    let key = key.filter(|key| !key.is_weak());
    let message = answer_message(who.session, landmark, challenge);
    key.is_some_and(|key| {
        key.verify_strict(&message, &Signature::from_bytes(signature))
            .is_ok()
    })
}

impl Measurer {
    /// The next packet that is one of ours; `None` when `until` has come.
    pub(super) fn receive(
        &self,
        until: Option<Instant>,
    ) -> Result<Option<(Packet, SocketAddr, Instant)>, LandmarkError> {
        let mut buffer = [0; LARGEST];
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let failed = |doing| move |source| LandmarkError::Socket { doing, source };
            self.socket
                .set_read_timeout(left)
                .map_err(failed("set a deadline"))?;
            let received = self.socket.recv_from(&mut buffer);
            // Before anything is looked at: what follows is not part of the way.
            let at = Instant::now();
            match received {
                Ok((length, from)) => {
                    let packet = buffer.get(..length).and_then(Packet::read);
                    if let Some(packet) = packet {
                        return Ok(Some((packet, from, at)));
                    }
                }
                Err(error) if is_passing(&error) => {}
                Err(source) => return Err(failed("receive")(source)),
            }
        }
    }

    pub(super) fn send(&self, packet: &Packet, to: SocketAddr) -> bool {
        // An address that cannot be reached is silent.
        self.socket.send_to(&packet.bytes(), to).is_ok()
    }

    /// Challenges `who` at `to`, and gives what was measured, signed; `None` where too little
    /// came back.
    pub(super) fn measure(
        &mut self,
        who: &Who,
        to: SocketAddr,
    ) -> Result<Option<Vec<u8>>, LandmarkError> {
        let mut seen = Seen {
            transcript: Sha256::new(),
            sent: 0,
            answered: 0,
            shortest: None,
            began_ms: clock::now_ms(),
        };
        let mut silent = 0;
        while seen.sent < self.rounds && silent < MOST_UNANSWERED {
            if self.round(who, to, &mut seen)? {
                silent = 0;
            } else {
                silent += 1;
            }
        }
        let Some(shortest) = seen.shortest else {
            return Ok(None);
        };
        let statement = LandmarkStatement {
            kind: LandmarkKind,
            session: who.session,
            session_key: who.key,
            transcript: Digest(seen.transcript.finalize().into()),
            sent: seen.sent,
            answered: seen.answered,
            rtt_min_ns: u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX),
            began_ms: seen.began_ms,
            ended_ms: clock::now_ms().max(seen.began_ms),
            latitude_e7: self.position.0,
            longitude_e7: self.position.1,
        };
        let message = signed::sign(Kind::Landmark, &self.key, &encode(&statement))?;
        Ok(Some(message))
    }

    fn round(&mut self, who: &Who, to: SocketAddr, seen: &mut Seen) -> Result<bool, LandmarkError> {
        let mut challenge = [0; 32];
        random(&mut challenge)?;
        // The first, which showed that somebody is there, was number 0.
        let number = seen.sent + 1;
        seen.sent = number;
        let packet = Packet::Challenge {
            number,
            landmark: self.id,
            challenge,
        };
        let sent = Instant::now();
        if !self.send(&packet, to) {
            return Ok(false);
        }
        let until = sent + PATIENCE;
        while let Some((packet, from, at)) = self.receive(Some(until))? {
            if let Packet::Answer {
                number: got,
                who: answering,
                challenge: of,
                signature,
            } = &packet
                && from == to
                && (*got, answering, of) == (number, who, &challenge)
            {
                if !holds(who, &self.id, &challenge, signature) {
                    continue;
                }
                let took = at.duration_since(sent);
                seen.transcript.update(challenge);
                seen.transcript.update(signature);
                seen.answered += 1;
                seen.shortest = Some(seen.shortest.map_or(took, |least| least.min(took)));
                return Ok(true);
            }
            if from != to && self.kept.len() < MOST_KEPT {
                self.kept.push_back((packet, from));
            }
        }
        Ok(false)
    }
}

/// A deadline, a signal, or word that somebody's port is closed.
pub(super) fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

pub(super) fn random(bytes: &mut [u8; 32]) -> Result<(), LandmarkError> {
    getrandom(&mut bytes[..], GetRandomFlags::empty())
        .map(drop)
        .map_err(|error| LandmarkError::Random {
            source: error.into(),
        })
}
