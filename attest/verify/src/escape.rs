//! Strings of a file on their way to a terminal or a page (N73).
//!
//! Names in evidence are chosen by whoever ran the workload. A control character could move the
//! cursor over a verdict; a bidirectional override could turn a line around. This spells such
//! characters out; it does not quote for any language (HTML, JSON), which is the writer's job.

/// Whether a character could change how others are shown, or be mistaken for nothing.
#[must_use]
pub fn is_hostile(character: char) -> bool {
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
#[must_use]
pub fn escaped(text: &str) -> String {
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
