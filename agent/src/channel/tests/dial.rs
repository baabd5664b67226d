//! Every layer fails under its own name.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use jiff::Timestamp;
use mendix_agent_core::session::{AddressPolicy, Schedule};
use mendix_agent_proto::v1;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, sync::watch};

use super::{
    plane::{CLUSTER, Ca, DAY, Manner, Plane, target},
    soon,
    staged::Staged,
};
use crate::channel::{
    DialError, Dialer, Layer, Target,
    dial::{DNS_DEADLINE, describe, enrollment_client, tls},
    identity::{Identity, Standing},
};

fn dialer(target: Target, ca: &Ca) -> Dialer {
    let standing = Standing::Enrolled(Arc::new(ca.credentials()));
    Dialer::new(target, watch::channel(standing).1)
}

async fn refused(plane: &Plane) -> DialError {
    dialer(plane.target(), &plane.ca).connect().await.expect_err("this dial must fail")
}

#[tokio::test]
async fn a_connection_carries_calls_and_later_ones_resume() {
    let plane = Plane::start().await;
    let dialer = dialer(plane.target(), &plane.ca);
    for _ in 0..3 {
        let channel = dialer.connect().await.unwrap();
        let csr_der = plane.ca.parts(CLUSTER).key.request(CLUSTER).unwrap();
        enrollment_client(channel).renew(v1::RenewRequest { csr_der }).await.unwrap();
    }
    assert_eq!(*plane.resumed.lock().unwrap(), [false, true, true]);
}

#[tokio::test]
async fn a_broken_connection_is_not_dialled_again_behind_the_callers_back() {
    let plane = Plane::start().await;
    let channel = dialer(plane.target(), &plane.ca).connect().await.unwrap();
    plane.cut.cancel();
    for _ in 0..2 {
        let mut client = enrollment_client(channel.clone());
        soon("failure", client.renew(v1::RenewRequest::default())).await.unwrap_err();
    }
    assert_eq!(plane.resumed.lock().unwrap().len(), 1, "one call to connect, one connection");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_dns_failure() {
    let policy = AddressPolicy { allow_public: false, allow_loopback: true };
    let url = "https://control-plane.invalid:8443".parse().unwrap();
    let target = Target::new(&url, policy).unwrap();
    let error = dialer(target, &Ca::new("any")).connect().await.unwrap_err();
    assert_eq!(error.layer(), Layer::Dns, "{}", describe(&error));
    assert!(describe(&error).starts_with("DNS: control-plane.invalid does not resolve: "));
    assert_eq!(error.failure().schedule, Schedule::Outage);
}

#[tokio::test]
async fn a_public_address_is_refused_before_anything_is_sent() {
    let url = "https://8.8.8.8".parse().unwrap();
    let target = Target::new(&url, AddressPolicy::default()).unwrap();
    let error = dialer(target, &Ca::new("any")).connect().await.unwrap_err();
    assert_eq!(
        describe(&error),
        "private-address policy: 8.8.8.8 resolves to an address that may not be dialled: \
         not a private address: 8.8.8.8"
    );
    assert_eq!(error.failure().schedule, Schedule::Refusal);
}

/// A control plane called `plane.example` at 10.0.0.4.
async fn named() -> (Plane, Arc<Staged>, Dialer) {
    let plane = Plane::with(Manner { name: "plane.example", ..Manner::default() }).await;
    let network = Staged::new();
    network.name("plane.example", &["10.0.0.4"]);
    network.host("10.0.0.4", plane.address);
    let url = "https://plane.example:8443".parse().unwrap();
    let target = Target::new(&url, AddressPolicy::default()).unwrap();
    let dialer = dialer(target.over(Arc::clone(&network) as _), &plane.ca);
    (plane, network, dialer)
}

#[tokio::test]
async fn an_endpoint_that_moves_is_found_at_its_new_address() {
    let (plane, network, dialer) = named().await;
    dialer.connect().await.unwrap();
    network.gone("10.0.0.4");
    network.host("10.0.0.5", plane.address);
    network.name("plane.example", &["10.0.0.5"]);
    dialer.connect().await.unwrap();
    let order =
        ["resolve plane.example", "connect 10.0.0.4", "resolve plane.example", "connect 10.0.0.5"];
    assert_eq!(network.seen(), order);
    // While DNS still gives both, the one that is gone costs a moment and no timeout.
    network.name("plane.example", &["10.0.0.4", "10.0.0.5"]);
    soon("connection by the other address", dialer.connect()).await.unwrap();
}

#[test]
fn a_handshake_that_nobody_answers_is_not_taken_for_one_that_was_broken() {
    let cause = |kind: std::io::ErrorKind| {
        let error = DialError::TlsBroken { host: "plane.example".into(), source: kind.into() };
        error.advice().cause
    };
    assert!(cause(std::io::ErrorKind::TimedOut).contains("then says nothing"));
    assert!(cause(std::io::ErrorKind::BrokenPipe).contains("something between breaks TLS"));
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_does_not_answer_is_given_up() {
    let (_plane, network, dialer) = named().await;
    network.silent("plane.example");
    let began = tokio::time::Instant::now();
    let error = dialer.connect().await.unwrap_err();
    assert_eq!(describe(&error), "DNS: no answer about plane.example within 10 s");
    assert_eq!(began.elapsed(), DNS_DEADLINE);
}

#[tokio::test]
async fn one_public_answer_among_private_ones_is_refused_before_anything_is_sent() {
    let (_plane, network, dialer) = named().await;
    for mixed in ["8.8.8.8", "64:ff9b::808:808", "::ffff:8.8.8.8", "169.254.169.254", "100.64.0.1"]
    {
        network.name("plane.example", &["10.0.0.4", mixed]);
        let error = dialer.connect().await.unwrap_err();
        assert_eq!(error.layer(), Layer::AddressPolicy, "{mixed}: {}", describe(&error));
    }
    assert!(network.seen().iter().all(|it| it == "resolve plane.example"), "{:?}", network.seen());
}

#[tokio::test(start_paused = true)]
async fn an_address_that_never_answers_is_a_tcp_failure_with_every_address_named() {
    let (_plane, network, dialer) = named().await;
    network.name("plane.example", &["fd00::4", "10.9.9.9"]);
    let error = dialer.connect().await.unwrap_err();
    let text = describe(&error);
    assert!(
        text.starts_with("TCP: plane.example can't be reached: [fd00::4]:8443: timed out"),
        "{text}"
    );
    assert!(text.contains("10.9.9.9:8443: timed out"), "{text}");
    let cause = error.advice().cause;
    assert!(cause.starts_with("the private endpoint is not approved"), "{cause}");
}

#[tokio::test]
async fn loopback_needs_its_own_permission() {
    let plane = Plane::start().await;
    let url = format!("https://{}", plane.address).parse().unwrap();
    let target = Target::new(&url, AddressPolicy::default()).unwrap();
    let error = dialer(target, &plane.ca).connect().await.unwrap_err();
    assert_eq!(error.layer(), Layer::AddressPolicy);
}

#[tokio::test]
async fn a_closed_port_is_a_tcp_failure() {
    // No port that a listener of another test could be given.
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let error = dialer(target(address), &Ca::new("any")).connect().await.unwrap_err();
    assert_eq!(error.layer(), Layer::Tcp, "{}", describe(&error));
    assert!(error.advice().cause.starts_with("nothing listens there"), "{:?}", error.advice());
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_tls_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    });
    let error = dialer(target(address), &Ca::new("any")).connect().await.unwrap_err();
    assert_eq!(error.layer(), Layer::Tls, "{}", describe(&error));
    drop(server.await);
}

#[tokio::test]
async fn an_unknown_ca_is_named_and_its_remedy_speaks_of_interception() {
    let manner = Manner { interceptor: Some(Ca::new("proxy")), ..Manner::default() };
    let error = refused(&Plane::with(manner).await).await;
    assert_eq!(error.layer(), Layer::Tls);
    assert!(describe(&error).contains("UnknownIssuer"), "{}", describe(&error));
    assert!(error.advice().remedy.contains("TLS interception"));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_tls_failure() {
    let manner = Manner { name: "other.example", ..Manner::default() };
    let error = refused(&Plane::with(manner).await).await;
    assert_eq!(error.layer(), Layer::Tls);
    assert!(error.advice().cause.contains("another name"), "{}", describe(&error));
}

#[tokio::test]
async fn tls_1_2_is_not_spoken() {
    let manner = Manner { version: &rustls::version::TLS12, ..Manner::default() };
    let error = refused(&Plane::with(manner).await).await;
    assert_eq!(error.layer(), Layer::Tls, "{}", describe(&error));
}

#[tokio::test]
async fn a_server_without_http2_is_called_alpn_stripped() {
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let error = refused(&Plane::with(Manner { alpn, ..Manner::default() }).await).await;
        assert!(matches!(error, DialError::Alpn { .. }), "{}", describe(&error));
    }
}

#[tokio::test]
async fn a_refused_client_certificate_is_an_authentication_failure() {
    let plane = Plane::start().await;
    let other = Ca::new("another CA");
    let mut parts = other.parts(CLUSTER);
    let foreign = Identity::assemble(parts.clone(), CLUSTER).unwrap();
    foreign.verify(Timestamp::now()).unwrap();
    // The agent's own checks would not let it out; dial with it all the same.
    parts.anchors = vec![plane.ca.der.clone()];
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(parts.key.pkcs8().to_vec());
    let config = tls::mutual(&parts.anchors, parts.chain, key.into()).unwrap();
    let error = plane.target().connect(config).await.unwrap_err();
    assert!(matches!(error, DialError::Rejected { .. }), "{}", describe(&error));
    assert_eq!(error.failure().schedule, Schedule::Refusal);
}

#[tokio::test]
async fn an_expired_client_certificate_is_an_authentication_failure() {
    let plane = Plane::start().await;
    let now = SystemTime::now();
    let parts = plane.ca.parts_valid(CLUSTER, now - 2 * DAY, now - DAY);
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(parts.key.pkcs8().to_vec());
    let config = tls::mutual(&parts.anchors, parts.chain, key.into()).unwrap();
    let error = plane.target().connect(config).await.unwrap_err();
    assert!(describe(&error).contains("CertificateExpired"), "{}", describe(&error));
}

#[tokio::test]
async fn without_an_identity_nothing_is_dialled() {
    let plane = Plane::start().await;
    let standing = Standing::NotEnrolled { reason: "no bootstrap token".into() };
    let dialer = Dialer::new(plane.target(), watch::channel(standing).1);
    let error = dialer.connect().await.unwrap_err();
    assert_eq!(error.to_string(), "authentication: not enrolled: no bootstrap token");
}

#[test]
fn an_endpoint_is_https_with_host_and_port_only() {
    let policy = AddressPolicy::default();
    for bad in [
        "http://10.0.0.1",
        "https://10.0.0.1/path",
        "https://10.0.0.1/?x=1",
        "https://user@10.0.0.1",
        "https://:secret@10.0.0.1",
    ] {
        let error = Target::new(&bad.parse().unwrap(), policy).unwrap_err();
        assert_eq!(error.layer(), Layer::Configuration, "{bad}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    for (good, name) in [
        ("https://10.0.0.1:8443", "10.0.0.1:8443"),
        ("https://agents.example", "agents.example:443"),
        ("https://[fd00::1]:8443/", "[fd00::1]:8443"),
    ] {
        assert_eq!(Target::new(&good.parse().unwrap(), policy).unwrap().name(), name);
    }
}
