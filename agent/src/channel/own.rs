//! The agent's own credentials, for redaction to look for: whatever a log says of them, they must not
//! leave in a snapshot.

use std::path::{Path, PathBuf};

use mendix_agent_core::redact::OwnSecrets;
use tokio::{io::AsyncReadExt, sync::watch};
use zeroize::Zeroizing;

use super::identity::Standing;
use crate::config::Config;

/// The token that the agent's Kubernetes client uses in a pod.
const API_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Largest token file that is read.
const MAX_TOKEN: u64 = 16 * 1024;

/// Where the agent's credentials are; cheap to clone.
#[derive(Clone)]
pub struct OwnCredentials {
    files: [Option<PathBuf>; 3],
    standing: watch::Receiver<Standing>,
}

impl OwnCredentials {
    pub(super) fn new(config: &Config, standing: watch::Receiver<Standing>) -> Self {
        let files = [
            Some(config.bootstrap_token_file.clone()),
            config.service_account_token_file.clone(),
            Some(PathBuf::from(API_TOKEN)),
        ];
        Self { files, standing }
    }

    /// What they are at this moment. A file that is not there, as outside a pod or after enrolment,
    /// holds nothing to hide.
    pub async fn secrets(&self) -> OwnSecrets {
        let mut tokens = Vec::with_capacity(self.files.len());
        for file in self.files.iter().flatten() {
            tokens.extend(read(file).await);
        }
        let key = match &*self.standing.borrow() {
            Standing::Enrolled(credentials) => Some(credentials.identity().key().clone()),
            Standing::NotEnrolled { .. } => None,
        };
        OwnSecrets::new(
            tokens.iter().map(|token| token.as_slice()),
            key.as_ref().map(|key| key.pkcs8()),
        )
    }
}

async fn read(file: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let mut token = Zeroizing::new(Vec::with_capacity(MAX_TOKEN as usize));
    let open = tokio::fs::File::open(file).await.ok()?;
    open.take(MAX_TOKEN).read_to_end(&mut token).await.ok()?;
    Some(token)
}
