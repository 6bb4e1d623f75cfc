//! `trust.toml`: what an operator hands to whoever checks the evidence.
//!
//! It is carried by hand because it is what the verifier believes: a key that
//! came with the evidence proves nothing. The grammar is the verifier's
//! (docs/trust.md); this writes it with the values of this host, careful
//! defaults, and a comment on each line.

use merestone_evidence::Digest;
use std::fmt::Write as _;

/// What the file says of this host.
#[derive(Debug, Clone)]
pub struct TrustInputs {
    /// The node's id.
    pub node: String,
    /// The attestation key's Name.
    pub ak_name: Vec<u8>,
    /// Digests of the boundary files of which one must be in force.
    pub boundaries: Vec<Digest>,
    /// The TPM is a program: evidence of it can only be accepted on purpose.
    pub software_tpm: bool,
    /// The GPU library is a test double.
    pub test_gpu_library: bool,
    /// Tiers the configuration requires.
    pub require: Vec<String>,
    /// The key that signs the log's checkpoints.
    pub log_key: Option<String>,
}

/// The text of the file.
#[must_use]
pub fn trust_file(inputs: &TrustInputs) -> String {
    let TrustInputs {
        node,
        ak_name,
        boundaries,
        software_tpm,
        test_gpu_library,
        require,
        log_key,
    } = inputs;
    let boundaries = boundaries
        .iter()
        .map(|digest| format!("\"{digest}\""))
        .collect::<Vec<_>>()
        .join(", ");
    let tiers = require
        .iter()
        .map(|tier| quoted(tier))
        .collect::<Vec<_>>()
        .join(", ");
    let log = log_key.as_ref().map_or_else(String::new, |key| {
        let key = quoted(key);
        format!(
            "[log]\nkey = {key} # signs the log's checkpoints\n# witnesses = [\"NAME+ID+KEY\"] # who else has to have seen this log (docs/log.md)\n\n"
        )
    });
    let node = quoted(node);
    let ak_name = hex::encode(ak_name);
    let software_comment = if *software_tpm {
        "this host's TPM is a program, so its evidence can be copied; false refuses it"
    } else {
        "evidence of a TPM that is a program is refused"
    };
    format!(
        r#"# What merestone-verify believes about this node, and what it demands.
# Compare the ak_name with the host's own `merestone status` before you rely on
# it, and carry this file by hand, apart from the evidence.
version = 1

[[node]]
id = {node}
ak_name = "{ak_name}"

{log}[require]
boundary = [{boundaries}] # sha256 of the boundary file; add each new one
tiers = [{tiers}] # must be in force in every epoch
software_tpm = {software_tpm} # {software_comment}
test_gpu_library = {test_gpu_library} # a test double of the GPU library is accepted
boot_log = false # true: a measured boot must replay to the quoted registers
ima = false # true: the kernel's measurement list must replay too
uncovered = true # false: every way out has to be covered
audit = false # true: flows that were only reported are accepted
max_gap_s = 120 # longest stretch without evidence
max_lost = 0 # records that may have been lost
"#
    )
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => {
                let _infallible = write!(out, "\\u{:04X}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use merestone_verify::Trust;

    #[test]
    fn the_file_is_toml_and_keeps_hostile_text_in_its_place() {
        let inputs = TrustInputs {
            node: "a\"b\\c\nd\u{7f}".into(),
            ak_name: [vec![0, 0x0b], vec![7; 32]].concat(),
            boundaries: vec![Digest([1; 32])],
            software_tpm: true,
            test_gpu_library: false,
            log_key: Some(
                "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k".into(),
            ),
            require: vec!["lsm".into()],
        };
        let trust = Trust::parse(&trust_file(&inputs), "trust.toml").unwrap();
        assert_eq!(trust.nodes["a\"b\\c\nd\u{7f}"], inputs.ak_name);
        assert!(
            trust.require.software_tpm
                && !trust.require.boot_log
                && trust.require.tiers.contains("lsm")
        );
        assert_eq!(trust.log.unwrap().keys[0].name(), "example.com/foo");
        let file: toml::Table = trust_file(&inputs).parse().unwrap();
        assert_eq!(file["version"].as_integer(), Some(1));
        assert_eq!(file["node"][0]["id"].as_str(), Some("a\"b\\c\nd\u{7f}"));
        assert_eq!(file["node"][0]["ak_name"].as_str().unwrap().len(), 68);
        assert_eq!(
            file["require"]["boundary"][0].as_str(),
            Some("01".repeat(32).as_str())
        );
        assert_eq!(file["require"]["tiers"][0].as_str(), Some("lsm"));
        assert_eq!(file["require"]["software_tpm"].as_bool(), Some(true));
    }
}
