//! The digest of the weights, named or found, and the server as a child.

use crate::stage::{Agent, Gateway, Stage, free_port};
use sha2::{Digest as _, Sha256};
use std::process::Command;

#[test]
fn named_weights_are_told_by_the_digest_of_their_list() {
    let weights = tempfile::tempdir().unwrap();
    for (name, content) in [("b.safetensors", "bb"), ("a.gguf", "a")] {
        std::fs::write(weights.path().join(name), content).unwrap();
    }
    let stage = Stage::with(&["--model-files", &weights.path().to_string_lossy()]);
    stage
        .gateway
        .wait_for("merestone_gateway_model_files", |count| count == 2.0);
    let sum = |content: &str| hex::encode(Sha256::digest(content));
    let list = |b: &str| {
        format!(
            "merestone model files 1 named\n{} 1 a.gguf\n{} {} b.safetensors\n",
            sum("a"),
            sum(b),
            b.len()
        )
    };
    let told = || {
        let mut client = stage.gateway.connect();
        client.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut server = stage.server.accept();
        server.wire.head().unwrap();
        server.say("HTTP/1.1 204 OK\r\nConnection: close\r\n\r\n");
        let head = client.wire.head().unwrap();
        stage
            .agent
            .record(head.get("merestone-receipt").unwrap())
            .model_files
            .unwrap()
    };
    let digest = told();
    assert_eq!(digest, sum(&list("bb")));
    let (head, body) = stage
        .gateway
        .get(&format!("/.well-known/merestone/models/{digest}"));
    assert_eq!((head.status(), body), (200, list("bb").into_bytes()));
    // A changed file is hashed anew.
    std::fs::write(weights.path().join("b.safetensors"), "changed").unwrap();
    let until = std::time::Instant::now() + crate::stage::PATIENCE;
    while told() != sum(&list("changed")) {
        assert!(std::time::Instant::now() < until);
    }
}

#[test]
fn weights_that_the_server_holds_open_are_found_and_its_end_is_the_gateways() {
    if Command::new("python3").arg("-V").output().is_err() {
        println!("SKIPPED: weights_that_the_server_holds_open_are_found: no python3");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model-gateway-test.safetensors");
    std::fs::write(&path, vec![9; 2 << 20]).unwrap();
    let agent = Agent::start(&folder.path().join("records.sock"));
    let port = free_port();
    // The file is mapped and its descriptor closed, as loaders do.
    let script = "import mmap, sys, http.server as h\n\
                  f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); f.close()\n\
                  h.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[2])), h.SimpleHTTPRequestHandler).serve_forever()";
    let path_text = path.to_string_lossy();
    let port_text = port.to_string();
    let mut gateway = Gateway::start(
        port,
        &agent.path,
        &["--", "python3", "-c", script, &path_text, &port_text],
    );
    gateway.wait_for("merestone_gateway_model_files", |count| count >= 1.0);
    gateway.wait_for("merestone_gateway_agent_ready", |ready| ready == 1.0);
    let (head, _) = gateway.get("/");
    assert_eq!(head.status(), 200);
    let digest = agent
        .record(head.get("merestone-receipt").unwrap())
        .model_files
        .unwrap();
    let (_, list) = gateway.get(&format!("/.well-known/merestone/models/{digest}"));
    let list = String::from_utf8(list).unwrap();
    let sum = hex::encode(Sha256::digest(vec![9; 2 << 20]));
    assert!(
        list.starts_with("merestone model files 1 opened\n"),
        "{list}"
    );
    let line = list
        .lines()
        .find(|line| line.ends_with("model-gateway-test.safetensors"));
    assert!(
        line.unwrap().starts_with(&format!("{sum} 2097152 ")),
        "{list}"
    );
    gateway.terminate();
    assert!(gateway.wait().success());
    let until = std::time::Instant::now() + crate::stage::PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(
            std::time::Instant::now() < until,
            "the server outlived the gateway"
        );
    }
}

#[test]
fn a_server_that_ends_by_itself_ends_the_gateway_with_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(&folder.path().join("records.sock"));
    let server = free_port();
    let mut gateway = Gateway::start(server, &agent.path, &["--", "sh", "-c", "sleep 2; exit 3"]);
    assert_eq!(gateway.wait().code(), Some(1));
}
