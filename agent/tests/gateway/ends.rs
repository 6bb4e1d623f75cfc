//! How exchanges end other than well, and that the record says so.

use crate::stage::{Gateway, Server, Stage, digest, free_port};
use std::net::Shutdown;

#[test]
fn a_client_that_leaves_before_the_answer_cancels_it() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    client.stream.shutdown(Shutdown::Both).unwrap();
    assert!(server.wire.is_over(), "the server goes on");
    let record = stage
        .agent
        .find(|record| record.path.as_deref() == Some("/slow"));
    assert_eq!(record.status, Some(499));
    assert_eq!((record.answer_bytes, record.first_ms), (0, None));
}

#[test]
fn a_client_that_leaves_within_the_answer_cancels_it_and_the_record_ends_there() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    server.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    server.chunk(b"one");
    let head = client.wire.head().unwrap();
    assert_eq!(client.wire.chunk().unwrap(), b"one");
    client.stream.shutdown(Shutdown::Both).unwrap();
    assert!(server.wire.is_over(), "the server goes on");
    let id = head.get("merestone-receipt").unwrap();
    let record = stage.agent.record(id);
    assert_eq!((record.status, record.answer_bytes), (Some(499), 3));
    let receipt = stage.gateway.receipt(id);
    assert_eq!(receipt["ended"], "client_left");
    assert_eq!(
        record.answer,
        digest(receipt["salt"].as_str().unwrap(), "answer", b"one")
    );
}

#[test]
fn a_client_that_leaves_within_its_request_cancels_it() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    assert_eq!(server.wire.exact(3), b"abc");
    client.stream.shutdown(Shutdown::Both).unwrap();
    assert!(server.wire.is_over(), "the server waits on");
    let record = stage
        .agent
        .find(|record| record.path.as_deref() == Some("/up"));
    assert_eq!((record.status, record.request_bytes), (Some(499), 3));
}

#[test]
fn an_answer_that_breaks_off_is_broken_off_and_recorded_as_such() {
    let stage = Stage::new();
    for start in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = stage.gateway.connect();
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut server = stage.server.accept();
        server.wire.head().unwrap();
        server.say(format!("HTTP/1.1 200 OK\r\n{start}"));
        let head = client.wire.head().unwrap();
        if head.length().is_some() {
            assert_eq!(client.wire.exact(3), b"abc");
        } else {
            assert_eq!(client.wire.chunk().unwrap(), b"abc");
        }
        drop(server);
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut client.wire.0, &mut rest).ok();
        assert_eq!(rest, b"", "no proper end");
        let id = head.get("merestone-receipt").unwrap();
        assert_eq!(stage.agent.record(id).status, Some(502));
        assert_eq!(stage.gateway.receipt(id)["ended"], "server_failed");
    }
}

#[test]
fn a_server_that_is_not_there_or_says_nothing_is_502_or_504_with_a_reason() {
    let stage = Stage::with(&["--timeout", "1s"]);
    let mut client = stage.gateway.connect();
    client.say("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    let head = client.wire.head().unwrap();
    let body = client.wire.body(&head);
    assert_eq!(head.status(), 504);
    assert!(
        String::from_utf8(body.clone())
            .unwrap()
            .contains("server_answer_timeout")
    );
    server.wire.head().unwrap();
    assert!(server.wire.is_over());
    let id = head.get("merestone-receipt").unwrap();
    let salt = stage.gateway.receipt(id)["salt"]
        .as_str()
        .unwrap()
        .to_owned();
    let record = stage.agent.record(id);
    assert_eq!(record.status, Some(504));
    assert_eq!(record.answer, digest(&salt, "answer", &body));

    client.say("GET /rude HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    drop(server);
    let head = client.wire.head().unwrap();
    let body = String::from_utf8(client.wire.body(&head)).unwrap();
    assert_eq!(head.status(), 502);
    assert!(body.contains("server_broke_off"), "{body}");

    let gateway = Gateway::start(free_port(), &stage.agent.path, &[]);
    let (head, body) = gateway.get("/");
    assert_eq!(head.status(), 502);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("server_unreachable")
    );
}

#[test]
fn an_upload_that_moves_is_no_silent_server() {
    let stage = Stage::with(&["--timeout", "1s"]);
    let mut client = stage.gateway.connect();
    client.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    for _ in 0..8 {
        client.chunk(b"x");
        assert_eq!(server.wire.chunk().unwrap(), b"x");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    client.say("0\r\n\r\n");
    assert_eq!(server.wire.chunk().unwrap(), b"");
    server.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.wire.head().unwrap().status(), 200);
}

#[test]
fn an_answer_with_two_lengths_is_not_passed_on() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    server.say("HTTP/1.1 200 OK\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let head = client.wire.head().unwrap();
    let body = client.wire.body(&head);
    // Either nothing of it, or one reading: the chunks.
    match head.status() {
        502 => {}
        200 => assert_eq!((head.length(), body.as_slice()), (None, &b"abc"[..])),
        other => panic!("{other}"),
    }
}

#[test]
fn sigterm_lets_streams_end_and_tells_the_last_record() {
    let mut stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    server.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    server.chunk(b"one");
    let head = client.wire.head().unwrap();
    assert_eq!(client.wire.chunk().unwrap(), b"one");
    stage.gateway.terminate();
    // Nobody is let in any more.
    let until = std::time::Instant::now() + crate::stage::PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", stage.gateway.port)).is_ok() {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    server.chunk(b"two");
    assert_eq!(client.wire.chunk().unwrap(), b"two");
    server.say("0\r\n\r\n");
    assert_eq!(client.wire.chunk().unwrap(), b"");
    assert!(stage.gateway.wait().success());
    let record = stage.agent.record(head.get("merestone-receipt").unwrap());
    assert_eq!((record.status, record.answer_bytes), (Some(200), 6));
}

#[test]
fn a_client_of_http_1_0_gets_a_stream_that_ends_with_its_connection() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("GET / HTTP/1.0\r\n\r\n");
    let mut server = stage.server.accept();
    assert_eq!(server.wire.head().unwrap().line, "GET / HTTP/1.1");
    server.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let head = client.wire.head().unwrap();
    assert_eq!(client.wire.body(&head), b"abc");
}

#[test]
fn many_requests_at_once_each_get_their_own_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind();
    let port = server.port;
    server.always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let agent = crate::stage::Agent::start(&folder.path().join("records.sock"));
    let gateway = Gateway::start(port, &agent.path, &[]);
    gateway.wait_for("merestone_gateway_agent_ready", |ready| ready == 1.0);
    let ids: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.connect();
                    let ask = |_| {
                        client.say("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
                        let head = client.wire.head().unwrap();
                        assert_eq!(client.wire.body(&head), b"ok");
                        head.get("merestone-receipt").unwrap().to_owned()
                    };
                    (0..50).map(ask).collect::<Vec<_>>()
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    assert_eq!(ids.len(), 800);
    for id in &ids {
        let record = agent.record(id);
        let salt = gateway.receipt(id)["salt"].as_str().unwrap().to_owned();
        assert_eq!(record.request, digest(&salt, "request", b"hi"));
    }
    assert_eq!(agent.count(), 800);
}
