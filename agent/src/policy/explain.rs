//! What the boundary says about one destination, for people and for programs.
//!
//! It repeats [`super::lookup`]'s answer and adds where the rule stands. It
//! does not know who is guarded: for an unguarded process nothing here applies.

use super::granted::GrantAnswer;
use super::lookup::{Decision, embedded, judge, lookup_in};
use super::named::NamedAnswer;
use super::network::{Network, mapped};
use super::target::{Target, protocol_name};
use super::{Chosen, Compiled, CompiledSelect, LOOPBACK_RULE, NOWHERE};
use crate::geo;
use merestone_abi::{Reason, Verdict, protocol};
use serde::Serialize;
use std::fmt;

/// The answer, in the form `--json` prints.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// `allow`, `deny`, or `audit` where a rule that only reports lets it pass.
    pub verdict: &'static str,
    /// `enforce` or `audit`: whether a denial is held or only reported.
    pub mode: &'static str,
    /// Why, as events name it: `rule`, `no_rule`, `embedded`, `grant` or
    /// `grant_spent`.
    pub reason: &'static str,
    /// The destination.
    pub destination: Destination,
    /// The rule that decided.
    pub rule: Option<RuleAnswer>,
    /// The longest prefix of the compiled boundary that matched.
    pub prefix: Option<String>,
    /// The IPv4 address inside the IPv6 one, judged as well.
    pub embedded: Option<EmbeddedAnswer>,
    /// The names that the address has now, as the running agent says.
    pub names: Vec<NamedAnswer>,
    /// What the databases that the boundary was compiled with say.
    pub databases: Vec<DatabaseAnswer>,
    /// The boundary.
    pub boundary: BoundaryAnswer,
    /// The process asked about, if one was.
    pub process: Option<ProcessAnswer>,
    /// Grants of that process's group that name the destination.
    pub grants: Vec<GrantAnswer>,
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
    /// As that of the whole.
    pub verdict: &'static str,
}

/// What one database says of the address.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DatabaseAnswer {
    /// `country` or `asn`.
    pub kind: &'static str,
    /// The file.
    pub path: String,
    /// The code of the entry; absent where there is none.
    pub code: Option<String>,
    /// The network of the entry.
    pub network: Option<String>,
    /// Why the file gave no answer.
    pub error: Option<String>,
}

/// The boundary that answered.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BoundaryAnswer {
    /// Its name.
    pub name: String,
    /// SHA-256 of the file, hexadecimal.
    pub digest: String,
    /// The line of the `[[select]]` by which it judges the process; absent for
    /// the default boundary.
    pub selected_at: Option<usize>,
    /// The pod by which it judges the process, where pods are selected.
    pub pod: Option<PodAnswer>,
}

/// The pod that a process is in.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PodAnswer {
    /// Whether the kubelet has named it. Until then everything is denied.
    pub known: bool,
    /// `namespace/name`.
    pub name: Option<String>,
}

impl Explanation {
    /// Asks the default boundary.
    #[must_use]
    pub fn new(compiled: &Compiled, target: Target) -> Self {
        Self::of_cgroup(compiled, target, None)
    }

    /// Asks the boundary that judges a cgroup.
    #[must_use]
    pub fn of_cgroup(compiled: &Compiled, target: Target, cgroup: Option<&str>) -> Self {
        let (number, select) = select(compiled, cgroup);
        let Target {
            address,
            port,
            protocol,
        } = target;
        let bytes = mapped(address);
        let decision = lookup_in(compiled, number, bytes, protocol, port, false);
        let inner = embedded(bytes).map(|inner| EmbeddedAnswer {
            address: inner.to_string(),
            verdict: verdict_word(
                judge(
                    compiled,
                    number,
                    mapped(inner.into()),
                    protocol,
                    port,
                    false,
                )
                .verdict,
            ),
        });
        Self {
            verdict: verdict_word(decision.verdict),
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
            names: Vec::new(),
            databases: databases(compiled, address),
            boundary: boundary(compiled, number, select),
            process: None,
            grants: Vec::new(),
        }
    }

    /// Whether it would get through: the rules let it, or the process asked
    /// about is known not to be guarded. An auditing boundary changes nothing
    /// here: what the rules refuse is refused the day it enforces.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.verdict != "deny" || self.unguarded()
    }

    fn unguarded(&self) -> bool {
        let guarded = self.process.as_ref().and_then(|process| process.guarded);
        guarded == Some(false)
    }
}

/// The number of the boundary that judges a cgroup, and the select.
pub(super) fn select<'c>(
    compiled: &'c Compiled,
    cgroup: Option<&str>,
) -> (u16, Option<&'c CompiledSelect>) {
    match cgroup.and_then(|cgroup| compiled.select(cgroup)) {
        Some(select) => (select.boundary, Some(select)),
        None => (0, None),
    }
}

impl RuleAnswer {
    /// Its number and where it stands.
    pub(super) fn place(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{} at {file}:{line}", self.number),
            _ => self.number.to_string(),
        }
    }
}

pub(super) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::ALLOW => "allow",
        Verdict::AUDIT => "audit",
        _ => "deny",
    }
}

pub(super) fn boundary(
    compiled: &Compiled,
    number: u16,
    select: Option<&CompiledSelect>,
) -> BoundaryAnswer {
    let pod = select.and_then(|select| match &select.chosen {
        Chosen::Place => None,
        Chosen::Pod { name, .. } => Some(PodAnswer {
            known: true,
            name: Some(name.clone()),
        }),
        Chosen::Unknown => Some(PodAnswer {
            known: false,
            name: None,
        }),
    });
    if number == NOWHERE {
        return BoundaryAnswer {
            name: "none".to_owned(),
            digest: String::new(),
            selected_at: None,
            pod,
        };
    }
    let selected_at = select.and_then(|select| select.line);
    let part = compiled.parts.get(usize::from(number));
    let part = part.filter(|_| number != 0);
    BoundaryAnswer {
        name: part.map_or(&compiled.name, |part| &part.name).clone(),
        digest: hex::encode(part.map_or(compiled.digest, |part| part.digest)),
        selected_at,
        pod,
    }
}

fn databases(compiled: &Compiled, address: std::net::IpAddr) -> Vec<DatabaseAnswer> {
    let answer = |database: &super::Database| {
        let entry = geo::Database::open(&database.path, database.kind)
            .and_then(|opened| opened.entry(address));
        let (code, network, error) = match entry {
            Ok(Some((code, network))) => (Some(code.to_string()), Some(network.to_string()), None),
            Ok(None) => (None, None, None),
            Err(error) => (None, None, Some(error.to_string())),
        };
        DatabaseAnswer {
            kind: database.kind.word(),
            path: database.path.display().to_string(),
            code,
            network,
            error,
        }
    };
    compiled.databases.iter().map(answer).collect()
}

fn reason(decision: &Decision) -> &'static str {
    match decision.reason {
        Reason::RULE => "rule",
        Reason::EMBEDDED => "embedded",
        Reason::NAME_FORM => "name_form",
        _ => "no_rule",
    }
}

pub(super) fn rule(compiled: &Compiled, number: u16) -> Option<RuleAnswer> {
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
        file: Some(note.path.display().to_string()),
        line: Some(note.line),
        comment: note.comment.clone(),
    })
}

impl Explanation {
    fn databases_to(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for DatabaseAnswer {
            kind,
            path,
            code,
            network,
            error,
        } in &self.databases
        {
            let says = match (code, network, error) {
                (Some(code), Some(network), _) => format!("{code} by {network} in {path}"),
                (_, _, Some(error)) => error.clone(),
                _ => format!("no entry in {path}"),
            };
            writeln!(f, "  {kind:<8}  {says}")?;
        }
        Ok(())
    }

    fn grants_to(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for GrantAnswer {
            name,
            state,
            bytes,
            used_bytes,
            until,
            decides,
        } in &self.grants
        {
            let word = if *decides { ", decides" } else { "" };
            writeln!(
                f,
                "  grant     {name}: {state}{word}, {used_bytes} of {bytes} bytes, until {until}"
            )?;
        }
        Ok(())
    }
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
            _ if self.verdict == "audit" => "allowed (the rule only audits: reported)",
            (false, "audit") => "denied (audit: reported, not held)",
            (false, _) => "denied",
        };
        writeln!(f, "{word}  {protocol} to {to}")?;
        match &self.rule {
            None if self.reason == "name_form" => writeln!(
                f,
                "  rule      none: the boundary has names, and DNS over TCP, over TLS and by a \
                 stub on loopback cannot be judged"
            )?,
            None => writeln!(f, "  rule      none matches: denied by default")?,
            Some(rule) => {
                let number = rule.place();
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
        for name in &self.names {
            writeln!(f, "  name      {name}")?;
        }
        self.databases_to(f)?;
        if let Some(process) = &self.process {
            writeln!(f, "  process   {process}")?;
        }
        self.grants_to(f)?;
        write!(f, "  boundary  {} ({})", self.boundary, self.mode)
    }
}

impl fmt::Display for ProcessAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cgroup = self.cgroup.as_deref().unwrap_or("an unknown cgroup");
        let guarded = match self.guarded {
            Some(true) => "guarded",
            Some(false) => "not guarded",
            None => "no agent answers whether it is guarded: this is what holds if it is",
        };
        write!(f, "{} ({}) in {cgroup}: {guarded}", self.pid, self.comm)
    }
}

impl fmt::Display for BoundaryAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.get(..16).unwrap_or_default();
        write!(f, "{}", self.name)?;
        if !digest.is_empty() {
            write!(f, " {digest}")?;
        }
        if let Some(line) = self.selected_at {
            write!(f, ", selected at line {line}")?;
        }
        match &self.pod {
            Some(PodAnswer {
                name: Some(name), ..
            }) => write!(f, ", for pod {name}"),
            Some(_) => write!(
                f,
                ": the pod is not known yet, and until it is everything is denied"
            ),
            None => Ok(()),
        }
    }
}
