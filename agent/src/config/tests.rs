//! What a configuration may say, and what it is refused for.

use super::*;

fn parse(text: &str) -> Result<Config, Faults> {
    Config::parse(Path::new("m.toml"), text.into(), [], &[])
}

fn refused(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

fn variable(name: &str, value: &str) -> (OsString, OsString) {
    (name.into(), value.into())
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.boundary, Path::new("/etc/merestone/boundary.toml"));
    assert_eq!(config.state_dir, Path::new("/var/lib/merestone"));
    assert_eq!(
        config.metrics.listen,
        Some("127.0.0.1:9464".parse().unwrap())
    );
    assert_eq!(config.enforcement.login_scopes, ["/user.slice"]);
    assert_eq!(config.enforcement.mode, Mode::Enforce);
    assert_eq!(config.tpm.tcti, "device:/dev/tpmrm0");
    assert_eq!(config.evidence.epoch, Duration::from_secs(10));
    assert_eq!(config.evidence.heartbeat, Duration::from_secs(60));
    assert_eq!(config.evidence.chain_pcr, 15);
    assert!(!config.node.is_empty());
}

#[test]
fn the_shipped_example_parses() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/examples/merestone.toml"
    );
    let config = Config::load(Path::new(path), [], &[]).unwrap();
    assert_eq!(config.site.country.as_deref(), Some("DE"));
    assert_eq!(config.gpu.interval, Duration::from_secs(1));
}

#[test]
fn all_faults_are_reported_at_once_with_their_places() {
    let text = "state_dri = \"/x\"\nboundary = 3\n[evidence]\nepoch = \"ten\"\nchain_pcr = 16\n\
                [tmp]\na = 1\n[gpu]\ndevices = [\"x\", 195]\n";
    let faults = refused(text);
    for expected in [
        "m.toml:1:1: unknown key `state_dri`\n  hint: did you mean `state_dir`?",
        "m.toml:2:12: `boundary` must be a string, found an integer",
        "m.toml:4:9: `evidence.epoch` cannot be \"ten\"",
        "m.toml:5:13: `evidence.chain_pcr` cannot be 16\n  hint: 16 and 23 can be reset from software",
        "m.toml:6:2: unknown key `tmp`",
        "m.toml:9:12: `gpu.devices` cannot hold \"x\"",
    ] {
        assert!(faults.contains(expected), "{expected}\nnot in\n{faults}");
    }
    assert_eq!(faults.matches("m.toml:").count(), 6, "{faults}");
}

#[test]
fn a_key_in_the_wrong_table_is_told_where_it_belongs() {
    let faults = refused("[gpu]\ntcti = \"device:/dev/tpmrm0\"\n");
    assert!(faults.contains("`tcti` belongs to `tpm.tcti`"), "{faults}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = b"[tpm]\ntcti = \"device:/dev/a\"\n[site]\nregion = \"file\"\ncountry = \"DE\"\n";
    let environment = [
        variable("MERESTONE_TPM_TCTI", "device:/dev/b"),
        variable("MERESTONE_SITE_REGION", "environment"),
        variable("PATH", "/bin"),
    ];
    let flags = [Override {
        key: "tpm.tcti".into(),
        value: "device:/dev/c".into(),
        flag: "--tcti".into(),
    }];
    let path = Path::new("m.toml");
    let config = Config::parse(path, file.to_vec(), environment, &flags).unwrap();
    assert_eq!(config.tpm.tcti, "device:/dev/c");
    assert_eq!(config.site.region.as_deref(), Some("environment"));
    assert_eq!(config.site.country.as_deref(), Some("DE"));
}

#[test]
fn a_value_from_the_environment_is_refused_under_its_own_name() {
    let environment = [
        variable("MERESTONE_EVIDENCE_CHAIN_PCR", "x"),
        variable("MERESTONE_GPU_DEVICES", "195:0, nvidia"),
        variable("MERESTONE_STATEDIR", "/x"),
    ];
    let faults = Config::parse(Path::new("m.toml"), Vec::new(), environment, &[])
        .unwrap_err()
        .to_string();
    for expected in [
        "environment MERESTONE_EVIDENCE_CHAIN_PCR: `evidence.chain_pcr` must be an integer",
        "environment MERESTONE_GPU_DEVICES: `gpu.devices` cannot hold \"nvidia\"",
        "environment MERESTONE_STATEDIR: sets no known key\n  hint: did you mean MERESTONE_STATE_DIR?",
    ] {
        assert!(faults.contains(expected), "{expected}\nnot in\n{faults}");
    }
}

#[test]
fn what_a_cluster_injects_for_a_service_is_only_noted() {
    let environment = [
        variable("MERESTONE_SERVICE_HOST", "10.0.0.1"),
        variable("MERESTONE_PORT_9464_TCP", "tcp://10.0.0.1:9464"),
        variable("MERESTONE_LOG", "debug"),
    ];
    let config = Config::parse(Path::new("m.toml"), Vec::new(), environment, &[]).unwrap();
    assert_eq!(config.notes.len(), 2);
}

#[test]
fn a_key_of_a_later_version_is_refused_when_it_is_set() {
    let faults = refused("[events]\nwebhook = \"https://x\"\nsyslog = \"\"\nformat = \"ocsf\"\n");
    assert!(faults.contains("`events.webhook` ("), "{faults}");
    assert_eq!(
        faults.matches("not supported by this version").count(),
        2,
        "{faults}"
    );
    assert!(!faults.contains("syslog"));
}

#[test]
fn databases_and_signers_are_named_or_absent() {
    let config = parse(
        "[geo]\ncountry_db = \"/c.mmdb\"\n[policy]\nsigners = [\"/k.pem\", \"ed25519:AA==\"]\n",
    )
    .unwrap();
    assert_eq!(config.geo.country.as_deref(), Some(Path::new("/c.mmdb")));
    assert_eq!(config.geo.asn, None);
    assert_eq!(config.policy.signers.len(), 2);
    assert!(refused("[policy]\nsigners = [\"k.pem\"]\n").contains("ed25519:BASE64"));
}

#[test]
fn a_relative_path_is_refused() {
    assert!(refused("boundary = \"b.toml\"\n").contains("absolute path"));
}

#[test]
fn metrics_can_be_turned_off_but_not_garbled() {
    assert_eq!(
        parse("[metrics]\nlisten = \"\"\n").unwrap().metrics.listen,
        None
    );
    assert!(refused("[metrics]\nlisten = \"9464\"\n").contains("address:port"));
}

#[test]
fn the_heartbeat_is_never_shorter_than_the_epoch() {
    assert!(refused("[evidence]\nepoch = \"30s\"\nheartbeat = \"10s\"\n").contains("between 30s"));
    let config = parse("[evidence]\nepoch = \"2m\"\n").unwrap();
    assert_eq!(config.evidence.heartbeat, Duration::from_secs(120));
}

#[test]
fn only_a_known_tier_can_be_required() {
    let config = parse("[enforcement]\nrequire = [\"lsm\"]\n").unwrap();
    assert_eq!(config.enforcement.require, ["lsm"]);
    assert!(
        refused("[enforcement]\nrequire = [\"ipv9\"]\n").contains("a tier out of: lineage, lsm")
    );
}

#[test]
fn every_key_is_read_from_every_layer() {
    // A key the schema lists but nobody reads would be accepted and ignored.
    for key in schema::KEYS.iter().filter(|key| key.later.is_none()) {
        let value = match key.kind {
            schema::Kind::Integer => "99",
            schema::Kind::Boolean => continue,
            _ => "\u{7f}",
        };
        let flags = [Override {
            key: key.name.into(),
            value: value.into(),
            flag: "--set".into(),
        }];
        let outcome = Config::parse(Path::new("m.toml"), Vec::new(), [], &flags);
        assert!(outcome.is_err(), "{} is never read", key.name);
    }
}
