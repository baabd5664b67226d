//! A small control plane: enrolment with one-time tokens, and sessions that the test drives by hand.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use mendix_agent_core::session::AddressPolicy;
use mendix_agent_proto::v1::{
    self,
    control_message::Body as Down,
    control_service_server::{ControlService, ControlServiceServer},
    enrollment_service_server::{EnrollmentService, EnrollmentServiceServer},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, PublicKeyData as _,
};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};
use tower::ServiceExt as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::soon;
use crate::channel::{
    Target,
    dial::{KeyPin, network::Wire, tls},
    identity::{Credentials, Identity, Key, Parts},
};

pub(super) const CLUSTER: &str = "0c4e4b1d-6f3c-4a53-9d0a-0f7a1c1d2e3f";
pub(super) const TOKEN: &str = "one-time-token-of-this-cluster";
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate authority.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn server(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), key.into())
    }

    /// Signs a request for the time from `from` to `until`.
    pub(super) fn sign(
        &self,
        csr: &[u8],
        from: SystemTime,
        until: SystemTime,
    ) -> CertificateDer<'static> {
        let csr = CertificateSigningRequestDer::from(csr.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        request.params.not_before = from.into();
        request.params.not_after = until.into();
        request.signed_by(&self.issuer).unwrap().der().clone()
    }

    /// Parts of an identity of `name`, valid from yesterday until tomorrow.
    pub(super) fn parts(&self, name: &str) -> Parts {
        let now = SystemTime::now();
        self.parts_valid(name, now - DAY, now + DAY)
    }

    pub(super) fn parts_valid(&self, name: &str, from: SystemTime, until: SystemTime) -> Parts {
        let key = Key::generate().unwrap();
        let leaf = self.sign(&key.request(name).unwrap(), from, until);
        Parts { key, chain: vec![leaf], anchors: vec![self.der.clone()], ring: "early".into() }
    }

    pub(super) fn credentials(&self) -> Credentials {
        let identity = Identity::assemble(self.parts(CLUSTER), CLUSTER).unwrap();
        identity.verify(Timestamp::now()).unwrap()
    }
}

/// How the server behaves.
pub(crate) struct Manner {
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) name: &'static str,
    pub(crate) version: &'static SupportedProtocolVersion,
    /// Signs the server's certificate instead of the CA.
    pub(crate) interceptor: Option<Ca>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            alpn: vec![tls::H2.to_vec()],
            name: "127.0.0.1",
            version: &rustls::version::TLS13,
            interceptor: None,
        }
    }
}

/// What the enrolment service knows and does.
pub(crate) struct Book {
    /// Tokens, with the public key each was spent on.
    pub(super) tokens: HashMap<String, Option<Vec<u8>>>,
    /// Life of what it issues, from now.
    pub(super) life: Duration,
    /// How far in the past what it issues begins.
    pub(super) backdated: Duration,
    /// How far the server's clock is ahead.
    pub(super) ahead: Duration,
    /// Answers that get lost after everything was done.
    pub(super) lose: usize,
    /// Recoveries that are left.
    pub(super) recoveries: usize,
    /// Issues instead of the CA, and is handed out as the trust anchor.
    pub(super) issuer: Option<Ca>,
    /// Calls, by name.
    pub(super) calls: Vec<&'static str>,
    /// ServiceAccount token of the last Enroll.
    pub(super) attestation: String,
}

pub(crate) struct Plane {
    pub(crate) address: SocketAddr,
    pub(crate) ca: Arc<Ca>,
    /// Of the server's key.
    pub(crate) pin: KeyPin,
    pub(crate) book: Arc<Mutex<Book>>,
    /// TLS handshakes that resumed an earlier session.
    pub(crate) resumed: Arc<Mutex<Vec<bool>>>,
    peers: AsyncMutex<mpsc::Receiver<Peer>>,
    /// Breaks every connection, old and new.
    pub(crate) cut: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

/// The server's end of one session.
pub(super) struct Peer {
    pub(super) up: Streaming<v1::AgentMessage>,
    down: mpsc::Sender<Result<v1::ControlMessage, Status>>,
}

impl Peer {
    pub(super) async fn say(&self, body: Down) {
        self.down.send(Ok(v1::ControlMessage { body: Some(body) })).await.unwrap();
    }

    pub(super) async fn fail(self, status: Status) {
        self.down.send(Err(status)).await.unwrap();
    }

    pub(super) async fn hear(&mut self) -> v1::agent_message::Body {
        let message = soon("message from the agent", self.up.message()).await;
        message.unwrap().expect("a message").body.expect("a body")
    }

    pub(super) async fn hello(&mut self) -> v1::Hello {
        match self.hear().await {
            v1::agent_message::Body::Hello(hello) => hello,
            other => panic!("not Hello: {other:?}"),
        }
    }

    pub(super) async fn welcome(&self, id: &str) {
        self.say(Down::Welcome(v1::Welcome {
            session_id: id.into(),
            protocol: 1,
            ..v1::Welcome::default()
        }))
        .await;
    }

    /// Reads until the agent ended its half.
    pub(super) async fn ended(mut self) {
        soon("end of the session", async { while let Ok(Some(_)) = self.up.message().await {} })
            .await;
    }
}

struct Sessions(mpsc::Sender<Peer>);

#[tonic::async_trait]
impl ControlService for Sessions {
    type SessionStream = ReceiverStream<Result<v1::ControlMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if client_certificate(&request).is_none() {
            return Err(Status::unauthenticated("no client certificate"));
        }
        let (down, messages) = mpsc::channel(16);
        let peer = Peer { up: request.into_inner(), down };
        self.0.send(peer).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

fn client_certificate<T>(request: &Request<T>) -> Option<CertificateDer<'static>> {
    request.extensions().get::<ClientCertificate>()?.0.clone()
}

#[derive(Clone)]
struct ClientCertificate(Option<CertificateDer<'static>>);

/// A server's connection that tells the services whose it is.
struct Connection {
    stream: TlsStream<Wire>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connected for Connection {
    type ConnectInfo = ClientCertificate;

    fn connect_info(&self) -> ClientCertificate {
        let chain = self.stream.get_ref().1.peer_certificates();
        ClientCertificate(chain.and_then(<[_]>::first).map(|leaf| leaf.clone().into_owned()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct Desk {
    ca: Arc<Ca>,
    book: Arc<Mutex<Book>>,
}

fn public_key(csr: &[u8]) -> Vec<u8> {
    let csr = CertificateSigningRequestDer::from(csr.to_vec());
    let request = CertificateSigningRequestParams::from_der(&csr).unwrap();
    request.public_key.der_bytes().to_vec()
}

impl Desk {
    fn issue(&self, book: &mut Book, csr: &[u8]) -> Result<Option<v1::IssuedCertificate>, Status> {
        let now = SystemTime::now() + book.ahead;
        let issuer = book.issuer.as_ref().unwrap_or(&self.ca);
        let leaf = issuer.sign(csr, now - book.backdated, now + book.life);
        let anchor = issuer.der.to_vec();
        if book.lose > 0 {
            book.lose -= 1;
            return Err(Status::unavailable("the answer got lost"));
        }
        Ok(Some(v1::IssuedCertificate {
            chain_der: vec![leaf.to_vec()],
            trust_anchors_der: vec![anchor],
            ..v1::IssuedCertificate::default()
        }))
    }
}

#[tonic::async_trait]
impl EnrollmentService for Desk {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let request = request.into_inner();
        let mut book = self.book.lock().unwrap();
        book.calls.push("Enroll");
        book.attestation = request.service_account_token;
        let key = public_key(&request.csr_der);
        match book.tokens.get_mut(&request.bootstrap_token) {
            Some(spent) if spent.as_ref().is_none_or(|on| *on == key) => *spent = Some(key),
            _ => return Err(Status::unauthenticated("the token is unknown or spent")),
        }
        let issued = self.issue(&mut book, &request.csr_der)?;
        Ok(Response::new(v1::EnrollResponse { issued, ring: "early".into() }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let mut book = self.book.lock().unwrap();
        book.calls.push("Renew");
        if client_certificate(&request).is_none() {
            return Err(Status::unauthenticated("no client certificate"));
        }
        let issued = self.issue(&mut book, &request.into_inner().csr_der)?;
        Ok(Response::new(v1::RenewResponse { issued }))
    }

    async fn recover(
        &self,
        request: Request<v1::RecoverRequest>,
    ) -> Result<Response<v1::RecoverResponse>, Status> {
        let request = request.into_inner();
        let mut book = self.book.lock().unwrap();
        book.calls.push("Recover");
        let (_, expired) = X509Certificate::from_der(&request.expired_certificate_der).unwrap();
        if *expired.public_key().subject_public_key.data != *public_key(&request.csr_der) {
            return Err(Status::unauthenticated("another key"));
        }
        if book.recoveries == 0 {
            return Err(Status::resource_exhausted("recoveries are used up"));
        }
        book.recoveries -= 1;
        let issued = self.issue(&mut book, &request.csr_der)?;
        Ok(Response::new(v1::RecoverResponse { issued }))
    }
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::with(Manner::default()).await
    }

    pub(crate) async fn with(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connected, wires) = mpsc::channel(4);
        let mut plane = Self::behind(wires, address, manner);
        plane.tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = connected.send(Box::new(stream) as Wire).await;
            }
        });
        plane
    }

    /// Serves the connections that come out of `wires`; `address` is what it is called by.
    pub(super) fn behind(wires: mpsc::Receiver<Wire>, address: SocketAddr, manner: Manner) -> Self {
        let ca = Arc::new(Ca::new("channel CA"));
        let (config, pin) = server_config(&ca, manner);
        let book = Arc::new(Mutex::new(Book {
            tokens: HashMap::from([(TOKEN.to_owned(), None)]),
            life: DAY,
            backdated: Duration::from_secs(60),
            ahead: Duration::ZERO,
            lose: 0,
            recoveries: 1,
            issuer: None,
            calls: Vec::new(),
            attestation: String::new(),
        }));
        let (peers_tx, peers) = mpsc::channel(4);
        let desk = Desk { ca: Arc::clone(&ca), book: Arc::clone(&book) };
        let sessions = ControlServiceServer::new(Sessions(peers_tx));
        let enrollment = EnrollmentServiceServer::new(desk);
        let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let (sessions, enrollment) = (sessions.clone(), enrollment.clone());
            async move {
                let answer = if request.uri().path().contains("EnrollmentService") {
                    enrollment.oneshot(request).await
                } else {
                    sessions.oneshot(request).await
                };
                Ok::<_, Infallible>(answer.unwrap_or_else(|never| match never {}))
            }
        });
        let (streams, incoming) = mpsc::channel(4);
        let resumed = Arc::new(Mutex::new(Vec::new()));
        let cut = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(accept(
            wires,
            TlsAcceptor::from(config),
            streams,
            Arc::clone(&resumed),
            cut.clone(),
        ));
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .serve_with_incoming(service, ReceiverStream::new(incoming))
                .await
                .unwrap();
        });
        Self { address, ca, pin, book, resumed, peers: AsyncMutex::new(peers), cut, tasks }
    }

    /// The next session an agent opens, however long it takes.
    pub(super) async fn next_peer(&self) -> Peer {
        self.peers.lock().await.recv().await.unwrap()
    }

    /// The next session an agent opens.
    pub(super) async fn peer(&self) -> Peer {
        soon("session", async { self.peers.lock().await.recv().await }).await.unwrap()
    }

    pub(super) fn target(&self) -> Target {
        target(self.address)
    }

    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.book.lock().unwrap().calls.clone()
    }
}

pub(super) fn target(address: SocketAddr) -> Target {
    let policy = AddressPolicy { allow_public: false, allow_loopback: true };
    Target::new(&format!("https://{address}").parse().unwrap(), policy).unwrap()
}

pub(super) fn server_config(ca: &Ca, manner: Manner) -> (Arc<ServerConfig>, KeyPin) {
    let (certificate, key) = manner.interceptor.as_ref().unwrap_or(ca).server(manner.name);
    let pin = KeyPin::of(&certificate).unwrap();
    let roots = tls::roots(std::slice::from_ref(&ca.der)).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[manner.version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = manner.alpn;
    (Arc::new(config), pin)
}

async fn accept(
    mut wires: mpsc::Receiver<Wire>,
    acceptor: TlsAcceptor,
    streams: mpsc::Sender<Result<Connection, Infallible>>,
    resumed: Arc<Mutex<Vec<bool>>>,
    cut: CancellationToken,
) {
    while let Some(wire) = wires.recv().await {
        if let Ok(stream) = acceptor.accept(wire).await {
            let kind = stream.get_ref().1.handshake_kind();
            resumed.lock().unwrap().push(kind == Some(rustls::HandshakeKind::Resumed));
            let cut = Box::pin(cut.clone().cancelled_owned());
            let _ = streams.send(Ok(Connection { stream, cut })).await;
        }
    }
}
