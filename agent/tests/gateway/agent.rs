//! The agent away, back, unwilling; and receipts required.

use crate::stage::{Agent, Gateway, Mood, Server, Stage};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn unrecorded(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!(
        "merestone_gateway_unrecorded_total{{reason=\"{reason}\"}}"
    ))
}

#[test]
fn without_an_agent_answers_pass_without_a_receipt_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind();
    let port = server.port;
    server.always(OK);
    let gateway = Gateway::start(port, &folder.path().join("none"), &[]);
    let (head, body) = gateway.get("/v1/models");
    assert_eq!((head.status(), body.as_slice()), (200, &b"ok"[..]));
    assert_eq!(head.get("merestone-receipt"), None);
    assert_eq!(unrecorded(&gateway, "agent_away"), 1.0);
    assert_eq!(gateway.metric("merestone_gateway_agent_ready"), 0.0);
}

#[test]
fn where_receipts_are_required_nothing_passes_without() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind();
    let path = folder.path().join("records.sock");
    let gateway = Gateway::start(server.port, &path, &["--require-receipts"]);
    let refused = |why: &str| {
        let (head, body) = gateway.get("/v1/models");
        assert_eq!((head.status(), head.get("retry-after")), (503, Some("1")));
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("no_receipt") && body.contains(why), "{body}");
    };
    refused("agent_away");
    let agent = Agent::start(&path);
    agent.mood(Mood::Says(403));
    gateway.wait_for("merestone_gateway_requests_total{class=\"5xx\"}", |_| {
        let (_, body) = gateway.get("/v1/models");
        String::from_utf8(body).unwrap().contains("not_guarded")
    });
    refused("not_guarded");
    assert!(!server.has_connection(), "the server was asked");
    agent.mood(Mood::Takes);
    gateway.wait_for("merestone_gateway_agent_ready", |ready| ready == 1.0);
    server.always(OK);
    let (head, _) = gateway.get("/v1/models");
    assert_eq!(head.status(), 200);
    agent.record(head.get("merestone-receipt").unwrap());
    assert_eq!(
        gateway.receipt(head.get("merestone-receipt").unwrap())["receipt"],
        "AAEC"
    );
}

#[test]
fn a_record_waits_for_an_agent_that_starts_again() {
    let mut stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    stage.agent.leave();
    server.say(OK);
    let head = client.wire.head().unwrap();
    // The stream does not wait for the agent.
    assert_eq!(client.wire.body(&head), b"ok");
    let id = head.get("merestone-receipt").unwrap().to_owned();
    stage
        .gateway
        .wait_for("merestone_gateway_record_retries_total", |count| {
            count >= 1.0
        });
    let (pending, _) = stage
        .gateway
        .get(&format!("/.well-known/merestone/receipts/{id}"));
    assert_eq!(pending.status(), 202);
    let path = stage.agent.path.clone();
    stage.agent = Agent::start(&path);
    stage.agent.mood(Mood::Says(503));
    let before = stage
        .gateway
        .metric("merestone_gateway_record_retries_total");
    stage
        .gateway
        .wait_for("merestone_gateway_record_retries_total", |count| {
            count > before
        });
    stage.agent.mood(Mood::Takes);
    stage.agent.record(&id);
    assert_eq!(stage.gateway.receipt(&id)["receipt"], "AAEC");
    assert_eq!(
        stage.gateway.metric("merestone_gateway_receipts_total"),
        1.0
    );
}

#[test]
fn a_record_that_the_agent_refuses_is_counted_and_its_receipt_gone() {
    let stage = Stage::new();
    let mut client = stage.gateway.connect();
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = stage.server.accept();
    server.wire.head().unwrap();
    stage.agent.mood(Mood::Says(400));
    server.say(OK);
    let head = client.wire.head().unwrap();
    stage.gateway.wait_for(
        "merestone_gateway_unrecorded_total{reason=\"refused\"}",
        |count| count == 1.0,
    );
    let id = head.get("merestone-receipt").unwrap();
    let (gone, _) = stage
        .gateway
        .get(&format!("/.well-known/merestone/receipts/{id}"));
    assert_eq!(gone.status(), 410);
}

#[test]
fn paths_that_are_no_inference_pass_without_a_receipt_also_where_it_is_required() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind();
    let port = server.port;
    server.always(OK);
    let gateway = Gateway::start(port, &folder.path().join("none"), &["--require-receipts"]);
    for path in ["/health", "/metrics?x=1"] {
        let (head, _) = gateway.get(path);
        assert_eq!((head.status(), head.get("merestone-receipt")), (200, None));
    }
    assert_eq!(gateway.metric("merestone_gateway_left_out_total"), 2.0);
    assert_eq!(gateway.get("/health/x").0.status(), 503);
}

#[test]
fn the_gateways_own_paths_never_reach_the_server() {
    let stage = Stage::new();
    for (path, status) in [
        (
            "/.well-known/merestone/receipts/00000000000000000000000000000000",
            404,
        ),
        ("/.well-known/merestone/receipts/../../v1", 404),
        ("/.well-known/merestone/models/00", 404),
        ("/.well-known/merestone/", 404),
    ] {
        let (head, _) = stage.gateway.get(path);
        assert_eq!(
            (head.status(), head.get("cache-control")),
            (status, Some("no-store")),
            "{path}"
        );
    }
    let (head, _) = stage.gateway.ask(
        "POST /.well-known/merestone/receipts/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(head.status(), 405);
    assert!(!stage.server.has_connection());
}
