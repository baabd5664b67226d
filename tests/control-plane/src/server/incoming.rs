//! Connections on their way in: TCP, TLS, and a stream that can be cut.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustls::{
    RootCertStore, ServerConfig, crypto::CryptoProvider, pki_types::CertificateDer,
    server::WebPkiClientVerifier, version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{ServeError, Shared, rates::Pace};
use crate::pki::{ChannelCa, ServerNames};

/// Longest TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait in the listen backlog.
const MAX_HANDSHAKES: usize = 256;
/// Finished handshakes that may wait for the HTTP/2 server.
const ACCEPTED_BACKLOG: usize = 64;
/// Pause after an accept that failed (out of descriptors), so that it is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// TLS 1.3 only, HTTP/2 only; a client certificate is optional, and checked when there is one: an
/// agent without a valid one may still enrol or recover.
pub(super) fn tls_config(
    ca: &ChannelCa,
    names: &ServerNames,
) -> Result<Arc<ServerConfig>, ServeError> {
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for anchor in ca.anchors() {
        roots.add(anchor.clone())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let (certificate, key) = ca.server_identity(names)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts until `stop`, or until the server drains: then the port is closed, so that agents which
/// come back too early are told at once. What comes out has finished its handshake.
pub(super) fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<AgentStream>> {
    let (sender, receiver) = mpsc::channel(ACCEPTED_BACKLOG);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(tls);
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let mut pace = Pace::new(shared.options.handshakes);
        loop {
            let (permit, accepted) = tokio::select! {
                () = stop.cancelled() => return,
                () = shared.drain.cancelled() => break,
                () = sender.closed() => return,
                both = async {
                    while let Err(wait) = pace.take(Instant::now()) {
                        tokio::time::sleep(wait).await;
                    }
                    (handshakes.clone().acquire_owned().await, listener.accept().await)
                } => both,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            shared.count_connect();
            let (acceptor, sender, stop) = (acceptor.clone(), sender.clone(), stop.clone());
            let shared = shared.clone();
            tokio::spawn(async move {
                let _permit = permit;
                let began = Instant::now();
                match handshake(&acceptor, stream).await {
                    Ok(tls) => {
                        shared.telemetry.handshake(began.elapsed());
                        let stream = AgentStream::new(tls, shared, stop);
                        // The server has gone: so has the connection.
                        let _ = sender.send(Ok(stream)).await;
                    }
                    Err(error) => {
                        shared.count_failed_handshake();
                        tracing::info!(%error, "a TLS handshake failed");
                    }
                }
            });
        }
        drop(listener);
        // The HTTP/2 server ends when nothing more can come, and sessions are still there.
        stop.cancelled().await;
    });
    ReceiverStream::new(receiver)
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A connection of an agent. It fails at once when the server is cut off.
pub(super) struct AgentStream {
    tls: TlsStream<TcpStream>,
    shared: Arc<Shared>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What a handler learns of its connection.
#[derive(Clone, Debug)]
pub(super) struct AgentConnection {
    /// The client certificate, checked against the channel CA; none if none was shown.
    pub(super) certificate: Option<CertificateDer<'static>>,
}

impl AgentStream {
    fn new(tls: TlsStream<TcpStream>, shared: Arc<Shared>, stop: CancellationToken) -> Self {
        Self { tls, shared, stop: Box::pin(stop.cancelled_owned()) }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.shared.telemetry.sent.fetch_add(bytes as u64, Relaxed);
        }
        written
    }

    fn cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.stop.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for AgentStream {
    type ConnectInfo = AgentConnection;

    fn connect_info(&self) -> AgentConnection {
        let certificates = self.tls.get_ref().1.peer_certificates();
        AgentConnection {
            certificate: certificates
                .and_then(|chain| chain.first())
                .map(|leaf| leaf.clone().into_owned()),
        }
    }
}

impl AsyncRead for AgentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cut(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tls).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        self.shared.telemetry.received.fetch_add(bytes as u64, Relaxed);
        read
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tls).poll_write(context, bytes);
        self.sent(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tls).poll_write_vectored(context, slices);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }
}
