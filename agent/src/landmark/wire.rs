//! The packets: UDP, one each way, fixed lengths but for the last.
//!
//! ```text
//! hello      "MSL1" 1  session[16] key[32]  zeroes, 192 in all       agent to landmark
//! challenge  "MSL1" 2  number[4] landmark[32] challenge[32]  zeroes, 192 in all
//! answer     "MSL1" 3  number[4] session[16] key[32] challenge[32] signature[64]
//! statement  "MSL1" 4  COSE_Sign1
//! ```

use merestone_evidence::{Digest, SessionId};

const MAGIC: &[u8; 4] = b"MSL1";
/// A hello is as long as the challenge it gets, a challenge longer than its answer.
const PADDED: usize = 192;
/// Largest packet that is read.
pub(super) const LARGEST: usize = 1200;

/// Who is to be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Who {
    pub(super) session: SessionId,
    pub(super) key: [u8; 32],
}

/// One packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Packet {
    Hello(Who),
    Challenge {
        number: u32,
        landmark: Digest,
        challenge: [u8; 32],
    },
    Answer {
        number: u32,
        who: Who,
        challenge: [u8; 32],
        signature: [u8; 64],
    },
    Statement(Vec<u8>),
}

impl Packet {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        match self {
            Self::Hello(who) => {
                out.push(1);
                out.extend(who.session.0);
                out.extend(who.key);
                out.resize(PADDED, 0);
            }
            Self::Challenge {
                number,
                landmark,
                challenge,
            } => {
                out.push(2);
                out.extend(number.to_be_bytes());
                out.extend(landmark.0);
                out.extend(challenge);
                out.resize(PADDED, 0);
            }
            Self::Answer {
                number,
                who,
                challenge,
                signature,
            } => {
                out.push(3);
                out.extend(number.to_be_bytes());
                out.extend(who.session.0);
                out.extend(who.key);
                out.extend(challenge);
                out.extend(signature);
            }
            Self::Statement(message) => {
                out.push(4);
                out.extend(message);
            }
        }
        out
    }

    /// `None` for anything that is not exactly one of ours.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let [kind] = take(&mut rest)?;
        let packet = match kind {
            1 => Self::Hello(who(&mut rest)?),
            2 => Self::Challenge {
                number: u32::from_be_bytes(take(&mut rest)?),
                landmark: Digest(take(&mut rest)?),
                challenge: take(&mut rest)?,
            },
            3 => Self::Answer {
                number: u32::from_be_bytes(take(&mut rest)?),
                who: who(&mut rest)?,
                challenge: take(&mut rest)?,
                signature: take(&mut rest)?,
            },
            4 => Self::Statement(rest.to_vec()),
            _ => return None,
        };
        (packet.bytes() == bytes).then_some(packet)
    }
}

fn who(rest: &mut &[u8]) -> Option<Who> {
    Some(Who {
        session: SessionId(take(rest)?),
        key: take(rest)?,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}
