//! `merestone enroll`: what a verifier must know of this host beforehand.

use super::{Exit, Failure, Globals, geotag, output};
use crate::config::Config;
use crate::enrolment::Memory;
use crate::export::{self, TrustInputs};
use crate::ledger::Reader;
use crate::{clock, enrolment, policy, seal, signed};
use merestone_evidence::{Digest, Record as _, SessionStatement, decode, encode, sha256};
use merestone_tpm::{EkKind, EsysTpm, Tpm as _};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a trust.toml that pins this host's attestation key
    #[command(after_help = "\
The file says which key this host signs with; it does not say that the key is in a real TPM.
Carry it to the verifier by a way you trust.

Example:
  merestone enroll trust --out trust.toml")]
    Trust(Trust),

    /// Ask an authority to vouch for this host's TPM: write the request
    #[command(after_help = "\
The request holds the endorsement key's certificate and the public keys of the TPM. It is no
secret, and nobody believes it before the challenge is answered. A TPM that speaks to one program
alone (swtpm over TCP) must be free: stop the agent.

Example:
  merestone enroll request --out gpu-01.request
  merestone enroll request --geotag country=DE,facility=fra-1,at=50.110900:8.682100 \\
    --out gpu-01.request
  # carry it to the authority, who runs: merestone-verify enroll challenge gpu-01.request …")]
    Request(Request),

    /// Answer an authority's challenge with the TPM
    #[command(after_help = "\
Only the TPM of the request can open the challenge. The answer shows that it did.

Example:
  merestone enroll complete gpu-01.challenge --out gpu-01.answer
  # carry it back, where: merestone-verify enroll accept gpu-01.answer …")]
    Complete(Complete),

    /// Keep the authority's certificate: from now on every bundle carries it
    #[command(after_help = "\
Example:
  merestone enroll install gpu-01.cose --authority authority.pem.pub")]
    Install(Install),
}

#[derive(Debug, clap::Args)]
pub(super) struct Trust {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,

    /// Accept this boundary file too, beside the configured one; may be given
    /// again
    #[arg(long, value_name = "FILE")]
    pub(super) boundary: Vec<PathBuf>,

    /// Overwrite the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Request {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Which endorsement key [default: the first that the TPM has a
    /// certificate for, ecc before rsa]
    #[arg(long, value_name = "KIND", value_parser = ["ecc", "rsa"])]
    ek: Option<String>,

    /// Have the Name of this NV index vouched for; may be given again
    #[arg(long, value_name = "INDEX", value_parser = index)]
    nv: Vec<u32>,

    /// Write this place into the TPM and lock it for good: country=DE,region=…,facility=…,
    /// at=LATITUDE:LONGITUDE,by=WHO. To be done on site, by whoever vouches for it
    #[arg(long, value_name = "PLACE", value_parser = geotag::parse)]
    geotag: Option<geotag::Place>,

    /// Let --geotag take the place of a geotag that is there
    #[arg(long, requires = "geotag")]
    replace_geotag: bool,

    /// A file with the password of the TPM's owner, where it has one [default: none]
    #[arg(long, value_name = "FILE")]
    owner_auth: Option<PathBuf>,

    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Complete {
    /// The authority's challenge
    #[arg(value_name = "CHALLENGE")]
    challenge: PathBuf,

    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Install {
    /// The certificate
    #[arg(value_name = "CERTIFICATE")]
    certificate: PathBuf,

    /// Check that this key signed it: ed25519:BASE64, or a PEM file
    #[arg(long, value_name = "KEY")]
    authority: Option<String>,
}

fn index(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u32::from_str_radix(digits, 16)
        .ok()
        .filter(|index| (0x0100_0000..=0x01FF_FFFF).contains(index))
        .ok_or_else(|| "an NV index is a hexadecimal number like 0x01500001".to_owned())
}

pub(super) fn execute(globals: &Globals, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Trust(args) => trust(globals, &args),
        Command::Request(args) => request(globals, &args),
        Command::Complete(args) => complete(globals, &args),
        Command::Install(args) => install(globals, &args),
    }
}

fn request(globals: &Globals, args: &Request) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let kind = args.ek.as_deref().map(|kind| match kind {
        "rsa" => EkKind::Rsa2048,
        _ => EkKind::EccP256,
    });
    let mut tpm = enrolment::open_tpm(&config).map_err(|error| Failure::of(&error))?;
    let memory = memory(&config, &mut tpm, args)?;
    let request = enrolment::request(&config, &mut tpm, kind, &args.nv, memory)
        .map_err(|error| Failure::of(&error))?;
    output::file(&args.out, &encode(&request), args.force)?;
    let software = if request.tpm.software {
        "; the TPM is a program"
    } else {
        ""
    };
    output::say(&format!(
        "{}: node {}, attestation key {}, {} certificates of the TPM{software}\ncarry it to the authority",
        args.out.display(),
        request.node,
        hex::encode(&request.ak_name),
        request.ek_certificates.len()
    ))?;
    Ok(Exit::Yes)
}

/// Counters that the TPM refuses are said here, and again in the evidence; a geotag that was
/// asked for and refused ends the request.
fn memory(config: &Config, tpm: &mut EsysTpm, args: &Request) -> Result<Memory, Failure> {
    let mut auth = seal::nv_auth(&config.state_dir).map_err(|error| Failure::of(&error))?;
    if let Some(file) = &args.owner_auth {
        let mut owner = read(file, 1024)?;
        // A line as an editor writes it.
        while owner
            .last()
            .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
        {
            owner.pop();
        }
        auth.owner = owner;
    }
    let counters = match enrolment::counters(tpm, &auth) {
        Ok(made) => {
            let names = made.iter().map(|one| format!("{:#010x}", one.held.index));
            let names = names.collect::<Vec<_>>().join(" and ");
            output::say(&format!(
                "counters {names}: an authority vouches for them with --nv"
            ))?;
            Some(made)
        }
        Err(error) => {
            output::say(&format!(
                "no counters: {error}\nepochs cut from the end of the log will not show"
            ))?;
            None
        }
    };
    let geotag = match &args.geotag {
        Some(place) => {
            let tag = place.tag(clock::now_ms());
            let made = enrolment::write_geotag(tpm, &tag, args.replace_geotag, &auth);
            Some(made.map_err(|error| Failure::of(&error))?)
        }
        None => enrolment::kept_geotag(tpm, &auth).map_err(|error| Failure::of(&error))?,
    };
    Ok(Memory { counters, geotag })
}

fn complete(globals: &Globals, args: &Complete) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let limit = merestone_evidence::EnrolChallenge::LIMITS.bytes;
    let challenge = read(&args.challenge, limit as u64)?;
    let mut tpm = enrolment::open_tpm(&config).map_err(|error| Failure::of(&error))?;
    let answer =
        enrolment::answer(&config, &mut tpm, &challenge).map_err(|error| Failure::of(&error))?;
    output::file(&args.out, &answer, args.force)?;
    output::say(&format!(
        "{}: the TPM opened the challenge\ncarry it to the authority",
        args.out.display()
    ))?;
    Ok(Exit::Yes)
}

fn install(globals: &Globals, args: &Install) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let limit = merestone_evidence::Enrolment::LIMITS.bytes + 512;
    let message = read(&args.certificate, limit as u64)?;
    let authority = args.authority.as_deref().map(signed::public_key);
    let authority = authority.transpose().map_err(|error| Failure::of(&error))?;
    let ak_name = ak_name(&config)?;
    let installed = enrolment::install(
        &config.state_dir,
        &message,
        &config.node,
        &ak_name,
        authority.as_ref(),
    )
    .map_err(|error| Failure::of(&error))?;
    let checked = if authority.is_some() {
        "signed by that authority"
    } else {
        "its signature was not checked; a verifier will"
    };
    output::say(&format!(
        "{}: enrolment {} of node {}; {checked}",
        installed.path.display(),
        installed.claims.serial,
        installed.claims.node
    ))?;
    Ok(Exit::Yes)
}

/// Name of this host's attestation key: of the last session, or where there is none, the TPM's.
fn ak_name(config: &Config) -> Result<Vec<u8>, Failure> {
    let sessions = Reader::open(&config.state_dir).and_then(|reader| reader.sessions());
    let last = sessions
        .ok()
        .and_then(|sessions| sessions.into_iter().last());
    if let Some(last) = last {
        return Ok(name_of(&last.ak_public));
    }
    let tpm = enrolment::open_tpm(config).map_err(|error| Failure::of(&error))?;
    Ok(tpm.ak_name().to_vec())
}

/// The Name: TPM 2.0 Part 1, 16; the algorithm is SHA-256 (0x000b).
fn name_of(ak_public: &[u8]) -> Vec<u8> {
    let mut name = vec![0x00, 0x0b];
    name.extend(sha256(ak_public).0);
    name
}

fn read(file: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    Ok(crate::config::fault::read(file, limit)?)
}

fn trust(globals: &Globals, args: &Trust) -> Result<Exit, Failure> {
    let config = globals.load()?;
    let inputs = inputs(&config, &args.boundary)?;
    output::file(
        &args.out,
        export::trust_file(&inputs).as_bytes(),
        args.force,
    )?;
    output::say(&format!(
        "{}: node {}, attestation key {}\ncarry it to the verifier by a way you trust",
        args.out.display(),
        inputs.node,
        hex::encode(&inputs.ak_name)
    ))?;
    Ok(Exit::Yes)
}

/// From the last session that was sealed: what it says is what the TPM signed.
fn inputs(config: &Config, more: &[PathBuf]) -> Result<TrustInputs, Failure> {
    let sessions = Reader::open(&config.state_dir).and_then(|reader| reader.sessions());
    let sessions = sessions.map_err(|error| Failure::of(&error))?;
    let Some(last) = sessions.last() else {
        let message = format!(
            "no session was sealed yet in {}",
            config.state_dir.display()
        );
        return Err(Failure::new(Exit::No, message).hint("run the agent first: merestone run"));
    };
    let statement: SessionStatement =
        decode(&last.statement).map_err(|error| Failure::of(&error))?;
    let sources = policy::Sources::of(config)?;
    let load = |file: &Path| policy::load_with(file, &sources);
    let mut boundaries = vec![Digest(load(&config.boundary)?.digest)];
    for file in more {
        boundaries.push(Digest(load(file)?.digest));
    }
    Ok(TrustInputs {
        node: statement.node,
        ak_name: name_of(&last.ak_public),
        boundaries,
        software_tpm: statement.tpm.software,
        test_gpu_library: statement.gpu.test_library,
        require: statement.require,
        log_key: Reader::open(&config.state_dir)
            .and_then(|reader| reader.log_key())
            .map_err(|error| Failure::of(&error))?,
    })
}
