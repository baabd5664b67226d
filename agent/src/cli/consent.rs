//! `consent list` and `consent verify`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::Timestamp;
use mendix_agent_core::consent::keys::Trust;

use super::{Failure, block_on};
use crate::{
    consent::{self, Judge, ListError, Standing},
    console::{Exit, Output},
    run,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what the LogSharingPolicy and each ticket allow, why not, and what is left of budgets.
    List {
        /// How to print it.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Check a grant or a lease against the pinned keys, offline, and say what it allows and what is
    /// wrong. Ends with 5 when something is.
    Verify {
        /// The DSSE envelope, as the portal issued it.
        file: PathBuf,
        /// The pinned keys: consent-keys.json of the trust folder, or entry consent-keys.json of
        /// Secret mendix-agent-consent-keys after a rotation.
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/mendix-agent/trust/consent-keys.json"
        )]
        keys: PathBuf,
        /// UID of namespace kube-system of the cluster it has to be for.
        #[arg(long, value_name = "UID")]
        cluster: Option<String>,
        /// Judge it as of this time (RFC 3339); now unless given.
        #[arg(long, value_name = "TIME")]
        at: Option<Timestamp>,
        /// How to print the result.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

/// Why there is nothing to verify with.
#[derive(Debug, thiserror::Error)]
#[error("read {path}")]
struct FileError {
    path: String,
    #[source]
    source: std::io::Error,
}

impl From<ListError> for Failure {
    fn from(error: ListError) -> Self {
        Self::new(Exit::Cluster, &error)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|source| {
        let path = path.display().to_string();
        Failure::new(Exit::Failed, &FileError { path, source })
    })
}

impl Command {
    pub(super) fn run(
        self,
        namespace: impl Fn() -> Result<String, Failure>,
    ) -> Result<Exit, Failure> {
        match self {
            Self::List { output } => block_on(async {
                let standing = Standing::read(&run::client().await?, &namespace()?).await?;
                output.show(&standing, || standing.table())?;
                Ok::<_, Failure>(Exit::Success)
            }),
            Self::Verify { file, keys, cluster, at, output } => {
                let trust = Trust::parse(&read(&keys)?)
                    .map_err(|error| Failure::new(Exit::Config, &error))?;
                let at = at.unwrap_or_else(Timestamp::now);
                let judge = Judge { trust: &trust, cluster: cluster.as_deref(), at };
                let verdict = consent::verify(&read(&file)?, judge);
                let (text, json) = match &verdict {
                    Ok(verdict) => (verdict.text(), verdict.json()),
                    Err(refusal) => consent::refused(refusal),
                };
                output.show(&json, || text)?;
                let is_sound = verdict.is_ok_and(|verdict| verdict.is_sound());
                Ok(if is_sound { Exit::Success } else { Exit::NotVerified })
            }
        }
    }
}
