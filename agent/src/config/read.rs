//! From a raw value to the type the agent uses, with a fault that says the
//! form that would have been right.

use super::GpuDevice;
use super::fault::{Faults, Origin};
use super::layers::{Layers, Raw};
use std::path::PathBuf;
use std::time::Duration;

/// Layers being read, and what is wrong with them.
pub(super) struct Reader {
    pub(super) layers: Layers,
    pub(super) faults: Faults,
}

impl Reader {
    /// A string; absent and empty are the same.
    pub(super) fn text(&mut self, name: &'static str) -> Option<(String, Origin)> {
        match self.layers.take(name)? {
            (Raw::Text(text), origin) if !text.is_empty() => {
                if text.chars().any(char::is_control) || text.chars().count() > 4096 {
                    let message = format!("`{name}` has control characters or is too long");
                    self.faults.push(origin, message, "");
                    return None;
                }
                Some((text, origin))
            }
            (Raw::Integer(integer), origin) => Some((integer.to_string(), origin)),
            _ => None,
        }
    }

    /// A string that `parse` understands, or the default.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some((text, origin)) = self.text(name) else {
            return default;
        };
        match parse(&text) {
            Ok(value) => value,
            Err(hint) => {
                let message = format!("`{name}` cannot be {text:?}");
                self.faults.push(origin, message, hint);
                default
            }
        }
    }

    /// An absolute path.
    pub(super) fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.parsed(name, None, |text| {
            let path = PathBuf::from(text);
            if path.is_absolute() {
                return Ok(Some(path));
            }
            Err("write the absolute path: the agent has no working directory to speak of".into())
        })
    }

    /// A duration between two bounds.
    pub(super) fn duration(
        &mut self,
        name: &'static str,
        default: Duration,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        self.parsed(name, default, |text| {
            let value = duration(text)
                .ok_or("write a number and a unit: \"500ms\", \"10s\", \"5m\", \"1h\"")?;
            if bounds.contains(&value) {
                return Ok(value);
            }
            let (low, high) = (bounds.start(), bounds.end());
            Err(format!("between {low:?} and {high:?}"))
        })
    }

    /// A list of strings, each accepted or refused with a hint.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let (Raw::List(items), _) = self.layers.take(name)? else {
            return None;
        };
        let mut list = Vec::with_capacity(items.len());
        for (item, origin) in items {
            let text = match item {
                Raw::Text(text) => text,
                Raw::Integer(integer) => integer.to_string(),
                Raw::Boolean(_) | Raw::List(_) => continue,
            };
            match parse(&text) {
                Ok(value) => list.push(value),
                Err(hint) => {
                    let message = format!("`{name}` cannot hold {text:?}");
                    self.faults.push(origin, message, hint);
                }
            }
        }
        Some(list)
    }

    /// A boolean, or the default.
    pub(super) fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        match self.layers.take(name) {
            Some((Raw::Boolean(value), _)) => value,
            _ => default,
        }
    }

    /// Refuses a key of a later version, unless it is empty.
    pub(super) fn later(&mut self, name: &'static str, what: &str) {
        let Some((raw, origin)) = self.layers.take(name) else {
            return;
        };
        let empty = match &raw {
            Raw::Text(text) => text.is_empty(),
            Raw::List(items) => items.is_empty(),
            Raw::Integer(_) | Raw::Boolean(_) => false,
        };
        if !empty {
            self.faults.push(
                origin,
                format!("`{name}` ({what}) is not supported by this version: refused rather than ignored"),
                "remove the key",
            );
        }
    }
}

/// `500ms`, `10s`, `5m`, `1h`: a whole number and one unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// `major` or `major:minor`.
pub(super) fn device(text: &str) -> Result<GpuDevice, String> {
    // Device numbers are 12 bits major and 20 bits minor (include/linux/kdev_t.h).
    let hint = || "write major or major:minor, as in \"195\" or \"234:0\"".to_owned();
    let number = |text: &str, bits: u32| -> Option<u32> {
        let number: u32 = text.parse().ok()?;
        (number < 1 << bits && text.bytes().all(|b| b.is_ascii_digit())).then_some(number)
    };
    let (major, minor) = match text.split_once(':') {
        Some((major, minor)) => (major, Some(number(minor, 20).ok_or_else(hint)?)),
        None => (text, None),
    };
    let major = number(major, 12).filter(|m| *m > 0).ok_or_else(hint)?;
    Ok(GpuDevice { major, minor })
}

/// A persistent handle, hexadecimal or decimal.
pub(super) fn handle(text: &str) -> Result<u32, String> {
    let value = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    // Persistent objects of the owner: TPM 2.0 Library, part 2, table "TPM_HC".
    value
        .ok()
        .filter(|handle| (0x8100_0000..=0x817f_ffff).contains(handle))
        .ok_or_else(|| "a persistent handle between 0x81000000 and 0x817fffff".to_owned())
}

/// A TCTI, in the two forms merestone-tpm takes; its own parser has the last
/// word when the TPM is opened, this one says so with the file's line.
pub(super) fn tcti(text: &str) -> Result<String, String> {
    let hint = "write \"device:/dev/tpmrm0\" or \"swtpm:host=127.0.0.1,port=2321\"";
    let port = |port: &str| {
        port.parse()
            .is_ok_and(|port: u16| (1..u16::MAX).contains(&port))
    };
    let good = if let Some(path) = text.strip_prefix("device:") {
        path.starts_with('/')
    } else if let Some(options) = text.strip_prefix("swtpm:") {
        let mut options: Vec<_> = options.split(',').map(|o| o.split_once('=')).collect();
        options.sort_unstable();
        matches!(options.as_slice(), [Some(("host", host)), Some(("port", number))]
            if !host.is_empty() && port(number))
    } else {
        false
    };
    if good {
        Ok(text.to_owned())
    } else {
        Err(hint.to_owned())
    }
}

/// A cgroup path as /proc/PID/cgroup writes it, below the root.
pub(super) fn scope(text: &str) -> Result<String, String> {
    let rooted = text.strip_prefix('/').filter(|rest| !rest.is_empty());
    let plain = rooted.is_some_and(|rest| {
        rest.split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
    });
    if plain {
        return Ok(text.to_owned());
    }
    if text == "/" {
        return Err("the whole hierarchy as login scope would leave every cgroup unguarded".into());
    }
    Err("a cgroup path from the root, as in \"/user.slice\"".into())
}

/// A path of a request, without a query.
pub(super) fn request_path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'?');
    if is_path {
        return Ok(text.to_owned());
    }
    Err("a path as in \"/health\", without a query".into())
}

/// A node id.
pub(super) fn node(text: &str) -> Result<String, String> {
    let fits = text.len() <= 253
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, dots, dashes; at most 253".into())
    }
}

/// A signer's public key; read and checked when it is used.
pub(super) fn signer(text: &str) -> Result<String, String> {
    if text.starts_with('/') || text.starts_with("ed25519:") {
        Ok(text.to_owned())
    } else {
        Err("the path of a PEM file, or \"ed25519:BASE64\"".into())
    }
}

/// A country.
pub(super) fn country(text: &str) -> Result<Option<String>, String> {
    let fits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase());
    if fits {
        Ok(Some(text.to_owned()))
    } else {
        Err("two capital letters of ISO 3166-1, as in \"DE\"".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_one_unit() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        for wrong in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "1s ",
            "1d",
            "1h30m",
            "18446744073709551615h",
        ] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_device_is_a_major_and_perhaps_a_minor() {
        let whole = GpuDevice {
            major: 195,
            minor: None,
        };
        assert_eq!(device("195"), Ok(whole));
        let one = GpuDevice {
            major: 234,
            minor: Some(0),
        };
        assert_eq!(device("234:0"), Ok(one));
        for wrong in [
            "",
            "0",
            "4096",
            "195:",
            ":1",
            "195:1048576",
            "+195",
            "195:0:0",
            "nvidia",
        ] {
            assert!(device(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_handle_must_be_persistent() {
        assert_eq!(handle("0x81010016"), Ok(0x8101_0016));
        assert_eq!(handle("2164326422"), Ok(0x8101_0016));
        assert!(handle("0x80000001").is_err());
        assert!(handle("0x81800000").is_err());
    }

    #[test]
    fn the_root_cgroup_is_no_login_scope() {
        assert_eq!(scope("/user.slice"), Ok("/user.slice".to_owned()));
        for wrong in ["/", "", "user.slice", "/a/../b", "/a/", "//"] {
            assert!(scope(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_tcti_names_a_device_or_a_simulator() {
        for right in [
            "device:/dev/tpmrm0",
            "swtpm:host=127.0.0.1,port=2321",
            "swtpm:port=1,host=tpm",
        ] {
            assert!(tcti(right).is_ok(), "{right:?}");
        }
        for wrong in [
            "",
            "device",
            "device:tpm0",
            "swtpm",
            "swtpm:2321",
            "swtpm:port=2321",
            "swtpm:host=a,port=65535",
            "swtpm:host=a,port=1,port=2",
            "/dev/tpmrm0",
            "mssim:host=a,port=1",
            "tabrmd:",
        ] {
            assert!(tcti(wrong).is_err(), "{wrong:?}");
        }
    }
}
