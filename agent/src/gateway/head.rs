//! The heads of requests and answers on their way through: what belongs to one
//! connection alone is taken out (RFC 9110 §7.6.1), the rest is passed as it is.

use super::own::Refusal;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request;
use hyper::{Method, Uri, Version};

/// The client's own nonce, for the receipt.
pub(super) const NONCE: HeaderName = HeaderName::from_static("merestone-nonce");
/// The receipt's id.
pub(super) const RECEIPT: HeaderName = HeaderName::from_static("merestone-receipt");

/// Fields of a connection, whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Fields that `Connection` may not name: without them the message is another.
const NOT_TO_BE_NAMED: [HeaderName; 3] = [header::CONTENT_LENGTH, header::HOST, header::EXPECT];
/// Who passed it on (RFC 9110 §7.6.3).
const VIA: HeaderValue = HeaderValue::from_static("1.1 merestone");

/// Makes the client's head the one for the server.
pub(super) fn request(parts: &mut request::Parts, body: &impl Body) -> Result<(), Refusal> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let says = |name: &HeaderName, word: &str| {
        let values = parts.headers.get_all(name).iter();
        let mut words = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','));
        words.any(|one| one.trim().eq_ignore_ascii_case(word))
    };
    if says(&header::UPGRADE, "websocket") {
        return Err(Refusal::Upgrade);
    }
    let wants_trailers = says(&header::TE, "trailers");
    strip(&mut parts.headers).map_err(|()| Refusal::Connection)?;
    target(parts)?;
    if wants_trailers {
        parts
            .headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("TE"));
    }
    if body.size_hint().exact().is_none() {
        // Said outright, or the library sends a GET without its body.
        let chunked = HeaderValue::from_static("chunked");
        parts.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
    parts.headers.remove(NONCE);
    parts.headers.append(header::VIA, VIA);
    parts.version = Version::HTTP_11;
    Ok(())
}

/// Takes out what belongs to the connection; fails where `Connection` names
/// what does not.
fn strip(headers: &mut HeaderMap) -> Result<(), ()> {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named {
        if NOT_TO_BE_NAMED.contains(&name) {
            return Err(());
        }
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    Ok(())
}

/// An absolute target's authority takes `Host`'s place (RFC 9112 §3.2.2); what
/// the server gets is the path, as it came.
fn target(parts: &mut request::Parts) -> Result<(), Refusal> {
    let Some(authority) = parts.uri.authority() else {
        return Ok(());
    };
    if parts.uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
        return Err(Refusal::Target);
    }
    let host = HeaderValue::from_str(authority.as_str())
        .ok()
        .ok_or(Refusal::Target)?;
    parts.headers.insert(header::HOST, host);
    let path = parts.uri.path_and_query().cloned();
    let mut origin = hyper::http::uri::Parts::default();
    origin.path_and_query = path;
    parts.uri = Uri::from_parts(origin).ok().ok_or(Refusal::Target)?;
    Ok(())
}

/// Makes the server's head the one for the client; false for an answer with
/// two lengths.
pub(super) fn response(headers: &mut HeaderMap, body: &impl Body, has_body: bool) -> bool {
    let is_chunked = body.size_hint().exact().is_none();
    if has_body && is_chunked && headers.contains_key(header::CONTENT_LENGTH) {
        return false;
    }
    if strip(headers).is_err() {
        return false;
    }
    // Only the gateway gives out receipts.
    headers.remove(RECEIPT);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use hyper::Request;

    fn passed(request_: Request<()>) -> Result<request::Parts, Refusal> {
        let (mut parts, ()) = request_.into_parts();
        request(&mut parts, &Empty::<bytes::Bytes>::new()).map(|()| parts)
    }

    #[test]
    fn fields_of_the_connection_end_here_and_others_go_on() {
        let request = Request::post("/v1?x=%2f..//&y")
            .header("host", "api.example")
            .header("connection", "close, X-Mine")
            .header("x-mine", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("te", "trailers, gzip")
            .header("upgrade", "h2c")
            .header("authorization", "Bearer x")
            .header("merestone-nonce", "AAAA")
            .body(())
            .unwrap();
        let parts = passed(request).unwrap();
        let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "connection", "host", "te", "via"]);
        assert_eq!(parts.headers["te"], "trailers");
        assert_eq!(parts.headers["connection"], "TE");
        assert_eq!(parts.uri, "/v1?x=%2f..//&y");
    }

    #[test]
    fn an_absolute_target_decides_the_host() {
        let request = Request::get("http://right.example:81/a?b").header("host", "wrong");
        let parts = passed(request.body(()).unwrap()).unwrap();
        assert_eq!(parts.uri, "/a?b");
        assert_eq!(parts.headers["host"], "right.example:81");
        let request = Request::get("http://user@right.example/").body(()).unwrap();
        assert_eq!(passed(request).unwrap_err(), Refusal::Target);
    }

    #[test]
    fn what_cannot_be_bound_to_a_receipt_is_refused() {
        let socket = Request::get("/").header("upgrade", "WebSocket");
        assert_eq!(
            passed(socket.body(()).unwrap()).unwrap_err(),
            Refusal::Upgrade
        );
        let tunnel = Request::connect("a:1").body(()).unwrap();
        assert_eq!(passed(tunnel).unwrap_err(), Refusal::Method);
        let naming = Request::post("/").header("connection", "content-length");
        assert_eq!(
            passed(naming.body(()).unwrap()).unwrap_err(),
            Refusal::Connection
        );
    }

    #[test]
    fn the_server_cannot_hand_out_a_receipt() {
        let mut headers = HeaderMap::new();
        headers.insert(RECEIPT, HeaderValue::from_static("00"));
        assert!(response(&mut headers, &Empty::<bytes::Bytes>::new(), true));
        assert!(headers.is_empty());
    }
}
