//! `bundle`: a release in a file, without a cluster.

use std::path::PathBuf;

use clap::Subcommand;
use jiff::Timestamp;

use super::Failure;
use crate::{
    console::{Exit, Output},
    patch::exported::{self, Cluster, Exported, ExportedError, ReleaseView, VerifyError},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what a release says of itself; nothing is verified.
    Inspect {
        /// The release, as `release export` of the control plane writes it.
        file: PathBuf,
        /// How to print it.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Verify a release against a release root, and say what an agent would refuse it for.
    Verify {
        /// The release, as `release export` of the control plane writes it.
        file: PathBuf,
        /// The release root to trust: root.json of the trust folder, got by a way that you trust.
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
        /// Judge it for a cluster of this release ring.
        #[arg(long, value_name = "RING")]
        ring: Option<String>,
        /// Judge it for a cluster with this Kubernetes version.
        #[arg(long, value_name = "VERSION")]
        kubernetes_version: Option<String>,
        /// Judge dates as of this time (RFC 3339); now unless it is given.
        #[arg(long, value_name = "TIME")]
        at: Option<Timestamp>,
        /// How to print the result.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

impl Command {
    pub(super) fn execute(self) -> Result<Exit, Failure> {
        let now = Timestamp::now();
        match self {
            Self::Inspect { file, output } => {
                print(&exported::claims(&Exported::open(&file)?)?, output, now)
            }
            Self::Verify { file, root, ring, kubernetes_version, at, output } => {
                let bytes = std::fs::read(&root).map_err(|error| {
                    let message =
                        format!("can't read the release root {}: {error}", root.display());
                    Failure { exit: Exit::Failed, message }
                })?;
                let exported = Exported::open(&file)?;
                let cluster = Cluster { ring, kubernetes_version };
                let at = at.unwrap_or(now);
                let verify = exported::verify(&exported, (&root, bytes), &cluster, at);
                let view = super::runtime()?.block_on(verify)?;
                print(&view, output, at)
            }
        }
    }
}

fn print(view: &ReleaseView, output: Output, now: Timestamp) -> Result<Exit, Failure> {
    output.show(view, || exported::table(view, now))?;
    Ok(if view.problems.is_empty() { Exit::Success } else { Exit::NotVerified })
}

impl From<ExportedError> for Failure {
    fn from(error: ExportedError) -> Self {
        Self::new(Exit::Failed, &error)
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        Self::new(Exit::NotVerified, &error)
    }
}
