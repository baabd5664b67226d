//! `audit verify` and `audit list`.

use clap::Subcommand;
use mendix_agent_core::audit::Checkpoint;

use super::{Failure, block_on};
use crate::{
    audit::show::{self, From, ShowError, Stored},
    console::{Exit, Output},
    run,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check that no record was altered, removed or moved, and with a checkpoint that was kept
    /// elsewhere also that the end was not cut off. Ends with 5 when something is wrong.
    Verify {
        /// SEQUENCE:HASH as the control plane or an earlier run of this command said; may be
        /// repeated.
        #[arg(long = "checkpoint", value_name = "SEQUENCE:HASH")]
        checkpoints: Vec<Checkpoint>,
        /// `cluster`, or a file with the exported ConfigMaps (`kubectl -n mendix-agent get
        /// configmaps -o json`); `-` is standard input.
        #[arg(long, value_name = "FILE|cluster", default_value = "cluster")]
        from: From,
        /// UID of namespace kube-system of the cluster that the log has to be of; by default the
        /// cluster's own.
        #[arg(long, value_name = "UID")]
        cluster: Option<String>,
        /// How to print the result.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Show the newest decisions. They are not verified.
    List {
        /// How many.
        #[arg(long, default_value_t = 50)]
        last: usize,
        /// `cluster`, or a file with the exported ConfigMaps; `-` is standard input.
        #[arg(long, value_name = "FILE|cluster", default_value = "cluster")]
        from: From,
        /// How to print them.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

impl std::convert::From<ShowError> for Failure {
    fn from(error: ShowError) -> Self {
        let exit = match error {
            ShowError::Cluster { .. } => Exit::Cluster,
            ShowError::File { .. } | ShowError::NotExported { .. } => Exit::Failed,
        };
        Self::new(exit, &error)
    }
}

async fn stored(
    from: &From,
    namespace: impl Fn() -> Result<String, Failure>,
) -> Result<Stored, Failure> {
    match from {
        From::File(path) => Ok(Stored::in_file(path)?),
        From::Cluster => Ok(Stored::in_cluster(&run::client().await?, &namespace()?).await?),
    }
}

impl Command {
    pub(super) fn run(
        self,
        namespace: impl Fn() -> Result<String, Failure>,
    ) -> Result<Exit, Failure> {
        block_on(async {
            match self {
                Self::Verify { checkpoints, from, cluster, output } => {
                    let stored = stored(&from, namespace).await?;
                    let verified = stored.verify(cluster.as_deref(), &checkpoints);
                    output.show(&verified.json(), || verified.text())?;
                    Ok(if verified.is_sound() { Exit::Success } else { Exit::NotVerified })
                }
                Self::List { last, from, output } => {
                    let records = stored(&from, namespace).await?.newest(last);
                    output.show(&records, || show::table(&records))?;
                    Ok::<_, Failure>(Exit::Success)
                }
            }
        })
    }
}
