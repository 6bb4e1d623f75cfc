//! The event as users see it: one JSON object (DESIGN §9, event).

use crate::api::BoundaryInfo;
use merestone_abi::{Event, EventKind, Reason};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};

/// The kind of events that are the canary's own doing.
pub const CANARY: &str = "canary";

/// A process as far as it could be named.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProcessInfo {
    /// Process id in the initial PID namespace; 0 where the hook had none.
    pub pid: u32,
    /// Start time, clock ticks since boot (proc(5), field 22).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start_time: Option<u64>,
    /// Command name.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub comm: String,
    /// Executable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exe: Option<String>,
    /// SHA-256 of the executable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exe_sha256: Option<String>,
    /// cgroup path below the cgroup root.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<String>,
    /// Container id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container_id: Option<String>,
    /// Pod uid.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod_uid: Option<String>,
}

/// Where a flow wanted to go.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Destination {
    /// Address, IPv4 in its own form.
    pub address: IpAddr,
    /// Port, where the protocol has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// Protocol name, or its number; `any` where a name was learned.
    pub protocol: String,
    /// The name that was asked for, or that had the address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

/// One event, as written to `flows --json`, the JSONL file and the API.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FlowEvent {
    /// When, RFC 3339 UTC.
    pub time: String,
    /// `flow`, `guard`, `left`, …; `canary` for what the canary was refused.
    pub kind: String,
    /// `allow`, `deny` or `audit`; absent where nothing was judged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<String>,
    /// The boundary's mode.
    pub mode: String,
    /// The hook that saw it.
    pub hook: String,
    /// Why; absent where nothing was judged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The guarded group's id.
    pub group: u64,
    /// The process.
    pub process: ProcessInfo,
    /// GPU UUIDs the group is known to use, or the device node that guarded it.
    pub gpu: Vec<String>,
    /// The destination, for a flow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub destination: Option<Destination>,
    /// The socket family that was refused, by number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub family: Option<u16>,
    /// The rule that decided, by its number in the boundary file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<u16>,
    /// What was tried on enforcement itself, for kind `tamper`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<String>,
    /// What that was aimed at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// The boundary it was judged by.
    pub boundary: BoundaryInfo,
    /// How many decisions this line stands for.
    pub count: u64,
}

/// What an event cannot know by itself.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// When it happened, RFC 3339 UTC.
    pub time: String,
    /// The boundary's mode.
    pub mode: String,
    /// The boundary in force.
    pub boundary: BoundaryInfo,
    /// The process, where it could be read.
    pub process: ProcessInfo,
    /// GPUs of the group.
    pub gpu: Vec<String>,
    /// The name that was asked for, or that had the address.
    pub name: Option<String>,
}

fn lower(name: Option<&str>) -> Option<String> {
    name.map(str::to_ascii_lowercase)
}

/// The name of an IP protocol, or its number.
fn protocol_name(protocol: u8) -> String {
    match protocol {
        0 => "any".to_owned(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        other => other.to_string(),
    }
}

/// An address as the kernel reports it, in the form people write.
fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

impl FlowEvent {
    /// Joins an event with what user space knows; `count` decisions alike.
    pub fn new(event: &Event, names: Names, count: u64) -> Self {
        let judged = matches!(
            event.kind,
            EventKind::FLOW | EventKind::DEPUTY | EventKind::ANSWER
        );
        let family_only = judged && event.reason == Reason::FAMILY;
        // A refused option, device or file goes to no address.
        let named = event.address != [0; 16] || event.reason == Reason::NO_RULE;
        let destination = (judged && named).then(|| Destination {
            address: address(event.address),
            port: (event.port != 0).then_some(event.port),
            protocol: protocol_name(event.protocol),
            name: names.name,
        });
        Self {
            time: names.time,
            kind: lower(event.kind.name()).unwrap_or_else(|| format!("kind-{}", event.kind.0)),
            verdict: lower(event.verdict.name()),
            mode: names.mode,
            hook: lower(event.hook.name()).unwrap_or_else(|| format!("hook-{}", event.hook.0)),
            reason: lower(event.reason.name()),
            group: event.group,
            process: names.process,
            gpu: names.gpu,
            destination,
            family: family_only.then_some(event.family),
            rule: (event.rule != 0).then_some(event.rule),
            attempt: None,
            target: None,
            boundary: names.boundary,
            count,
        }
    }

    /// Whether it tells of something refused, or that would have been. What
    /// the canary does is no news.
    pub fn is_denied(&self) -> bool {
        if self.kind == CANARY {
            return false;
        }
        self.attempt.is_some() || matches!(self.verdict.as_deref(), Some("deny" | "audit"))
    }

    /// The one line an operator reads: who, what, where to, why.
    pub fn line(&self) -> String {
        let verdict = match &self.verdict {
            Some(verdict) if self.kind == CANARY => &format!("canary {verdict}"),
            Some(verdict) => verdict,
            None => &self.kind,
        };
        let process = if self.process.pid == 0 {
            format!(
                "group {}",
                self.process.cgroup.as_deref().unwrap_or("unknown")
            )
        } else {
            format!(
                "pid {} {}",
                self.process.pid,
                self.process.exe.as_deref().unwrap_or(&self.process.comm)
            )
        };
        let to = match (&self.destination, self.family) {
            (Some(to), _) => {
                let port = to.port.map(|port| format!(":{port}")).unwrap_or_default();
                let name = match (&to.name, self.reason.as_deref()) {
                    (Some(name), Some("name")) => format!(", asking for {name}"),
                    (Some(name), _) => format!(" ({name})"),
                    (None, _) => String::new(),
                };
                match to.address {
                    IpAddr::V6(ip) if !port.is_empty() => {
                        format!(" → [{ip}]{port} {}{name}", to.protocol)
                    }
                    ip => format!(" → {ip}{port} {}{name}", to.protocol),
                }
            }
            (None, Some(family)) => format!(" → socket family {family}"),
            (None, None) => match (&self.attempt, &self.target) {
                (Some(attempt), Some(target)) => format!(" → {attempt} of {target}"),
                _ => String::new(),
            },
        };
        let why = match (self.rule, self.reason.as_deref()) {
            (Some(rule), _) => format!(", rule {rule}"),
            (None, Some(reason)) => format!(", {reason}"),
            (None, None) => String::new(),
        };
        let gpu = if self.gpu.is_empty() {
            String::new()
        } else {
            format!(", gpu {}", self.gpu.join("+"))
        };
        let times = if self.count > 1 {
            format!(" ×{}", self.count)
        } else {
            String::new()
        };
        format!(
            "{} {verdict:<5} {process}{to} [{}{why}{gpu}, boundary {}]{times}",
            self.time, self.hook, self.boundary.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use merestone_abi::{Hook, Verdict};

    fn denied() -> Event {
        Event {
            kind: EventKind::FLOW,
            hook: Hook::CONNECT4,
            verdict: Verdict::DENY,
            reason: Reason::NO_RULE,
            protocol: 6,
            port: 443,
            address: std::net::Ipv4Addr::new(203, 0, 113, 7)
                .to_ipv6_mapped()
                .octets(),
            tgid: 7,
            ..Event::default()
        }
    }

    #[test]
    fn an_ipv4_destination_is_shown_in_its_own_form_b20() {
        let event = FlowEvent::new(&denied(), Names::default(), 1);
        let destination = event.destination.expect("a flow has a destination");
        assert_eq!(destination.address.to_string(), "203.0.113.7");
        assert_eq!(destination.port, Some(443));
        assert_eq!(destination.protocol, "tcp");
    }

    #[test]
    fn an_alert_line_names_process_destination_hook_and_reason() {
        let mut event = FlowEvent::new(&denied(), Names::default(), 3);
        event.process.pid = 7;
        event.process.exe = Some("/usr/bin/python3".to_owned());
        let line = event.line();
        for part in [
            "deny",
            "pid 7 /usr/bin/python3",
            "203.0.113.7:443 tcp",
            "connect4",
            "no_rule",
            "×3",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
    }

    #[test]
    fn a_refused_question_is_told_with_the_name_it_asked_for_b47() {
        let event = Event {
            reason: Reason::NAME,
            port: 53,
            protocol: 17,
            ..denied()
        };
        let names = Names {
            name: Some("x.attacker.test".to_owned()),
            ..Names::default()
        };
        let event = FlowEvent::new(&event, names, 1);
        assert!(event.line().contains(":53 udp, asking for x.attacker.test"));
        let json = serde_json::to_value(&event).expect("serialises");
        assert_eq!(json["destination"]["name"], "x.attacker.test");
    }

    #[test]
    fn a_refused_family_has_no_made_up_destination() {
        let event = Event {
            reason: Reason::FAMILY,
            family: 17,
            address: [0; 16],
            ..denied()
        };
        let event = FlowEvent::new(&event, Names::default(), 1);
        assert_eq!(event.destination, None);
        assert_eq!(event.family, Some(17));
    }

    #[test]
    fn a_code_this_build_does_not_know_is_shown_by_its_number() {
        let event = Event {
            hook: Hook(77),
            ..denied()
        };
        assert_eq!(FlowEvent::new(&event, Names::default(), 1).hook, "hook-77");
    }

    #[test]
    fn an_event_survives_json() {
        let event = FlowEvent::new(&denied(), Names::default(), 1);
        let text = serde_json::to_string(&event).expect("serialises");
        assert!(!text.contains("exe_sha256"), "what is unknown is left out");
        let back: FlowEvent = serde_json::from_str(&text).expect("parses");
        assert_eq!(back, event);
    }
}
