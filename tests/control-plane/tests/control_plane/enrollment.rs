//! Identities: who gets a certificate, and what ends one.

use std::time::Duration;

use mendix_agent_proto::v1;
use mendix_control_plane::{Options, store::MAX_RECOVERIES};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use tonic::Code;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client::{Identity, Plane, Session, UID, bundle, connect, csr, enrollment, soon};

#[tokio::test]
async fn an_agent_enrols_and_opens_a_session() {
    let plane = Plane::start().await;
    let identity = plane.enrolled().await;
    let (_, leaf) = X509Certificate::from_der(&identity.chain[0]).expect("a certificate");
    assert_eq!(leaf.subject().iter_common_name().next().expect("CN").as_str(), Ok(UID));
    assert_eq!(leaf.public_key().subject_public_key.data, identity.key.public_key_raw());
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, 24 * 3600 + 60);
    identity.session(&plane).await;
    assert_eq!(plane.running().counters().sessions, 1);
}

#[tokio::test]
async fn a_spent_token_is_good_again_for_the_same_key_only() {
    let plane = Plane::start().await;
    let token = plane.store().register_cluster(UID, "early").expect("register").0;
    let agent = Identity::new(UID);
    assert_eq!(agent.enroll(&plane, &token).await.expect("enrol").ring, "early");
    // It crashed before it kept the answer.
    agent.enroll(&plane, &token).await.expect("enrol again");
    let thief = Identity::new(UID);
    let refused = thief.enroll(&plane, &token).await.expect_err("another key");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn only_the_right_token_for_the_right_cluster_is_admitted() {
    let plane = Plane::start().await;
    let token = plane.store().register_cluster(UID, "stable").expect("register").0;
    let other = plane.store().register_cluster("other", "stable").expect("register").0;
    plane.store().register_cluster("gone", "stable").expect("register");
    plane.store().delete_cluster("gone").expect("delete");
    for (uid, token) in [
        (UID, ""),
        (UID, "mxb-0000"),
        (UID, other.as_str()),
        ("never-registered", token.as_str()),
        ("../../portal", token.as_str()),
        ("gone", token.as_str()),
        (UID, &"x".repeat(600)),
    ] {
        let refused = Identity::new(uid).enroll(&plane, token).await.expect_err(uid);
        assert_eq!(refused.code(), Code::Unauthenticated, "{uid} {token}");
    }
    assert_eq!(plane.running().counters().certificates, 0);
}

#[tokio::test]
async fn a_request_for_another_cluster_or_without_its_key_is_refused() {
    let plane = Plane::start().await;
    let token = plane.store().register_cluster(UID, "stable").expect("register").0;
    let key = KeyPair::generate().expect("a key");
    let mut forged = csr(UID, &key);
    *forged.last_mut().expect("bytes") ^= 1;
    for (what, csr_der) in [
        ("another cluster", csr("other", &key)),
        ("its signature is broken", forged),
        ("no request", b"nonsense".to_vec()),
        ("too long", vec![0x30; 20 * 1024]),
    ] {
        let request = v1::EnrollRequest {
            cluster_uid: UID.into(),
            bootstrap_token: token.clone(),
            csr_der,
            ..v1::EnrollRequest::default()
        };
        let mut client = enrollment(connect(&plane, None).await.expect("connect"));
        let refused = soon(client.enroll(request)).await.expect_err(what);
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused}");
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_with_a_new_key_over_the_old_one() {
    let plane = Plane::start().await;
    let old = plane.enrolled().await;
    let mut new = Identity::new(UID);
    let request = v1::RenewRequest { csr_der: new.csr() };
    let mut client = enrollment(old.connect(&plane).await);
    let response = soon(client.renew(request.clone())).await.expect("renew").into_inner();
    new.take(response.issued.expect("a certificate"));
    new.session(&plane).await;
    // The old one stays good until it expires: the new one may not have arrived.
    soon(client.renew(request.clone())).await.expect("renew again");

    let mut anonymous = enrollment(connect(&plane, None).await.expect("connect"));
    let refused = soon(anonymous.renew(request)).await.expect_err("no certificate");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let other = v1::RenewRequest { csr_der: csr("other", &new.key) };
    let refused = soon(client.renew(other)).await.expect_err("another cluster");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_expired_identity_recovers_with_its_own_key_and_not_forever() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut client = enrollment(connect(&plane, None).await.expect("connect"));
    let request =
        |csr_der| v1::RecoverRequest { expired_certificate_der: agent.chain[0].to_vec(), csr_der };
    let thief = KeyPair::generate().expect("a key");
    let refused = soon(client.recover(request(csr(UID, &thief)))).await.expect_err("another key");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut forged = request(agent.csr());
    *forged.expired_certificate_der.last_mut().expect("bytes") ^= 1;
    let refused = soon(client.recover(forged)).await.expect_err("not issued here");
    assert_eq!(refused.code(), Code::Unauthenticated);

    for _ in 0..MAX_RECOVERIES {
        soon(client.recover(request(agent.csr()))).await.expect("recover");
    }
    let refused = soon(client.recover(request(agent.csr()))).await.expect_err("used up");
    assert_eq!(refused.code(), Code::ResourceExhausted);

    // An operator lets it in again.
    let token = plane.store().renew_token(UID).expect("token").0;
    agent.enroll(&plane, &token).await.expect("enrol");
    soon(client.recover(request(agent.csr()))).await.expect("recover");
}

#[tokio::test]
async fn an_expired_certificate_opens_no_connection() {
    let options = Options { certificate_lifetime: Duration::from_secs(1), ..Options::default() };
    let plane = Plane::with(options).await;
    let agent = plane.enrolled().await;
    let expired = async {
        // With TLS 1.3 the client learns of it with the first answer.
        while let Ok(channel) = connect(&plane, Some(&agent)).await {
            let name = "metadata/timestamp.json".to_owned();
            let request = v1::FetchRequest { name, offset: 0 };
            if let Err(status) = bundle(channel).fetch(request).await {
                assert_ne!(status.code(), Code::Unauthenticated, "TLS let it in: {status}");
                return;
            }
        }
    };
    soon(expired).await;
    let request = v1::RecoverRequest {
        expired_certificate_der: agent.chain[0].to_vec(),
        csr_der: agent.csr(),
    };
    let mut client = enrollment(connect(&plane, None).await.expect("connect"));
    soon(client.recover(request)).await.expect("recover");
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_session_and_opens_no_other() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let mut session = agent.session(&plane).await;
    plane.store().revoke_cluster(UID).expect("revoke");
    assert_eq!(session.refusal().await.code(), Code::Unauthenticated);
    let channel = agent.connect(&plane).await;
    let (_up, receiver) = tokio::sync::mpsc::channel(1);
    let mut client = v1::control_service_client::ControlServiceClient::new(channel);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let refused = soon(client.session(stream)).await.expect_err("revoked");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let request = v1::RecoverRequest {
        expired_certificate_der: agent.chain[0].to_vec(),
        csr_der: agent.csr(),
    };
    let mut client = enrollment(connect(&plane, None).await.expect("connect"));
    let refused = soon(client.recover(request)).await.expect_err("revoked");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_identity_outlives_a_crash_of_the_server() {
    let mut plane = Plane::start().await;
    let agent = plane.enrolled().await;
    plane.crash_and_restart().await;
    agent.session(&plane).await;
}

#[tokio::test]
async fn a_session_needs_a_certificate() {
    let plane = Plane::start().await;
    let channel = connect(&plane, None).await.expect("connect");
    let (_up, receiver) = tokio::sync::mpsc::channel(1);
    let mut client = v1::control_service_client::ControlServiceClient::new(channel);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let refused = soon(client.session(stream)).await.expect_err("no certificate");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let plane = Plane::start().await;
    let other = Plane::start().await;
    let stranger = other.enrolled().await;
    plane.enrolled().await;
    let outcome = match connect(&plane, Some(&stranger)).await {
        Err(_) => return,
        Ok(channel) => {
            let request = v1::RenewRequest { csr_der: stranger.csr() };
            soon(enrollment(channel).renew(request)).await
        }
    };
    outcome.expect_err("another CA");
    assert_eq!(plane.running().counters().sessions, 0);
}

#[tokio::test]
async fn the_hello_must_name_the_cluster_of_the_certificate() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    plane.enrolled_as("other").await;
    let hello = v1::Hello { cluster_uid: "other".into(), ..agent.hello() };
    let mut session = Session::open(agent.connect(&plane).await, hello).await;
    assert_eq!(session.refusal().await.code(), Code::Unauthenticated);
    assert!(plane.running().agent("other").is_none_or(|agent| agent.sessions == 0));
}

#[tokio::test]
async fn a_certificate_that_another_had_signed_by_the_channel_ca_counts_while_that_is_allowed() {
    let plane = Plane::start().await;
    plane.store().register_cluster(UID, "stable").expect("register");
    let ca = plane.state().join("channel-ca");
    let read = |name: &str| std::fs::read_to_string(ca.join(name)).expect("a file of the CA");
    let key = KeyPair::from_pem(&read("ca.key.pem")).expect("the CA's key");
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), key).expect("the CA");
    let mut agent = Identity::new(UID);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, UID);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&agent.key, &issuer).expect("a certificate");
    agent.chain = vec![leaf.der().clone()];

    let refused = async || {
        let (_up, receiver) = tokio::sync::mpsc::channel(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let channel = agent.connect(&plane).await;
        let mut client = v1::control_service_client::ControlServiceClient::new(channel);
        soon(client.session(stream)).await.expect_err("refused")
    };
    assert!(refused().await.message().contains("not issued by this control plane"));
    plane.store().take_external(UID).expect("allow");
    agent.session(&plane).await;
    // Once seen, it is revoked like any other, and the next one is not taken.
    plane.store().revoke_cluster(UID).expect("revoke");
    assert!(refused().await.message().contains("revoked"));
}

#[tokio::test]
async fn a_cluster_that_was_restored_counts_its_leaders_anew_once_it_has_enrolled_again() {
    let plane = Plane::start().await;
    let agent = plane.enrolled().await;
    let hello = |epoch| v1::Hello { lease_epoch: epoch, ..agent.hello() };
    Session::open(agent.connect(&plane).await, hello(7)).await.welcome().await;
    let mut stale = Session::open(agent.connect(&plane).await, hello(2)).await;
    let refused = stale.refusal().await;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("7 has been seen"), "{refused}");
    let token = plane.store().renew_token(UID).expect("a new token").0;
    let mut restored = Identity::new(UID);
    let answer = restored.enroll(&plane, &token).await.expect("enrol");
    restored.take(answer.issued.expect("a certificate"));
    Session::open(restored.connect(&plane).await, hello(2)).await.welcome().await;
}
