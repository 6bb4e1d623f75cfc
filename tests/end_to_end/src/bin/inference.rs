//! An OpenAI-compatible server for machines without Python: it opens the GPU
//! node it is given, as an inference server does, and answers from a table of
//! words, at once or as a stream of events, one word at a time.
//!
//! `merestone-inference ADDRESS:PORT NODE`. No model, no TLS, no authentication.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Error, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// Longest body that is read.
const MAX_BODY_BYTES: usize = 8 << 20;
/// A word is due this long after the one before.
const WORD: Duration = Duration::from_millis(40);
const WORDS: [&str; 8] = ["all", "that", "is", "asked", "here", "stays", "here", "."];
const MODEL: &str = "words";

fn main() -> io::Result<()> {
    let mut words = env::args().skip(1);
    let mut next = || {
        words
            .next()
            .ok_or_else(|| Error::other("ADDRESS:PORT NODE, please"))
    };
    let (address, node) = (next()?, next()?);
    // With no driver the open fails with ENXIO, after the kernel has seen it.
    let _node = fs::File::options().read(true).write(true).open(node).ok();
    let listener = TcpListener::bind(address)?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || serve(&stream).ok());
    }
    Ok(())
}

/// One connection, request after request.
fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let Some(body) = body(&mut reader, &head)? else {
            return answer(stream, "400 Bad Request", &json!({"error": "no such body"}));
        };
        let mut words = head.split(' ');
        match (words.next(), words.next()) {
            (Some("GET"), Some("/v1/models")) => {
                let models = json!({"object": "list", "data": [{"id": MODEL, "object": "model"}]});
                answer(stream, "200 OK", &models)?;
            }
            (Some("POST"), Some("/v1/embeddings")) => {
                let data = json!([{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]);
                let list = json!({"object": "list", "model": MODEL, "data": data});
                answer(stream, "200 OK", &list)?;
            }
            (Some("POST"), Some("/v1/chat/completions"))
                if body.get("stream") == Some(&Value::Bool(true)) =>
            {
                events(stream)?;
            }
            (Some("POST"), Some("/v1/chat/completions")) => {
                let message = json!({"role": "assistant", "content": WORDS.join(" ")});
                let choice = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
                let said = json!({"object": "chat.completion", "model": MODEL, "choices": choice});
                answer(stream, "200 OK", &said)?;
            }
            _ => answer(stream, "404 Not Found", &json!({"error": "no such path"}))?,
        }
    }
}

/// The request's body, as long as it says or in chunks; none where it is no JSON.
fn body(reader: &mut BufReader<&TcpStream>, head: &str) -> io::Result<Option<Value>> {
    let field = |name: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        let mut found = fields.filter(|(one, _)| one.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim().to_owned())
    };
    let mut bytes = Vec::new();
    if field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(Error::other)?;
            if bytes.len().saturating_add(size) > MAX_BODY_BYTES {
                return Ok(None);
            }
            let mut chunk = vec![0; size.saturating_add(2)];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            bytes.extend(chunk.into_iter().take(size));
        }
    } else {
        let length = field("content-length").map_or(Ok(0), |text| text.parse());
        let length: usize = length.map_err(Error::other)?;
        if length > MAX_BODY_BYTES {
            return Ok(None);
        }
        bytes.resize(length, 0);
        reader.read_exact(&mut bytes)?;
    }
    if bytes.is_empty() {
        return Ok(Some(Value::Null));
    }
    Ok(serde_json::from_slice(&bytes).ok())
}

fn answer(mut stream: &TcpStream, status: &str, value: &Value) -> io::Result<()> {
    let body = value.to_string();
    let length = body.len();
    let head = "Content-Type: application/json\r\nContent-Length:";
    stream.write_all(format!("HTTP/1.1 {status}\r\n{head} {length}\r\n\r\n{body}").as_bytes())
}

/// Server-sent events, each on the wire when its word is due.
fn events(mut stream: &TcpStream) -> io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let mut send = |event: &str| {
        let event = format!("data: {event}\n\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
    };
    for word in WORDS {
        let choice = json!([{"index": 0, "delta": {"content": word}}]);
        let chunk = json!({"object": "chat.completion.chunk", "model": MODEL, "choices": choice});
        send(&chunk.to_string())?;
        thread::sleep(WORD);
    }
    send("[DONE]")?;
    stream.write_all(b"0\r\n\r\n")
}
