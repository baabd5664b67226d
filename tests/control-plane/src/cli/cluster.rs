//! `cluster`: who may enrol.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{
    Failure, Output,
    output::{ago, table},
};
use crate::{
    attestation::TokenIssuer,
    store::{BootstrapToken, RequestKind, Store, files},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register a cluster and print its one-time bootstrap token.
    Register {
        /// UID of the cluster's namespace kube-system.
        #[arg(long)]
        uid: String,
        /// Release ring.
        #[arg(long, default_value = "stable")]
        ring: String,
        /// File with the keys by which the cluster signs ServiceAccount tokens, as it serves them at
        /// /openid/v1/jwks; with it, enrolment needs the agent's token.
        #[arg(long, value_name = "FILE", requires = "issuer")]
        issuer_jwks: Option<PathBuf>,
        /// What those tokens name as their issuer; on AKS the OIDC issuer URL.
        #[arg(long, value_name = "URL", requires = "issuer_jwks")]
        issuer: Option<String>,
        /// Write the token to this file (mode 0600) and do not print it.
        #[arg(long)]
        token_file: Option<PathBuf>,
    },
    /// Make a new bootstrap token for a cluster whose agent lost its identity.
    Token {
        /// The cluster.
        #[arg(long)]
        uid: String,
        /// Write the token to this file (mode 0600) and do not print it.
        #[arg(long)]
        token_file: Option<PathBuf>,
    },
    /// Register how a cluster signs ServiceAccount tokens, or its new keys after a rotation.
    Issuer {
        /// The cluster.
        #[arg(long)]
        uid: String,
        /// See `cluster register`.
        #[arg(long, value_name = "FILE")]
        issuer_jwks: PathBuf,
        /// See `cluster register`.
        #[arg(long, value_name = "URL")]
        issuer: String,
    },
    /// Accept certificates of a cluster that a cert-manager there had signed by the channel CA.
    External {
        /// The cluster.
        #[arg(long)]
        uid: String,
    },
    /// Revoke all certificates of a cluster; its agent needs a new bootstrap token.
    Revoke {
        /// The cluster.
        #[arg(long)]
        uid: String,
    },
    /// Ask for another attempt at an initialization that failed.
    Rerun {
        /// The cluster.
        #[arg(long)]
        uid: String,
    },
    /// Ask a cluster to apply its last committed release again.
    Recover {
        /// The cluster.
        #[arg(long)]
        uid: String,
    },
    /// Delete a cluster: its agent is deregistered, its tickets and grants are void.
    Delete {
        /// The cluster.
        #[arg(long)]
        uid: String,
    },
    /// List clusters.
    List,
}

impl Command {
    pub(super) fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        match self {
            Self::Register { uid, ring, issuer_jwks, issuer, token_file } => {
                let issuer = match issuer_jwks.zip(issuer) {
                    Some((file, issuer)) => Some(token_issuer(&file, &issuer)?),
                    None => None,
                };
                let token = store.register_cluster(&uid, &ring)?;
                if let Some(issuer) = issuer {
                    store.register_issuer(&uid, issuer)?;
                }
                hand_over(&uid, &token, token_file, output)
            }
            Self::Token { uid, token_file } => {
                let token = store.renew_token(&uid)?;
                hand_over(&uid, &token, token_file, output)
            }
            Self::Issuer { uid, issuer_jwks, issuer } => {
                store.register_issuer(&uid, token_issuer(&issuer_jwks, &issuer)?)?;
                output.print(&serde_json::json!({ "uid": uid, "issuer": issuer }), || {
                    format!("Enrolment of {uid} now needs a ServiceAccount token of {issuer}.")
                });
                Ok(())
            }
            Self::External { uid } => {
                store.take_external(&uid)?;
                output.print(&serde_json::json!({ "uid": uid, "external": true }), || {
                    format!("Certificates of {uid} that the channel CA signed are accepted.")
                });
                Ok(())
            }
            Self::Revoke { uid } => {
                store.revoke_cluster(&uid)?;
                output.print(&serde_json::json!({ "uid": uid, "revoked": true }), || {
                    format!(
                        "The certificates of {uid} are revoked. Next: `cluster token --uid {uid}`."
                    )
                });
                Ok(())
            }
            Self::Rerun { uid } => {
                let request = store.place_request(&uid, RequestKind::RerunInitialization)?;
                output.print(&request, || format!("Request {} was placed.", request.request_id));
                Ok(())
            }
            Self::Recover { uid } => {
                let request = store.place_request(&uid, RequestKind::Recover)?;
                output.print(&request, || format!("Request {} was placed.", request.request_id));
                Ok(())
            }
            Self::Delete { uid } => {
                store.delete_cluster(&uid)?;
                output.print(&serde_json::json!({ "uid": uid, "deleted": true }), || {
                    format!("Cluster {uid} is deleted; its agent will be deregistered.")
                });
                Ok(())
            }
            Self::List => {
                let clusters = store.clusters()?;
                let json: Vec<_> = clusters
                    .iter()
                    .map(|cluster| {
                        serde_json::json!({
                            "uid": cluster.uid,
                            "ring": cluster.ring,
                            "registered_at": cluster.registered_at,
                            "deleted_at": cluster.deleted_at,
                            "enrolled": cluster.token_spent_by.is_some(),
                            "recoveries": cluster.recoveries,
                            "release": cluster.release.value.as_ref().map(|wish| &wish.release_id),
                        })
                    })
                    .collect();
                output.print(&json, || {
                    let rows = clusters.iter().map(|cluster| {
                        let enrolled = match (&cluster.deleted_at, &cluster.token_spent_by) {
                            (Some(at), _) => format!("deleted {}", ago(*at)),
                            (None, Some(_)) => "yes".to_owned(),
                            (None, None) => "no".to_owned(),
                        };
                        [
                            cluster.uid.clone(),
                            cluster.ring.clone(),
                            enrolled,
                            cluster
                                .release
                                .value
                                .as_ref()
                                .map_or("-".to_owned(), |wish| wish.release_id.clone()),
                            ago(cluster.registered_at),
                        ]
                    });
                    table(
                        ["UID", "RING", "ENROLLED", "RELEASE WANTED", "REGISTERED"],
                        rows,
                        "No cluster is registered. `cluster register --uid …` adds one.",
                    )
                });
                Ok(())
            }
        }
    }
}

fn token_issuer(file: &Path, issuer: &str) -> Result<TokenIssuer, Failure> {
    Ok(TokenIssuer::new(issuer, &files::read(file)?)?)
}

fn hand_over(
    uid: &str,
    token: &BootstrapToken,
    file: Option<PathBuf>,
    output: Output,
) -> Result<(), Failure> {
    match file {
        Some(path) => {
            files::write(&path, token.0.as_bytes(), files::Access::Owner)?;
            output.print(&serde_json::json!({ "uid": uid, "token_file": path }), || {
                format!("The bootstrap token of {uid} is in {}; it works once.", path.display())
            });
        }
        None => output.print(&serde_json::json!({ "uid": uid, "token": token.0 }), || {
            format!("Bootstrap token of {uid}, shown once and good for one key:\n{}", token.0)
        }),
    }
    Ok(())
}
