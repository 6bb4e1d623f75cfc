//! What a guarded process tells of its answers, and what the kernel kept of a request: nothing
//! stands in the log but words of their form, and never the query of a path.
//!
//! The first byte says what the others are: a post, or the first bytes of a request with their
//! form before them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_abi::{TURN_HEAD, Turn};
use merestone_agent::run::doors;
use merestone_agent::serve::Post;
use zerocopy::FromBytes as _;

/// 2026-01-01.
const NOW_MS: u64 = 1_767_225_600_000;

fuzz_target!(|bytes: &[u8]| {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    match what % 2 {
        0 => post(rest),
        _ => turn(rest),
    }
});

fn post(bytes: &[u8]) {
    let Ok(post) = serde_json::from_slice::<Post>(bytes) else {
        return;
    };
    let copy = post.clone();
    let Ok(told) = doors::post(post, NOW_MS) else {
        return;
    };
    assert_eq!(told.binding.request.to_string(), copy.request);
    assert_eq!(told.binding.response.to_string(), copy.answer);
    assert!(copy.started_ms <= copy.ended_ms && copy.ended_ms <= NOW_MS + 2000);
    assert!(told.id.is_some() == copy.id.is_some());
    assert!(
        told.nonce
            .is_none_or(|nonce| (8..=64).contains(&nonce.len()))
    );
    let [method, path] = &told.words;
    for text in [method, path, &told.binding.model].into_iter().flatten() {
        assert!(text.len() <= 128 && !text.chars().any(char::is_control));
    }
    assert!(!path.as_ref().is_some_and(|path| path.contains('?')));
}

fn turn(bytes: &[u8]) {
    let Some(([form, length], head)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let mut raw = [0; size_of::<Turn>()];
    let at = std::mem::offset_of!(Turn, head);
    for (to, from) in raw[at..].iter_mut().zip(head.iter().take(TURN_HEAD)) {
        *to = *from;
    }
    raw[std::mem::offset_of!(Turn, form)] = *form;
    raw[std::mem::offset_of!(Turn, head_bytes)] = *length;
    let Ok(turn) = Turn::read_from_bytes(&raw) else {
        return;
    };
    let (method, path) = doors::request_line(&turn);
    // Huffman's code has five bits for the shortest (RFC 7541 Appendix B).
    let most = TURN_HEAD * 8 / 5;
    if let Some(method) = method {
        assert!(!method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase()));
        assert!(method.len() <= most);
    }
    if let Some(path) = path {
        let plain = path.strip_suffix('…').unwrap_or(&path);
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'?';
        assert!(!plain.is_empty() && plain.len() <= most && plain.bytes().all(is_plain));
    }
}
