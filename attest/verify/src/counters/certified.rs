//! Certifications of NV indices: signed, whole, for this statement, and of an index that nobody
//! else can write.

use super::NvError;
use crate::enrolment::Vouched;
use crate::key::KeyTrusted;
use crate::quote::{Refused, Session};
use crate::refusal::Refusal;
use crate::tpm::{ClockInfo, NvAttest, NvPublic, NvUse, Public, Signature};
use crate::verdict::{CheckId, Tally};
use merestone_evidence::{Digest, NvCertified, NvHeld, SessionStatement};

/// What an index of a session is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Epochs,
    Sessions,
    Geotag,
}

/// What the TPM signed of one index.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) role: Role,
    pub(crate) name: Vec<u8>,
    pub(crate) contents: Vec<u8>,
}

impl Held {
    /// A counter's value; the size was checked with the index's attributes.
    pub(crate) fn value(&self) -> Option<u64> {
        let bytes = self.contents.as_slice().try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    }
}

struct Index {
    role: Role,
    public: NvPublic,
    name: Vec<u8>,
}

/// The indices that a session declares, each fit for its use.
pub(crate) struct Indices(Vec<Index>);

impl Indices {
    pub(crate) fn of(
        at: &str,
        statement: &SessionStatement,
        vouched: &[Vouched],
    ) -> Result<Self, Refused> {
        let counters = statement.counters.as_ref();
        let epochs = counters.and_then(|counters| counters.epochs.as_ref());
        let sessions = counters.and_then(|counters| counters.sessions.as_ref());
        let declared = [
            (Role::Epochs, NvUse::Counter, epochs.map(|one| &one.held)),
            (
                Role::Sessions,
                NvUse::PlainCounter,
                sessions.map(|one| &one.held),
            ),
            (Role::Geotag, NvUse::Geotag, statement.geotag.as_ref()),
        ];
        let mut indices: Vec<Index> = Vec::new();
        for (role, used, held) in declared {
            let Some(held) = held else { continue };
            let index = one(role, used, held, vouched).map_err(|error| refused(at, error))?;
            if indices
                .iter()
                .any(|other| other.public.index == index.public.index)
            {
                let index = index.public.index;
                return Err(refused(at, NvError::Twice { index }));
            }
            indices.push(index);
        }
        Ok(Self(indices))
    }

    /// Every certification beside a statement; one that does not hold spoils the file (N10).
    pub(crate) fn certified(
        &self,
        at: &str,
        key: &KeyTrusted<'_>,
        certified: &[NvCertified],
        want: Digest,
        after: ClockInfo,
    ) -> Result<Vec<Held>, Refused> {
        let mut all: Vec<Held> = Vec::new();
        for certified in certified {
            let held = self
                .held(key, certified, want, after)
                .map_err(|error| refused(at, error))?;
            if all.iter().any(|other| other.role == held.role) {
                let index = self.0.iter().find(|index| index.role == held.role);
                let index = index.map_or(0, |index| index.public.index);
                return Err(refused(at, NvError::Twice { index }));
            }
            all.push(held);
        }
        Ok(all)
    }

    fn held(
        &self,
        key: &KeyTrusted<'_>,
        certified: &NvCertified,
        want: Digest,
        after: ClockInfo,
    ) -> Result<Held, NvError> {
        let NvCertified { attest, signature } = certified;
        Signature::parse(signature)?.check(&key.public.key, attest)?;
        let NvAttest {
            qualified_signer: _,
            extra,
            clock,
            name,
            offset,
            contents,
        } = NvAttest::parse(attest)?;
        if extra != want.0 {
            let got = hex::encode(&extra);
            return Err(NvError::Binding { got, want });
        }
        let Some(index) = self.0.iter().find(|index| index.name == name) else {
            let got = hex::encode(&name);
            return Err(NvError::Name { got });
        };
        if offset != 0 || contents.len() != usize::from(index.public.size) {
            return Err(NvError::Part {
                got: contents.len(),
                offset,
                want: index.public.size,
            });
        }
        let is_later = match clock.resets.cmp(&after.resets) {
            core::cmp::Ordering::Less => false,
            core::cmp::Ordering::Equal => clock.clock_ms >= after.clock_ms,
            core::cmp::Ordering::Greater => true,
        };
        if !is_later {
            return Err(NvError::Before);
        }
        Ok(Held {
            role: index.role,
            name,
            contents,
        })
    }
}

fn one(role: Role, used: NvUse, held: &NvHeld, vouched: &[Vouched]) -> Result<Index, NvError> {
    let public = NvPublic::parse(&held.public)?;
    // The geotag is judged with the place: there its loss has a meaning of its own.
    if role != Role::Geotag {
        public.check(used)?;
    }
    let name = Public::name_of(&held.public);
    let mut enrolled = vouched.iter().flat_map(|one| &one.claims.nv);
    if let Some(other) = enrolled.find(|nv| nv.index == public.index && nv.name != name) {
        return Err(NvError::Enrolled {
            index: public.index,
            got: hex::encode(&name),
            want: hex::encode(&other.name),
        });
    }
    Ok(Index { role, public, name })
}

fn refused(at: &str, source: NvError) -> Refused {
    let at = at.to_owned();
    (CheckId::NvCertified, Refusal::Nv { at, source })
}

/// Says how many hold; that is all that can have become of them here.
pub(crate) fn tell(sessions: &[Session], tally: &mut Tally) {
    let count: usize = sessions
        .iter()
        .map(|session| {
            let epochs: usize = session.epochs.iter().map(|epoch| epoch.nv.len()).sum();
            let end = session.nv_end.as_ref().map_or(0, Vec::len);
            session.nv_start.len() + epochs + end
        })
        .sum();
    if count == 0 {
        tally.skip(
            CheckId::NvCertified,
            "the file has no certification of the tpm's memory",
        );
    } else {
        tally.pass(
            CheckId::NvCertified,
            format!("{count} certifications, each for its statement, of indices with one writer"),
        );
    }
}
