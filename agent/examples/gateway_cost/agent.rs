//! A stand-in for the agent's records socket: it takes each record at once.
//! What the agent does with one is measured elsewhere.

use anyhow::Result;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// About as large as a real receipt in base64.
const RECEIPT_BYTES: usize = 800;

/// Takes records from now on; the number counts them.
pub(crate) fn start(path: &Path) -> Result<Arc<AtomicU64>> {
    let listener = UnixListener::bind(path)?;
    let count = Arc::new(AtomicU64::new(0));
    let taken = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let taken = Arc::clone(&taken);
            std::thread::spawn(move || take(&stream, &taken).ok());
        }
    });
    Ok(count)
}

fn take(mut stream: &UnixStream, taken: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let receipt = "A".repeat(RECEIPT_BYTES);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse()?;
                }
                None if line == "\r\n" => break,
                Some(_) | None => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let record: serde_json::Value = serde_json::from_slice(&body)?;
        let (status, answer) = match record["id"].as_str() {
            Some(id) => {
                taken.fetch_add(1, Ordering::Relaxed);
                (
                    "201 Created",
                    format!("{{\"id\":\"{id}\",\"receipt\":\"{receipt}\",\"index\":1}}"),
                )
            }
            None => ("400 Bad Request", String::new()),
        };
        let length = answer.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{answer}"
        )?;
    }
}
