//! `merestone landmark`: what whoever runs a landmark does, on a machine of his own.

use super::{Exit, Failure, output, sign};
use crate::landmark::{self, LandmarkError};
use crate::signed;
use merestone_evidence::{LandmarkStatement, decode};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a landmark's key: FILE (keep it) and FILE.pub (give it to the verifiers)
    #[command(after_help = "\
Example:
  merestone landmark keygen --out landmark.pem
  # then, in trust.toml of every verifier:
  #   [[landmark]]
  #   name = \"frankfurt\"
  #   key = \"ed25519:...\"
  #   latitude = 50.1109
  #   longitude = 8.6821
  # and in merestone.toml of every host:
  #   [location]
  #   landmarks = [\"ed25519:...@203.0.113.7:7101\"]")]
    Keygen {
        /// The file for the private key
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Measure whoever asks, until it is stopped
    #[command(after_help = "\
Example:
  merestone landmark serve --key landmark.pem --listen 203.0.113.7:7101 \\
    --latitude 50.1109 --longitude 8.6821")]
    Serve(Serve),
}

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// The landmark's private key (PEM, PKCS #8, Ed25519)
    #[arg(long, value_name = "PEM")]
    key: PathBuf,

    /// Where to be asked, by UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// Where this machine stands, in degrees north
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true)]
    latitude: f64,

    /// Where this machine stands, in degrees east
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true)]
    longitude: f64,

    /// Challenges in one measurement; the shortest round trip counts
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    rounds: u32,

    /// End after so many measurements
    #[arg(long, value_name = "N")]
    most: Option<u64>,
}

pub(super) fn execute(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Keygen { out } => sign::keygen(&out),
        Command::Serve(serve) => measure(serve),
    }
}

fn measure(serve: Serve) -> Result<Exit, Failure> {
    let Serve {
        key,
        listen,
        latitude,
        longitude,
        rounds,
        most,
    } = serve;
    let options = landmark::Options {
        key: signed::signing_key(&key).map_err(|error| Failure::of(&error))?,
        latitude,
        longitude,
        rounds,
        most,
    };
    let socket = UdpSocket::bind(listen).map_err(|source| {
        let doing = "listen";
        Failure::of(&LandmarkError::Socket { doing, source })
    })?;
    output::say(&format!("measuring on {listen}"))?;
    let served = landmark::serve(socket, options, |from, message| {
        // Who reads along may be gone; the measuring goes on.
        let _reader_is_gone = output::say(&told(from, message)).is_err();
    });
    served.map_err(|error| Failure::of(&error))?;
    Ok(Exit::Yes)
}

/// One line about one measurement, for whoever runs the landmark.
fn told(from: SocketAddr, message: Option<&[u8]>) -> String {
    let payload = message.and_then(|message| signed::payload(message).ok());
    let statement: Option<LandmarkStatement> = payload.and_then(|payload| decode(&payload).ok());
    match statement {
        None => format!("{from}: no answers"),
        Some(statement) => format!(
            "{from}: session {}, {} of {} answered, shortest {} us",
            statement.session,
            statement.answered,
            statement.sent,
            statement.rtt_min_ns.div_ceil(1000)
        ),
    }
}
