//! What a grant says, and the form in which the kernel takes it.

use crate::policy::{Network, Protocol};
use merestone_abi::{GRANT_PORTS, GRANT_PROTOCOLS, Grant, protocol};
use merestone_evidence::{Digest, GrantTerms};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why terms are refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the grant cannot be honoured: {0}")]
pub struct TermsError(pub String);

fn refuse<T>(why: impl Into<String>) -> Result<T, TermsError> {
    Err(TermsError(why.into()))
}

/// The file, before it is checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    group: String,
    to: String,
    #[serde(default)]
    ports: Vec<Port>,
    #[serde(default)]
    protocols: Vec<String>,
    bytes: u64,
    from: Option<Instant>,
    until: Instant,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    One(u16),
    Range(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Instant {
    Toml(toml::value::Datetime),
    Text(String),
}

/// A grant as it was signed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Terms {
    /// Its name.
    pub name: String,
    /// The cgroup whose group may send, as a path below the root.
    pub group: String,
    /// The network it may send to.
    pub to: String,
    /// Ranges of ports; none for any.
    pub ports: Vec<(u16, u16)>,
    /// IP protocol numbers.
    pub protocols: Vec<u8>,
    /// How many bytes of IP packets.
    pub bytes: u64,
    /// Not before, milliseconds since the Unix epoch; 0 for at once.
    pub from_ms: u64,
    /// Not from then on.
    pub until_ms: u64,
    /// Why, in the words of whoever signed.
    pub reason: String,
}

impl Terms {
    /// Reads a payload whose signature holds.
    pub fn parse(payload: &[u8]) -> Result<Self, TermsError> {
        let text = std::str::from_utf8(payload).map_err(|error| TermsError(error.to_string()))?;
        let raw: Raw = toml::from_str(text)
            .map_err(|error| TermsError(error.message().replace('\n', ", ")))?;
        let name = word("name", raw.name, 64)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if !name.bytes().all(plain) {
            return refuse("`name` is letters, digits, dots, dashes");
        }
        let group = word("group", raw.group, 250)?;
        let is_path = group.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..")
        });
        if !is_path {
            return refuse("`group` is a cgroup path below the root");
        }
        let network = network(&raw.to)?;
        let (ports, protocols) = (ports(raw.ports)?, protocols(raw.protocols)?);
        if !ports.is_empty() && !protocols.iter().all(|number| protocol::has_ports(*number)) {
            return refuse("`ports` needs `protocols` that have ports: \"tcp\", \"udp\"");
        }
        if raw.bytes == 0 {
            return refuse("`bytes` is how many may be sent, at least 1");
        }
        let from_ms = raw.from.map_or(Ok(0), |at| at.ms("from"))?;
        let until_ms = raw.until.ms("until")?;
        if until_ms <= from_ms {
            return refuse("`until` is not after `from`");
        }
        Ok(Self {
            name,
            group,
            to: network.to_string(),
            ports,
            protocols,
            bytes: raw.bytes,
            from_ms,
            until_ms,
            reason: word("reason", raw.reason, 500)?,
        })
    }

    /// When it ends, RFC 3339.
    #[must_use]
    pub fn until(&self) -> String {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.until_ms) * 1_000_000);
        at.ok()
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_default()
    }

    /// As the evidence tells it; `signer` is the key id, hexadecimal.
    #[must_use]
    pub fn told(&self, signer: &str) -> GrantTerms {
        let mut key = [0; 32];
        hex::decode_to_slice(signer, &mut key).ok();
        GrantTerms {
            signer: Digest(key),
            group: self.group.clone(),
            to: self.to.clone(),
            ports: self.ports.clone(),
            protocols: self.protocols.clone(),
            limit_bytes: self.bytes,
            from_ms: self.from_ms,
            until_ms: self.until_ms,
            reason: self.reason.clone(),
        }
    }

    /// As the kernel takes it. Wall-clock times become times since boot now:
    /// setting the clock later moves nothing.
    #[must_use]
    pub fn compile(&self, group: u64, id: u64, boot_ns: u64, now_ms: u64) -> Grant {
        let at = |ms: u64| match ms.checked_sub(now_ms) {
            Some(ahead_ms) => boot_ns.saturating_add(ahead_ms.saturating_mul(1_000_000)),
            None => boot_ns.saturating_sub((now_ms - ms).saturating_mul(1_000_000)),
        };
        // It was checked when it was parsed; no network at all grants nothing.
        let network = Network::parse(&self.to).ok();
        let (address, mask) = network.map_or(([0xff; 16], [0xff; 16]), |network| {
            let mask = Network::of([0xff; 16], network.bits).address;
            (network.address, mask)
        });
        let mut ranges = [[0; 2]; GRANT_PORTS];
        for (slot, (low, high)) in ranges.iter_mut().zip(&self.ports) {
            *slot = [*low, *high];
        }
        let mut protocols = [0; GRANT_PROTOCOLS];
        for (slot, number) in protocols.iter_mut().zip(&self.protocols) {
            *slot = *number;
        }
        Grant {
            group,
            from_boot_ns: at(self.from_ms),
            until_boot_ns: at(self.until_ms),
            limit_bytes: self.bytes,
            id,
            address,
            mask,
            ranges,
            protocols,
            ports: u8::try_from(self.ports.len()).unwrap_or(u8::MAX),
            reserved: [0; 3],
        }
    }

    /// Whether it lets this pass, its time and its bytes aside.
    #[must_use]
    pub fn matches(&self, address: [u8; 16], protocol: u8, port: u16) -> bool {
        let holds = |network: Network| network.contains(address);
        Network::parse(&self.to).is_ok_and(holds)
            && self.protocols.contains(&protocol)
            && (self.ports.is_empty()
                || self
                    .ports
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&port)))
    }
}

impl Instant {
    fn ms(self, key: &str) -> Result<u64, TermsError> {
        let text = match self {
            Self::Toml(at) => at.to_string(),
            Self::Text(text) => text,
        };
        OffsetDateTime::parse(&text, &Rfc3339)
            .ok()
            .and_then(|at| u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok())
            .ok_or_else(|| {
                TermsError(format!(
                    "`{key}` cannot be {text:?}: write 2026-11-01T00:00:00Z"
                ))
            })
    }
}

fn word(key: &str, text: String, most: usize) -> Result<String, TermsError> {
    let fits = (1..=most).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits {
        Ok(text)
    } else {
        refuse(format!("`{key}` is one line of 1 to {most} characters"))
    }
}

fn network(text: &str) -> Result<Network, TermsError> {
    let network =
        Network::parse(text).map_err(|(message, hint)| TermsError(format!("{message}: {hint}")))?;
    // The kernel compares addresses alone, so a network of IPv6 must not hold
    // those of IPv4.
    let four = Network::of(crate::policy::mapped([0, 0, 0, 0].into()), 96);
    if network.covers(&four) {
        return refuse(format!("`to` is one destination, and {text} is everything"));
    }
    Ok(network)
}

fn ports(raw: Vec<Port>) -> Result<Vec<(u16, u16)>, TermsError> {
    if raw.len() > GRANT_PORTS {
        return refuse(format!("`ports` holds at most {GRANT_PORTS}"));
    }
    let mut ports = Vec::new();
    for port in raw {
        let range = match &port {
            Port::One(port) => Some((*port, *port)),
            Port::Range(text) => text
                .split_once('-')
                .and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?))),
        };
        match range.filter(|(low, high)| *low > 0 && low <= high) {
            Some(range) => ports.push(range),
            None => return refuse("`ports` holds 443 or \"8000-8100\""),
        }
    }
    Ok(ports)
}

fn protocols(raw: Vec<String>) -> Result<Vec<u8>, TermsError> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    let mut numbers = Vec::new();
    for protocol in all {
        let named = raw.is_empty()
            || raw
                .iter()
                .any(|word| Protocol::from_word(word) == Some(protocol));
        if named {
            numbers.extend(protocol.numbers());
        }
    }
    if let Some(word) = raw.iter().find(|word| Protocol::from_word(word).is_none()) {
        return refuse(format!("`protocols` cannot hold {word:?}"));
    }
    Ok(numbers)
}
