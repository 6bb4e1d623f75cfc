//! What the boundary says about one destination, for people and for programs.
//!
//! It repeats [`super::lookup`]'s answer and adds where the rule stands. It
//! does not know who is guarded: for an unguarded process nothing here applies.

use super::lookup::{Decision, embedded, judge, lookup};
use super::network::{Network, mapped, unmapped};
use super::{Compiled, LOOPBACK_RULE};
use merestone_abi::{Reason, Verdict, protocol};
use serde::Serialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A destination to ask about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    /// The address.
    pub address: IpAddr,
    /// The port; 0 where the protocol has none.
    pub port: u16,
    /// The IP protocol number.
    pub protocol: u8,
}

/// Why a destination cannot be asked about.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// Not an address.
    #[error("{given:?} is not an address with a port")]
    Address {
        /// What was given.
        given: String,
    },
    /// The protocol has ports and none is given.
    #[error("{protocol} needs a port")]
    PortMissing {
        /// The protocol.
        protocol: String,
    },
    /// The protocol has no ports and one is given.
    #[error("{protocol} has no ports")]
    PortGiven {
        /// The protocol.
        protocol: String,
    },
    /// Not a protocol.
    #[error("{given:?} is not a protocol")]
    Protocol {
        /// What was given.
        given: String,
    },
}

impl TargetError {
    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Address { .. } => {
                "write 203.0.113.7:443 or [2001:db8::7]:443; names are not looked up"
            }
            Self::PortMissing { .. } => "add :PORT to the address",
            Self::PortGiven { .. } => "leave the port out",
            Self::Protocol { .. } => {
                "write tcp, udp, icmp, sctp, dccp, udplite, or a number of 1 to 255"
            }
        }
    }
}

impl Target {
    /// From `--to` and `--protocol`.
    pub fn parse(to: &str, word: &str) -> Result<Self, TargetError> {
        let given = || TargetError::Address {
            given: to.to_owned(),
        };
        let (address, port) = match to.parse::<SocketAddr>() {
            Ok(socket) => (socket.ip(), Some(socket.port())),
            Err(_) => {
                let bare = to.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let address = bare.unwrap_or(to).parse();
                (address.map_err(|_| given())?, None)
            }
        };
        // As the kernel does: to connect to no address is to connect to this host.
        let address = match unmapped(mapped(address)) {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            named => named,
        };
        let number = match word {
            "icmp" if address.is_ipv6() => protocol::ICMPV6,
            _ => protocol_number(word)?,
        };
        let word = word.to_owned();
        let port = match (port, protocol::has_ports(number)) {
            (Some(port), true) => port,
            (None, false) => 0,
            (None, true) => return Err(TargetError::PortMissing { protocol: word }),
            (Some(_), false) => return Err(TargetError::PortGiven { protocol: word }),
        };
        Ok(Self {
            address,
            port,
            protocol: number,
        })
    }
}

fn protocol_number(word: &str) -> Result<u8, TargetError> {
    Ok(match word {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "icmp" => protocol::ICMP,
        "sctp" => protocol::SCTP,
        "dccp" => protocol::DCCP,
        "udplite" => protocol::UDP_LITE,
        _ => {
            let number = word.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| TargetError::Protocol {
                given: word.to_owned(),
            })?
        }
    })
}

/// The name of a protocol number, or the number.
fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMP | protocol::ICMPV6 => "icmp".into(),
        protocol::SCTP => "sctp".into(),
        protocol::DCCP => "dccp".into(),
        protocol::UDP_LITE => "udplite".into(),
        _ => number.to_string(),
    }
}

/// The answer, in the form `--json` prints.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// `allow` or `deny`: what the rules say.
    pub verdict: &'static str,
    /// `enforce` or `audit`: whether a denial is held or only reported.
    pub mode: &'static str,
    /// Why, as events name it.
    pub reason: &'static str,
    /// The destination.
    pub destination: Destination,
    /// The rule that decided.
    pub rule: Option<RuleAnswer>,
    /// The longest prefix of the compiled boundary that matched.
    pub prefix: Option<String>,
    /// The IPv4 address inside the IPv6 one, judged as well.
    pub embedded: Option<EmbeddedAnswer>,
    /// The boundary.
    pub boundary: BoundaryAnswer,
    /// The process asked about, if one was.
    pub process: Option<ProcessAnswer>,
}

/// A process the question was asked for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ProcessAnswer {
    /// Its id.
    pub pid: u32,
    /// Its command name.
    pub comm: String,
    /// Its cgroup v2 path, if /proc says.
    pub cgroup: Option<String>,
    /// Whether the running agent guards it; absent where no agent answered.
    pub guarded: Option<bool>,
}

/// What was asked about.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Destination {
    /// The address.
    pub address: String,
    /// The port; absent where the protocol has none.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: String,
}

/// The rule that decided.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RuleAnswer {
    /// Its number; 65535 for the built-in one.
    pub number: u16,
    /// The file; absent for the built-in one.
    pub file: Option<String>,
    /// The line its table begins on.
    pub line: Option<usize>,
    /// The operator's own words.
    pub comment: Option<String>,
}

/// The embedded address and its own verdict.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EmbeddedAnswer {
    /// The address.
    pub address: String,
    /// `allow` or `deny`.
    pub verdict: &'static str,
}

/// The boundary that answered.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BoundaryAnswer {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
}

impl Explanation {
    /// Asks the compiled boundary.
    #[must_use]
    pub fn new(compiled: &Compiled, target: Target) -> Self {
        let Target {
            address,
            port,
            protocol,
        } = target;
        let bytes = mapped(address);
        let decision = lookup(compiled, bytes, protocol, port, false);
        let inner = embedded(bytes).map(|inner| EmbeddedAnswer {
            address: inner.to_string(),
            verdict: verdict(&judge(
                compiled,
                mapped(inner.into()),
                protocol,
                port,
                false,
            )),
        });
        Self {
            verdict: verdict(&decision),
            mode: if compiled.audit { "audit" } else { "enforce" },
            reason: reason(&decision),
            destination: Destination {
                address: address.to_string(),
                port: protocol::has_ports(protocol).then_some(port),
                protocol: protocol_name(protocol),
            },
            rule: rule(compiled, decision.rule),
            prefix: decision
                .prefix
                .map(|prefix| Network::of(prefix.address, prefix.bits).to_string()),
            embedded: inner,
            boundary: BoundaryAnswer {
                name: compiled.name.clone(),
                digest: hex::encode(compiled.digest),
            },
            process: None,
        }
    }

    /// Whether it would get through: the rules let it, or the process asked
    /// about is known not to be guarded. An auditing boundary changes nothing
    /// here: what the rules refuse is refused the day it enforces.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.verdict == "allow" || self.unguarded()
    }

    fn unguarded(&self) -> bool {
        let guarded = self.process.as_ref().and_then(|process| process.guarded);
        guarded == Some(false)
    }
}

fn verdict(decision: &Decision) -> &'static str {
    if decision.verdict == Verdict::ALLOW {
        "allow"
    } else {
        "deny"
    }
}

fn reason(decision: &Decision) -> &'static str {
    match decision.reason {
        Reason::RULE => "rule",
        Reason::EMBEDDED => "embedded",
        _ => "no_rule",
    }
}

fn rule(compiled: &Compiled, number: u16) -> Option<RuleAnswer> {
    if number == LOOPBACK_RULE {
        return Some(RuleAnswer {
            number,
            file: None,
            line: None,
            comment: Some("built in: loopback is inside".to_owned()),
        });
    }
    compiled.rule(number).map(|note| RuleAnswer {
        number,
        file: Some(compiled.path.display().to_string()),
        line: Some(note.line),
        comment: note.comment.clone(),
    })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Destination {
            address,
            port,
            protocol,
        } = &self.destination;
        let to = match port {
            Some(port) if address.contains(':') => format!("[{address}]:{port}"),
            Some(port) => format!("{address}:{port}"),
            None => address.clone(),
        };
        let word = match (self.verdict == "allow", self.mode) {
            _ if self.unguarded() => {
                "allowed (the process is not guarded; the rules below do not apply)"
            }
            (true, _) => "allowed",
            (false, "audit") => "denied (audit: reported, not held)",
            (false, _) => "denied",
        };
        writeln!(f, "{word}  {protocol} to {to}")?;
        match &self.rule {
            None => writeln!(f, "  rule      none matches: denied by default")?,
            Some(rule) => {
                let number = match (&rule.file, rule.line) {
                    (Some(file), Some(line)) => format!("{} at {file}:{line}", rule.number),
                    _ => rule.number.to_string(),
                };
                let comment = rule
                    .comment
                    .as_deref()
                    .map_or(String::new(), |c| format!("  # {c}"));
                writeln!(f, "  rule      {number}{comment}")?;
            }
        }
        let prefix = self.prefix.as_deref().unwrap_or("none");
        writeln!(f, "  prefix    {prefix}")?;
        if let Some(EmbeddedAnswer { address, verdict }) = &self.embedded {
            writeln!(f, "  embedded  {address}, judged as well: {verdict}")?;
        }
        if let Some(ProcessAnswer {
            pid,
            comm,
            cgroup,
            guarded,
        }) = &self.process
        {
            let cgroup = cgroup.as_deref().unwrap_or("an unknown cgroup");
            let guarded = match guarded {
                Some(true) => "guarded",
                Some(false) => "not guarded",
                None => "no agent answers whether it is guarded: this is what holds if it is",
            };
            writeln!(f, "  process   {pid} ({comm}) in {cgroup}: {guarded}")?;
        }
        let digest = self.boundary.digest.get(..16).unwrap_or_default();
        write!(
            f,
            "  boundary  {} {digest} ({})",
            self.boundary.name, self.mode
        )
    }
}
