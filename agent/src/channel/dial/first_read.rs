//! Tells what became of the first read after the TLS handshake.
//!
//! With TLS 1.3 the client's handshake is over before the server has looked at its certificate: a
//! refusal arrives as an alert where HTTP/2's first frame should be. hyper would bury it in an
//! error of the first request; this notes it on its way through.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use rustls::AlertDescription;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

/// How the first read ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Bytes came: the server speaks to us.
    Bytes,
    /// The server sent an alert.
    Refused(AlertDescription),
    /// End of the stream, or an error of the transport.
    Broken(String),
}

/// A stream whose first read is reported once.
pub(super) struct FirstRead<S> {
    inner: S,
    tell: Option<oneshot::Sender<Outcome>>,
}

impl<S> FirstRead<S> {
    pub(super) fn new(inner: S) -> (Self, oneshot::Receiver<Outcome>) {
        let (tell, told) = oneshot::channel();
        (Self { inner, tell: Some(tell) }, told)
    }
}

/// The alert inside an I/O error of rustls, if that is what it is.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstRead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        if let Some(tell) = self.tell.take() {
            let outcome = match &result {
                Ok(()) if buf.filled().len() > before => Outcome::Bytes,
                Ok(()) => Outcome::Broken("the server closed the connection".into()),
                Err(error) => match alert(error) {
                    Some(alert) => Outcome::Refused(alert),
                    None => Outcome::Broken(error.to_string()),
                },
            };
            // Nobody waits any more when the dial ran into its deadline.
            let _ = tell.send(outcome);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstRead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}
