//! DNS messages, written byte by byte: also those that no library would write.

/// A plain question, recursion desired.
pub(crate) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = header(id, 0x0100, [1, 0, 0, 0]);
    message.extend(labels(name));
    message.extend(words(&[kind, 1]));
    message
}

/// A question with EDNS; `options` is its data.
pub(crate) fn with_edns(id: u16, name: &str, options: &[u8]) -> Vec<u8> {
    let mut message = question(id, name, 1);
    message[11] = 1;
    message.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0]);
    message.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    message.extend(options);
    message
}

pub(crate) fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let [questions, answers, authorities, additionals] = counts;
    words(&[id, flags, questions, answers, authorities, additionals])
}

pub(crate) fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub(crate) fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

/// A record whose owner is the pointer to `owner`.
pub(crate) fn record(owner: u16, kind: u16, ttl_s: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[0xc000 | owner, kind, 1]);
    bytes.extend(ttl_s.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The answer to a question: its own section, then `records`.
pub(crate) fn answer(question: &[u8], flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let id = u16::from_be_bytes([question[0], question[1]]);
    let count = u16::try_from(records.len()).unwrap();
    let mut message = header(id, 0x8180 | flags, [1, count, 0, 0]);
    message.extend(&question[12..end(question)]);
    message.extend(records.concat());
    message
}

/// Where the question section ends.
pub(crate) fn end(question: &[u8]) -> usize {
    let mut at = 12;
    while question[at] != 0 {
        at += usize::from(question[at]) + 1;
    }
    at + 5
}

/// The name of a question, as it is spelled.
pub(crate) fn name(question: &[u8]) -> String {
    let mut at = 12;
    let mut name = Vec::new();
    while question[at] != 0 {
        let length = usize::from(question[at]);
        name.push(String::from_utf8_lossy(&question[at + 1..=at + length]).into_owned());
        at += length + 1;
    }
    name.join(".")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}
