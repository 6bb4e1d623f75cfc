//! What passes: bytes, pieces, fields, and the digests of them.

use crate::stage::{Stage, digest};

const ASK: &str = "{\"model\": \"llama-3\", \"stream\": true}";

fn post(path: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: api.example\r\nContent-Length: {length}\r\n{more}\r\n{body}"
    )
}

#[test]
fn the_digests_are_those_of_the_bytes_with_the_salt() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    let more = "Content-Type: application/json\r\nMerestone-Nonce: AAECAwQFBgc=\r\n";
    client.say(post("/v1/chat/completions?user=1", more, ASK));
    let mut server = stage.server.accept();
    let head = server.wire.head().unwrap();
    assert_eq!(head.line, "POST /v1/chat/completions?user=1 HTTP/1.1");
    assert_eq!(head.get("host"), Some("api.example"));
    assert_eq!(head.get("via"), Some("1.1 merestone"));
    assert_eq!(head.get("merestone-nonce"), None);
    assert_eq!(server.wire.body(&head), ASK.as_bytes());
    server.say(
        "HTTP/1.1 201 Fine\r\nContent-Length: 5\r\nMerestone-Receipt: 00\r\nX-Own: 1\r\n\r\nhello",
    );
    let head = client.wire.head().unwrap();
    assert_eq!((head.status(), head.get("x-own")), (201, Some("1")));
    assert_eq!(client.wire.body(&head), b"hello");
    let id = head.get("merestone-receipt").unwrap();
    let receipt = stage.gateway.receipt(id);
    let text = |key: &str| receipt[key].as_str().unwrap().to_owned();
    assert_eq!(
        (text("id"), text("receipt")),
        (id.to_owned(), "AAEC".to_owned())
    );
    assert_eq!(text("ended"), "complete");
    assert_eq!(receipt["request_whole"], true);
    let record = stage.agent.record(id);
    assert_eq!(
        record.request,
        digest(&text("salt"), "request", ASK.as_bytes())
    );
    assert_eq!(record.answer, digest(&text("salt"), "answer", b"hello"));
    assert_eq!(
        (text("request"), text("answer")),
        (record.request, record.answer)
    );
    assert_eq!(record.model.as_deref(), Some("llama-3"));
    assert_eq!(record.method.as_deref(), Some("POST"));
    assert_eq!(record.path.as_deref(), Some("/v1/chat/completions"));
    assert_eq!(record.status, Some(201));
    assert_eq!(
        (record.request_bytes, record.answer_bytes),
        (ASK.len() as u64, 5)
    );
    assert_eq!(record.nonce.as_deref(), Some("AAECAwQFBgc="));
    assert_eq!(record.model_files, None);
    let connection = record.connection.unwrap();
    assert_eq!(
        connection.peer,
        client.stream.local_addr().unwrap().to_string()
    );
    assert_eq!(
        connection.local,
        client.stream.peer_addr().unwrap().to_string()
    );
    let upstream = record.upstream.unwrap();
    assert_eq!(
        (upstream.local, upstream.peer),
        (
            server.stream.peer_addr().unwrap().to_string(),
            server.stream.local_addr().unwrap().to_string()
        )
    );
}

#[test]
fn a_streamed_answer_arrives_piece_by_piece() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say(post("/v1/chat/completions", "", ASK));
    let mut server = stage.server.accept();
    let head = server.wire.head().unwrap();
    server.wire.body(&head);
    server.say(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let head = client.wire.head().unwrap();
    assert_eq!(head.get("transfer-encoding"), Some("chunked"));
    let mut whole = Vec::new();
    for number in 0..20 {
        // The next piece is not sent before the client has this one.
        let piece = format!("data: {{\"model\": \"m\", \"n\": {number}}}\n\n");
        server.chunk(piece.as_bytes());
        let mut got = Vec::new();
        while got.len() < piece.len() {
            got.extend(client.wire.chunk().unwrap());
        }
        assert_eq!(got, piece.as_bytes());
        whole.extend(got);
    }
    let id = head.get("merestone-receipt").unwrap();
    let (pending, _) = stage
        .gateway
        .get(&format!("/.well-known/merestone/receipts/{id}"));
    assert_eq!(pending.status(), 202);
    server.say("0\r\n\r\n");
    assert_eq!(client.wire.chunk().unwrap(), b"");
    let salt = stage.gateway.receipt(id)["salt"]
        .as_str()
        .unwrap()
        .to_owned();
    let record = stage.agent.record(id);
    assert_eq!(record.answer, digest(&salt, "answer", &whole));
    assert_eq!(record.model.as_deref(), Some("m"));
}

#[test]
fn a_streamed_request_arrives_piece_by_piece_also_with_get() {
    let stage = Stage::new();
    for method in ["POST", "GET"] {
        let mut client = stage.gateway.connect();
        client.say(format!(
            "{method} /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        client.chunk(b"first");
        let mut server = stage.server.accept();
        let head = server.wire.head().unwrap();
        assert_eq!(head.line, format!("{method} /up HTTP/1.1"));
        assert_eq!(server.wire.chunk().unwrap(), b"first");
        client.chunk(b"second");
        assert_eq!(server.wire.chunk().unwrap(), b"second");
        client.say("0\r\n\r\n");
        assert_eq!(server.wire.chunk().unwrap(), b"");
        server.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let head = client.wire.head().unwrap();
        let id = head.get("merestone-receipt").unwrap();
        let salt = stage.gateway.receipt(id)["salt"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            stage.agent.record(id).request,
            digest(&salt, "request", b"firstsecond")
        );
    }
}

#[test]
fn trailers_pass_both_ways_and_are_no_part_of_the_digest() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Up\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.say("1\r\na\r\n0\r\nX-Up: 1\r\n\r\n");
    let mut server = stage.server.accept();
    let head = server.wire.head().unwrap();
    assert_eq!(head.get("te"), Some("trailers"));
    assert_eq!(server.wire.chunk().unwrap(), b"a");
    assert_eq!(server.wire.chunk().unwrap(), b"");
    assert_eq!(server.wire.trailers(), ["x-up: 1"]);
    server.say("HTTP/1.1 200 OK\r\nTrailer: X-Down\r\nTransfer-Encoding: chunked\r\n\r\n");
    server.say("1\r\nb\r\n0\r\nX-Down: 2\r\n\r\n");
    let head = client.wire.head().unwrap();
    assert_eq!(client.wire.chunk().unwrap(), b"b");
    assert_eq!(client.wire.chunk().unwrap(), b"");
    assert_eq!(client.wire.trailers(), ["x-down: 2"]);
    let id = head.get("merestone-receipt").unwrap();
    let salt = stage.gateway.receipt(id)["salt"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(stage.agent.record(id).answer, digest(&salt, "answer", b"b"));
}

#[test]
fn a_client_that_expects_100_hears_it_from_the_server() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    let mut server = stage.server.accept();
    assert_eq!(
        server.wire.head().unwrap().get("expect"),
        Some("100-continue")
    );
    server.say("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 100);
    client.say("abc");
    assert_eq!(server.wire.exact(3), b"abc");
    server.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 200);
}

#[test]
fn a_body_that_the_server_refuses_is_never_asked_for() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    server.say("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
    let head = client.wire.head().unwrap();
    assert_eq!(head.status(), 413);
    assert_eq!(client.wire.body(&head), b"no");
    assert!(client.wire.is_over());
    assert!(server.wire.is_over());
    let receipt = stage
        .gateway
        .receipt(head.get("merestone-receipt").unwrap());
    assert_eq!(receipt["request_whole"], false);
}

#[test]
fn connections_are_kept_on_both_sides_and_a_closed_one_is_made_anew() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    let mut server = None;
    for number in 0..3 {
        client.say(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let server = server.get_or_insert_with(|| stage.server.accept());
        assert_eq!(
            server.wire.head().unwrap().line,
            format!("GET /{number} HTTP/1.1")
        );
        server.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
        let head = client.wire.head().unwrap();
        assert_eq!(client.wire.body(&head), b"x");
    }
    drop(server);
    client.say("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    assert_eq!(server.wire.head().unwrap().line, "GET /again HTTP/1.1");
    server.say("HTTP/1.1 204 OK\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 204);
}

#[test]
fn head_and_not_modified_have_no_body_but_a_length() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    server.say("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n");
    let head = client.wire.head().unwrap();
    assert_eq!(head.get("content-length"), Some("77"));
    let id = head.get("merestone-receipt").unwrap();
    assert_eq!(stage.gateway.receipt(id)["ended"], "complete");
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wire.head().unwrap();
    server.say("HTTP/1.1 304 Same\r\nETag: \"a\"\r\n\r\n");
    let head = client.wire.head().unwrap();
    assert_eq!((head.status(), head.get("etag")), (304, Some("\"a\"")));
    assert_eq!(
        stage
            .agent
            .record(head.get("merestone-receipt").unwrap())
            .answer_bytes,
        0
    );
}

#[test]
fn a_path_passes_byte_for_byte() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    let path = "/a//b/../%2e%2E/c;d=1/?q=%00+'[]{}|\\^`&a=b?c";
    client.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let mut server = stage.server.accept();
    assert_eq!(
        server.wire.head().unwrap().line,
        format!("GET {path} HTTP/1.1")
    );
}
