//! What several targets do with their inputs.

/// Most places that one input changes.
const MOST_EDITS: usize = 64;

/// `sound` as the input changes it. Each three bytes are a place and what to write there; from a
/// place of 0x8000 on it is put in before what was there.
///
/// A whole file is seldom found by chance: a change of one is what gets deep into its reader.
pub fn edited(sound: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut edited = sound.to_vec();
    for edit in edits.chunks_exact(3).take(MOST_EDITS) {
        let at = usize::from(edit[0] & 0x7f) << 8 | usize::from(edit[1]);
        let at = at % edited.len().max(1);
        if edit[0] >= 0x80 {
            edited.insert(at, edit[2]);
        } else if let Some(byte) = edited.get_mut(at) {
            *byte = edit[2];
        }
    }
    edited
}
