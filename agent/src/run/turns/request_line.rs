//! Method and path of a request, from its first bytes as the kernel kept them.
//!
//! The query is left out: it can hold what was asked. What cannot be read whole
//! is not guessed: of a cut path the end is `…`, and of an HTTP/2 stream whose
//! path is an index into what the connection said before, there is none.

use loona_hpack::Decoder;
use merestone_abi::{Form, Turn};

/// Method and path, each where it is seen.
pub(super) type RequestLine = (Option<String>, Option<String>);

/// What the first bytes of a turn say.
pub(in crate::run) fn request_line(turn: &Turn) -> RequestLine {
    let Some(head) = turn.head.get(..usize::from(turn.head_bytes)) else {
        return (None, None);
    };
    match turn.form {
        Form::HTTP1 | Form::SWITCHED => of_line(head).unzip(),
        Form::STREAM => of_block(head),
        _ => (None, None),
    }
}

/// RFC 9112 §3.
fn of_line(head: &[u8]) -> Option<(String, String)> {
    let mut words = head.split(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    let method = words.next()?;
    let target = words.next()?;
    // A line that goes on beyond what is kept of it.
    let is_cut = words.next().is_none() && !target.contains(&b'?');
    let more = if is_cut { "…" } else { "" };
    Some((word(method)?, path(target)? + more))
}

/// The pseudo-header fields of a header block (RFC 9113 §8.3.1), which come
/// first. The block may be cut, and what the connection's table has from before
/// is not known: a decoder that begins with nothing has of its dynamic entries
/// only those that this very block made, and RFC 7541 §2.3.3 counts from the
/// newest, so that an index which it knows is the right one.
fn of_block(head: &[u8]) -> RequestLine {
    let (mut method, mut target) = (None, None);
    // Where it is cut, or refers to what was before, it ends there.
    let _cut = Decoder::new().decode_with_cb(head, |name, value| match &*name {
        b":method" if method.is_none() => method = word(&value),
        b":path" if target.is_none() => target = path(&value),
        _ => {}
    });
    (method, target)
}

fn word(method: &[u8]) -> Option<String> {
    let is_plain = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    is_plain.then(|| text(method))
}

fn path(target: &[u8]) -> Option<String> {
    let path = target.split(|byte| *byte == b'?').next()?;
    let is_plain = !path.is_empty() && path.iter().all(u8::is_ascii_graphic);
    is_plain.then(|| text(path))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use loona_hpack::Encoder;

    fn head(bytes: &[u8]) -> (Option<String>, Option<String>) {
        of_line(bytes).unzip()
    }

    #[test]
    fn a_request_line_gives_method_and_path_and_never_the_query() {
        for (line, want) in [
            (
                &b"POST /v1/chat/completions?user=jane HTTP/1.1\r\nHost:"[..],
                Some(("POST", "/v1/chat/completions")),
            ),
            (b"GET /health HTTP/1.0\r\n", Some(("GET", "/health"))),
            (b"GET /v1/a-long-na", Some(("GET", "/v1/a-long-na…"))),
            (b"GET ", None),
            (b"G\xc3\xa9T / HTTP/1.1", None),
            (b"POST /\x1b[2J HTTP/1.1", None),
            (b"", None),
        ] {
            let got = head(line);
            let got = (got.0.as_deref(), got.1.as_deref());
            assert_eq!(got, want.unzip(), "{line:?}");
        }
    }

    #[test]
    fn a_header_block_gives_what_it_says_itself() {
        // `:path` as a literal that the table keeps (RFC 7541 §6.2.1), then by its index there.
        let path = "/inference.GRPCInferenceService/ModelInfer";
        let mut first = vec![0x83, 0x86, 0x44, 46];
        first.extend(path.bytes().chain(*b"?x=1"));
        let all = (Some("POST".to_owned()), Some(path.to_owned()));
        assert_eq!(of_block(&first), all);
        // The next request says the path by a number that only who saw the first knows.
        let second = [0x83, 0x86, 0xbe];
        assert_eq!(of_block(&second), (Some("POST".to_owned()), None));
        let mut own = first.clone();
        own.push(0xbe);
        assert_eq!(of_block(&own), all, "an entry of its own");
        // Cut anywhere: less is known, never something else.
        for end in 0..first.len() {
            let (method, target) = of_block(&first[..end]);
            assert!(method.is_none_or(|word| word == "POST"), "{end}");
            assert!(target.is_none_or(|word| word == path), "{end}");
        }
    }

    #[test]
    fn huffman_is_read_and_what_is_no_path_is_not_told() {
        // RFC 7541 Appendix C.4.1: `GET`, `http`, `/`, `www.example.com` in Huffman's code.
        let block = hex::decode("828684418cf1e3c2e5f23a6ba0ab90f4ff").unwrap();
        assert_eq!(
            of_block(&block),
            (Some("GET".to_owned()), Some("/".to_owned()))
        );
        let strange: [(&[u8], &[u8]); 2] = [(b":method", b"ge t"), (b":path", b"/\x1b[2J")];
        assert_eq!(of_block(&Encoder::new().encode(strange)), (None, None));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut block = [0_u8; 96];
            for byte in &mut block {
                // Marsaglia's xorshift.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state.to_le_bytes()[0];
            }
            let (method, target) = of_block(&block);
            assert!(method.is_none_or(|word| word.bytes().all(|byte| byte.is_ascii_uppercase())));
            assert!(target.is_none_or(|path| path.bytes().all(|byte| byte.is_ascii_graphic())));
        }
    }
}
