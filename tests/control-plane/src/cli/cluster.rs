//! `cluster`: who may enrol.

use std::path::PathBuf;

use clap::Subcommand;

use super::{
    Failure, Output,
    output::{ago, table},
};
use crate::store::{BootstrapToken, RequestKind, Store, files};

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
    /// Revoke all certificates of a cluster; its agent needs a new bootstrap token.
    Revoke {
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
            Self::Register { uid, ring, token_file } => {
                let token = store.register_cluster(&uid, &ring)?;
                hand_over(&uid, &token, token_file, output)
            }
            Self::Token { uid, token_file } => {
                let token = store.renew_token(&uid)?;
                hand_over(&uid, &token, token_file, output)
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
