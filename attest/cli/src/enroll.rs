//! `merestone-verify enroll`: the authority's desk. Files in, files out; no TPM, no network.
//!
//! Everything is judged in the `merestone-enrol` library. Here files are read and written, with
//! the secret of a challenge in a file that nobody else may read, and gone before a certificate
//! is handed out.

use crate::args::{Accept, Challenge, Enroll, Revoke};
use crate::escape::escaped;
use crate::fault::Fault;
use crate::files::{self, now_ms};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use merestone_enrol::{Checked, EnrolError, Policy, Terms, signing_key};
use merestone_evidence::{
    Enrolment, Geotag, Record as _, Replaced, Revocation, Revocations, Serial, Site, decode, sha256,
};
use merestone_verify::enrolment::{Kind, key_id};
use merestone_verify::{Grade, enrolment};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const MAX_TEXT: u64 = 1 << 20;
const MAX_KEY: u64 = 16 << 10;

/// What was done, for people; the exit code is then 0.
pub(crate) fn run(command: Enroll) -> Result<String, Fault> {
    match command {
        Enroll::Keygen { out } => keygen(&out),
        Enroll::Challenge(args) => challenge(&args),
        Enroll::Accept(args) => accept(args),
        Enroll::Revoke(args) => revoke(&args),
        Enroll::Show { file } => show(&file),
    }
}

fn keygen(out: &Path) -> Result<String, Fault> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Fault::random)?;
    let key = SigningKey::from_bytes(&seed);
    let encode = |detail: String| Fault::Refused {
        exit: crate::fault::USAGE,
        error: format!("cannot write a key: {detail}"),
        hint: "this is a fault of the program",
    };
    let private = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| encode(error.to_string()))?;
    let public = key
        .verifying_key()
        .to_public_key_pem(LineEnding::LF)
        .map_err(|error| encode(error.to_string()))?;
    let beside = files::with_suffix(out, ".pub");
    files::write_new(out, private.as_bytes(), files::Mode::Private)?;
    files::write_new(&beside, public.as_bytes(), files::Mode::Public)?;
    Ok(format!(
        "{}: the private key; keep it offline\n{}: the public key {}; verifiers pin it\n",
        out.display(),
        beside.display(),
        key_id(&key.verifying_key())
    ))
}

fn challenge(args: &Challenge) -> Result<String, Fault> {
    let policy = policy(&args.trust)?;
    let request = request(&args.request)?;
    let now = args.at.map_or_else(now_ms, Ok)?;
    let mut lack = None;
    let mut random = |bytes: &mut [u8]| {
        if let Err(error) = getrandom::fill(bytes) {
            lack = Some(error);
        }
    };
    let made = merestone_enrol::challenge(&request, &policy, now, &mut random);
    // A secret that is not random is none: nothing is written.
    if let Some(error) = lack {
        return Err(Fault::random(error));
    }
    let made = made.map_err(|error| refused(&error))?;
    let state = state_of(args.state.as_deref(), &args.out);
    files::write_new(&state, &made.pending, files::Mode::Private)?;
    files::write_new(&args.out, &made.challenge, files::Mode::Public)?;
    let mut said = described(&made.checked);
    writeln_to(
        &mut said,
        &format!(
            "{}: the challenge; carry it to the host",
            args.out.display()
        ),
    );
    writeln_to(
        &mut said,
        &format!(
            "{}: its secret; keep it here until the answer comes",
            state.display()
        ),
    );
    Ok(said)
}

fn accept(args: Accept) -> Result<String, Fault> {
    let policy = policy(&args.trust)?;
    let key = key(&args.key)?;
    let request = request(&args.request)?;
    let answer = files::read(
        &args.answer,
        merestone_evidence::EnrolAnswer::LIMITS.bytes as u64,
    )?;
    let pending = files::read(
        &args.state,
        merestone_evidence::EnrolPending::LIMITS.bytes as u64,
    )?;
    let now = args.at.map_or_else(now_ms, Ok)?;
    let replaces = args.replaces.as_deref().map(|file| replaced(file, &key));
    let terms = Terms {
        site: args.site,
        nv: args.nv,
        geotag: args.geotag,
        from_ms: args.from,
        until_ms: args.until,
        replaces: replaces.transpose()?,
        without_ek_chain: args.without_ek_chain,
    };
    let accepted = merestone_enrol::accept(&answer, &request, &pending, &policy, terms, &key, now)
        .map_err(|error| refused(&error))?;
    // The secret is gone before the certificate is there: it counts once, whatever fails between.
    let part = files::with_suffix(&args.out, ".part");
    files::absent(&args.out)?;
    files::write_new(&part, &accepted.certificate, files::Mode::Public)?;
    files::replace(&args.state, &accepted.pending, files::Mode::Private)?;
    std::fs::rename(&part, &args.out).map_err(|error| Fault::write(&args.out, &error))?;
    let mut said = certificate(&accepted.claims);
    writeln_to(
        &mut said,
        &format!(
            "{}: signed by {}; on the host: merestone enroll install",
            args.out.display(),
            key_id(&key.verifying_key())
        ),
    );
    Ok(said)
}

fn revoke(args: &Revoke) -> Result<String, Fault> {
    let key = key(&args.key)?;
    let now = args.at.map_or_else(now_ms, Ok)?;
    let before = args
        .list
        .as_deref()
        .map(|file| files::read(file, Kind::Revocations.limit() as u64));
    let before = before.transpose()?;
    let mut entries = Vec::new();
    for named in &args.certificate {
        entries.push(Revocation {
            serial: serial(named, &key)?,
            from_ms: args.since.unwrap_or(now),
            reason: args.reason.clone(),
        });
    }
    let (message, list) = merestone_enrol::revoke(before.as_deref(), entries, &key, now)
        .map_err(|error| untrusted(error.to_string()))?;
    files::replace(&args.out, &message, files::Mode::Public)?;
    let mut said = revocations(&list);
    writeln_to(
        &mut said,
        &format!(
            "{}: name it in trust.toml, [authority] revocations",
            args.out.display()
        ),
    );
    Ok(said)
}

/// What a signed file says, without believing it.
fn show(file: &Path) -> Result<String, Fault> {
    let message = files::read(file, Kind::Revocations.limit() as u64)?;
    let payload =
        merestone_enrol::payload(&message).map_err(|error| untrusted(error.to_string()))?;
    if let Ok(claims) = decode::<Enrolment>(&payload) {
        return Ok(certificate(&claims));
    }
    decode::<Revocations>(&payload)
        .map(|list| revocations(&list))
        .map_err(|error| untrusted(error.to_string()))
}

fn policy(file: &Path) -> Result<Policy, Fault> {
    let text = files::text(file, MAX_TEXT, files::AUTHORITY_MANUAL)?;
    let name = file.display().to_string();
    Policy::parse(&text, &name, &|named| files::named_in(file, named)).map_err(|error| {
        Fault::Refused {
            exit: crate::fault::USAGE,
            error: error.to_string(),
            hint: files::AUTHORITY_MANUAL,
        }
    })
}

fn request(file: &Path) -> Result<Vec<u8>, Fault> {
    files::read(file, merestone_evidence::EnrolRequest::LIMITS.bytes as u64)
}

fn key(file: &Path) -> Result<SigningKey, Fault> {
    let text = files::text(
        file,
        MAX_KEY,
        "make one with `merestone-verify enroll keygen`",
    )?;
    signing_key(&text).map_err(|error| Fault::Refused {
        exit: crate::fault::USAGE,
        error: format!("{}: {error}", file.display()),
        hint: "make one with `merestone-verify enroll keygen`",
    })
}

/// A certificate of this same authority, by its file.
fn replaced(file: &Path, key: &SigningKey) -> Result<Replaced, Fault> {
    let message = files::read(file, Kind::Enrolment.limit() as u64)?;
    let opened = enrolment::open(Kind::Enrolment, &message, &[key.verifying_key()])
        .map_err(|error| untrusted(format!("{}: {error}", file.display())))?;
    let claims: Enrolment = decode(&opened.payload)
        .map_err(|error| untrusted(format!("{}: {error}", file.display())))?;
    Ok(Replaced {
        serial: claims.serial,
        sha256: sha256(&message),
    })
}

/// 32 hexadecimal digits, or the certificate's file.
fn serial(named: &str, key: &SigningKey) -> Result<Serial, Fault> {
    let digits = hex::decode(named).ok();
    let bytes = digits.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    match bytes {
        Some(bytes) => Ok(Serial(bytes)),
        None => replaced(&PathBuf::from(named), key).map(|replaced| replaced.serial),
    }
}

fn state_of(given: Option<&Path>, out: &Path) -> PathBuf {
    given.map_or_else(|| files::with_suffix(out, ".state"), Path::to_path_buf)
}

fn refused(error: &EnrolError) -> Fault {
    let exit = match error.grade() {
        Grade::Untrusted => 1,
        Grade::Failed => 2,
        Grade::Indeterminate => 3,
    };
    Fault::Refused {
        exit,
        error: error.to_string(),
        hint: "nothing was signed; docs/enrolment.md lists what each refusal means",
    }
}

fn untrusted(error: String) -> Fault {
    Fault::Refused {
        exit: 1,
        error,
        hint: "nothing was signed; docs/enrolment.md lists what each refusal means",
    }
}

fn writeln_to(said: &mut String, line: &str) {
    said.push_str(&escaped(line));
    said.push('\n');
}

fn described(checked: &Checked) -> String {
    let mut said = String::new();
    let request = &checked.request;
    writeln_to(&mut said, &format!("node {}", request.node));
    let name = hex::encode(&request.ak_name);
    writeln_to(&mut said, &format!("attestation key {name}"));
    let tpm = checked.ek.identity.as_ref().map_or_else(
        || "it does not name its TPM".to_owned(),
        |tpm| format!("{} {} {}", tpm.vendor(), tpm.model, tpm.version),
    );
    writeln_to(
        &mut said,
        &format!("endorsement certificate {}: {tpm}", checked.ek.certificate),
    );
    writeln_to(&mut said, &format!("leads to {}", checked.ek.anchor_name));
    if let Some(site) = &request.site {
        writeln_to(&mut said, &format!("the operator states: {}", place(site)));
    }
    for nv in &request.nv {
        let line = format!(
            "the host names nv index {:#010x} {}",
            nv.index,
            hex::encode(&nv.name)
        );
        writeln_to(&mut said, &line);
    }
    if request.geotag.is_some() {
        let line = match merestone_enrol::geotag(request) {
            Ok((_, tag)) => format!("the tpm holds a geotag: {}", tagged(&tag)),
            Err(error) => error.to_string(),
        };
        writeln_to(&mut said, &line);
    }
    if request.tpm.software {
        writeln_to(
            &mut said,
            "the host says that its TPM is a program: whoever runs it can copy its keys",
        );
    }
    writeln_to(
        &mut said,
        "not checked: revocation lists of the vendor; that the TPM is in the machine that you mean",
    );
    said
}

fn certificate(claims: &Enrolment) -> String {
    let mut said = String::new();
    let time = files::rfc3339;
    let tpm = [
        &claims.ek.manufacturer,
        &claims.ek.model,
        &claims.ek.version,
    ];
    let tpm: Vec<_> = tpm.into_iter().flatten().map(String::as_str).collect();
    let lines = [
        format!("enrolment {}", claims.serial),
        format!("node {}", claims.node),
        format!("attestation key {}", hex::encode(&claims.ak_name)),
        format!(
            "TPM {}, endorsement certificate {}",
            tpm.join(" "),
            claims.ek.certificate
        ),
        format!(
            "valid from {} to {}",
            time(claims.from_ms),
            time(claims.until_ms)
        ),
    ];
    for line in lines {
        writeln_to(&mut said, &line);
    }
    if let Some(site) = &claims.site {
        writeln_to(&mut said, &format!("place: {}", place(site)));
    }
    for nv in &claims.nv {
        let line = format!("nv index {:#010x} {}", nv.index, hex::encode(&nv.name));
        writeln_to(&mut said, &line);
    }
    if let Some(geotag) = &claims.geotag {
        let place = decode::<Geotag>(&geotag.content);
        let place = place.map_or_else(|error| error.to_string(), |tag| tagged(&tag));
        writeln_to(
            &mut said,
            &format!("geotag {:#010x}: {place}", geotag.index),
        );
    }
    if let Some(replaced) = &claims.replaces {
        writeln_to(&mut said, &format!("replaces {}", replaced.serial));
    }
    said
}

fn revocations(list: &Revocations) -> String {
    let mut said = String::new();
    let issued = files::rfc3339(list.issued_ms);
    writeln_to(&mut said, &format!("list {} of {issued}", list.number));
    for entry in &list.revoked {
        let from = files::rfc3339(entry.from_ms);
        writeln_to(
            &mut said,
            &format!("{} from {from}: {}", entry.serial, entry.reason),
        );
    }
    said
}

fn tagged(tag: &Geotag) -> String {
    let mut text = place(&tag.site);
    if let Some((latitude, longitude)) = tag.position {
        let degrees = |millionths: i32| f64::from(millionths) / 1e6;
        // Writing to a String cannot fail.
        let _infallible = write!(
            text,
            ", at {:.6} {:.6}",
            degrees(latitude),
            degrees(longitude)
        );
    }
    let written = files::rfc3339(tag.written_ms);
    let by = tag
        .by
        .as_deref()
        .map_or(String::new(), |by| format!(" by {by}"));
    format!("{text}, written {written}{by}")
}

fn place(site: &Site) -> String {
    let mut text = String::new();
    let parts = [
        ("country", &site.country),
        ("region", &site.region),
        ("facility", &site.facility),
    ];
    for (what, value) in parts {
        if let Some(value) = value {
            let gap = if text.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{gap}{what} {value}");
        }
    }
    text
}
