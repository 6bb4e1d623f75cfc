//! Streams of HTTP/2 in the clear: frame by frame by hand, so that every byte
//! is known, and by a library that others wrote.

#![expect(
    clippy::indexing_slicing,
    reason = "a helper of a test that finds too few turns fails it"
)]

use super::{Server, Stage, Watch, alone, connect, ended};
use merestone_abi::{Form, Turn, TurnState};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` (RFC 7541 Appendix A).
const OK: &[u8] = &[0x88];
/// What a body asks for that no frame shall answer.
const NONSENSE: u8 = 255;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `POST` to a path, in literals.
fn request(path: &str) -> Vec<u8> {
    // :method POST, :scheme http, :path with a literal value (RFC 7541 §6.2.1).
    let mut block = vec![0x83, 0x86, 0x44, u8::try_from(path.len()).unwrap()];
    block.extend(path.as_bytes());
    block
}

/// Whether the other end is done.
fn read_frame(stream: &mut TcpStream) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header)?;
    let [a, b, c, kind, flags, stream_bytes @ ..] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload)?;
    Ok((kind, flags, u32::from_be_bytes(stream_bytes), payload))
}

/// A ping of seven bytes (RFC 9113 §6.7).
fn no_frame() -> Vec<u8> {
    frame(6, 0, 0, &[0; 7])
}

/// What the server does, for as long as the client stays: it says its settings,
/// and answers the last DATA of a stream with as many frames of as many bytes
/// as it says, or with a reset where it says none; where it says [`NONSENSE`],
/// with what is no frame before one. All of it is written in pieces that end
/// anywhere, also within a frame's header.
pub(super) fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    loop {
        let (kind, flags, id, payload) = read_frame(&mut stream)?;
        if kind != DATA || flags & END_STREAM == 0 {
            continue;
        }
        let [frames, hundreds, piece] = *payload else {
            return Err(std::io::Error::other("a body that asks for nothing"));
        };
        let bytes = usize::from(hundreds) * 100;
        let mut answer = frame(HEADERS, END_HEADERS, id, OK);
        let frames = if frames == NONSENSE {
            answer = [no_frame(), answer].concat();
            1
        } else {
            frames
        };
        for _ in 1..frames {
            answer.extend(frame(DATA, 0, id, &vec![b'a'; bytes]));
        }
        match frames {
            0 => answer = frame(RST_STREAM, 0, id, &[0; 4]),
            _ => answer.extend(frame(DATA, END_STREAM, id, &vec![b'a'; bytes])),
        }
        for piece in answer.chunks(usize::from(piece).max(1)) {
            stream.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn http_2_in_the_clear_is_told_stream_by_stream_and_never_guessed() {
    alone("streams", on_streams);
}

/// One stage for all: loading the programs is what takes the time.
pub(super) fn on_streams(stage: &Stage, kernel: &mut Watch) {
    let server = stage.serve("http/2 127.0.0.1:0", true);
    each_stream_is_a_turn_with_its_very_bytes(kernel, &server);
    a_stream_under_way_is_seen_and_ends_with_its_connection(kernel, &server);
    what_is_no_frame_makes_the_rest_of_the_connection_one_turn(kernel, &server);
    an_answer_that_is_no_frame_is_an_answers_bytes(kernel, &server);
    let server = stage.serve("http/2-library 127.0.0.1:0", true);
    a_library_with_many_streams_at_once_is_told_stream_by_stream(kernel, &server);
}

fn began(server: &Server) -> TcpStream {
    let mut stream = connect(server.address);
    stream.set_nodelay(true).unwrap();
    let mut hello = PREFACE.to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&hello).unwrap();
    stream
}

/// Reads until as many streams are over.
fn heard(stream: &mut TcpStream, mut over: usize) {
    while over > 0 {
        let (kind, flags, _, _) = read_frame(stream).unwrap();
        let is_end = kind == RST_STREAM || kind <= HEADERS && flags & END_STREAM != 0;
        over -= usize::from(is_end);
    }
}

fn bytes(turn: &Turn) -> (u64, u64) {
    (turn.request_bytes, turn.response_bytes)
}

fn each_stream_is_a_turn_with_its_very_bytes(kernel: &mut Watch, server: &Server) {
    let mut stream = began(server);
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let head = frame(HEADERS, END_HEADERS, 1, &request(path));
    let other = frame(HEADERS, END_HEADERS, 3, &request("/v1/embeddings?who=jane"));
    let refused = frame(HEADERS, END_HEADERS, 5, &request("/v1/no"));
    // Two streams at once, their bodies in turns, written in pieces that cut headers of frames.
    let first = [vec![b'x'; 20_000], vec![4, 30, 50]];
    let mut sent = [head, other, refused].concat();
    sent.extend(frame(DATA, 0, 1, &first[0]));
    sent.extend(frame(DATA, END_STREAM, 3, &[1, 2, 7]));
    sent.extend(frame(DATA, END_STREAM, 1, &first[1]));
    sent.extend(frame(DATA, END_STREAM, 5, &[0, 0, 3]));
    for piece in sent.chunks(997) {
        stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    heard(&mut stream, 3);
    let open = kernel.open_turns().unwrap();
    assert!(open.is_empty(), "all are over: {open:?}");
    drop(stream);
    let mut turns = ended(kernel, 3);
    turns.sort_by_key(|turn| turn.number);
    let numbers: Vec<u32> = turns.iter().map(|turn| turn.number).collect();
    assert_eq!(numbers, [1, 3, 5], "{turns:?}");
    let head = |path: &str| (9 + 4 + path.len()) as u64;
    assert_eq!(
        bytes(&turns[0]),
        (head(path) + 9 + 20_000 + 9 + 3, 9 + 1 + 4 * (9 + 30 * 100))
    );
    let other = head("/v1/embeddings?who=jane") + 9 + 3;
    assert_eq!(bytes(&turns[1]), (other, 9 + 1 + 9 + 200));
    assert_eq!(bytes(&turns[2]), (head("/v1/no") + 9 + 3, 0));
    let states: Vec<_> = turns.iter().map(|turn| turn.state).collect();
    let (closed, reset) = (TurnState::SERVER_CLOSED, TurnState::RESET);
    assert_eq!(states, [closed, closed, reset]);
    for turn in &turns {
        assert_eq!((turn.form, turn.owner), (Form::STREAM, server.child.id()));
        assert_eq!(turn.head[..3], request("")[..3]);
        assert!(turn.started_ns <= turn.request_ns);
    }
    assert!(turns[0].answered_ns < turns[0].last_ns);
}

fn a_stream_under_way_is_seen_and_ends_with_its_connection(kernel: &mut Watch, server: &Server) {
    let mut stream = began(server);
    stream
        .write_all(&frame(HEADERS, END_HEADERS, 1, &request("/v1/completions")))
        .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let open = kernel.open_turns().unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!((open[0].form, open[0].number), (Form::STREAM, 1));
    assert_eq!(ended(kernel, 0), []);
    drop(stream);
    let turns = ended(kernel, 1);
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!((turns[0].number, turns[0].state), (1, TurnState::RESET));
    assert_eq!(kernel.open_turns().unwrap(), []);
}

fn what_is_no_frame_makes_the_rest_of_the_connection_one_turn(kernel: &mut Watch, server: &Server) {
    let mut stream = began(server);
    let mut sent = frame(HEADERS, END_HEADERS, 1, &request("/v1/completions"));
    sent.extend(frame(DATA, END_STREAM, 1, &[1, 1, 200]));
    stream.write_all(&sent).unwrap();
    heard(&mut stream, 1);
    // Then a request that nobody looks for any more.
    let mut nonsense = no_frame();
    nonsense.extend(frame(HEADERS, END_HEADERS, 3, &request("/v1/hidden")));
    nonsense.extend(frame(DATA, END_STREAM, 3, &[1, 1, 200]));
    stream.write_all(&nonsense).unwrap();
    heard(&mut stream, 1);
    drop(stream);
    let turns = ended(kernel, 2);
    let forms: Vec<_> = turns.iter().map(|turn| (turn.form, turn.number)).collect();
    assert_eq!(forms, [(Form::STREAM, 1), (Form::HTTP2, 0)], "{turns:?}");
    let answer = 9 + 1 + 9 + 100;
    assert_eq!(bytes(&turns[1]), (nonsense.len() as u64, answer));
}

fn an_answer_that_is_no_frame_is_an_answers_bytes(kernel: &mut Watch, server: &Server) {
    let mut stream = began(server);
    let mut sent = frame(HEADERS, END_HEADERS, 1, &request("/v1/completions"));
    sent.extend(frame(DATA, END_STREAM, 1, &[NONSENSE, 1, 200]));
    stream.write_all(&sent).unwrap();
    heard(&mut stream, 1);
    drop(stream);
    let mut turns = ended(kernel, 2);
    turns.sort_by_key(|turn| turn.number);
    let forms: Vec<_> = turns.iter().map(|turn| (turn.form, turn.number)).collect();
    assert_eq!(forms, [(Form::HTTP2, 0), (Form::STREAM, 1)], "{turns:?}");
    let answer = no_frame().len() as u64 + 9 + 1 + 9 + 100;
    assert_eq!(bytes(&turns[0]), (0, answer), "none of it was asked");
    assert_eq!(bytes(&turns[1]), (sent.len() as u64, 0));
    assert_eq!(turns[1].state, TurnState::RESET);
}

fn a_library_with_many_streams_at_once_is_told_stream_by_stream(
    kernel: &mut Watch,
    server: &Server,
) {
    const STREAMS: u64 = 60;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let address = server.address;
    runtime.block_on(async move {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..STREAMS {
            let mut client = client.clone().ready().await.unwrap();
            let request = hyper::Request::post(format!("http://a/v1/chat/{number}"));
            let (answer, mut body) = client
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            let asks = vec![b'q'; usize::try_from(number).unwrap() * 300];
            body.send_data(asks.into(), true).unwrap();
            asked.spawn(async move {
                let mut body = answer.await.unwrap().into_body();
                let mut got = 0;
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                    got += data.len();
                }
                assert_eq!(got, 5_000);
            });
        }
        while let Some(done) = asked.join_next().await {
            done.unwrap();
        }
        drop(client);
        driver.abort();
    });
    let wanted = usize::try_from(STREAMS).unwrap();
    let mut turns = ended(kernel, wanted);
    turns.sort_by_key(|turn| turn.number);
    assert_eq!(turns.len(), wanted, "{turns:?}");
    for (number, turn) in (0..).zip(&turns) {
        assert_eq!(
            (turn.form, u64::from(turn.number)),
            (Form::STREAM, 2 * number + 1)
        );
        assert_eq!(turn.state, TurnState::SERVER_CLOSED);
        let (asked, answered) = bytes(turn);
        assert!(
            (300 * number + 9..300 * number + 300).contains(&asked),
            "{turn:?}"
        );
        assert!((5_000 + 9..5_000 + 300).contains(&answered), "{turn:?}");
    }
}

/// The same on the server's side: it reads a request whole, and answers 5,000
/// bytes in three parts.
pub(super) fn answer_by_library(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let mut connection = h2::server::handshake(stream)
            .await
            .map_err(std::io::Error::other)?;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).ok();
                }
                let head = hyper::Response::new(());
                let Ok(mut answer) = respond.send_response(head, false) else {
                    return;
                };
                for (bytes, is_last) in [(1_000, false), (1_500, false), (2_500, true)] {
                    answer.send_data(vec![b'a'; bytes].into(), is_last).ok();
                }
            });
        }
        Ok(())
    })
}
