//! The agent's side: asks each landmark in turn, answers its challenges with the session's key,
//! and keeps the statements for the next epoch.
//!
//! A thread of its own, so that an answer waits for nothing: not for the agent's loop, not for the
//! TPM. It speaks only with the landmarks that are configured, each over a socket that the kernel
//! keeps to that address, signs nothing but answers, and no more of them than a measurement has.

use super::LandmarkError;
use super::cloud::Metadata;
use super::measure::is_passing;
use super::wire::{LARGEST, Packet, Who};
use crate::seal::Answerer;
use crate::signed::{Kind, Signers};
use merestone_evidence::{
    Blob, CloudDocument, Digest, LandmarkStatement, LocationEvidence, LocationKind, SessionId,
    decode, sha256,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one landmark may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long a landmark may be silent until hello is said again: longer than it waits for an answer,
/// so that it is not asked anew in the middle of a measurement.
const AGAIN: Duration = Duration::from_secs(2);
/// Most answers to one landmark in a round.
const MOST_ANSWERS: u32 = 80;
/// How often it is looked whether a new session has begun.
const LOOK: Duration = Duration::from_millis(500);
/// How soon a landmark that was silent is asked again.
const RETRY: Duration = Duration::from_secs(30);

/// A landmark to ask: `ed25519:BASE64@ADDRESS:PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Its key, as it is written.
    pub key: String,
    /// Its address.
    pub address: SocketAddr,
}

impl Target {
    /// Reads the form it is written in.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form =
            "write ed25519:KEY@ADDRESS:PORT, with the key that `merestone landmark keygen` printed";
        let (key, address) = text.rsplit_once('@').ok_or(form)?;
        let address = address.parse().map_err(|_not_one| form)?;
        if !key.starts_with("ed25519:") {
            return Err(form.to_owned());
        }
        crate::signed::public_key(key).map_err(|error| error.to_string())?;
        Ok(Self {
            key: key.to_owned(),
            address,
        })
    }
}

/// Where a round is left for the epoch that seals it; the newest stays.
#[derive(Clone, Debug, Default)]
pub struct Place(Arc<Mutex<Option<LocationEvidence>>>);

impl Place {
    /// Takes what came since the last time.
    #[must_use]
    pub fn take(&self) -> Option<LocationEvidence> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether something waits.
    #[must_use]
    pub fn waits(&self) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.is_some()
    }

    fn put(&self, evidence: LocationEvidence) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(evidence);
    }
}

/// Asks landmarks for as long as the agent runs.
#[derive(Debug)]
pub struct Asker {
    targets: Vec<(Target, Signers, Digest)>,
    cloud: Option<Metadata>,
    answerer: Answerer,
    interval: Duration,
    place: Place,
}

impl Asker {
    /// Starts the thread; what it gathers is left in the place that is given back.
    pub fn spawn(
        targets: &[Target],
        cloud: Option<Metadata>,
        interval: Duration,
        answerer: Answerer,
    ) -> Result<Place, LandmarkError> {
        let mut known = Vec::new();
        for target in targets {
            let signers = Signers::load(&[target.key.as_str()])?;
            let key = crate::signed::public_key(&target.key)?;
            known.push((target.clone(), signers, sha256(key.as_bytes())));
        }
        let place = Place::default();
        let asker = Self {
            targets: known,
            cloud,
            answerer,
            interval,
            place: place.clone(),
        };
        thread::Builder::new()
            .name("landmarks".to_owned())
            .spawn(move || asker.work())
            .map_err(|source| LandmarkError::Socket {
                doing: "start the thread that asks landmarks",
                source,
            })?;
        Ok(place)
    }

    fn work(self) {
        let mut last: Option<(SessionId, Instant, bool)> = None;
        loop {
            let session = self.answerer.session().map(|(session, _)| session);
            let is_due = session.is_some_and(|session| match last {
                Some((before, at, complete)) if before == session => {
                    let wait = if complete {
                        self.interval
                    } else {
                        self.interval.min(RETRY)
                    };
                    at.elapsed() >= wait
                }
                _ => true,
            });
            if let Some(session) = session.filter(|_| is_due) {
                let complete = self.round(session);
                last = Some((session, Instant::now(), complete));
            }
            thread::sleep(LOOK);
        }
    }

    /// Asks every landmark; whether all of them measured.
    fn round(&self, session: SessionId) -> bool {
        let mut landmarks = Vec::new();
        for (target, signers, id) in &self.targets {
            match ask(target.address, signers, *id, &self.answerer) {
                Ok(message) => landmarks.push(Blob::from(message)),
                Err(error) => {
                    tracing::warn!(landmark = %target.address, %error, "not measured by a landmark");
                }
            }
        }
        let clouds = self.cloud(session);
        let complete = landmarks.len() == self.targets.len()
            && clouds.len() == usize::from(self.cloud.is_some());
        if !landmarks.is_empty() || !clouds.is_empty() {
            tracing::debug!(
                landmarks = landmarks.len(),
                clouds = clouds.len(),
                "measured"
            );
            self.place.put(LocationEvidence {
                kind: LocationKind,
                session,
                landmarks,
                clouds,
            });
        }
        complete
    }
}

impl Asker {
    fn cloud(&self, session: SessionId) -> Vec<CloudDocument> {
        let statement = self.answerer.statement(session);
        let Some((cloud, statement)) = self.cloud.as_ref().zip(statement) else {
            return Vec::new();
        };
        let asked = cloud.ask(&statement);
        let noted = asked.inspect_err(|error| {
            tracing::warn!(service = %cloud.address, %error, "no document of the cloud");
        });
        noted.into_iter().collect()
    }
}

/// One measurement by one landmark: its signed statement.
fn ask(
    address: SocketAddr,
    signers: &Signers,
    id: Digest,
    answerer: &Answerer,
) -> Result<Vec<u8>, LandmarkError> {
    let failed = |doing| move |source| LandmarkError::Socket { doing, source };
    let own = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((own, 0)).map_err(failed("open a socket"))?;
    socket
        .connect(address)
        .map_err(failed("reach the landmark"))?;
    let (session, key) = answerer.session().ok_or(LandmarkError::NoSession)?;
    let who = Who { session, key };
    let hello = Packet::Hello(who).bytes();
    let until = Instant::now() + PATIENCE;
    let mut again = Instant::now();
    let (mut challenges, mut buffer) = (0, [0; LARGEST]);
    while Instant::now() < until {
        let now = Instant::now();
        // Whatever was lost on the way, the first answer or the statement itself: asked again, the
        // landmark measures anew. A network that is down now may be up in a moment.
        if now >= again {
            socket.send(&hello).map(drop).or_else(|error| {
                if is_passing(&error) {
                    Ok(())
                } else {
                    Err(failed("say hello")(error))
                }
            })?;
            again = now + AGAIN;
        }
        let left = until
            .min(again)
            .saturating_duration_since(now)
            .max(Duration::from_millis(1));
        socket
            .set_read_timeout(Some(left))
            .map_err(failed("set a deadline"))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(failed("receive")(error)),
        };
        match buffer.get(..length).and_then(Packet::read) {
            Some(Packet::Challenge {
                number,
                landmark,
                challenge,
            }) if landmark == id && challenges < MOST_ANSWERS => {
                challenges += 1;
                again = Instant::now() + AGAIN;
                let signature = answerer
                    .answer(session, &landmark, &challenge)
                    .ok_or(LandmarkError::NoSession)?;
                let answer = Packet::Answer {
                    number,
                    who,
                    challenge,
                    signature,
                };
                // A lost answer is one of several.
                let _lost = socket.send(&answer.bytes()).is_err();
            }
            Some(Packet::Statement(message)) => {
                let signed = signers.verify(Kind::Landmark, &message, None)?;
                let statement: LandmarkStatement = decode(&signed.payload)?;
                if (statement.session, statement.session_key) != (session, key) {
                    return Err(LandmarkError::Foreign);
                }
                return Ok(message);
            }
            _ => {}
        }
    }
    Err(LandmarkError::Silent { challenges })
}
