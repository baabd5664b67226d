//! `ca`: replacing the channel CA, step by step.

use clap::Subcommand;

use super::{Failure, Output};
use crate::{
    pki::rotation::{self, Names},
    store::Store,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Which CA issues, and which others are trusted.
    Status,
    /// Make a new CA that agents learn to trust; the old one goes on issuing.
    Begin,
    /// Have the new CA issue; the old one stays trusted.
    Switch,
    /// End trust in the old CA and delete its key.
    Finish {
        /// Also while agents hold certificates of the old CA; they come back through Recover.
        #[arg(long)]
        force: bool,
    },
}

impl Command {
    pub(super) fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        let (names, next) = match self {
            Self::Status => (Names::read(store)?, None),
            Self::Begin => (
                rotation::begin(store)?,
                Some("when every agent has renewed its certificate: `ca switch`"),
            ),
            Self::Switch => (
                rotation::switch(store)?,
                Some("when every agent has renewed its certificate again: `ca finish`"),
            ),
            Self::Finish { force } => (rotation::finish(store, force)?, None),
        };
        output.print(&names, || {
            let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
            let mut text = format!(
                "issues    {}\nnext      {}\nprevious  {}",
                names.issuing,
                or_none(&names.next),
                or_none(&names.previous)
            );
            if let Some(next) = next {
                let trust = store.trust_dir().join("channel-ca.pem");
                text.push_str(&format!(
                    "\n\nNow restart the server, and put {} into the clusters whose agents are \
                     away.\nThen, {next}.",
                    trust.display()
                ));
            }
            text
        });
        Ok(())
    }
}
