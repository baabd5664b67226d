//! A plane in a temporary folder and a client that speaks to it as an agent does.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use mendix_agent_proto::v1::{
    self, AgentMessage, ControlMessage, Hello, agent_message, bundle_service_client as bundle,
    control_message, control_service_client as control, enrollment_service_client as enrollment,
    snapshot_service_client as snapshot,
};
use mendix_control_plane::{
    ControlPlane, Options, Running, Store, init, pki::ServerNames, repository::Expiry,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Bound on every wait of a test; far above what anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The cluster that most tests are about.
pub(crate) const UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

/// Waits for `what`, not forever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("within the patience of a test")
}

/// A control plane on a folder of its own.
pub(crate) struct Plane {
    pub(crate) dir: TempDir,
    pub(crate) running: Option<Running>,
    options: Options,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::with_expiry(options, Expiry::default()).await
    }

    pub(crate) async fn with_expiry(options: Options, expiry: Expiry) -> Self {
        let options = Options { drain: Duration::from_millis(50), ..options };
        let dir = tempfile::tempdir().expect("a folder");
        let names = ServerNames { dns: vec!["localhost".into()], ips: vec![] };
        let state = dir.path().join("state");
        let store = init(&state, &names, expiry).await.expect("init");
        let running = ControlPlane::start(store, options.clone()).await.expect("start");
        Self { dir, running: Some(running), options }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    pub(crate) fn store(&self) -> &Store {
        self.running().store()
    }

    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    /// Ends the server as kill -9 would, and starts another one on the same folder.
    pub(crate) async fn crash_and_restart(&mut self) {
        drop(self.running.take());
        self.start_again().await;
    }

    /// Shuts the server down in order, and starts another one on the same folder.
    pub(crate) async fn restart(&mut self) {
        let running = self.running.take().expect("it runs");
        soon(running.shutdown()).await.expect("shutdown");
        self.start_again().await;
    }

    async fn start_again(&mut self) {
        let store = Store::open(self.state()).expect("state");
        let running = ControlPlane::start(store, self.options.clone()).await.expect("start");
        self.running = Some(running);
    }

    /// Registers the cluster and enrols an agent for it.
    pub(crate) async fn enrolled(&self) -> Identity {
        self.enrolled_as(UID).await
    }

    pub(crate) async fn enrolled_as(&self, uid: &str) -> Identity {
        let token = self.store().register_cluster(uid, "stable").expect("register");
        let mut identity = Identity::new(uid);
        let response = identity.enroll(self, &token.0).await.expect("enrol");
        identity.take(response.issued.expect("a certificate"));
        identity
    }
}

/// What an agent holds: its key and, once enrolled, its certificate.
pub(crate) struct Identity {
    pub(crate) uid: String,
    pub(crate) key: KeyPair,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Identity {
    pub(crate) fn new(uid: &str) -> Self {
        Self { uid: uid.into(), key: KeyPair::generate().expect("a key"), chain: Vec::new() }
    }

    pub(crate) fn take(&mut self, issued: v1::IssuedCertificate) {
        self.chain = issued.chain_der.into_iter().map(CertificateDer::from).collect();
    }

    pub(crate) fn csr(&self) -> Vec<u8> {
        csr(&self.uid, &self.key)
    }

    pub(crate) async fn enroll(
        &self,
        plane: &Plane,
        token: &str,
    ) -> Result<v1::EnrollResponse, Status> {
        let request = v1::EnrollRequest {
            cluster_uid: self.uid.clone(),
            bootstrap_token: token.into(),
            csr_der: self.csr(),
            service_account_token: String::new(),
            agent_version: "0.1.0".into(),
        };
        let mut client = enrollment(connect(plane, None).await.expect("connect"));
        Ok(soon(client.enroll(request)).await?.into_inner())
    }

    /// A connection with this identity.
    pub(crate) async fn connect(&self, plane: &Plane) -> Channel {
        connect(plane, Some(self)).await.expect("connect")
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            cluster_uid: self.uid.clone(),
            agent_version: "0.1.0".into(),
            boot_id: "boot-1".into(),
            lease_epoch: 1,
            protocol_min: 1,
            protocol_max: 1,
            capabilities: vec![],
            held: vec![],
            kubernetes_version: "v1.34.2".into(),
        }
    }

    /// A session past its Welcome.
    pub(crate) async fn session(&self, plane: &Plane) -> Session {
        let mut session = Session::open(self.connect(plane).await, self.hello()).await;
        session.welcome().await;
        session
    }
}

pub(crate) fn csr(uid: &str, key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, uid);
    params.serialize_request(key).expect("a request").der().to_vec()
}

pub(crate) fn enrollment(channel: Channel) -> enrollment::EnrollmentServiceClient<Channel> {
    enrollment::EnrollmentServiceClient::new(channel)
}

pub(crate) fn bundle(channel: Channel) -> bundle::BundleServiceClient<Channel> {
    bundle::BundleServiceClient::new(channel)
}

pub(crate) fn snapshot(channel: Channel) -> snapshot::SnapshotServiceClient<Channel> {
    snapshot::SnapshotServiceClient::new(channel)
}

/// One TLS 1.3 connection, trusting the CA in the trust folder.
pub(crate) async fn connect(
    plane: &Plane,
    identity: Option<&Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let config = client_config(&plane.store().trust_dir(), identity);
    let address = plane.running().address();
    let connector = tower::service_fn(move |_: http::Uri| Box::pin(dial(address, config.clone())));
    let endpoint = Endpoint::from_static("https://localhost").initial_stream_window_size(1 << 20);
    soon(Channel::connect(connector, endpoint)).await
}

async fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    Ok(TokioIo::new(tls))
}

fn client_config(trust: &Path, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(trust.join("channel-ca.pem")).expect("the CA");
    roots.add(ca).expect("a trust anchor");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let key = PrivatePkcs8KeyDer::from(identity.key.serialize_der());
            config
                .with_client_auth_cert(identity.chain.clone(), PrivateKeyDer::from(key))
                .expect("an identity")
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// The agent's end of a session.
pub(crate) struct Session {
    pub(crate) up: mpsc::Sender<AgentMessage>,
    pub(crate) down: Streaming<ControlMessage>,
}

impl Session {
    /// Opens a session with this first message; the server has not answered yet.
    pub(crate) async fn open(channel: Channel, hello: Hello) -> Self {
        Self::open_with(channel, agent_message::Body::Hello(hello)).await
    }

    pub(crate) async fn open_with(channel: Channel, first: agent_message::Body) -> Self {
        let (up, receiver) = mpsc::channel(16);
        up.send(AgentMessage { body: Some(first) }).await.expect("room");
        let mut client = control::ControlServiceClient::new(channel);
        let stream = soon(client.session(ReceiverStream::new(receiver))).await.expect("a session");
        Self { up, down: stream.into_inner() }
    }

    pub(crate) async fn send(&self, body: agent_message::Body) {
        self.up.send(AgentMessage { body: Some(body) }).await.expect("room");
    }

    /// The next message, the end, or why it ended.
    pub(crate) async fn next(&mut self) -> Result<Option<control_message::Body>, Status> {
        Ok(soon(self.down.message()).await?.and_then(|message| message.body))
    }

    /// Why the session ended; whatever came before is skipped.
    pub(crate) async fn refusal(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the session ended without a reason"),
                Err(status) => return status,
            }
        }
    }

    pub(crate) async fn welcome(&mut self) -> v1::Welcome {
        match self.next().await {
            Ok(Some(control_message::Body::Welcome(welcome))) => welcome,
            other => panic!("expected Welcome, got {other:?}"),
        }
    }

    pub(crate) async fn desired(&mut self) -> v1::DesiredState {
        match self.next().await {
            Ok(Some(control_message::Body::DesiredState(state))) => state,
            other => panic!("expected DesiredState, got {other:?}"),
        }
    }

    /// The next content of a section; messages without it are skipped.
    pub(crate) async fn section(&mut self, section: v1::Section) -> v1::DesiredSection {
        loop {
            let state = self.desired().await;
            if let Some(found) = state.sections.into_iter().find(|s| s.section() == section) {
                return found;
            }
        }
    }

    /// Sends a heartbeat and waits for its answer: everything sent before has been handled.
    pub(crate) async fn settle(&mut self) {
        self.send(agent_message::Body::Heartbeat(v1::Heartbeat { sequence: 99, sent_at: None }))
            .await;
        loop {
            match self.next().await {
                Ok(Some(control_message::Body::HeartbeatAck(ack))) if ack.sequence == 99 => return,
                Ok(Some(_)) => {}
                other => panic!("expected HeartbeatAck, got {other:?}"),
            }
        }
    }
}
