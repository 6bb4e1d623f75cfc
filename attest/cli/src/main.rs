//! `merestone-verify`: files in, verdict out.
//!
//! Needs no root, no TPM and no network, and opens nothing but the files it is given. Every
//! judgement is made in the `merestone-verify` library; this reads, prints and exits.
#![forbid(unsafe_code)]

mod args;
mod enroll;
mod escape;
mod evidence;
mod fault;
mod files;
mod incidents;
mod inspect;
mod json;
mod reports;
mod text;
mod witness;

use args::{Args, Command, Common, Held, Period};
use clap::{CommandFactory as _, Parser as _};
use evidence::{Evidence, Threads};
use fault::Fault;
use files::{now_ms, read};
use merestone_evidence::{Digest, answer_digest, request_digest, sha256};
use merestone_verify::{Contents, Purpose, Trust, Verdict, verify_stored};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The largest file that is printed: it is read into memory as a whole.
const MAX_FILE: u64 = 512 << 20;
/// The same for a trust policy.
const MAX_TRUST: u64 = 1 << 20;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match run(args.command, &mut std::io::stdout().lock()) {
        Ok(exit) => ExitCode::from(exit),
        Err(fault) => {
            // Nothing can be done about a closed standard error.
            drop(write!(std::io::stderr(), "{fault}"));
            ExitCode::from(fault.exit())
        }
    }
}

/// clap's own answer; asking for help is not a mistake.
fn usage(error: &clap::Error) -> ExitCode {
    drop(error.print());
    if error.use_stderr() {
        ExitCode::from(fault::USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

fn run(command: Command, out: &mut dyn Write) -> Result<u8, Fault> {
    match command {
        Command::Bundle {
            common,
            reports,
            period,
            at,
        } => {
            let now = at.map_or_else(now_ms, Ok)?;
            let key = reports.key()?;
            let judged = judge(
                &common,
                Purpose::Period,
                &Contents::default(),
                period,
                now,
                out,
            )?;
            reports.write(&judged, key.as_ref(), period, now)?;
            Ok(judged.verdict.exit)
        }
        Command::Receipt {
            common,
            held,
            reports,
            at,
        } => {
            let now = at.map_or_else(now_ms, Ok)?;
            let key = reports.key()?;
            let contents = held.contents()?;
            let judged = judge(
                &common,
                Purpose::Receipt,
                &contents,
                Period::default(),
                now,
                out,
            )?;
            reports.write(&judged, key.as_ref(), Period::default(), now)?;
            Ok(judged.verdict.exit)
        }
        Command::Inspect { file } => {
            let bytes = read(&file, MAX_FILE)?;
            put(out, &inspect::page(&bytes)).map(|()| inspect::exit(&bytes))
        }
        Command::Enroll(command) => put(out, &enroll::run(*command)?).map(|()| 0),
        Command::Witness(command) => put(out, &witness::run(*command)?).map(|()| 0),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "merestone-verify", &mut script);
            put_bytes(out, &script).map(|()| 0)
        }
        Command::Man { dir: Some(dir) } => clap_mangen::generate_to(Args::command(), &dir)
            .map(|()| 0)
            .map_err(|error| Fault::write(&dir, &error)),
        Command::Man { dir: None } => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command())
                .render(&mut page)
                .map_err(|error| Fault::write(Path::new("-"), &error))?;
            put_bytes(out, &page).map(|()| 0)
        }
    }
}

impl Held {
    /// The digests that a receipt has of what is in hand.
    fn contents(&self) -> Result<Contents, Fault> {
        let Some(salt) = &self.salt else {
            return Ok(Contents::default());
        };
        let body = |path: Option<&PathBuf>| path.map(|path| read(path, MAX_FILE)).transpose();
        let request = body(self.request.as_ref())?;
        let answer = body(self.answer.as_ref())?;
        Ok(Contents {
            request: request.map(|body| request_digest(salt, &body)),
            answer: answer.map(|body| answer_digest(salt, &body)),
        })
    }
}

/// A verdict and what it is about.
struct Judged {
    verdict: Verdict,
    purpose: Purpose,
    file: String,
    bytes: u64,
    sha256: Digest,
    trust_sha256: Digest,
}

fn judge(
    common: &Common,
    purpose: Purpose,
    contents: &Contents,
    period: Period,
    now_ms: u64,
    out: &mut dyn Write,
) -> Result<Judged, Fault> {
    let name = common.trust.display().to_string();
    let policy = files::text(&common.trust, MAX_TRUST, files::TRUST_MANUAL)?;
    let trust_sha256 = sha256(policy.as_bytes());
    let mut trust = Trust::parse_with(&policy, &name, &|named| {
        files::named_in(&common.trust, named)
    })?;
    period.demand(&mut trust);
    let evidence = Evidence::open(&common.file)?;
    let source = evidence.source();
    let threads = Threads::of_this_machine();
    let verdict = verify_stored(source, &trust, purpose, contents, now_ms, &threads);
    let (bytes, sha256) = (source.size(), evidence.sha256(&common.file)?);
    let shown = if common.json {
        json::object(&verdict)
    } else {
        text::page(&verdict, (bytes, &sha256), &common.file)
    };
    put(out, &shown)?;
    Ok(Judged {
        verdict,
        purpose,
        file: common.file.display().to_string(),
        bytes,
        sha256,
        trust_sha256,
    })
}

fn put(out: &mut dyn Write, text: &str) -> Result<(), Fault> {
    put_bytes(out, text.as_bytes())
}

/// A reader that went away has seen what it wanted; the exit code is still the verdict's.
fn put_bytes(out: &mut dyn Write, bytes: &[u8]) -> Result<(), Fault> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Fault::write(Path::new("-"), &error))
        }
        _ => Ok(()),
    }
}
