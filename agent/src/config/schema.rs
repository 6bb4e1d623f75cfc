//! Every key of `merestone.toml`, once: its table, type and whether this
//! version honours it. The file reader, the environment and the flags all work
//! from this list, so none of them can know a key the others do not.

/// What a key holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// An integer.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A string, or an integer where that reads better (handles).
    TextOrInteger,
    /// A list of strings or integers; comma-separated in the environment.
    List,
}

impl Kind {
    /// In words, for a fault.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "an integer",
            Self::Boolean => "true or false",
            Self::TextOrInteger => "a string or an integer",
            Self::List => "a list",
        }
    }
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// `table.key`, or the key alone at the top.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) kind: Kind,
    /// What a later version uses it for; this one refuses it when it is set.
    pub(super) later: Option<&'static str>,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        later: None,
    }
}

const fn later(name: &'static str, kind: Kind, what: &'static str) -> Key {
    Key {
        name,
        kind,
        later: Some(what),
    }
}

/// The keys, in the order docs/configuration.md shows them.
pub(super) const KEYS: &[Key] = &[
    key("node", Kind::Text),
    key("boundary", Kind::Text),
    key("state_dir", Kind::Text),
    key("api.socket", Kind::Text),
    key("metrics.listen", Kind::Text),
    key("enforcement.mode", Kind::Text),
    key("enforcement.cgroup_root", Kind::Text),
    key("enforcement.pin_dir", Kind::Text),
    key("enforcement.require", Kind::List),
    key("enforcement.login_scopes", Kind::List),
    key("enforcement.on_agent_loss", Kind::Text),
    key("enforcement.tamper", Kind::Boolean),
    key("enforcement.kill_families", Kind::Boolean),
    key("canary.enabled", Kind::Boolean),
    key("canary.interval", Kind::Text),
    key("gpu.nvml_library", Kind::Text),
    key("gpu.interval", Kind::Text),
    key("gpu.devices", Kind::List),
    key("gpu.allow_test_library", Kind::Boolean),
    key("tpm.tcti", Kind::Text),
    key("tpm.ak_handle", Kind::TextOrInteger),
    key("evidence.epoch", Kind::Text),
    key("evidence.heartbeat", Kind::Text),
    key("evidence.chain_pcr", Kind::Integer),
    key("geo.country_db", Kind::Text),
    key("geo.asn_db", Kind::Text),
    key("kubernetes.kubelet", Kind::Text),
    key("kubernetes.ca_file", Kind::Text),
    key("kubernetes.token_file", Kind::Text),
    key("kubernetes.server_name", Kind::Text),
    key("kubernetes.interval", Kind::Text),
    key("kubernetes.cgroups", Kind::List),
    key("policy.signers", Kind::List),
    key("site.region", Kind::Text),
    key("site.country", Kind::Text),
    key("site.facility", Kind::Text),
    key("events.jsonl", Kind::Text),
    key("events.format", Kind::Text),
    later("events.syslog", Kind::Text, "events to syslog"),
    later("events.webhook", Kind::Text, "events to a webhook"),
    key("break_glass.signers", Kind::List),
    key("records.enabled", Kind::Boolean),
    key("records.idle", Kind::Text),
    key("records.leave_out", Kind::List),
    key("records.socket", Kind::Text),
    key("gateway.listen", Kind::Text),
    key("gateway.to", Kind::Text),
    key("gateway.require_receipts", Kind::Boolean),
    key("gateway.model_files", Kind::List),
    key("gateway.metrics", Kind::Text),
    key("gateway.timeout", Kind::Text),
    key("gateway.keep", Kind::Text),
];

/// The tables, for telling an unknown table from an unknown key.
pub(super) fn tables() -> Vec<&'static str> {
    let mut tables: Vec<_> = KEYS
        .iter()
        .filter_map(|key| key.name.split_once('.').map(|(table, _)| table))
        .collect();
    tables.dedup();
    tables
}

/// The key called `name`.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The environment variable that sets a key.
pub(super) fn variable(name: &str) -> String {
    format!("MERESTONE_{}", name.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_keys_share_a_variable() {
        let variables: BTreeSet<_> = KEYS.iter().map(|key| variable(key.name)).collect();
        assert_eq!(variables.len(), KEYS.len());
        assert!(variables.contains("MERESTONE_TPM_TCTI"));
    }
}
