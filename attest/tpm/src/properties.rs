//! What the TPM says of itself: maker, firmware, and whether it is a program.

use tss_esapi::{Context, constants::PropertyTag};

/// What the TPM says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Manufacturer id as text, for example `INTC`.
    pub manufacturer: String,
    /// The four vendor strings joined, trimmed.
    pub vendor: String,
    /// Firmware version, `major.minor` of both property words, in hex.
    pub firmware: String,
    /// The TPM is a program: a TCP address, or an id that only emulators use.
    /// `false` is not proof of a chip; only a vendor certificate is.
    pub software: bool,
    /// It is a device of this host, so this host's boot is measured into it.
    pub is_local: bool,
}

pub(crate) fn read(context: &mut Context, tcp: bool) -> Result<Properties, tss_esapi::Error> {
    let mut word = |tag| context.get_tpm_property(tag).map(Option::unwrap_or_default);
    let manufacturer = text(&[word(PropertyTag::Manufacturer)?]);
    let vendor = text(&[
        word(PropertyTag::VendorString1)?,
        word(PropertyTag::VendorString2)?,
        word(PropertyTag::VendorString3)?,
        word(PropertyTag::VendorString4)?,
    ]);
    let firmware = format!(
        "{:x}.{:x}",
        word(PropertyTag::FirmwareVersion1)?,
        word(PropertyTag::FirmwareVersion2)?
    );
    let software = tcp || is_emulator(&manufacturer, &vendor);
    Ok(Properties {
        manufacturer,
        vendor,
        firmware,
        software,
        is_local: !tcp,
    })
}

/// Four characters a word, as the TPM library packs them.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    let shown: String = bytes
        .iter()
        .filter(|byte| byte.is_ascii_graphic() || **byte == b' ')
        .map(|byte| char::from(*byte))
        .collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// libtpms (swtpm, and QEMU through it) calls itself "IBM" and "SW TPM",
/// Microsoft's reference simulator "MSFT" with an fTPM string; the others are
/// ids of virtual TPMs of hypervisors and clouds.
fn is_emulator(manufacturer: &str, vendor: &str) -> bool {
    vendor.starts_with("SW TPM")
        || (manufacturer == "MSFT" && vendor.contains("fTPM"))
        || matches!(manufacturer, "VMW" | "GOOG" | "AMZN" | "QEMU")
}
