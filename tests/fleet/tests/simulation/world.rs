//! Hosts with agents, hosts that play the control plane, names, and the clock.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use jiff::Timestamp;
use mendix_agent::channel::{
    Leases, Link, Reports, Target,
    dial::network::{Network, Purpose, Wire},
    identity::{Credentials, Identity, Key, Parts},
    session,
};
use mendix_agent_core::session::AddressPolicy;
use mendix_agent_proto::v1;
use mendix_fleet::agents::{Light, wire};
use mendix_test_kit::proxy::gateway::Gateway;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
    },
    server::WebPkiClientVerifier,
};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::plane::{PORT, Plane};

/// The name agents dial.
pub(crate) const NAME: &str = "control-plane.mendix.test";
/// The host that plays the control plane.
pub(crate) const PLANE: &str = "plane";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often a host counts its tasks.
const COUNT: Duration = Duration::from_secs(10);

/// What names resolve to; none: the name does not exist.
type Names = Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>;

/// An agent, seen from outside.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) reports: Reports,
    pub(crate) leases: Leases,
    pub(crate) checkpoints: watch::Sender<Option<v1::AuditCheckpoint>>,
}

impl Agent {
    pub(crate) fn connected(&self) -> bool {
        matches!(&*self.link.borrow(), Link::Connected { .. })
    }

    /// Why it is not connected.
    pub(crate) fn failure(&self) -> String {
        match &*self.link.borrow() {
            Link::WaitingForConnection { last_failure } => last_failure.clone().unwrap_or_default(),
            Link::Disconnected { last_failure, .. } => last_failure.clone(),
            Link::Deregistered { reason } => reason.clone(),
            Link::Connected { .. } => String::new(),
        }
    }
}

/// The simulation.
pub(crate) struct World {
    pub(crate) sim: turmoil::Sim<'static>,
    pub(crate) plane: Plane,
    pub(crate) agents: Vec<Agent>,
    /// Tasks of each host with agents, counted every ten seconds.
    pub(crate) tasks: Vec<Arc<AtomicUsize>>,
    ca: Ca,
    names: Names,
    seed: u64,
}

impl World {
    /// A control plane and nothing else. Messages take one to three ticks.
    pub(crate) fn new(seed: u64, tick: Duration) -> Self {
        let seed = match std::env::var("MENDIX_SIMULATION_SEED") {
            Ok(text) => text.parse().expect("MENDIX_SIMULATION_SEED is a number"),
            Err(_) => seed,
        };
        eprintln!("seed {seed}");
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(tick)
            .simulation_duration(DAY * 365)
            .min_message_latency(tick)
            .max_message_latency(tick * 3)
            .tcp_capacity(4096)
            .build();
        let ca = Ca::new();
        let plane = Plane::new(ca.server());
        serve(&mut sim, PLANE, &plane);
        let names: Names = Arc::default();
        let mut world = Self { sim, plane, agents: Vec::new(), tasks: Vec::new(), ca, names, seed };
        world.point(PLANE);
        world
    }

    /// Lets another host play the control plane as well.
    pub(crate) fn serve(&mut self, host: &str) {
        serve(&mut self.sim, host, &self.plane);
    }

    /// Lets a host be a gateway in front of the one that plays the control plane: it ends TLS, and
    /// speaks HTTP/2 on either side.
    pub(crate) fn gateway(&mut self, host: &str) -> Gateway {
        let gateway = Gateway::default();
        let (carrying, tls) = (gateway.clone(), TlsAcceptor::from(self.ca.server()));
        let behind = TlsConnector::from(self.ca.client());
        self.sim
            .host(host.to_owned(), move || relay(carrying.clone(), tls.clone(), behind.clone()));
        gateway
    }

    /// Lets the control plane's name resolve to this host.
    pub(crate) fn point(&mut self, host: &str) {
        let address = self.sim.lookup(host);
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(NAME.into(), vec![address]);
    }

    /// Puts `count` agents on a host of their own.
    pub(crate) fn agents(&mut self, host: &'static str, count: u32) {
        let tasks = Arc::new(AtomicUsize::new(0));
        self.tasks.push(tasks.clone());
        let mut wired = Vec::new();
        for _ in 0..count {
            let number = u32::try_from(self.agents.len()).expect("few agents");
            let uid = format!("00000000-0000-4000-8000-{number:012x}");
            let policy = AddressPolicy { allow_public: false, allow_loopback: false };
            let endpoint = Url::parse(&format!("https://{NAME}:{PORT}")).expect("a URL");
            let network = Arc::new(Simulated(self.names.clone()));
            let target = Target::new(&endpoint, policy).expect("an endpoint").over(network);
            let credentials = Arc::new(self.ca.credentials(&uid));
            let seed = number.wrapping_add(self.seed as u32);
            let (wiring, light) = wire(&uid, seed, target, credentials);
            self.agents.push(Agent {
                link: light.link.clone(),
                reports: light.reports.clone(),
                leases: light.leases.clone(),
                checkpoints: light.checkpoints.clone(),
            });
            wired.push((wiring, light));
        }
        let wired = Arc::new(Mutex::new(Some(wired)));
        self.sim.host(host, move || {
            // Hosts of agents are not restarted.
            let wired = wired.lock().unwrap_or_else(PoisonError::into_inner).take();
            live(wired.unwrap_or_default(), tasks.clone())
        });
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.sim.step().unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        }
    }

    /// Lets time pass until something is so, at most for `limit`; returns how long it took.
    pub(crate) fn until(
        &mut self,
        limit: Duration,
        what: &str,
        so: impl Fn(&Self) -> bool,
    ) -> Duration {
        let begin = self.sim.elapsed();
        while !so(self) {
            let waited = self.sim.elapsed() - begin;
            assert!(
                waited < limit,
                "seed {}: {what}: not within {limit:?}; {} of {} connected, {} sessions, first: {}",
                self.seed,
                self.connected(),
                self.agents.len(),
                self.plane.sessions(),
                self.agents
                    .iter()
                    .map(Agent::failure)
                    .find(|it| !it.is_empty())
                    .unwrap_or_default()
            );
            self.sim.step().unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        }
        self.sim.elapsed() - begin
    }

    pub(crate) fn connected(&self) -> usize {
        self.agents.iter().filter(|agent| agent.connected()).count()
    }

    pub(crate) fn all_connected(&self) -> bool {
        self.connected() == self.agents.len()
    }

    /// Tasks of all hosts with agents.
    pub(crate) fn task_count(&self) -> usize {
        self.tasks.iter().map(|tasks| tasks.load(Relaxed)).sum()
    }
}

async fn relay(
    gateway: Gateway,
    tls: TlsAcceptor,
    behind: TlsConnector,
) -> Result<(), Box<dyn std::error::Error>> {
    let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let listener = turmoil::net::TcpListener::bind((unspecified, PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (gateway, tls, behind) = (gateway.clone(), tls.clone(), behind.clone());
        tokio::spawn(async move {
            let client = tls.accept(stream).await?;
            let backend = turmoil::net::TcpStream::connect((PLANE, PORT)).await?;
            let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
            let backend = behind.connect(name, backend).await?;
            gateway.carry(client, backend).await
        });
    }
}

fn serve(sim: &mut turmoil::Sim<'static>, host: &str, plane: &Plane) {
    let plane = plane.clone();
    sim.host(host.to_owned(), move || plane.clone().serve());
}

async fn live(
    wired: Vec<(session::Wiring, Light)>,
    tasks: Arc<AtomicUsize>,
) -> Result<(), Box<dyn std::error::Error>> {
    let cancel = CancellationToken::new();
    for (mut wiring, light) in wired {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            let _held = light;
            session::run(&mut wiring, cancel).await;
        });
    }
    let metrics = tokio::runtime::Handle::current().metrics();
    loop {
        tasks.store(metrics.num_alive_tasks(), Relaxed);
        tokio::time::sleep(COUNT).await;
    }
}

/// The simulated network as an agent sees it.
#[derive(Debug)]
struct Simulated(Names);

#[async_trait]
impl Network for Simulated {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = names.get(host).ok_or_else(|| io::Error::other("no such name"))?;
        Ok(found.iter().map(|address| SocketAddr::new(*address, port)).collect())
    }

    async fn connect(&self, address: SocketAddr, _purpose: Purpose) -> io::Result<Wire> {
        Ok(Box::new(turmoil::net::TcpStream::connect(address).await?))
    }
}

/// Issues what both ends show.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "simulated CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).expect("a CA").der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn server(&self) -> Arc<ServerConfig> {
        let (certificate, key) = self.leaf();
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider())
            .build()
            .expect("a verifier");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .expect("an identity");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// How a gateway connects to what is behind it.
    fn client(&self) -> Arc<ClientConfig> {
        let (certificate, key) = self.leaf();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(vec![certificate], key)
            .expect("an identity");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a trust anchor");
        Arc::new(roots)
    }

    fn leaf(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([NAME.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn credentials(&self, uid: &str) -> Credentials {
        let key = Key::generate().expect("a key");
        let csr = CertificateSigningRequestDer::from(key.request(uid).expect("a request"));
        let mut request = CertificateSigningRequestParams::from_der(&csr).expect("a request");
        let now = SystemTime::now();
        request.params.not_before = (now - DAY).into();
        request.params.not_after = (now + DAY).into();
        let leaf = request.signed_by(&self.issuer).expect("a certificate").der().clone();
        let anchors = vec![self.der.clone()];
        let parts = Parts { key, chain: vec![leaf], anchors, ring: "early".into() };
        let identity = Identity::assemble(parts, uid).expect("an identity");
        identity.verify(Timestamp::now()).expect("it is valid")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
