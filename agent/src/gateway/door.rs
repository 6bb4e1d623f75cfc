//! The client's connection, read strictly before the HTTP library sees it.
//!
//! A request with two readings is made one with none: the byte that made it
//! ambiguous is replaced by one that no head may have, so that the library
//! itself answers 400, in its turn, and closes.

use super::framing::{Framing, Shape};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// No head and no chunk's size may have it (httparse, hyper's chunk decoder).
const IMPOSSIBLE: &[u8] = b"\0";

/// A connection whose requests have one reading each.
#[derive(Debug)]
pub(super) struct Door<F> {
    stream: TcpStream,
    framing: Framing,
    refused: F,
    is_shut: bool,
}

impl<F: FnMut(Shape) + Unpin> Door<F> {
    /// `refused` hears why the connection ended.
    pub(super) fn new(stream: TcpStream, refused: F) -> Self {
        Self {
            stream,
            framing: Framing::new(),
            refused,
            is_shut: false,
        }
    }
}

impl<F: FnMut(Shape) + Unpin> AsyncRead for Door<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_shut {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if let Err((sound, shape)) = this.framing.feed(new) {
            this.is_shut = true;
            buffer.set_filled(before + sound);
            buffer.put_slice(IMPOSSIBLE);
            (this.refused)(shape);
        }
        Poll::Ready(Ok(()))
    }
}

impl<F: Unpin> AsyncWrite for Door<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
