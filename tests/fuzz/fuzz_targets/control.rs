//! What a client writes to the control socket: each request has one answer in
//! lines of JSON, and nobody but root changes anything.
//!
//! The first byte says who the client is; the others are what it sends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merestone_abi::{Event, EventKind, Verdict};
use merestone_agent::api::{Reply, Request};
use merestone_agent::flow::{FlowEvent, Names, Store};
use merestone_agent::serve::{Call, answer};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
    })
}

fn store() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    STORE.get_or_init(|| {
        let store = Store::default();
        for verdict in [Verdict::ALLOW, Verdict::DENY] {
            let event = Event {
                kind: EventKind::FLOW,
                verdict,
                ..Event::default()
            };
            store.push(FlowEvent::new(&event, Names::default(), 1));
        }
        store
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((who, sent)) = bytes.split_first() else {
        return;
    };
    let is_root = who % 2 == 0;
    let peer = if is_root { 0 } else { 1000 };
    let (calls, mut asked) = mpsc::channel(1);
    let mut written = Vec::new();
    let (done, called) = runtime().block_on(async {
        let client = answer(sent, &mut written, peer, 0, calls, store().clone());
        // Who follows the flows never has them all.
        let client = tokio::time::timeout(Duration::from_millis(5), client);
        let agent = async {
            let mut called = Vec::new();
            while let Some(call) = asked.recv().await {
                if let Call::Control { request, reply } = call {
                    called.push(request);
                    let detail = "done".to_owned();
                    drop(reply.send(Reply::Done { detail }));
                }
            }
            called
        };
        tokio::join!(client, agent)
    });
    let line = sent.split_inclusive(|byte| *byte == b'\n').next();
    let request = line.and_then(|line| serde_json::from_slice::<Request>(line).ok());
    assert!(called.len() <= 1);
    if let Some(call) = called.first() {
        assert_eq!(Some(call), request.as_ref());
        assert!(is_root || !call.changes_state());
    }
    if let Some(request) = &request {
        let text = serde_json::to_string(request).expect("a request is JSON");
        assert_eq!(
            serde_json::from_str::<Request>(&text).ok().as_ref(),
            Some(request)
        );
    }
    let mut replies = Vec::new();
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        replies.push(serde_json::from_slice::<Reply>(line).expect("each line is a reply"));
    }
    let follows = matches!(request, Some(Request::Flows { follow: true, .. }));
    match done {
        Err(_late) => assert!(follows),
        // Only what is no text has no answer.
        Ok(Err(_)) => assert!(replies.is_empty()),
        Ok(Ok(())) => {
            let last = replies.last().expect("an answer");
            let is_refused = matches!(last, Reply::Refused { .. });
            assert!(is_refused || matches!(last, Reply::Done { .. }));
            assert!(called.is_empty() != (called.len() == 1));
            assert!(request.is_some() || is_refused);
        }
    }
});
