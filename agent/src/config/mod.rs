//! `merestone.toml`: what the operator asked for, read whole before anything
//! starts.
//!
//! Flags win over the environment (`MERESTONE_TABLE_KEY`), the environment
//! over the file. Every fault of every layer is reported at once. It refuses
//! unknown keys, values of the wrong type, and keys that only a later version
//! honours: a setting is applied or the agent does not start.

pub(crate) mod document;
pub mod fault;
mod gateway;
mod kubernetes;
mod layers;
mod read;
mod schema;
#[cfg(test)]
mod tests;

pub use fault::{Fault, Faults, Origin};
pub use gateway::Gateway;
pub use kubernetes::Kubernetes;
pub use layers::Override;

use crate::geo;
use crate::landmark::{Metadata, Provider, Target};
use crate::policy::Mode;
use document::Text;
use layers::{Layers, Raw};
use read::Reader;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the file is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/merestone/merestone.toml";

/// Where the metadata service of every cloud is.
const METADATA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// Larger files are refused before they are parsed.
const LIMIT_BYTES: u64 = 1 << 20;

/// Tiers an operator can insist on; the first tier is always required.
pub const REQUIRABLE: &[&str] = &[
    "lineage", "lsm", "link", "kill", "names", "tamper", "records",
];

/// Paths that inference servers answer to say how they are.
const NO_INFERENCE: [&str; 10] = [
    "/-/healthy",
    "/-/ready",
    "/health",
    "/healthz",
    "/livez",
    "/metrics",
    "/ping",
    "/readyz",
    "/v2/health/live",
    "/v2/health/ready",
];

/// The whole configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// This host's id in the evidence; the host name where none is set.
    pub node: String,
    /// The boundary file.
    pub boundary: PathBuf,
    /// Where the evidence lives.
    pub state_dir: PathBuf,
    /// The operator's socket.
    pub api: Api,
    /// The Prometheus endpoint.
    pub metrics: Metrics,
    /// The kernel side.
    pub enforcement: Enforcement,
    /// The process that tries the boundary.
    pub canary: Canary,
    /// GPUs.
    pub gpu: Gpu,
    /// The TPM.
    pub tpm: Tpm,
    /// Epochs and quotes.
    pub evidence: Evidence,
    /// Databases of countries and operators.
    pub geo: geo::Files,
    /// Where the kubelet is.
    pub kubernetes: Kubernetes,
    /// Who signs boundaries and grants.
    pub policy: Policy,
    /// Where the operator says this host is.
    pub site: Site,
    /// Who measures where this host is.
    pub location: Location,
    /// Where events go.
    pub events: Events,
    /// Who may let an operator in.
    pub break_glass: BreakGlass,
    /// Requests and answers of guarded servers.
    pub records: Records,
    /// The reverse proxy.
    pub gateway: Gateway,
    /// Lines worth logging at start, such as variables that set nothing.
    pub notes: Vec<String>,
}

/// `[api]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Api {
    /// Unix socket for the operator's command.
    pub socket: PathBuf,
}

/// `[metrics]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Metrics {
    /// Where to answer /metrics; `None` (an empty string) for nowhere.
    pub listen: Option<SocketAddr>,
}

/// `[enforcement]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enforcement {
    /// `Audit` makes every boundary audit; `Enforce` leaves it to the boundary.
    pub mode: Mode,
    /// The cgroup v2 root, where it is not to be looked for in the mounts.
    pub cgroup_root: Option<PathBuf>,
    /// Where links and maps are pinned.
    pub pin_dir: PathBuf,
    /// Tiers without which the agent refuses to start; out of [`REQUIRABLE`].
    pub require: Vec<String>,
    /// Cgroup subtrees where only the process tree is guarded.
    pub login_scopes: Vec<String>,
    /// What becomes of guarded groups when the agent is gone.
    pub on_agent_loss: OnAgentLoss,
    /// Whether to keep root from taking enforcement away, where that loads.
    pub tamper: bool,
    /// Whether a guarded process is killed for a socket of a forbidden family
    /// where BPF LSM cannot refuse it.
    pub kill_families: bool,
}

/// What becomes of guarded groups when the agent is gone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnAgentLoss {
    /// The boundary goes on deciding.
    #[default]
    Hold,
    /// Everything is refused until an agent is back.
    DenyAll,
}

impl OnAgentLoss {
    /// The word in the file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::DenyAll => "deny-all",
        }
    }

    fn from_word(word: &str) -> Result<Self, String> {
        let all = [Self::Hold, Self::DenyAll];
        let found = all.into_iter().find(|one| one.word() == word);
        found.ok_or_else(|| "write \"hold\" or \"deny-all\"".to_owned())
    }
}

/// `[break_glass]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BreakGlass {
    /// Keys whose tokens let an operator in: `ed25519:<base64>`, or the path
    /// of a PEM public key.
    pub signers: Vec<String>,
}

/// `[records]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Records {
    /// Whether requests and answers are followed and told.
    pub enabled: bool,
    /// How long an answer must have been silent to count as over.
    pub idle: Duration,
    /// Paths that are no inference: health, metrics.
    pub leave_out: Vec<String>,
    /// Unix socket for digests from guarded processes; none where it is switched off.
    pub socket: Option<PathBuf>,
}

/// `[canary]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Canary {
    /// Whether there is one.
    pub enabled: bool,
    /// How often it tries the next few ways out.
    pub interval: Duration,
}

/// `[gpu]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gpu {
    /// The NVML library, where it is not the system's.
    pub nvml_library: Option<PathBuf>,
    /// How often to read the GPUs.
    pub interval: Duration,
    /// More devices that count as GPU.
    pub devices: Vec<GpuDevice>,
    /// Whether a library that declares itself a test double is accepted.
    pub allow_test_library: bool,
}

/// A device number the operator named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GpuDevice {
    /// Major number.
    pub major: u32,
    /// Minor number; `None` for every minor.
    pub minor: Option<u32>,
}

/// `[tpm]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tpm {
    /// The way to the TPM, in libtss2's form.
    pub tcti: String,
    /// Persistent handle of the attestation key; `None` for the built-in one.
    pub ak_handle: Option<u32>,
}

/// `[evidence]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Evidence {
    /// Longest time from an entry to the quote that covers it.
    pub epoch: Duration,
    /// Longest time between quotes when nothing happens.
    pub heartbeat: Duration,
    /// The PCR the epochs are extended into.
    pub chain_pcr: u8,
}

/// `[policy]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Public keys: paths of PEM files, or `ed25519:BASE64`. Where there is
    /// one, a boundary must be signed.
    pub signers: Vec<String>,
}

/// `[site]`: statements of the operator (L0), not measurements.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Site {
    /// Region.
    pub region: Option<String>,
    /// Country, ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Building, room, rack.
    pub facility: Option<String>,
}

/// `[location]`: who measures where this host is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// Landmarks to ask; none asks nobody.
    pub landmarks: Vec<Target>,
    /// The cloud to ask for its signed document; `None` asks none.
    pub cloud: Option<Metadata>,
    /// How often to ask.
    pub interval: Duration,
}

/// `[events]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Events {
    /// One JSON object a line; `None` for no file.
    pub jsonl: Option<PathBuf>,
}

impl Config {
    /// Reads `path` and lays `environment` and `flags` over it.
    pub fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Override],
    ) -> Result<Self, Faults> {
        let bytes = fault::read(path, LIMIT_BYTES)?;
        Self::parse(path, bytes, environment, flags)
    }

    /// The same from bytes at hand; `path` is for messages.
    pub fn parse(
        path: &Path,
        bytes: Vec<u8>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Override],
    ) -> Result<Self, Faults> {
        let text = Text::new(path, bytes)?;
        let mut faults = Faults::new();
        let mut layers = Layers::default();
        layers.file(&text, &mut faults);
        layers.environment(environment, &mut faults);
        layers.flags(flags, &mut faults);
        let mut reader = Reader { layers, faults };
        let config = Self::from_layers(path, &mut reader);
        reader.faults.into_result(config)
    }

    fn from_layers(path: &Path, reader: &mut Reader) -> Self {
        let absolute = |reader: &mut Reader, name, default: &str| {
            reader.path(name).unwrap_or_else(|| PathBuf::from(default))
        };
        for key in schema::KEYS {
            if let Some(what) = key.later {
                reader.later(key.name, what);
            }
        }
        let socket = absolute(reader, "api.socket", "/run/merestone/merestone.sock");
        Self {
            path: path.to_owned(),
            node: node(reader),
            boundary: absolute(reader, "boundary", "/etc/merestone/boundary.toml"),
            state_dir: absolute(reader, "state_dir", "/var/lib/merestone"),
            api: Api {
                socket: socket.clone(),
            },
            metrics: metrics(reader),
            enforcement: Enforcement {
                mode: reader.parsed("enforcement.mode", Mode::Enforce, Mode::from_word),
                cgroup_root: reader.path("enforcement.cgroup_root"),
                pin_dir: absolute(reader, "enforcement.pin_dir", "/sys/fs/bpf/merestone"),
                require: reader
                    .list("enforcement.require", requirable)
                    .unwrap_or_default(),
                login_scopes: reader
                    .list("enforcement.login_scopes", read::scope)
                    .unwrap_or_else(|| vec!["/user.slice".to_owned()]),
                on_agent_loss: reader.parsed(
                    "enforcement.on_agent_loss",
                    OnAgentLoss::Hold,
                    OnAgentLoss::from_word,
                ),
                tamper: reader.boolean("enforcement.tamper", true),
                kill_families: reader.boolean("enforcement.kill_families", false),
            },
            canary: canary(reader),
            gpu: gpu(reader),
            tpm: Tpm {
                tcti: reader.parsed("tpm.tcti", "device:/dev/tpmrm0".to_owned(), read::tcti),
                ak_handle: reader
                    .parsed("tpm.ak_handle", None, |text| read::handle(text).map(Some)),
            },
            evidence: evidence(reader),
            geo: geo::Files {
                country: reader.path("geo.country_db"),
                asn: reader.path("geo.asn_db"),
            },
            kubernetes: kubernetes::kubernetes(reader),
            policy: Policy {
                signers: reader
                    .list("policy.signers", read::signer)
                    .unwrap_or_default(),
            },
            site: Site {
                region: reader.text("site.region").map(|(text, _)| text),
                country: reader.parsed("site.country", None, read::country),
                facility: reader.text("site.facility").map(|(text, _)| text),
            },
            location: location(reader),
            events: events(reader),
            break_glass: BreakGlass {
                signers: reader
                    .list("break_glass.signers", glass_signer)
                    .unwrap_or_default(),
            },
            records: records(reader, &socket),
            gateway: gateway::gateway(reader),
            notes: std::mem::take(&mut reader.layers.notes),
        }
    }
}

fn records(reader: &mut Reader, api: &Path) -> Records {
    Records {
        enabled: reader.boolean("records.enabled", true),
        idle: reader.duration(
            "records.idle",
            Duration::from_secs(2),
            Duration::from_millis(100)..=Duration::from_secs(3600),
        ),
        leave_out: reader
            .list("records.leave_out", read::request_path)
            .unwrap_or_else(|| NO_INFERENCE.map(ToOwned::to_owned).to_vec()),
        socket: records_socket(reader, api),
    }
}

fn location(reader: &mut Reader) -> Location {
    let provider = reader.parsed("location.cloud", None, |word| {
        Provider::from_word(word).map(Some)
    });
    let address = reader.parsed("location.cloud_address", METADATA, |text| {
        text.parse()
            .map_err(|_not_one| "write address:port, as in \"169.254.169.254:80\"".to_owned())
    });
    Location {
        cloud: provider.map(|provider| Metadata { provider, address }),
        landmarks: reader
            .list("location.landmarks", Target::parse)
            .unwrap_or_default(),
        interval: reader.duration(
            "location.interval",
            Duration::from_secs(900),
            Duration::from_secs(10)..=Duration::from_secs(86400),
        ),
    }
}

/// Beside the operator's socket. An empty string turns it off, absence does not.
fn records_socket(reader: &mut Reader, api: &Path) -> Option<PathBuf> {
    const NAME: &str = "records.socket";
    if reader.layers.is_empty_text(NAME) {
        return None;
    }
    let set = reader.path(NAME);
    Some(set.unwrap_or_else(|| api.with_file_name("records.sock")))
}

fn node(reader: &mut Reader) -> String {
    let named = reader.parsed("node", String::new(), read::node);
    if !named.is_empty() {
        return named;
    }
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    match read::node(&host) {
        Ok(host) if !host.is_empty() => host,
        _ => {
            reader.faults.push(
                Origin::Default,
                format!("the host name {host:?} cannot serve as `node`"),
                "set node = \"…\"",
            );
            String::new()
        }
    }
}

fn metrics(reader: &mut Reader) -> Metrics {
    const NAME: &str = "metrics.listen";
    let default = Some(SocketAddr::from(([127, 0, 0, 1], 9464)));
    // An empty string turns the endpoint off, absence does not.
    if let Some((Raw::Text(text), origin)) = reader.layers.take(NAME) {
        if text.is_empty() {
            return Metrics { listen: None };
        }
        match text.parse() {
            Ok(listen) => {
                return Metrics {
                    listen: Some(listen),
                };
            }
            Err(_) => reader.faults.push(
                origin,
                format!("`{NAME}` cannot be {text:?}"),
                "write address:port, as in \"127.0.0.1:9464\" or \"[::1]:9464\", or \"\" for none",
            ),
        }
    }
    Metrics { listen: default }
}

fn canary(reader: &mut Reader) -> Canary {
    Canary {
        enabled: reader.boolean("canary.enabled", true),
        interval: reader.duration(
            "canary.interval",
            Duration::from_secs(60),
            Duration::from_secs(1)..=Duration::from_secs(3600),
        ),
    }
}

fn gpu(reader: &mut Reader) -> Gpu {
    Gpu {
        nvml_library: reader.path("gpu.nvml_library"),
        interval: reader.duration(
            "gpu.interval",
            Duration::from_secs(1),
            Duration::from_millis(50)..=Duration::from_secs(3600),
        ),
        devices: reader.list("gpu.devices", read::device).unwrap_or_default(),
        allow_test_library: reader.boolean("gpu.allow_test_library", false),
    }
}

fn evidence(reader: &mut Reader) -> Evidence {
    const CHAIN: &str = "evidence.chain_pcr";
    let epoch = Duration::from_millis(100)..=Duration::from_secs(3600);
    let epoch = reader.duration("evidence.epoch", Duration::from_secs(10), epoch);
    let longest = Duration::from_secs(86400);
    let default = Duration::from_secs(60).max(epoch);
    let heartbeat = reader.duration("evidence.heartbeat", default, epoch..=longest);
    let mut chain_pcr = 15;
    if let Some((Raw::Integer(pcr), origin)) = reader.layers.take(CHAIN) {
        let hint = match pcr {
            11..=15 => "",
            0..=9 => "0 to 9 belong to the firmware and the boot loader",
            10 => "10 belongs to IMA",
            16 | 23 => "16 and 23 can be reset from software",
            17..=22 => "17 to 22 belong to the dynamic launch",
            _ => "a TPM has PCRs 0 to 23",
        };
        match u8::try_from(pcr) {
            Ok(pcr) if hint.is_empty() => chain_pcr = pcr,
            _ => reader.faults.push(
                origin,
                format!("`{CHAIN}` cannot be {pcr}"),
                format!("{hint}: choose one of 11 to 15"),
            ),
        }
    }
    Evidence {
        epoch,
        heartbeat,
        chain_pcr,
    }
}

fn events(reader: &mut Reader) -> Events {
    reader.parsed("events.format", (), |text| match text {
        "merestone" => Ok(()),
        "ocsf" => Err("not supported by this version: write \"merestone\"".to_owned()),
        _ => Err("write \"merestone\"".to_owned()),
    });
    Events {
        jsonl: reader.path("events.jsonl"),
    }
}

fn glass_signer(text: &str) -> Result<String, String> {
    if text.starts_with("ed25519:") || Path::new(text).is_absolute() {
        return Ok(text.to_owned());
    }
    Err("a key: \"ed25519:<base64>\", or the absolute path of a PEM public key".to_owned())
}

fn requirable(text: &str) -> Result<String, String> {
    if REQUIRABLE.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("a tier out of: {}", REQUIRABLE.join(", ")))
}
