//! The smallest tonic client that holds a session: mTLS, Hello, a heartbeat a minute, nothing else.
//! The yardstick for what an idle agent costs (`idle.rs` runs both side by side).

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use mendix_agent_proto::v1::{
    self, AgentMessage, agent_message::Body, control_service_client::ControlServiceClient,
};
use mendix_e2e::wire;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

#[derive(Parser)]
struct Arguments {
    /// Host and port of the control plane, an IP address.
    #[arg(long)]
    address: std::net::SocketAddr,
    /// Folder with ca.pem, cert.pem and key.pem.
    #[arg(long)]
    identity: PathBuf,
    /// Subject of the certificate.
    #[arg(long)]
    cluster_uid: String,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tls = tls(&arguments.identity)?;
    let channel = wire::connect(arguments.address, tls).await?;
    let (up, outbound) = mpsc::channel(4);
    let hello = v1::Hello {
        cluster_uid: arguments.cluster_uid,
        agent_version: "0.0.0".into(),
        boot_id: "minimal".into(),
        lease_epoch: 1,
        protocol_min: 1,
        protocol_max: 1,
        ..v1::Hello::default()
    };
    up.send(AgentMessage { body: Some(Body::Hello(hello)) }).await?;
    let mut down = ControlServiceClient::new(channel)
        .session(ReceiverStream::new(outbound))
        .await
        .context("open the session")?
        .into_inner();
    let mut beat = tokio::time::interval(Duration::from_secs(60));
    let mut sequence = 0;
    loop {
        tokio::select! {
            message = down.message() => if message.context("read the session")?.is_none() { return Ok(()) },
            _ = beat.tick() => {
                sequence += 1;
                let heartbeat = v1::Heartbeat { sequence, sent_at: None };
                up.send(AgentMessage { body: Some(Body::Heartbeat(heartbeat)) }).await?;
            }
        }
    }
}

fn tls(folder: &std::path::Path) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let chain =
        CertificateDer::pem_file_iter(folder.join("cert.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
