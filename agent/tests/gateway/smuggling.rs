//! Requests with two readings, and what else is not passed on.

use crate::stage::Stage;
use std::fmt::Write as _;

#[test]
fn requests_with_two_readings_are_400_and_never_reach_the_server() {
    let stage = Stage::new();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let host = "POST / HTTP/1.1\r\nHost: a\r\n";
    for request in [
        format!("{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{host}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{host}Content-Length: 0\r\nContent-Length: 38\r\n\r\n{smuggled}"),
        format!("{host}Content-Length: 38\r\nContent-Length: 38\r\n\r\n{smuggled}"),
        format!("{host}Content-Length: 0, 38\r\n\r\n{smuggled}"),
        format!("{host}Content-Length: +38\r\n\r\n{smuggled}"),
        format!("{host}Transfer-Encoding: xchunked\r\n\r\n{smuggled}"),
        format!("{host}Transfer-Encoding: chunked, identity\r\n\r\n{smuggled}"),
        format!("{host}Transfer-Encoding:\x0bchunked\r\n\r\n{smuggled}"),
        format!("{host}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{host}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{host}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{host}Host: b\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1\r\n\r\n{smuggled}"),
        format!("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n{smuggled}"),
        format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut client = stage.gateway.connect();
        client.say(&request);
        let head = client
            .wire
            .head()
            .unwrap_or_else(|| panic!("no answer to {request:?}"));
        assert_eq!(head.status(), 400, "{request:?}");
        assert!(client.wire.is_over(), "{request:?}");
    }
    assert!(!stage.server.has_connection());
    assert!(
        stage
            .gateway
            .metric("merestone_gateway_refused_total{reason=\"both_lengths\"}")
            == 2.0
    );
    assert_eq!(stage.agent.count(), 0);
}

#[test]
fn a_broken_chunk_breaks_the_request_off_for_the_server_too() {
    let stage = Stage::new();
    for bad in [
        "3 \r\nabc\r\n",
        "0x3\r\nabc\r\n",
        "2\r\nabc\r\n",
        "3\nabc\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
    ] {
        let mut client = stage.gateway.connect();
        client.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        let mut server = stage.server.accept();
        server.wire.head().unwrap();
        assert_eq!(server.wire.chunk().unwrap(), b"x");
        client.say(bad);
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut server.wire.0, &mut rest).ok();
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(
            !rest.ends_with("0\r\n\r\n"),
            "{bad:?} gave a whole body: {rest:?}"
        );
    }
}

#[test]
fn the_second_request_of_a_connection_is_judged_as_the_first() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say(
        "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\
         POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    let mut server = stage.server.accept();
    let head = server.wire.head().unwrap();
    assert_eq!(server.wire.body(&head), b"hi");
    server.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let head = client.wire.head().unwrap();
    assert_eq!(
        (head.status(), client.wire.body(&head)),
        (200, b"ok".to_vec())
    );
    assert_eq!(client.wire.head().unwrap().status(), 400);
    assert!(client.wire.is_over());
}

#[test]
fn heads_have_a_limit() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(80 << 10)
    ));
    // What the gateway left unread can cost the client the answer.
    if let Some(head) = client.wire.head() {
        assert_eq!(head.status(), 431);
    }
    let mut fields = String::new();
    for number in 0..200 {
        write!(fields, "X-{number}: y\r\n").unwrap();
    }
    let (head, _) = stage
        .gateway
        .ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(head.status(), 431);
    assert!(!stage.server.has_connection());
}

#[test]
fn tunnels_are_refused_and_say_why() {
    let stage = Stage::new();
    for (request, status, code) in [
        (
            "GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            501,
            "upgrade_refused",
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "method_refused"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 0\r\n\r\n",
            400,
            "connection_field",
        ),
        ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nMerestone-Nonce: AAAA\r\n\r\n",
            400,
            "nonce",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nMerestone-Nonce: not base64!!\r\n\r\n",
            400,
            "nonce",
        ),
    ] {
        let (head, body) = stage.gateway.ask(request);
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (head.status(), error["error"]["code"].as_str()),
            (status, Some(code)),
            "{request:?}"
        );
        assert_eq!(head.get("merestone-receipt"), None);
    }
    assert!(!stage.server.has_connection());
}

#[test]
fn fields_of_the_connection_do_not_pass() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say(
        "GET http://b.example/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
         Upgrade: h2c\r\nX-End: 2\r\n\r\n",
    );
    let mut server = stage.server.accept();
    let head = server.wire.head().unwrap();
    assert_eq!(head.line, "GET /x HTTP/1.1");
    assert_eq!(head.get("host"), Some("b.example"));
    assert_eq!(head.get("x-end"), Some("2"));
    for name in ["connection", "x-hop", "keep-alive", "upgrade"] {
        assert_eq!(head.get(name), None);
    }
    server.say("HTTP/1.1 200 OK\r\nConnection: X-Own\r\nX-Own: 1\r\nKeep-Alive: 1\r\nContent-Length: 0\r\n\r\n");
    let head = client.wire.head().unwrap();
    for name in ["connection", "x-own", "keep-alive"] {
        assert_eq!(head.get(name), None);
    }
}
