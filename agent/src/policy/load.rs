//! From a path to a compiled boundary: the file, the signature beside it, the
//! boundaries it selects, the databases it needs.
//!
//! With signers, every file of a boundary must be signed by one of them, and
//! the signature is checked over the bytes before they are parsed. It does not
//! know which versions were in force before: [`super::Versions`] does.

use super::places::Known;
use super::{Boundary, Compiled, Deputies, LIMIT_BYTES, Mode, compile_all, parse};
use crate::config::Config;
use crate::config::fault::{self, Faults, Origin};
use crate::geo;
use crate::signed::{self, Kind, Signers};
use std::path::{Path, PathBuf};

/// What a boundary is read with, besides its files.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Where the databases are.
    pub geo: geo::Files,
    /// Who must have signed it; nobody, where nobody is set.
    pub signers: Signers,
}

impl Sources {
    /// As configured.
    pub fn of(config: &Config) -> Result<Self, Faults> {
        let signers = Signers::load(&config.policy.signers).map_err(|error| {
            let mut faults = Faults::new();
            let path = config.path.clone();
            let hint = "mend [policy] signers";
            faults.push(Origin::Whole { path }, error.to_string(), hint);
            faults
        })?;
        Ok(Self {
            geo: config.geo.clone(),
            signers,
        })
    }
}

/// A database that a boundary was compiled with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Database {
    /// What it is about.
    pub kind: geo::Kind,
    /// Where it was read from.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
}

/// Reads, parses and compiles `path`, which needs nothing beside it.
pub fn load(path: &Path) -> Result<Compiled, Faults> {
    load_with(path, &Sources::default())
}

/// Reads, checks, parses and compiles `path` and all that it needs.
pub fn load_with(path: &Path, sources: &Sources) -> Result<Compiled, Faults> {
    let mut signers = Vec::new();
    let (main, signer) = read(path, sources)?;
    signers.push(signer);
    let mut faults = Faults::new();
    let mut boundaries = vec![main];
    for (stem, origin) in stems(boundaries.first()) {
        match read(&beside(path, &stem), sources) {
            Ok((selected, signer)) => {
                check_selected(&selected, boundaries.first(), &mut faults);
                boundaries.push(selected);
                signers.push(signer);
            }
            Err(found) => {
                let message = format!("the boundary {stem:?} that is selected here is at fault");
                faults.push(origin, message, "");
                faults.append(found);
            }
        }
    }
    let known = Known::of(&boundaries, &sources.geo, &mut faults);
    for boundary in &mut boundaries {
        boundary.place(&known, &mut faults);
    }
    faults.into_result(())?;
    let mut compiled = compile_all(&boundaries)?;
    for (part, signer) in compiled.parts.iter_mut().zip(signers) {
        part.signer = signer;
    }
    compiled.databases = known.databases;
    Ok(compiled)
}

/// The names of the boundaries it selects, each once, with the first place.
fn stems(boundary: Option<&Boundary>) -> Vec<(String, Origin)> {
    let mut stems: Vec<(String, Origin)> = Vec::new();
    for select in boundary.iter().flat_map(|boundary| &boundary.selects) {
        if !stems.iter().any(|(stem, _)| *stem == select.boundary) {
            stems.push((select.boundary.clone(), select.origin.clone()));
        }
    }
    stems
}

/// `strict.toml` beside `boundary.toml`.
fn beside(path: &Path, stem: &str) -> PathBuf {
    path.with_file_name(format!("{stem}.toml"))
}

/// One file, its signature checked before it is parsed.
fn read(path: &Path, sources: &Sources) -> Result<(Boundary, Option<[u8; 32]>), Faults> {
    let bytes = fault::read(path, LIMIT_BYTES)?;
    if sources.signers.is_empty() {
        return Ok((parse(path, bytes)?, None));
    }
    let signature = signed::beside(path);
    let refused = |message: String| {
        let mut faults = Faults::new();
        let hint = format!(
            "have it signed: merestone sign boundary --key KEY {}",
            path.display()
        );
        let path = path.to_owned();
        faults.push(Origin::Whole { path }, message, hint);
        faults
    };
    let message = match fault::read(&signature, signed::LIMIT_BYTES as u64) {
        Ok(message) => message,
        Err(_) if !signature.exists() => {
            return Err(refused(
                "is not signed, and [policy] signers is set".to_owned(),
            ));
        }
        Err(faults) => return Err(faults),
    };
    let signed = sources
        .signers
        .verify(Kind::Boundary, &message, Some(&bytes))
        .map_err(|error| refused(format!("{}: {error}", signature.display())))?;
    let boundary = parse(path, bytes)?;
    if boundary.version.is_none() {
        let mut faults = Faults::new();
        faults.push(
            Origin::Whole {
                path: path.to_owned(),
            },
            "a signed boundary needs a `version`, or an older one could come back",
            "write version = 1 at the top, and count it up with every change",
        );
        return Err(faults);
    }
    Ok((boundary, Some(signed.signer)))
}

/// What holds for the whole is said in one file.
fn check_selected(selected: &Boundary, main: Option<&Boundary>, faults: &mut Faults) {
    let place = || Origin::Whole {
        path: selected.path.clone(),
    };
    if !selected.selects.is_empty() {
        let message = "a selected boundary cannot have a [[select]] of its own";
        faults.push(place(), message, "write it in the file that selects this");
    }
    let mode = main.map_or(Mode::Enforce, |main| main.mode);
    if selected.mode != mode {
        let message = format!(
            "the [mode] of a selected boundary is that of the whole, {:?}",
            mode.word()
        );
        let hint = "remove it; a rule of its own may say mode = \"audit\"";
        faults.push(place(), message, hint);
    }
    if selected.deputies != Deputies::default() {
        let message = "[deputies] holds for the whole boundary";
        faults.push(place(), message, "write it in the file that selects this");
    }
}
