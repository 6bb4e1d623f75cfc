//! The geotag: a place that somebody wrote into the TPM on site, locked for good, and that an
//! authority vouches for (level L1).
//!
//! It says where the TPM was when it was written. It does not say that it is still there. Where
//! an authority vouches for one and the evidence does not show that very one, nothing of it
//! counts, and the place fails: a machine that lost its geotag is not one without.

use crate::counters::Role;
use crate::coverage::rfc3339;
use crate::enrolment::Vouched;
use crate::quote::Session;
use crate::tpm::{NvPublic, NvPublicError, NvUse, Public};
use merestone_evidence::{Geotag, Serial, decode};

/// Why the geotag does not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GeotagError {
    /// The host has none any more.
    #[error("{at}: the authority vouches for a geotag in the tpm, and none is certified")]
    Absent {
        /// Which session.
        at: String,
    },
    /// Not locked, or otherwise unfit.
    #[error("{at}: {source}")]
    Public {
        /// Which session.
        at: String,
        /// Why.
        source: NvPublicError,
    },
    /// Another index, or one with other attributes.
    #[error("{at}: the geotag's index is {got}, the authority vouches for {want}")]
    Name {
        /// Which session.
        at: String,
        /// Its Name.
        got: String,
        /// The Name vouched for.
        want: String,
    },
    /// Another place.
    #[error("{at}: the geotag in the tpm is not the one that the authority vouches for")]
    Content {
        /// Which session.
        at: String,
    },
    /// Not a geotag.
    #[error("enrolment {serial}: the geotag cannot be read: {why}")]
    Form {
        /// Which certificate.
        serial: Serial,
        /// What is wrong.
        why: String,
    },
    /// The operator says otherwise.
    #[error("{at}: the operator states {what} {got:?}, the geotag says {want:?}")]
    Stated {
        /// Which session.
        at: String,
        /// Country, region or facility.
        what: &'static str,
        /// As the operator states it.
        got: String,
        /// As the geotag says.
        want: String,
    },
    /// Two authorities, or two certificates, name two places.
    #[error("enrolments {one} and {other} vouch for two different geotags")]
    Two {
        /// One certificate.
        one: Serial,
        /// The other.
        other: Serial,
    },
}

/// A geotag that every session shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Tagged {
    pub(crate) tag: Geotag,
    pub(crate) serial: Serial,
}

impl Tagged {
    /// What the level rests on.
    pub(crate) const ASSUMPTION: &'static str = "whoever wrote the geotag stood beside this \
        machine, and the machine was not moved since";

    /// As one sentence.
    pub(crate) fn told(&self) -> String {
        let site = &self.tag.site;
        let names = [&site.country, &site.region, &site.facility];
        let mut place: Vec<String> = names.into_iter().flatten().cloned().collect();
        if let Some((latitude, longitude)) = self.tag.position {
            let degrees = |millionths: i32| f64::from(millionths) / 1e6;
            place.push(format!(
                "{:.6} {:.6}",
                degrees(latitude),
                degrees(longitude)
            ));
        }
        let by = self.tag.by.as_deref();
        let by = by.map_or(String::new(), |by| format!(" by {by:?}"));
        format!(
            "L1: a geotag in the tpm, locked for good, says {}; written {}{by}, vouched for by \
             enrolment {}; it holds only if {}",
            place.join(", "),
            rfc3339(self.tag.written_ms),
            self.serial,
            Self::ASSUMPTION
        )
    }
}

/// `Ok(None)`: nobody vouches for one.
pub(crate) fn judge(
    sessions: &[Session],
    vouched: &[Vouched],
) -> Result<Option<Tagged>, GeotagError> {
    let mut named = vouched
        .iter()
        .filter_map(|one| Some((one.claims.serial, one.claims.geotag.as_ref()?)));
    let Some((serial, wanted)) = named.next() else {
        return Ok(None);
    };
    if let Some((other, _)) = named.find(|(_, tag)| *tag != wanted) {
        return Err(GeotagError::Two { one: serial, other });
    }
    let tag: Geotag = decode(&wanted.content).map_err(|error| GeotagError::Form {
        serial,
        why: error.to_string(),
    })?;
    for session in sessions {
        let at = || session.at.clone();
        let certified = session.nv_start.iter().find(|one| one.role == Role::Geotag);
        let (Some(certified), Some(held)) = (certified, &session.statement.geotag) else {
            return Err(GeotagError::Absent { at: at() });
        };
        let public = NvPublic::parse(&held.public);
        public
            .and_then(|public| public.check(NvUse::Geotag))
            .map_err(|source| GeotagError::Public { at: at(), source })?;
        // The certified Name is that of this public area: it was found by it.
        let name = Public::name_of(&held.public);
        if name != wanted.name || certified.name != wanted.name || held.index != wanted.index {
            return Err(GeotagError::Name {
                at: at(),
                got: hex::encode(&certified.name),
                want: hex::encode(&wanted.name),
            });
        }
        if certified.contents != wanted.content {
            return Err(GeotagError::Content { at: at() });
        }
        agrees(session, &tag)?;
    }
    Ok(Some(Tagged { tag, serial }))
}

/// Where both speak of the place they say the same, compared exactly (N49).
fn agrees(session: &Session, tag: &Geotag) -> Result<(), GeotagError> {
    let Some(own) = &session.statement.site else {
        return Ok(());
    };
    let pairs = [
        ("country", &own.country, &tag.site.country),
        ("region", &own.region, &tag.site.region),
        ("facility", &own.facility, &tag.site.facility),
    ];
    for (what, got, want) in pairs {
        if let (Some(got), Some(want)) = (got, want)
            && got != want
        {
            return Err(GeotagError::Stated {
                at: session.at.clone(),
                what,
                got: got.clone(),
                want: want.clone(),
            });
        }
    }
    Ok(())
}
