//! The command line.

use clap::{Args as Group, Parser, Subcommand};
use merestone_evidence::Site;
use merestone_verify::Trust;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Verify what a Merestone agent left as evidence, offline.
///
/// Needs no root, no TPM and no network. It believes only the keys that the trust policy
/// names, and it says what it did not check.
#[derive(Debug, Parser)]
#[command(
    name = "merestone-verify",
    version,
    after_help = "Exit codes:
  0  pass
  1  untrusted: a signature, a hash or a structure is wrong
  2  failed: sound, and against the trust policy
  3  indeterminate: something required was not there
  4  usage: the call or the trust policy has a fault
The worst of the checks decides, in the order 1, 2, 3, 0.

Examples:
  merestone-verify bundle november.merestone --trust trust.toml
  merestone-verify bundle november.merestone --trust trust.toml --html november.html
  merestone-verify receipt one.merestone --trust trust.toml --json
  merestone-verify inspect november.merestone
  merestone-verify enroll challenge gpu-01.request --trust authority.toml --out gpu-01.challenge
  merestone-verify witness --from gpu-01 --log gpu-01.vkey --state seen --key w1.key
  merestone-verify man --dir /usr/local/share/man/man1"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Verify a whole period
    #[command(after_help = "Examples:
  merestone-verify bundle november.merestone --trust trust.toml
  merestone-verify bundle november.merestone --trust trust.toml --json | jq .verdict
  merestone-verify bundle november.merestone --trust trust.toml --at 2026-12-01T00:00:00Z
  merestone-verify bundle november.merestone --trust trust.toml --html november.html \\
    --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z
  merestone-verify bundle november.merestone --trust trust.toml --ear november.jwt --ear-key key.pem

Exit codes: 0 pass, 1 untrusted, 2 failed, 3 indeterminate, 4 usage.")]
    Bundle {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        reports: Reports,
        #[command(flatten)]
        period: Period,
        /// Judge as of this time instead of now
        #[arg(long, value_name = "RFC3339", value_parser = instant)]
        at: Option<u64>,
    },
    /// Verify a file that shows single entries
    #[command(after_help = "Examples:
  merestone-verify receipt one.merestone --trust trust.toml
  merestone-verify receipt one.merestone --trust trust.toml --request asked.json \\
    --answer answered.json --salt 3f9c…
  merestone-verify receipt one.merestone --trust trust.toml --html one.html

Exit codes: 0 pass, 1 untrusted, 2 failed, 3 indeterminate, 4 usage.")]
    Receipt {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        held: Held,
        #[command(flatten)]
        reports: Reports,
        /// Judge as of this time instead of now
        #[arg(long, value_name = "RFC3339", value_parser = instant)]
        at: Option<u64>,
    },
    /// Print what a file says, and trust nothing of it
    #[command(after_help = "Example:
  merestone-verify inspect november.merestone | less

Exit codes: 0 it could be read, 1 it could not, 4 usage.")]
    Inspect {
        /// The file; `-` reads standard input
        file: PathBuf,
    },
    /// Be an enrolment authority: see for yourself that a key lives in a TPM, and sign it
    #[command(subcommand, arg_required_else_help = true)]
    Enroll(Box<Enroll>),
    /// Be a witness: see that a log only grows, and sign what was seen
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        arg_required_else_help = true,
        after_help = "DIR is a copy of the host's STATE_DIR/log/tiles, made by any means. Nothing is fetched.
Exit codes: 0 signed, 1 the log shrank, forked or is not signed by its key (both checkpoints are
kept under STATE), 3 the copy is not whole: copy it again, 4 usage.

Examples:
  merestone-verify witness keygen --name example.org/w1 --out w1.key
  rsync -a gpu-01:/var/lib/merestone/log/tiles/ gpu-01/
  merestone-verify witness --from gpu-01 --log gpu-01.vkey --state seen --key w1.key \\
    --out gpu-01.cosigned
docs/log.md walks through it."
    )]
    Witness(Box<Witness>),
    /// Print completions for a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them
    Man {
        /// Write one page for each command into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// A witness's desk.
#[derive(Debug, Group)]
pub(crate) struct Witness {
    #[command(subcommand)]
    pub(crate) command: Option<Keys>,
    #[command(flatten)]
    pub(crate) cosign: Option<Cosign>,
}

/// Keys of notes.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a witness's key: FILE (keep it) and FILE.pub (verifiers pin it)
    Keygen {
        /// What it is called: a URL without its scheme, as in example.org/w1
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The file for the private key
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Cosign {
    /// The copy of the log's static files
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The log's key, or a file with it; it never comes from DIR. May be given again
    #[arg(long, value_name = "VKEY", required = true)]
    pub(crate) log: Vec<String>,
    /// What was seen so far is kept here, a folder for each log
    #[arg(long, value_name = "STATE")]
    pub(crate) state: PathBuf,
    /// The witness's private key
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Write the signed checkpoint here too
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Look at the entries too, not at their hashes alone
    #[arg(long)]
    pub(crate) entries: bool,
}

/// Files carried by hand between a host and an authority.
#[derive(Debug, Subcommand)]
#[command(after_help = "On the host, as root:        At the authority, offline:
  merestone enroll request
                               merestone-verify enroll challenge
  merestone enroll complete
                               merestone-verify enroll accept
  merestone enroll install
docs/enrolment.md walks through it.")]
pub(crate) enum Enroll {
    /// Make an authority's key: FILE (keep it offline) and FILE.pub (verifiers pin it)
    #[command(after_help = "Example:
  merestone-verify enroll keygen --out authority.pem")]
    Keygen {
        /// The file for the private key
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check a host's request, and seal a secret that only its TPM can open
    #[command(
        after_help = "Exit codes: 1 the TPM or a key is not what it should be, 2 sound but not accepted by
authority.toml, 3 a kind of key that is not known here, 4 usage.

Example:
  merestone-verify enroll challenge gpu-01.request --trust authority.toml --out gpu-01.challenge"
    )]
    Challenge(Challenge),
    /// Check the answer, and sign the enrolment certificate
    #[command(after_help = "Examples:
  merestone-verify enroll accept gpu-01.answer --request gpu-01.request \\
      --state gpu-01.challenge.state --trust authority.toml --key authority.pem \\
      --site country=DE,region=eu-central,facility=FRA-2 --out gpu-01.cose
  # the next one, before that one ends:
  merestone-verify enroll accept … --replaces gpu-01.cose --out gpu-01-2027.cose")]
    Accept(Accept),
    /// Sign the next list of revoked certificates
    #[command(after_help = "Examples:
  merestone-verify enroll revoke gpu-01.cose --reason 'sold' --key authority.pem --out revoked.cose
  merestone-verify enroll revoke gpu-02.cose --since 2026-11-01T00:00:00Z --reason 'key at large' \\
      --list revoked.cose --key authority.pem --out revoked.cose
  # an empty list, to show that nothing is revoked as of today:
  merestone-verify enroll revoke --list revoked.cose --key authority.pem --out revoked.cose")]
    Revoke(Revoke),
    /// Print what a certificate or a list says, and trust nothing of it
    #[command(after_help = "Example:
  merestone-verify enroll show gpu-01.cose")]
    Show {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Challenge {
    /// The host's request
    #[arg(value_name = "REQUEST")]
    pub(crate) request: PathBuf,
    /// Which TPM vendors are believed
    #[arg(long, value_name = "AUTHORITY.TOML")]
    pub(crate) trust: PathBuf,
    /// The challenge, for the host
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Where to keep its secret [default: OUT.state]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Judge as of this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) at: Option<u64>,
}

#[derive(Debug, Group)]
pub(crate) struct Accept {
    /// The host's answer
    #[arg(value_name = "ANSWER")]
    pub(crate) answer: PathBuf,
    /// The request that was challenged
    #[arg(long, value_name = "REQUEST")]
    pub(crate) request: PathBuf,
    /// The secret that was kept; it is used up
    #[arg(long, value_name = "FILE")]
    pub(crate) state: PathBuf,
    /// Which TPM vendors are believed
    #[arg(long, value_name = "AUTHORITY.TOML")]
    pub(crate) trust: PathBuf,
    /// The authority's private key (PEM, PKCS #8, Ed25519)
    #[arg(long, value_name = "PEM")]
    pub(crate) key: PathBuf,
    /// The certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Where the host stands, as you know it: country=DE,region=…,facility=…
    #[arg(long, value_name = "PLACE", value_parser = site)]
    pub(crate) site: Option<Site>,
    /// Vouch for this NV index of the request too: you know its Name; may be given again
    #[arg(long, value_name = "INDEX", value_parser = index)]
    pub(crate) nv: Vec<u32>,
    /// Vouch for the geotag of the request: you saw it written on site
    #[arg(long)]
    pub(crate) geotag: bool,
    /// It holds for evidence sealed from then on [default: now]
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) from: Option<u64>,
    /// It holds until then [default: as authority.toml says]
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) until: Option<u64>,
    /// The certificate that this one takes the place of
    #[arg(long, value_name = "CERTIFICATE")]
    pub(crate) replaces: Option<PathBuf>,
    /// Leave the TPM's own certificates out, and only name them by digest
    #[arg(long)]
    pub(crate) without_ek_chain: bool,
    /// Judge as of this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) at: Option<u64>,
}

#[derive(Debug, Group)]
pub(crate) struct Revoke {
    /// Certificates, each by its file or its number; none renews the list
    #[arg(value_name = "CERTIFICATE")]
    pub(crate) certificate: Vec<String>,
    /// Why
    #[arg(long, default_value = "unspecified")]
    pub(crate) reason: String,
    /// Evidence sealed from then on is not believed [default: now]
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) since: Option<u64>,
    /// The list so far; without it a new one begins
    #[arg(long, value_name = "LIST")]
    pub(crate) list: Option<PathBuf>,
    /// The authority's private key (PEM, PKCS #8, Ed25519)
    #[arg(long, value_name = "PEM")]
    pub(crate) key: PathBuf,
    /// The new list
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Sign as of this time instead of now
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) at: Option<u64>,
}

#[derive(Debug, Group)]
pub(crate) struct Common {
    /// The file; `-` reads standard input
    pub(crate) file: PathBuf,
    /// The trust policy: which keys to believe, what evidence must show
    #[arg(long, value_name = "TRUST.TOML")]
    pub(crate) trust: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the client has in hand, and what it was salted with.
#[derive(Debug, Group)]
pub(crate) struct Held {
    /// The body of the request, as it was sent: it has to be the one that the receipt binds
    #[arg(long, value_name = "FILE", requires = "salt")]
    pub(crate) request: Option<PathBuf>,
    /// The body of the answer, as it came
    #[arg(long, value_name = "FILE", requires = "salt")]
    pub(crate) answer: Option<PathBuf>,
    /// The salt that came with the receipt, 64 hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = salt)]
    pub(crate) salt: Option<[u8; 32]>,
}

/// What else to write.
#[derive(Debug, Group)]
pub(crate) struct Reports {
    /// Write a page for people too
    #[arg(long, value_name = "OUT")]
    pub(crate) html: Option<PathBuf>,
    /// Write the result as an EAT Attestation Result (EAR) too
    #[arg(long, value_name = "OUT")]
    pub(crate) ear: Option<PathBuf>,
    /// Sign the EAR with this private key, as a JWT: PKCS#8 PEM, Ed25519 or P-256
    #[arg(long, value_name = "KEY.PEM", requires = "ear")]
    pub(crate) ear_key: Option<PathBuf>,
}

/// The period to account for; the policy's own demands stay.
#[derive(Clone, Copy, Debug, Default, Group)]
pub(crate) struct Period {
    /// The file's period has to begin no later; the page's time line begins here
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) from: Option<u64>,
    /// The file's period has to end no earlier; the page's time line ends here
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    pub(crate) to: Option<u64>,
}

impl Period {
    /// Only ever asks for more than the policy does.
    pub(crate) fn demand(self, trust: &mut Trust) {
        let require = &mut trust.require;
        require.from_ms = self.from.into_iter().chain(require.from_ms).min();
        require.to_ms = self.to.into_iter().chain(require.to_ms).max();
    }
}

fn site(text: &str) -> Result<Site, String> {
    let mut site = Site {
        region: None,
        country: None,
        facility: None,
    };
    for part in text.split(',') {
        let (what, value) = part.split_once('=').unwrap_or_default();
        let slot = match what.trim() {
            "country" => &mut site.country,
            "region" => &mut site.region,
            "facility" => &mut site.facility,
            _ => return Err("want country=…, region=… and facility=…, or some of them".to_owned()),
        };
        let value = value.trim();
        if value.is_empty() || slot.replace(value.to_owned()).is_some() {
            return Err(format!("{} is empty or there twice", what.trim()));
        }
    }
    let is_country = |country: &String| {
        country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase())
    };
    if site
        .country
        .as_ref()
        .is_some_and(|country| !is_country(country))
    {
        return Err("a country is two capital letters (ISO 3166-1 alpha-2)".to_owned());
    }
    Ok(site)
}

fn index(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u32::from_str_radix(digits, 16)
        .map_err(|_digits| "an NV index is a hexadecimal number like 0x01500001".to_owned())
}

fn salt(text: &str) -> Result<[u8; 32], String> {
    let mut salt = [0; 32];
    hex::decode_to_slice(text, &mut salt)
        .map_err(|_digits| "a salt is 64 hexadecimal digits".to_owned())?;
    Ok(salt)
}

fn instant(text: &str) -> Result<u64, String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    let millis = parsed.map(|at| at.unix_timestamp_nanos() / 1_000_000);
    millis
        .and_then(|millis| u64::try_from(millis).ok())
        .ok_or_else(|| "want a time like 2026-01-31T12:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
