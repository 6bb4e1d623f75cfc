//! `merestone sign`: what the holder of a signer's key does, on any machine.
//!
//! It reads neither the configuration nor the agent: the key belongs to an
//! authority, and is best kept on a machine that runs no GPU.

use super::{Exit, Failure, output};
use crate::signed::{self, Kind};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a signer's key: FILE (keep it) and FILE.pub (give it to the hosts)
    #[command(after_help = "\
Example:
  merestone sign keygen --out authority.pem
  # then, in merestone.toml of every host:
  #   [policy]
  #   signers = [\"/etc/merestone/authority.pem.pub\"]")]
    Keygen {
        /// The file for the private key
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign a boundary: writes FILE.cose beside it
    #[command(after_help = "\
Example:
  merestone sign boundary --key authority.pem boundary.toml")]
    Boundary(Args),
    /// Sign a grant: writes FILE.cose, which carries the grant
    #[command(after_help = "\
Example:
  merestone sign grant --key authority.pem export.toml
  merestone grant apply export.toml.cose")]
    Grant(Args),
    /// Sign a break-glass token: writes FILE.cose, which carries the token
    #[command(after_help = "\
Example:
  merestone sign break-glass --key authority.pem token.toml")]
    BreakGlass(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The signer's private key (PEM, PKCS #8, Ed25519)
    #[arg(long, value_name = "PEM")]
    key: PathBuf,

    /// The file to sign
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Write here instead of FILE.cose
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
}

pub(super) fn execute(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Keygen { out } => keygen(&out),
        Command::Boundary(args) => sign(Kind::Boundary, args),
        Command::Grant(args) => sign(Kind::Grant, args),
        Command::BreakGlass(args) => sign(Kind::BreakGlass, args),
    }
}

pub(super) fn keygen(out: &Path) -> Result<Exit, Failure> {
    let (private, public, inline) = signed::generate().map_err(|error| Failure::of(&error))?;
    let mut name = out.as_os_str().to_owned();
    name.push(".pub");
    let beside = PathBuf::from(name);
    // Never over an old key, and for nobody else to read from the first byte.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .map_err(|error| {
            Failure::new(Exit::No, format!("cannot write {}: {error}", out.display()))
                .hint("name a file that does not exist yet")
        })?;
    file.write_all(private.as_bytes())?;
    output::file(&beside, public.as_bytes(), false)?;
    output::say(&format!(
        "{}: the private key; keep it off the hosts\n{}: the public key, or as one line:\n{inline}",
        out.display(),
        beside.display()
    ))?;
    Ok(Exit::Yes)
}

fn sign(kind: Kind, args: Args) -> Result<Exit, Failure> {
    let key = signed::signing_key(&args.key).map_err(|error| Failure::of(&error))?;
    let payload = sound(kind, &args.file)?;
    let message = signed::sign(kind, &key, &payload).map_err(|error| Failure::of(&error))?;
    let out = args.out.unwrap_or_else(|| signed::beside(&args.file));
    output::file(&out, &message, args.force)?;
    let signer = signed::key_id(&key.verifying_key());
    output::say(&format!(
        "{}: signed by {}",
        out.display(),
        hex::encode(signer)
    ))?;
    Ok(Exit::Yes)
}

/// The bytes of a file worth signing: one that a host would refuse for its
/// form is refused here.
fn sound(kind: Kind, file: &Path) -> Result<Vec<u8>, Failure> {
    let limit = match kind {
        Kind::Boundary => crate::policy::LIMIT_BYTES,
        Kind::Grant | Kind::BreakGlass | Kind::Landmark => signed::LIMIT_BYTES as u64,
    };
    let bytes = crate::config::fault::read(file, limit)?;
    match kind {
        Kind::Boundary => {
            crate::policy::parse(file, bytes.clone())?;
        }
        Kind::Grant => {
            crate::grant::Terms::parse(&bytes).map_err(|error| Failure::of(&error))?;
        }
        Kind::BreakGlass => {
            let mut faults = crate::config::Faults::new();
            crate::config::document::Text::new(file, bytes.clone())?.parse(&mut faults);
            faults.into_result(())?;
        }
        // Landmarks sign what they measure, and nothing by hand.
        Kind::Landmark => {}
    }
    Ok(bytes)
}
