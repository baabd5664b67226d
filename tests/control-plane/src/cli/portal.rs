//! `portal`: the keys that consent and leases are signed with.

use clap::Subcommand;

use super::{Failure, Output};
use crate::{
    portal::{self, Rotation},
    repository::Expiry,
    store::Store,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make new keys, and have the offline release root sign which keys agents are to pin. Grants of
    /// an old consent key are refused from then on, unless it is kept.
    RotateKeys {
        /// Another consent key.
        #[arg(long, required_unless_present = "status")]
        consent: bool,
        /// Another status key. Grants name the one that counts for them: those that name the old one
        /// are refused, too.
        #[arg(long)]
        status: bool,
        /// Keep the old keys beside the new ones: for a planned change. A second rotation drops them.
        #[arg(long)]
        keep_old: bool,
    },
}

impl Command {
    pub(super) async fn run(self, store: &Store, output: Output) -> Result<(), Failure> {
        let Self::RotateKeys { consent, status, keep_old } = self;
        let rotation = Rotation { consent, status, keep_old };
        let keys = Box::pin(portal::rotate_keys(store, rotation, Expiry::default())).await?;
        let names = |keys: &[mendix_agent_core::consent::keys::PinnedKey]| -> Vec<String> {
            keys.iter().map(|key| key.keyid.clone()).collect()
        };
        let (consent, status) = (names(&keys.consent), names(&keys.status));
        let json = serde_json::json!({
            "sequence": keys.sequence, "consent": consent, "status": status,
        });
        output.print(&json, || {
            format!(
                "consent-keys.json of sequence {} is in the release repository: consent keys {}, \
                 status keys {}. Agents take it within seconds of their session, without a restart.",
                keys.sequence,
                consent.join(", "),
                status.join(", ")
            )
        });
        Ok(())
    }
}
