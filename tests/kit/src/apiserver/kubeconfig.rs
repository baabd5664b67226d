//! Kubeconfig files, with everything inside so that they can be copied, and clients made from them.

use std::{path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::ServerError;
use crate::pki::Credential;

/// Longest wait for an answer to anything but a watch; watches get a line more often than that.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) fn for_certificate(url: &str, ca_pem: &str, user: &Credential) -> String {
    let certificate = BASE64_STANDARD.encode(user.cert_pem());
    let key = BASE64_STANDARD.encode(user.key_pem());
    file(
        url,
        ca_pem,
        &format!("client-certificate-data: {certificate}\n    client-key-data: {key}"),
    )
}

pub(crate) fn for_token(url: &str, ca_pem: &str, token: &str) -> String {
    file(url, ca_pem, &format!("token: {token}"))
}

fn file(url: &str, ca_pem: &str, user: &str) -> String {
    let ca = BASE64_STANDARD.encode(ca_pem);
    format!(
        "\
apiVersion: v1
kind: Config
current-context: mendix-agent-test
contexts:
- name: mendix-agent-test
  context:
    cluster: mendix-agent-test
    user: user
clusters:
- name: mendix-agent-test
  cluster:
    server: {url}
    certificate-authority-data: {ca}
users:
- name: user
  user:
    {user}
"
    )
}

/// A client of the runtime that is current: its connections belong to that runtime.
pub(crate) async fn client(path: &Path) -> Result<Client, ServerError> {
    // The first one wins; a program that has installed its own is right.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = Kubeconfig::read_from(path).map_err(|source| ServerError::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let mut config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(
            |source| ServerError::Kubeconfig { path: path.to_owned(), source: Box::new(source) },
        )?;
    config.read_timeout = Some(READ_TIMEOUT);
    // Everything here is on this machine; a proxy from the environment could not reach it.
    config.proxy_url = None;
    Client::try_from(config).map_err(ServerError::from)
}
