//! Landmarks: how far away the holder of the session's key is at most.
//!
//! The agent says hello; the landmark sends random challenges, one at a time, and takes the time
//! until the session's key has signed each; then it signs the shortest time and gives it to the
//! agent, whose next epoch seals it. A host can only make itself seem farther away.
//!
//! Neither side sends more than it was sent before who it speaks to has shown to be there: a
//! hello is as long as the first challenge, a challenge longer than its answer. A landmark keeps
//! nothing about a hello: its first challenge says for itself whom it was sent to. The TPM is not
//! part of the round trip: it would add more time than the distance.
//!
//! The same thread asks the cloud whose instance the host is for its signed document, where that is
//! configured.

mod ask;
mod cloud;
#[cfg(fuzzing)]
pub mod doors;
mod error;
mod measure;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

pub use ask::{Asker, Place, Target};
pub use cloud::{Metadata, Provider};
pub use error::LandmarkError;
pub use serve::{Options, serve};
