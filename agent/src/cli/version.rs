//! `merestone --version`.

use super::{Exit, Failure, output};
use merestone_abi::ABI_VERSION;

pub(super) fn print(verbose: bool) -> Result<Exit, Failure> {
    output::say(&text(verbose, object_sha256()))?;
    Ok(Exit::Yes)
}

fn text(verbose: bool, object: Option<[u8; 32]>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if !verbose {
        return format!("merestone {version}");
    }
    let object = match object {
        Some(digest) => format!("sha256:{}", hex::encode(digest)),
        None => "none: build with `cargo xtask build`".to_owned(),
    };
    format!("merestone {version}\nkernel contract  {ABI_VERSION}\neBPF object      {object}")
}

/// The digest of the embedded object.
fn object_sha256() -> Option<[u8; 32]> {
    crate::bpf::object_sha256()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_form_names_the_contract_and_the_object() {
        let said = text(true, Some([0xab; 32]));
        assert!(said.contains(&format!("kernel contract  {ABI_VERSION}")));
        assert!(said.ends_with(&"ab".repeat(32)));
        assert!(text(true, None).contains("none: build with"));
        assert_eq!(text(false, None).lines().count(), 1);
    }
}
