//! Which grants bear on an explanation: those of the process's group that name
//! the destination.
//!
//! The kernel asks the grants only where no rule decided, and takes the first
//! in force with bytes left; so does this. It knows no grant by itself: the
//! running agent says which there are, and without one none is named.

use super::explain::Explanation;
use super::network::mapped;
use super::target::Target;
use crate::api::GrantInfo;
use serde::Serialize;

/// A grant that names the destination.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GrantAnswer {
    /// Its name.
    pub name: String,
    /// `in force`, `not yet`, `spent`, `expired`, `revoked` or `accepted`.
    pub state: String,
    /// Bytes it lets pass in all.
    pub bytes: u64,
    /// Bytes sent under it.
    pub used_bytes: u64,
    /// When it ends, RFC 3339.
    pub until: String,
    /// Whether it is what lets the destination through.
    pub decides: bool,
}

impl Explanation {
    /// Names the grants of `group`, a cgroup's path, that the destination falls
    /// under, and lets the first in force decide where no rule has.
    pub fn under(&mut self, grants: &[GrantInfo], group: &str, target: Target, now_ms: u64) {
        let Target {
            address,
            port,
            protocol,
        } = target;
        let address = mapped(address);
        let is_asked = self.verdict == "deny" && self.reason == "no_rule";
        let mut is_open = is_asked;
        for grant in grants {
            let terms = &grant.terms;
            if terms.group != group || !terms.matches(address, protocol, port) {
                continue;
            }
            let state = state(grant, now_ms);
            let decides = is_open && state == "in force";
            if decides {
                self.verdict = "allow";
                self.reason = "grant";
                is_open = false;
            } else if is_open && state == "spent" {
                self.reason = "grant_spent";
            }
            self.grants.push(GrantAnswer {
                name: terms.name.clone(),
                state: state.to_owned(),
                bytes: terms.bytes,
                used_bytes: grant.used_bytes,
                until: grant.until.clone(),
                decides,
            });
        }
    }
}

/// As the kernel would find it at `now_ms`.
fn state(grant: &GrantInfo, now_ms: u64) -> &str {
    let GrantInfo {
        terms,
        state,
        in_force,
        used_bytes,
        ..
    } = grant;
    if !*in_force {
        state
    } else if now_ms < terms.from_ms {
        "not yet"
    } else if now_ms >= terms.until_ms {
        "expired"
    } else if *used_bytes >= terms.bytes {
        "spent"
    } else {
        "in force"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Terms;
    use crate::policy;

    fn grant(name: &str, used_bytes: u64) -> GrantInfo {
        GrantInfo {
            terms: Terms {
                name: name.into(),
                group: "/a.service".into(),
                to: "203.0.113.0/24".into(),
                ports: vec![(443, 443)],
                protocols: vec![6],
                bytes: 100,
                from_ms: 10,
                until_ms: 20,
                reason: "a test".into(),
            },
            until: "1970-01-01T00:00:00Z".into(),
            state: "accepted".into(),
            in_force: true,
            used_bytes,
            sha256: String::new(),
            signer: String::new(),
        }
    }

    fn asked(to: &str, group: &str, grants: &[GrantInfo], now_ms: u64) -> Explanation {
        let text = "name = \"t\"\n[[allow]]\ncidr = [\"10.0.0.0/8\"]\n[[deny]]\ncidr = [\"203.0.113.9/32\"]\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let compiled = policy::load_with(file.path(), &policy::Sources::default()).unwrap();
        let target = Target::parse(to, "tcp").unwrap();
        let mut explanation = Explanation::new(&compiled, target);
        explanation.under(grants, group, target, now_ms);
        explanation
    }

    #[test]
    fn the_first_grant_in_force_decides_where_no_rule_does() {
        let grants = [grant("spent", 100), grant("first", 1), grant("second", 0)];
        let found = asked("203.0.113.7:443", "/a.service", &grants, 15);
        assert_eq!((found.verdict, found.reason), ("allow", "grant"));
        assert!(found.allowed());
        let deciding: Vec<_> = found.grants.iter().map(|one| one.decides).collect();
        assert_eq!(deciding, [false, true, false]);
        assert!(found.to_string().contains("first: in force"), "{found}");
    }

    #[test]
    fn a_grant_lifts_no_deny_and_serves_no_other_group_or_time() {
        let grants = [grant("one", 0)];
        let denied = asked("203.0.113.9:443", "/a.service", &grants, 15);
        assert_eq!((denied.verdict, denied.reason), ("deny", "rule"));
        assert_eq!(denied.grants.len(), 1);
        let other = asked("203.0.113.7:443", "/b.service", &grants, 15);
        assert_eq!((other.verdict, other.grants.len()), ("deny", 0));
        for (now_ms, state) in [(9, "not yet"), (20, "expired")] {
            let found = asked("203.0.113.7:443", "/a.service", &grants, now_ms);
            assert_eq!(found.verdict, "deny");
            assert_eq!(found.grants[0].state, state);
        }
        let spent = asked("203.0.113.7:443", "/a.service", &[grant("s", 100)], 15);
        assert_eq!((spent.verdict, spent.reason), ("deny", "grant_spent"));
    }
}
