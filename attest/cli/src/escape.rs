//! Strings of a file on their way to a terminal or a page (N73).
//!
//! Names in evidence are chosen by whoever ran the workload. A control character could move the
//! cursor over a verdict; a bidirectional override could turn a line around.

/// Whether a character could change how others are shown, or be mistaken for nothing.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with every such character spelled out.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hostile(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// The same for a page.
pub(crate) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in escaped(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// The same for finished JSON, where such characters can only stand inside strings; line ends
/// between its parts stay.
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
    use super::{escaped, html, json};

    #[test]
    fn n73_control_and_bidi_characters_are_spelled_out() {
        assert_eq!(escaped("a\u{1b}[2Jb\r\n"), "a\\u{1b}[2Jb\\u{d}\\u{a}");
        assert_eq!(escaped("ssap\u{202e}"), "ssap\\u{202e}");
        assert_eq!(escaped("ä 東京"), "ä 東京");
        assert_eq!(
            html("<script>\u{2066}&\"'"),
            "&lt;script&gt;\\u{2066}&amp;&quot;&#39;"
        );
        assert_eq!(
            json("\"\u{202e}\u{e0041}\"\n"),
            "\"\\u202e\\udb40\\udc41\"\n"
        );
    }
}
