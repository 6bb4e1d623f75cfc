//! Countries and network operators, from databases in the MMDB format that lie
//! on this host.
//!
//! A database is read once for all codes a boundary names, and gives every
//! network of them, sorted and joined. It is a foreign file: what is broken in
//! it is an error, and a database whose search tree is a maze is given up on
//! rather than walked to its end. IPv4 is read where IPv4 lives; the ranges of
//! IPv6 that stand for IPv4 (`::ffff:0:0/96`, 6to4, NAT64, Teredo), under which
//! such databases repeat it, are left out, so that no network comes twice and
//! none comes in by the back door.
//!
//! It refuses to guess: a code that the database does not name is an error.

mod error;
mod record;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod writer;

pub use error::GeoError;
pub use record::Code;

use crate::policy::{Network, mapped};
use maxminddb::{Reader, WithinOptions};
use record::Record;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Larger databases are not read.
const LIMIT_BYTES: u64 = 512 << 20;
/// Leaves of the search tree that are looked at; the largest databases sold
/// have a few millions.
const LIMIT_LEAVES: u64 = 32_000_000;
/// So many leaves are looked at in any case: what is walked is a few hundred
/// ranges, each of which is one leaf or more.
const LEAST_LEAVES: u64 = 1024;

/// What a database is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Countries.
    Country,
    /// Autonomous systems.
    Asn,
}

impl Kind {
    /// The word, as in the key `geo.country_db`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Country => "country",
            Self::Asn => "asn",
        }
    }
}

/// Where the databases are: `[geo]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Files {
    /// `country_db`.
    pub country: Option<PathBuf>,
    /// `asn_db`.
    pub asn: Option<PathBuf>,
}

impl Files {
    /// The file of a kind, where one is set.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Option<&Path> {
        match kind {
            Kind::Country => self.country.as_deref(),
            Kind::Asn => self.asn.as_deref(),
        }
    }
}

/// One database, whole in memory.
pub struct Database {
    reader: Reader<Vec<u8>>,
    /// Where it was read from.
    pub path: PathBuf,
    /// What it is about.
    pub kind: Kind,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Most leaves that its tree can have.
    leaves: u64,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.path.display())
    }
}

impl Database {
    /// Reads a database.
    pub fn open(path: &Path, kind: Kind) -> Result<Self, GeoError> {
        let failed = |source| GeoError::Io {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if bytes.len() as u64 > LIMIT_BYTES {
            return Err(GeoError::Size {
                path: path.to_owned(),
                limit: LIMIT_BYTES,
            });
        }
        Self::of_bytes(path, kind, bytes)
    }

    /// The same from bytes at hand; `path` is for messages.
    pub fn of_bytes(path: &Path, kind: Kind, bytes: Vec<u8>) -> Result<Self, GeoError> {
        let sha256 = Sha256::digest(&bytes).into();
        // A tree has one leaf more than nodes, and a node takes six bytes or
        // more. A few hundred bytes whose nodes lead to each other have
        // billions of leaves, and would have a network of each.
        let leaves = LIMIT_LEAVES.min(LEAST_LEAVES + bytes.len() as u64);
        let reader = Reader::from_source(bytes).map_err(|error| GeoError::broken(path, &error))?;
        Ok(Self {
            reader,
            path: path.to_owned(),
            kind,
            sha256,
            leaves,
        })
    }

    /// Every network of the codes that are asked for, each list sorted, with
    /// nothing in it twice. A code without any network is left out.
    pub fn networks(
        &self,
        wanted: &BTreeSet<Code>,
    ) -> Result<BTreeMap<Code, Vec<Network>>, GeoError> {
        let mut found: BTreeMap<Code, Vec<Network>> = BTreeMap::new();
        let mut codes: HashMap<usize, Option<Code>> = HashMap::new();
        let mut leaves = 0_u64;
        for range in self.ranges() {
            self.range(range, &mut leaves, |offset, network, lookup| {
                let code = if let Some(code) = codes.get(&offset) {
                    *code
                } else {
                    let code = self.code(lookup)?.filter(|code| wanted.contains(code));
                    codes.insert(offset, code);
                    code
                };
                if let Some(code) = code {
                    found.entry(code).or_default().push(network);
                }
                Ok(())
            })?;
        }
        for networks in found.values_mut() {
            *networks = joined(std::mem::take(networks));
        }
        Ok(found)
    }

    /// What the database says of one address: its code and the network of the
    /// entry.
    pub fn entry(&self, address: IpAddr) -> Result<Option<(Code, Network)>, GeoError> {
        let asked = if let IpAddr::V6(v6) = address {
            v6.to_ipv4_mapped().map_or(address, IpAddr::V4)
        } else {
            address
        };
        let is_four = asked.is_ipv4();
        if !is_four && (self.reader.metadata().ip_version == 4 || is_alias(mapped(asked))) {
            return Ok(None);
        }
        let broken = |error| GeoError::broken(&self.path, &error);
        let lookup = self.reader.lookup(asked).map_err(broken)?;
        if !lookup.has_data() {
            return Ok(None);
        }
        let network = lookup.network().map_err(broken)?;
        if network.is_ipv4() != is_four {
            return Ok(None);
        }
        let Some(code) = self.code(&lookup)? else {
            return Ok(None);
        };
        let offset = if is_four { 96 } else { 0 };
        let network = Network::of(mapped(network.ip()), network.prefix() + offset);
        Ok(Some((code, network)))
    }

    fn code(
        &self,
        lookup: &maxminddb::LookupResult<'_, Vec<u8>>,
    ) -> Result<Option<Code>, GeoError> {
        let record: Option<Record> = lookup
            .decode()
            .map_err(|error| GeoError::broken(&self.path, &error))?;
        Ok(record.and_then(|record| record.code(self.kind)))
    }

    /// What is walked: IPv4, and IPv6 without what stands for IPv4.
    fn ranges(&self) -> Vec<Network> {
        let four = Network::of(mapped(IpAddr::from([0, 0, 0, 0])), 96);
        let mut ranges = vec![four];
        if self.reader.metadata().ip_version != 4 {
            without_aliases(Network::of([0; 16], 0), &mut ranges);
        }
        ranges
    }

    fn range(
        &self,
        range: Network,
        leaves: &mut u64,
        mut each: impl FnMut(
            usize,
            Network,
            &maxminddb::LookupResult<'_, Vec<u8>>,
        ) -> Result<(), GeoError>,
    ) -> Result<(), GeoError> {
        let broken = |error| GeoError::broken(&self.path, &error);
        let is_four = range.is_ipv4();
        let bits = if is_four { range.bits - 96 } else { range.bits };
        let address = match crate::policy::unmapped(range.address) {
            IpAddr::V4(v4) if is_four => IpAddr::V4(v4),
            _ => IpAddr::V6(Ipv6Addr::from(range.address)),
        };
        let cidr = ipnetwork::IpNetwork::new(address, bits).map_err(|error| GeoError::Broken {
            path: self.path.clone(),
            detail: error.to_string(),
        })?;
        // Leaves without data and aliases are counted as well: what is not
        // counted could go on for ever.
        let options = WithinOptions::default()
            .include_aliased_networks()
            .include_networks_without_data();
        for lookup in self.reader.within(cidr, options).map_err(broken)? {
            let lookup = lookup.map_err(broken)?;
            *leaves += 1;
            if *leaves > self.leaves {
                return Err(GeoError::Leaves {
                    path: self.path.clone(),
                    limit: self.leaves,
                });
            }
            let Some(offset) = lookup.offset() else {
                continue;
            };
            let network = lookup.network().map_err(broken)?;
            if network.is_ipv4() != is_four && range.bits < 96 {
                continue;
            }
            let own = if network.is_ipv4() {
                Network::of(mapped(network.ip()), network.prefix() + 96)
            } else if is_four {
                continue; // an entry of IPv6 that spans where IPv4 would be
            } else {
                Network::of(mapped(network.ip()), network.prefix())
            };
            // An entry may be wider than what was asked for.
            let own = if own.covers(&range) { range } else { own };
            if range.covers(&own) {
                each(offset, own, &lookup)?;
            }
        }
        Ok(())
    }
}

/// Ranges of IPv6 whose addresses stand for IPv4 ones: `::/96` (where such
/// databases keep IPv4), `::ffff:0:0/96`, NAT64 (RFC 6052), Teredo (RFC 4380),
/// 6to4 (RFC 3056).
const ALIASES: [([u8; 16], u8); 5] = [
    ([0; 16], 96),
    ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], 96),
    (
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        96,
    ),
    ([0x20, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 32),
    ([0x20, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 16),
];

fn aliases() -> impl Iterator<Item = Network> {
    ALIASES
        .into_iter()
        .map(|(address, bits)| Network { address, bits })
}

fn is_alias(address: [u8; 16]) -> bool {
    aliases().any(|alias| alias.contains(address))
}

/// `network` without the aliases, as networks.
fn without_aliases(network: Network, out: &mut Vec<Network>) {
    if aliases().any(|alias| alias.covers(&network)) {
        return;
    }
    if !aliases().any(|alias| network.covers(&alias)) {
        out.push(network);
        return;
    }
    let [low, high] = halves(network);
    without_aliases(low, out);
    without_aliases(high, out);
}

fn halves(network: Network) -> [Network; 2] {
    let bits = network.bits + 1;
    let bit = 1_u128
        .checked_shl(128 - u32::from(bits))
        .unwrap_or_default();
    let high = u128::from_be_bytes(network.address) | bit;
    [
        Network::of(network.address, bits),
        Network::of(high.to_be_bytes(), bits),
    ]
}

/// Sorted, without what lies in another, and with halves made whole.
fn joined(mut networks: Vec<Network>) -> Vec<Network> {
    networks.sort_unstable();
    let mut out: Vec<Network> = Vec::with_capacity(networks.len());
    for network in networks {
        if out.last().is_some_and(|last| last.covers(&network)) {
            continue;
        }
        let mut whole = network;
        while let Some(last) = out.last().copied() {
            let floor = if whole.is_ipv4() { 96 } else { 0 };
            let parent = Network::of(whole.address, whole.bits.saturating_sub(1));
            let is_other_half = last.bits == whole.bits
                && whole.bits > floor
                && parent.contains(last.address)
                && last != whole;
            if !is_other_half {
                break;
            }
            out.pop();
            whole = parent;
        }
        out.push(whole);
    }
    out
}
