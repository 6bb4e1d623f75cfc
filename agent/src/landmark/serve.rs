//! A landmark: it measures whoever asks, one at a time, and signs what it saw.
//!
//! One at a time, because the work for one would be time added to another. It keeps no state for
//! a hello: the first challenge is a code over whom it goes to, so that a forged sender costs an
//! answer no longer than the question and nothing else.

use super::LandmarkError;
use super::measure::{Measurer, holds, random};
use super::wire::{Packet, Who};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use merestone_evidence::sha256;
use sha2::Sha256;
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long a first challenge may be answered, at least and at most twice.
const SLOT: Duration = Duration::from_secs(4);
/// Ten-millionths of a degree.
const DEGREE: f64 = 1e7;

/// How to be a landmark.
#[derive(Debug)]
pub struct Options {
    /// Signs what is measured.
    pub key: SigningKey,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Challenges in one measurement.
    pub rounds: u32,
    /// Ends after so many measurements; `None` goes on.
    pub most: Option<u64>,
}

/// Measures whoever asks; `told` hears of each measurement.
pub fn serve(
    socket: UdpSocket,
    options: Options,
    mut told: impl FnMut(SocketAddr, Option<&[u8]>),
) -> Result<(), LandmarkError> {
    let Options {
        key,
        latitude,
        longitude,
        rounds,
        most,
    } = options;
    let mut secret = [0; 32];
    random(&mut secret)?;
    let mut landmark = Measurer {
        id: sha256(key.verifying_key().as_bytes()),
        socket,
        key,
        position: position(latitude, longitude)?,
        rounds: rounds.max(1),
        kept: VecDeque::new(),
    };
    let began = Instant::now();
    let slot = || began.elapsed().as_secs() / SLOT.as_secs();
    let mut done = 0;
    while most.is_none_or(|most| done < most) {
        let (packet, from) = match landmark.kept.pop_front() {
            Some(kept) => kept,
            None => match landmark.receive(None)? {
                Some((packet, from, _)) => (packet, from),
                None => continue,
            },
        };
        match packet {
            Packet::Hello(who) => {
                let packet = Packet::Challenge {
                    number: 0,
                    landmark: landmark.id,
                    challenge: first(&secret, &who, from, slot()),
                };
                landmark.send(&packet, from);
            }
            Packet::Answer {
                number: 0,
                who,
                challenge,
                signature,
            } => {
                let now = slot();
                let ours = [now, now.saturating_sub(1)]
                    .into_iter()
                    .any(|slot| first(&secret, &who, from, slot) == challenge);
                if ours && holds(&who, &landmark.id, &challenge, &signature) {
                    let message = landmark.measure(&who, from)?;
                    if let Some(message) = &message {
                        landmark.send(&Packet::Statement(message.clone()), from);
                    }
                    told(from, message.as_deref());
                    done += 1;
                }
            }
            Packet::Answer { .. } | Packet::Challenge { .. } | Packet::Statement(_) => {}
        }
    }
    Ok(())
}

/// The first challenge to an address: nobody else can have been sent it.
fn first(secret: &[u8; 32], who: &Who, to: SocketAddr, slot: u64) -> [u8; 32] {
    // Any length of key will do for an HMAC.
    let Ok(mut code) = Hmac::<Sha256>::new_from_slice(secret) else {
        return [0; 32];
    };
    code.update(&who.session.0);
    code.update(&who.key);
    code.update(to.to_string().as_bytes());
    code.update(&slot.to_be_bytes());
    code.finalize().into_bytes().into()
}

fn position(latitude: f64, longitude: f64) -> Result<(i32, i32), LandmarkError> {
    let is_on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
    if !is_on_earth {
        return Err(LandmarkError::Position {
            latitude,
            longitude,
        });
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to lie within 1.8e9 above"
    )]
    let steps = |degrees: f64| (degrees * DEGREE).round() as i32;
    Ok((steps(latitude), steps(longitude)))
}
