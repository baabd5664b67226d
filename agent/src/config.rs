//! Configuration: a file, then environment variables, then flags; the last one that says something
//! wins. Every error names the key, where its value came from, and what would be accepted.

use std::{net::SocketAddr, path::PathBuf};

use url::Url;

/// What the agent was told, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://host:port` of the control plane's private endpoint.
    pub endpoint: Url,
    /// Accept addresses outside RFC 1918 and ULA. Off unless a customer decides otherwise.
    pub allow_public_endpoint: bool,
    /// Accept loopback addresses; for development and tests.
    pub allow_loopback_endpoint: bool,
    /// Folder with `root.json` (release root), `consent-keys.json` and `channel-ca.pem`.
    pub trust_dir: PathBuf,
    /// One-time enrolment token; read only while the agent has no identity.
    pub bootstrap_token_file: PathBuf,
    /// Projected ServiceAccount token for attestation at enrolment; absent outside a pod.
    pub service_account_token_file: Option<PathBuf>,
    /// The agent's own namespace.
    pub namespace: String,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
}
