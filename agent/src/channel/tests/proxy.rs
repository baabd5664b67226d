//! Through a CONNECT proxy: what it sees, what it may answer, and what must be pinned.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio_rustls::TlsAcceptor;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::{
    plane::{Ca, Manner, Plane, server_config},
    staged::Staged,
};
use crate::{
    channel::{
        DialError, Dialer, Layer, Target,
        dial::{
            KeyPin, ProxyError, describe,
            network::{Network, Purpose, Wire},
        },
        identity::Standing,
    },
    config::{Proxy, ProxyCredentials},
};
use mendix_agent_core::session::{AddressPolicy, Schedule};

const NAME: &str = "plane.example";
const OK: &str = "HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n";

/// What the proxy does after it has read the head of a request.
#[derive(Clone)]
enum Manners {
    /// Opens the tunnel.
    Tunnel(SocketAddr),
    /// Says this, and ends the connection.
    Say(&'static str),
    /// Says this and stays silent.
    Hang(&'static str),
}

struct Scripted {
    network: Arc<Staged>,
    heads: Arc<Mutex<Vec<String>>>,
    _accepting: JoinHandle<()>,
}

impl Scripted {
    async fn start(manners: Manners) -> Self {
        Self::listening(manners, None).await
    }

    /// With TLS of its own, if there is an acceptor.
    async fn listening(manners: Manners, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = Staged::new();
        network.name("proxy.bank", &["10.0.0.9"]);
        network.host("10.0.0.9", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (manners, heads) = (manners.clone(), Arc::clone(&kept));
                match &acceptor {
                    None => drop(tokio::spawn(serve(stream, manners, heads))),
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            tokio::spawn(serve(stream, manners, heads));
                        }
                    }
                }
            }
        });
        Self { network, heads, _accepting: accepting }
    }

    fn target(&self, pins: Vec<KeyPin>, credentials: Option<ProxyCredentials>) -> Target {
        let proxy = Proxy { host: "proxy.bank".into(), port: 3128, ca_bundle: None, credentials };
        Target::new(&format!("https://{NAME}:8443").parse().unwrap(), AddressPolicy::default())
            .unwrap()
            .through(proxy)
            .pinned(pins)
            .over(Arc::clone(&self.network) as _)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    manners: Manners,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    heads.lock().unwrap().push(String::from_utf8(head).unwrap());
    match manners {
        Manners::Tunnel(to) => {
            let mut server = TcpStream::connect(to).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
        }
        Manners::Say(text) => {
            stream.write_all(text.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
        Manners::Hang(text) => {
            stream.write_all(text.as_bytes()).await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
            std::future::pending::<()>().await;
        }
    }
}

async fn plane() -> Plane {
    Plane::with(Manner { name: NAME, ..Manner::default() }).await
}

fn dialer(target: Target, ca: &Ca) -> Dialer {
    let standing = Standing::Enrolled(Arc::new(ca.credentials()));
    Dialer::new(target, watch::channel(standing).1)
}

fn any_pin() -> Vec<KeyPin> {
    vec!["sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse().unwrap()]
}

async fn refused(manners: Manners) -> DialError {
    let proxy = Scripted::start(manners).await;
    let target = proxy.target(any_pin(), None);
    dialer(target, &Ca::new("any")).connect().await.unwrap_err()
}

#[tokio::test]
async fn a_tunnel_carries_the_session_and_the_name_is_left_to_the_proxy() {
    let plane = plane().await;
    let proxy = Scripted::start(Manners::Tunnel(plane.address)).await;
    let given = ProxyCredentials::Given(SecretString::from("agent:s3cret"));
    let dialer = dialer(proxy.target(vec![plane.pin], Some(given)), &plane.ca);
    dialer.connect().await.unwrap();
    dialer.connect().await.unwrap();
    assert_eq!(proxy.network.seen()[..2], ["resolve proxy.bank", "connect 10.0.0.9"]);
    assert!(!proxy.network.seen().iter().any(|it| it.contains(NAME)));
    let head = &proxy.heads()[0];
    assert!(head.starts_with(&format!("CONNECT {NAME}:8443 HTTP/1.1\r\n")), "{head}");
    assert!(head.contains("\r\nHost: plane.example:8443\r\n"), "{head}");
    assert!(head.contains("\r\nProxy-Authorization: Basic YWdlbnQ6czNjcmV0\r\n\r\n"), "{head}");
    // Tickets are kept: the second dial resumed, and its pin was checked all the same.
    assert_eq!(*plane.resumed.lock().unwrap(), [false, true]);
}

#[tokio::test]
async fn an_https_proxy_is_trusted_by_its_bundle_and_by_nothing_else() {
    let plane = plane().await;
    let ca = Ca::new("Bank Root");
    let (config, _) = server_config(&ca, Manner { name: "proxy.bank", ..Manner::default() });
    let tunnel = Manners::Tunnel(plane.address);
    let proxy = Scripted::listening(tunnel, Some(TlsAcceptor::from(config))).await;
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("ca.pem");
    let way = Proxy {
        host: "proxy.bank".into(),
        port: 3129,
        ca_bundle: Some(bundle.clone()),
        credentials: None,
    };
    let target = proxy.target(vec![plane.pin], None).through(way);
    let dialer = dialer(target, &plane.ca);
    for (text, part) in [("", "no CA certificate in it"), (plane.ca.pem.as_str(), "UnknownIssuer")]
    {
        std::fs::write(&bundle, text).unwrap();
        let error = dialer.connect().await.unwrap_err();
        assert_eq!(error.layer(), Layer::Proxy, "{}", describe(&error));
        assert!(describe(&error).contains(part), "{}", describe(&error));
    }
    std::fs::write(&bundle, format!("{}{}", plane.ca.pem, ca.pem)).unwrap();
    dialer.connect().await.unwrap();
}

#[tokio::test]
async fn a_credentials_file_is_read_at_each_dial() {
    let plane = plane().await;
    let proxy = Scripted::start(Manners::Tunnel(plane.address)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy");
    let target = proxy.target(vec![plane.pin], Some(ProxyCredentials::File(file.clone())));
    let dialer = dialer(target, &plane.ca);
    let error = dialer.connect().await.unwrap_err();
    assert!(describe(&error).contains("can't be used"), "{}", describe(&error));
    for (pair, encoded) in [("a:b", "YTpi"), ("a:c\n", "YTpj")] {
        std::fs::write(&file, pair).unwrap();
        dialer.connect().await.unwrap();
        assert!(proxy.heads().last().unwrap().contains(&format!("Basic {encoded}\r\n")));
    }
    for bad in ["no colon", "two:lines\nhere", &"x:".repeat(4096)] {
        std::fs::write(&file, bad).unwrap();
        let error = dialer.connect().await.unwrap_err();
        assert_eq!(error.layer(), Layer::Proxy, "{bad}");
        assert!(!describe(&error).contains(bad), "{}", describe(&error));
    }
}

#[tokio::test]
async fn a_proxy_that_wants_authentication_is_named_and_not_pressed() {
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\n\
                  Proxy-Authenticate: Basic realm=\"bank\"\r\ncontent-length: 4\r\n\r\nno!\n";
    let error = refused(Manners::Say(answer)).await;
    assert_eq!(
        describe(&error),
        "proxy: no way through proxy proxy.bank:3128: it asks for authentication (407, Negotiate or \
         Basic); no credentials are configured"
    );
    assert!(error.advice().remedy.contains("proxyCredentialsFile"));
    assert_eq!(error.failure().schedule, Schedule::Refusal);

    let proxy = Scripted::start(Manners::Say(answer)).await;
    let wrong = ProxyCredentials::Given(SecretString::from("agent:s3cret"));
    let target = proxy.target(any_pin(), Some(wrong));
    let error = dialer(target, &Ca::new("any")).connect().await.unwrap_err();
    let text = describe(&error);
    assert!(text.contains("it refused the credentials that were sent"), "{text}");
    assert!(!text.contains("s3cret") && !text.contains("YWdlbnQ6"), "{text}");
}

#[tokio::test]
async fn only_200_opens_a_tunnel() {
    for (answer, part) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
        ("HTTP/1.1 201 Created\r\n\r\n", "201 Created"),
        ("HTTP/1.1 302 Found\r\nLocation: http://login.bank/\r\n\r\n", "302 Found"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "can be read"),
        ("", "can be read"),
    ] {
        let error = refused(Manners::Say(answer)).await;
        assert_eq!(error.layer(), Layer::Proxy, "{}", describe(&error));
        assert!(describe(&error).contains(part), "{}", describe(&error));
        assert_eq!(error.failure().schedule, Schedule::Outage);
    }
}

#[tokio::test]
async fn a_proxy_that_closes_after_200_is_named() {
    let error = refused(Manners::Say(OK)).await;
    let closed = ProxyError::ClosedAfterConnect;
    assert_eq!(describe(&error), format!("proxy: no way through proxy proxy.bank:3128: {closed}"));
    assert!(error.advice().remedy.contains("exempt the endpoint from inspection"));
}

#[tokio::test]
async fn a_proxy_that_talks_into_the_tunnel_is_refused() {
    let early = "HTTP/1.1 200 OK\r\n\r\nhello";
    let error = refused(Manners::Hang(early)).await;
    assert!(describe(&error).contains("5 bytes came with it"), "{}", describe(&error));
}

#[tokio::test]
async fn an_endless_head_is_bounded() {
    static ENDLESS: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        format!("HTTP/1.1 200 OK\r\nX-Long: {}", "x".repeat(64 * 1024))
    });
    let error = refused(Manners::Hang(&ENDLESS)).await;
    assert_eq!(error.layer(), Layer::Proxy, "{}", describe(&error));
    assert!(describe(&error).contains("can be read"), "{}", describe(&error));
}

/// A proxy in memory that takes what it is told and says nothing. With a socket of the kernel's, virtual
/// time could pass while its bytes are on their way.
#[derive(Debug, Default)]
struct Mute(Mutex<Vec<DuplexStream>>);

#[async_trait]
impl Network for Mute {
    async fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([10, 0, 0, 9], port))])
    }

    async fn connect(&self, _address: SocketAddr, _purpose: Purpose) -> io::Result<Wire> {
        let (ours, theirs) = duplex(64 * 1024);
        self.0.lock().unwrap().push(theirs);
        Ok(Box::new(ours))
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_is_given_up() {
    let way = Proxy { host: "proxy.bank".into(), port: 3128, ca_bundle: None, credentials: None };
    let url = format!("https://{NAME}:8443").parse().unwrap();
    let target = Target::new(&url, AddressPolicy::default()).unwrap().through(way);
    let target = target.pinned(any_pin()).over(Arc::new(Mute::default()));
    let error = dialer(target, &Ca::new("any")).connect().await.unwrap_err();
    assert!(describe(&error).contains("no answer to CONNECT within 10 s"), "{}", describe(&error));
}

#[tokio::test]
async fn without_a_pin_no_proxy_is_asked() {
    let proxy = Scripted::start(Manners::Say(OK)).await;
    let target = proxy.target(vec![], None);
    let error = dialer(target, &Ca::new("any")).connect().await.unwrap_err();
    assert_eq!(error.layer(), Layer::Configuration);
    assert!(error.advice().remedy.contains("serverSpkiPins"));
    assert!(proxy.network.seen().is_empty(), "{:?}", proxy.network.seen());
}

#[tokio::test]
async fn a_proxy_outside_the_private_network_is_not_used() {
    let proxy = Scripted::start(Manners::Say(OK)).await;
    proxy.network.name("proxy.bank", &["8.8.8.8"]);
    let public = AddressPolicy { allow_public: true, allow_loopback: true };
    let url = format!("https://{NAME}:8443").parse().unwrap();
    let way = Proxy { host: "proxy.bank".into(), port: 3128, ca_bundle: None, credentials: None };
    let target = Target::new(&url, public).unwrap().through(way).pinned(any_pin());
    let target = target.over(Arc::clone(&proxy.network) as _);
    let error = dialer(target, &Ca::new("any")).connect().await.unwrap_err();
    assert_eq!(error.layer(), Layer::AddressPolicy, "{}", describe(&error));
    assert!(error.advice().remedy.contains("a proxy outside the private network"));
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_an_error_of_its_own() {
    let plane = plane().await;
    let proxy = Scripted::start(Manners::Tunnel(plane.address)).await;
    let dialer = dialer(proxy.target(any_pin(), None), &plane.ca);
    let error = dialer.connect().await.unwrap_err();
    assert_eq!(error.layer(), Layer::Tls, "{}", describe(&error));
    assert_eq!(
        describe(&error),
        format!("TLS: {NAME} has another key than the pinned ones: {}", plane.pin)
    );
}

#[tokio::test]
async fn a_pin_counts_without_a_proxy_too() {
    let plane = Plane::start().await;
    dialer(plane.target().pinned(vec![any_pin()[0], plane.pin]), &plane.ca)
        .connect()
        .await
        .unwrap();
    let error = dialer(plane.target().pinned(any_pin()), &plane.ca).connect().await.unwrap_err();
    assert!(matches!(error, DialError::Pin { seen: Some(seen), .. } if seen == plane.pin));
}

#[tokio::test]
async fn an_interceptor_with_a_trusted_ca_still_has_another_key() {
    // The bank put its interception CA into channel-ca.pem: the pin is what is left.
    let interceptor = Ca::new("Interception Root");
    let anchor = interceptor.der.clone();
    let manner = Manner { name: NAME, interceptor: Some(interceptor), ..Manner::default() };
    let plane = Plane::with(manner).await;
    let proxy = Scripted::start(Manners::Tunnel(plane.address)).await;
    let mut parts = plane.ca.parts(super::plane::CLUSTER);
    parts.anchors.push(anchor);
    let identity =
        crate::channel::identity::Identity::assemble(parts, super::plane::CLUSTER).unwrap();
    let credentials = identity.verify(jiff::Timestamp::now()).unwrap();
    let standing = Standing::Enrolled(Arc::new(credentials));
    let target = proxy.target(any_pin(), None);
    let error = Dialer::new(target, watch::channel(standing).1).connect().await.unwrap_err();
    assert!(matches!(error, DialError::Pin { .. }), "{}", describe(&error));
}
