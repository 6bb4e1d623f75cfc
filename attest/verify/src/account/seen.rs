//! What the entries add up to, gathered while they are read: a log can have millions.

use super::{Account, Inferences};
use crate::coverage::rfc3339;
use core::net::Ipv6Addr;
use merestone_evidence::{Body, Entry, FlowVerdict, PodMove, Process};
use serde::Serialize;
use std::collections::BTreeMap;

/// Happenings kept one by one.
const MOST_HAPPENINGS: usize = 400;
/// Destinations told apart; attempts to others are counted together.
const MOST_DESTINATIONS: usize = 4096;
/// Names told of one destination.
const MOST_NAMES: usize = 5;
/// Destinations told of.
const MOST_TOLD: usize = 100;

/// Something that a reader should know of.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Happening {
    /// When, by the host's clock.
    pub time: String,
    /// The same as a number.
    #[serde(skip)]
    pub time_ms: u64,
    /// What kind of entry.
    pub kind: &'static str,
    /// What became of it, where the entry says so.
    pub outcome: String,
    /// In words.
    pub detail: String,
    /// How often.
    pub count: u64,
}

/// Where guarded processes tried to go.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Destination {
    /// Address; IPv4 in its own form.
    pub address: String,
    /// Port, 0 where there is none.
    pub port: u16,
    /// IP protocol.
    pub protocol: String,
    /// `deny`, or `audit`: let out, and would have been refused.
    pub verdict: &'static str,
    /// Attempts.
    pub count: u64,
    /// Why, the last time.
    pub reason: String,
    /// Names that were asked for there, or that the address had: the first few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// There were further names.
    #[serde(skip_serializing_if = "is_false")]
    pub more_names: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

type Where = ([u8; 16], u16, u8, bool);

/// What was refused there.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    reason: String,
    names: Vec<String>,
    more_names: bool,
}

/// The sums so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    kinds: BTreeMap<&'static str, u64>,
    happenings: Vec<Happening>,
    happenings_left_out: u64,
    refused: BTreeMap<Where, Refused>,
    refused_left_out: u64,
    inferences: Inferences,
    /// What the GPUs' counters said when an agent first read them, by start.
    first_readings: Vec<FirstReading>,
    /// An agent started, and has read no GPU yet.
    unread: bool,
}

/// What the GPUs' energy counters said when an agent first read them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FirstReading {
    pub(crate) time_ms: u64,
    pub(crate) millijoules: BTreeMap<String, u64>,
}

/// First readings kept; a file has at most so many starts that matter.
const MOST_READINGS: usize = 4096;

impl Seen {
    pub(crate) fn first_readings(&self) -> &[FirstReading] {
        &self.first_readings
    }

    fn read(&mut self, entry: &Entry) {
        match &entry.body {
            Body::AgentStart { .. } => self.unread = true,
            Body::Gpu { devices, .. } if self.unread => {
                let told = devices
                    .iter()
                    .filter_map(|device| Some((device.uuid.clone(), device.energy_millijoules?)));
                let millijoules: BTreeMap<_, _> = told.collect();
                if !millijoules.is_empty() && self.first_readings.len() < MOST_READINGS {
                    self.unread = false;
                    self.first_readings.push(FirstReading {
                        time_ms: entry.time_ms,
                        millijoules,
                    });
                }
            }
            _ => {}
        }
    }

    pub(crate) fn see(&mut self, entry: &Entry) {
        self.read(entry);
        let kind = kind(&entry.body);
        let sum = self.kinds.entry(kind).or_default();
        *sum = sum.saturating_add(1);
        if let Body::Flow {
            verdict,
            reason,
            address,
            port,
            protocol,
            count,
            name,
            ..
        } = &entry.body
        {
            let audit = *verdict == FlowVerdict::Audit;
            if *verdict != FlowVerdict::Allow {
                self.refuse(
                    (*address, *port, *protocol, audit),
                    *count,
                    reason,
                    name.as_deref(),
                );
            }
        } else if let Body::Inference(one) = &entry.body {
            self.inferences.see(one);
        } else if let Some((outcome, detail, count)) = told(&entry.body) {
            if self.happenings.len() < MOST_HAPPENINGS {
                self.happenings.push(Happening {
                    time: rfc3339(entry.time_ms),
                    time_ms: entry.time_ms,
                    kind,
                    outcome,
                    detail,
                    count,
                });
            } else {
                self.happenings_left_out += 1;
            }
        }
    }

    fn refuse(&mut self, at: Where, count: u64, reason: &str, name: Option<&str>) {
        let full = self.refused.len() >= MOST_DESTINATIONS;
        if full && !self.refused.contains_key(&at) {
            self.refused_left_out = self.refused_left_out.saturating_add(count);
            return;
        }
        let here = self.refused.entry(at).or_default();
        here.count = here.count.saturating_add(count);
        reason.clone_into(&mut here.reason);
        if let Some(name) = name
            && !here.names.iter().any(|known| known == name)
        {
            if here.names.len() < MOST_NAMES {
                here.names.push(name.to_owned());
            } else {
                here.more_names = true;
            }
        }
    }

    /// Where guarded processes were refused most, and how often elsewhere.
    fn refused(&self) -> (Vec<Destination>, u64) {
        let mut refused: Vec<_> = self.refused.iter().collect();
        refused.sort_by_key(|(_, here)| core::cmp::Reverse(here.count));
        let left_out = refused
            .iter()
            .skip(MOST_TOLD)
            .fold(self.refused_left_out, |sum, (_, here)| {
                sum.saturating_add(here.count)
            });
        let told = refused.into_iter().take(MOST_TOLD);
        let told = told
            .map(|(&(address, port, protocol, audit), here)| Destination {
                address: Ipv6Addr::from(address).to_canonical().to_string(),
                port,
                protocol: protocol_name(protocol),
                verdict: if audit { "audit" } else { "deny" },
                count: here.count,
                reason: here.reason.clone(),
                names: here.names.clone(),
                more_names: here.more_names,
            })
            .collect();
        (told, left_out)
    }

    pub(crate) fn tell(&self, account: &mut Account) {
        (account.refused, account.refused_left_out) = self.refused();
        account.entries.clone_from(&self.kinds);
        account.inferences.clone_from(&self.inferences);
        account.happenings.clone_from(&self.happenings);
        account.happenings_left_out = self.happenings_left_out;
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// The word for an entry's kind in every output.
pub(crate) const fn kind(body: &Body) -> &'static str {
    match body {
        Body::AgentStart { .. } => "agent_start",
        Body::AgentStop { .. } => "agent_stop",
        Body::GuardStart { .. } => "guard_start",
        Body::GuardStop { .. } => "guard_stop",
        Body::Flow { .. } => "flow",
        Body::Boundary { .. } => "boundary",
        Body::Gpu { .. } => "gpu",
        Body::Lost { .. } => "lost",
        Body::Left { .. } => "left",
        Body::Recovered { .. } => "recovered",
        Body::Tamper { .. } => "tamper",
        Body::Canary { .. } => "canary",
        Body::Grant { .. } => "grant",
        Body::BreakGlass { .. } => "break_glass",
        Body::Found { .. } => "found",
        Body::Deputy { .. } => "deputy",
        Body::Inference { .. } => "inference",
        Body::LogKey { .. } => "log_key",
        Body::Pods { .. } => "pods",
    }
}

fn who(process: Option<&Process>) -> String {
    process.map_or_else(String::new, |process| {
        format!(", by {} (pid {})", process.exe, process.pid)
    })
}

/// Outcome, words, and how often.
type Told = (String, String, u64);

fn word(yes: bool, is: &str, not: &str) -> String {
    if yes { is } else { not }.to_owned()
}

/// What is told one by one. Guards, flows and GPU samples are many and are summed; each has its
/// own part of a report.
fn told(body: &Body) -> Option<Told> {
    let once = |detail: String| Some((String::new(), detail, 1));
    match body {
        Body::GuardStart { .. }
        | Body::GuardStop { .. }
        | Body::Flow { .. }
        | Body::Gpu { .. }
        | Body::Inference { .. } => None,
        // What held is a number; what did not is told.
        Body::Canary { result, .. } if result == "held" || result == "not_applicable" => None,
        Body::AgentStart { version } => once(format!("version {version}")),
        Body::AgentStop { cause } => once(cause.clone()),
        Body::Lost { reason, count } => Some((String::new(), reason.clone(), *count)),
        Body::Left {
            group,
            cgroup,
            process,
        } => once(format!(
            "group {group}, now in {cgroup}{}",
            who(process.as_ref())
        )),
        Body::Recovered { detail, .. } => once(detail.clone()),
        Body::LogKey { key, previous } => {
            let instead = previous.as_ref();
            let instead = instead.map_or_else(String::new, |old| format!(" in place of {old}"));
            once(format!("{key}{instead}"))
        }
        Body::Pods { moved } => once(moves(moved)),
        judged => outcome(judged),
    }
}

/// Which pods came under which boundary.
fn moves(moved: &[PodMove]) -> String {
    let one = |pod: &PodMove| match &pod.boundary {
        Some(boundary) => format!("{} ({}) by {boundary}", pod.name, pod.uid),
        None => format!("{} ({}) known no longer", pod.name, pod.uid),
    };
    moved.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What an entry says of leave given, refused or taken.
fn outcome(body: &Body) -> Option<Told> {
    let told = match body {
        Body::Canary {
            run,
            vector,
            result,
            detail,
        } => (
            result.clone(),
            format!("{vector} in run {run}: {detail}"),
            1,
        ),
        Body::Boundary {
            name,
            sha256,
            generation,
            accepted,
            error,
            ..
        } => {
            let error = error
                .as_ref()
                .map_or_else(String::new, |e| format!(": {e}"));
            let detail = format!("{name} ({sha256}), generation {generation}{error}");
            (word(*accepted, "accepted", "refused"), detail, 1)
        }
        Body::Tamper {
            attempt,
            refused,
            hook,
            target,
            process,
            count,
            repaired: _,
        } => {
            let who = who(process.as_ref());
            let detail = format!("{attempt} of {target}, seen by {hook}{who}");
            (word(*refused, "refused", "not refused"), detail, *count)
        }
        Body::Deputy {
            refused,
            hook,
            process,
            deputy,
            count,
            ..
        } => {
            let who = who(process.as_ref());
            let detail = format!("{deputy}, seen by {hook}{who}");
            (word(*refused, "refused", "reported"), detail, *count)
        }
        other => return leave(other),
    };
    Some(told)
}

/// What an entry says of exceptions that somebody signed, and of what a start found.
fn leave(body: &Body) -> Option<Told> {
    match body {
        Body::Grant {
            name,
            sha256,
            state,
            bytes,
            detail,
            terms: _,
        } => {
            let detail = format!("{name} ({sha256}), {bytes} bytes, {detail}");
            Some((state.clone(), detail, 1))
        }
        Body::BreakGlass {
            sha256,
            state,
            reason,
            until_ms,
            signer: _,
            actions,
        } => {
            let (until, actions) = (rfc3339(*until_ms), actions.join(" "));
            let detail = format!("token {sha256}, for {actions}, until {until}: {reason}");
            Some((state.clone(), detail, 1))
        }
        Body::Found { what, kept, detail } => {
            let detail = format!("{what}: {detail}");
            Some((word(*kept, "kept", "removed"), detail, 1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use merestone_evidence::EntryKind;

    fn entry(body: Body) -> Entry {
        Entry {
            kind: EntryKind,
            time_ms: 1,
            boot_ns: 1,
            body,
        }
    }

    fn question(name: Option<&str>) -> Entry {
        entry(Body::Flow {
            verdict: FlowVerdict::Deny,
            hook: "sendmsg4".into(),
            reason: "name".into(),
            group: 1,
            process: None,
            address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 9],
            port: 53,
            protocol: 17,
            rule: 0,
            count: 2,
            family: None,
            name: name.map(ToOwned::to_owned),
        })
    }

    #[test]
    fn b47_the_first_few_names_that_were_refused_are_told_and_that_there_were_more() {
        let mut seen = Seen::default();
        seen.see(&question(None));
        for name in ["a.example", "a.example", "b.example"] {
            seen.see(&question(Some(name)));
        }
        let told = seen.refused().0;
        let told = told.first().unwrap();
        assert_eq!(told.names, ["a.example", "b.example"]);
        assert_eq!((told.count, told.more_names), (8, false));
        for number in 0..9 {
            seen.see(&question(Some(&format!("{number}.example"))));
        }
        let told = seen.refused().0;
        let told = told.first().unwrap();
        assert_eq!((told.names.len(), told.more_names), (MOST_NAMES, true));
    }

    #[test]
    fn pods_that_came_under_another_boundary_are_told() {
        let pod = |name: &str, boundary: Option<&str>| PodMove {
            uid: "u".into(),
            name: name.into(),
            boundary: boundary.map(ToOwned::to_owned),
        };
        let mut seen = Seen::default();
        let moved = vec![pod("n/a", Some("strict")), pod("n/b", None)];
        seen.see(&entry(Body::Pods { moved }));
        let told = seen.happenings.first().unwrap();
        assert_eq!(told.kind, "pods");
        assert_eq!(told.detail, "n/a (u) by strict; n/b (u) known no longer");
    }
}
