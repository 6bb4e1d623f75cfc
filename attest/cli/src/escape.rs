//! Strings of a file on their way to a terminal or a page (N73).
//!
//! Names in evidence are chosen by whoever ran the workload. A control character could move the
//! cursor over a verdict; a bidirectional override could turn a line around.

pub(crate) use merestone_verify::escape::escaped;
use merestone_verify::escape::is_hostile;

/// Finished JSON with every such character spelled out; there they can only stand inside strings.
/// Line ends between its parts stay.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && is_hostile(character) {
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units).iter();
            out.extend(units.map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{escaped, json};

    #[test]
    fn n73_control_and_bidi_characters_are_spelled_out() {
        assert_eq!(escaped("a\u{1b}[2Jb\r\n"), "a\\u{1b}[2Jb\\u{d}\\u{a}");
        assert_eq!(escaped("ssap\u{202e}"), "ssap\\u{202e}");
        assert_eq!(escaped("ä 東京"), "ä 東京");
        assert_eq!(
            json("\"\u{202e}\u{e0041}\"\n"),
            "\"\\u202e\\udb40\\udc41\"\n"
        );
    }
}
