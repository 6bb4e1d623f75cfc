//! Whether certificates were valid when the evidence was sealed, and whether the authority and
//! the host agree on the place.

use super::{Authority, EnrolmentError, Vouched, key_id};
use crate::coverage::rfc3339;
use crate::log::LogChecked;
use crate::refusal::Refusal;
use crate::verdict::{CheckId, Tally};
use merestone_evidence::Revocation;
use std::collections::BTreeMap;

pub(crate) fn judge(
    vouched: &[Vouched],
    authority: Option<&Authority>,
    log: &LogChecked,
    now_ms: u64,
    tally: &mut Tally,
) {
    let Some(authority) = authority.filter(|_| !vouched.is_empty()) else {
        for id in [
            CheckId::EnrolmentValidity,
            CheckId::EnrolmentRevocation,
            CheckId::EnrolmentSite,
        ] {
            tally.skip(id, "no enrolment certificate is relied on");
        }
        return;
    };
    let sealed = sealed_at(log);
    let spells = spells(vouched, authority);
    validity(&sealed, &spells, tally);
    revocation(&sealed, &spells, authority, now_ms, tally);
    site(vouched, log, tally);
}

/// Every moment at which something was sealed.
fn sealed_at(log: &LogChecked) -> Vec<u64> {
    let mut all: Vec<u64> = Vec::new();
    for session in &log.sessions {
        all.push(session.statement.started_ms);
        let epochs = session.epochs.iter();
        all.extend(epochs.map(|epoch| epoch.statement.closed_ms));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// When a certificate holds: until it ends, or the one that takes its place begins.
struct Spell<'v> {
    vouched: &'v Vouched,
    from_ms: u64,
    until_ms: u64,
    revoked: Option<&'v Revocation>,
}

impl Spell<'_> {
    fn holds(&self, at_ms: u64) -> bool {
        (self.from_ms..self.until_ms).contains(&at_ms)
    }

    fn is_revoked(&self, at_ms: u64) -> bool {
        self.revoked.is_some_and(|entry| at_ms >= entry.from_ms)
    }
}

fn spells<'v>(vouched: &'v [Vouched], authority: &'v Authority) -> Vec<Spell<'v>> {
    let mut ends = BTreeMap::new();
    for one in vouched {
        if let Some(replaced) = &one.claims.replaces {
            let end = ends.entry(replaced.serial).or_insert(u64::MAX);
            *end = (*end).min(one.claims.from_ms);
        }
    }
    let spell = |one: &'v Vouched| {
        let replaced = ends.get(&one.claims.serial).copied();
        // Only the authority that issued a certificate can revoke it.
        let lists = authority
            .revocations
            .iter()
            .filter(|(key, _)| key_id(key) == one.signer);
        let entries = lists.flat_map(|(_, list)| &list.revoked);
        Spell {
            vouched: one,
            from_ms: one.claims.from_ms,
            until_ms: one.claims.until_ms.min(replaced.unwrap_or(u64::MAX)),
            revoked: entries
                .filter(|entry| entry.serial == one.claims.serial)
                .min_by_key(|entry| entry.from_ms),
        }
    };
    vouched.iter().map(spell).collect()
}

fn validity(sealed: &[u64], spells: &[Spell<'_>], tally: &mut Tally) {
    let bare = sealed
        .iter()
        .find(|at| !spells.iter().any(|spell| spell.holds(**at)));
    let described = || {
        let all = spells.iter().map(|spell| {
            let serial = spell.vouched.claims.serial;
            let (from, until) = (rfc3339(spell.from_ms), rfc3339(spell.until_ms));
            format!("{serial} from {from} to {until}")
        });
        all.collect::<Vec<_>>().join("; ")
    };
    match bare {
        Some(at) => {
            let (at, detail) = (rfc3339(*at), described());
            let error = EnrolmentError::NotValid { at, detail };
            tally.fail(CheckId::EnrolmentValidity, &Refusal::Enrolment(error));
        }
        None => tally.pass(CheckId::EnrolmentValidity, described()),
    }
}

fn revocation(
    sealed: &[u64],
    spells: &[Spell<'_>],
    authority: &Authority,
    now_ms: u64,
    tally: &mut Tally,
) {
    let id = CheckId::EnrolmentRevocation;
    // A moment that another, unrevoked certificate covers is covered.
    let gone = sealed.iter().find_map(|at| {
        let mut holding = spells.iter().filter(|spell| spell.holds(*at)).peekable();
        let first = *holding.peek()?;
        holding
            .all(|spell| spell.is_revoked(*at))
            .then_some((*at, first))
    });
    if let Some((at, spell, entry)) = gone.and_then(|(at, spell)| Some((at, spell, spell.revoked?)))
    {
        let error = EnrolmentError::Revoked {
            serial: spell.vouched.claims.serial,
            from: rfc3339(entry.from_ms),
            reason: entry.reason.clone(),
            at: rfc3339(at),
        };
        return tally.fail(id, &Refusal::Enrolment(error));
    }
    // Each authority that is relied on needs a list of its own.
    let newest = spells.iter().map(|spell| {
        let lists = authority.revocations.iter();
        let mut own = lists.filter(|(key, _)| key_id(key) == spell.vouched.signer);
        own.next().map(|(_, list)| list.issued_ms)
    });
    let oldest = newest.min().flatten();
    let limit = authority.max_revocation_age_s;
    match (oldest, limit) {
        (None, Some(_)) => tally.missing(id, "the policy asks for a list of revocations"),
        (None, None) => tally.skip(id, "the policy names no list of revocations"),
        (Some(issued), Some(age)) if issued < now_ms.saturating_sub(age.saturating_mul(1000)) => {
            tally.missing(
                id,
                format!("the list of {} is older than {age} s", rfc3339(issued)),
            );
        }
        (Some(issued), _) => tally.pass(id, format!("by the list of {}", rfc3339(issued))),
    }
}

/// The place, where both speak of it; compared exactly (N49).
fn site(vouched: &[Vouched], log: &LogChecked, tally: &mut Tally) {
    let id = CheckId::EnrolmentSite;
    let stated: Vec<_> = vouched
        .iter()
        .filter_map(|one| Some((one.claims.serial, one.claims.site.as_ref()?)))
        .collect();
    if stated.is_empty() {
        return tally.skip(id, "the authority states no place");
    }
    let sessions = || {
        log.sessions
            .iter()
            .filter_map(|session| session.statement.site.as_ref())
    };
    for (serial, site) in &stated {
        for own in sessions() {
            let pairs = [
                ("country", &site.country, &own.country),
                ("region", &site.region, &own.region),
                ("facility", &site.facility, &own.facility),
            ];
            for (what, want, got) in pairs {
                if let (Some(want), Some(got)) = (want, got)
                    && want != got
                {
                    let error = EnrolmentError::Site {
                        serial: *serial,
                        what,
                        want: want.clone(),
                        got: got.clone(),
                    };
                    return tally.fail(id, &Refusal::Enrolment(error));
                }
            }
        }
    }
    let places = stated.iter().map(|(_, site)| {
        let parts = [&site.country, &site.region, &site.facility];
        parts
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    });
    let places = places.collect::<Vec<_>>().join("; ");
    tally.pass(
        id,
        format!("the authority states {places}; nothing measured that the host is still there"),
    );
}
