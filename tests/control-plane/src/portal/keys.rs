//! The portal's keys, the pins that agents are installed with, and their rotation.

use mendix_agent_core::{
    consent::keys::{ConsentKeys, FILE, PinnedKey},
    envelope::SigningKey,
};

use super::PortalError;
use crate::{
    repository::{self, Expiry},
    store::{Store, StoreError, files},
};

pub(super) const CONSENT: &str = "consent.pk8";
pub(super) const STATUS: &str = "status.pk8";

/// Makes the consent and the status key, and the pins an agent is installed with.
pub(crate) fn create(store: &Store) -> Result<(), PortalError> {
    let keys = ConsentKeys {
        version: 1,
        sequence: 1,
        consent: vec![make_key(store, CONSENT)?.pinned()],
        status: vec![make_key(store, STATUS)?.pinned()],
    };
    let json = pins_json(store, &keys)?;
    files::write(&pins_path(store), &json, files::Access::Everyone)?;
    Ok(())
}

/// A new key in the place of the old one, if there was one.
fn make_key(store: &Store, name: &'static str) -> Result<SigningKey, PortalError> {
    let pkcs8 = SigningKey::generate_pkcs8().map_err(|_| PortalError::NoRandomness { name })?;
    files::write(&store.portal_dir().join(name), &pkcs8, files::Access::Owner)?;
    SigningKey::from_pkcs8(&pkcs8).map_err(|source| PortalError::Key { name, source })
}

fn pins_path(store: &Store) -> std::path::PathBuf {
    store.trust_dir().join(FILE)
}

fn pins_json(store: &Store, keys: &ConsentKeys) -> Result<Vec<u8>, PortalError> {
    let mut json = serde_json::to_vec_pretty(keys)
        .map_err(|source| StoreError::Json { path: pins_path(store), source })?;
    json.push(b'\n');
    Ok(json)
}

/// Which keys are made anew, and whether the old ones still count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Another consent key.
    pub consent: bool,
    /// Another status key.
    pub status: bool,
    /// Old keys stay pinned beside the new ones: for a planned change. Without it grants of the old
    /// consent key, and grants that name the old status key, are refused from then on.
    pub keep_old: bool,
}

/// Makes new keys and has the release root sign the new pins. Agents that are installed from now on
/// begin with them; the others find them in the release repository.
///
/// # Errors
/// When keys can't be made, or the repository refuses.
pub async fn rotate_keys(
    store: &Store,
    rotation: Rotation,
    expiry: Expiry,
) -> Result<ConsentKeys, PortalError> {
    let old: ConsentKeys =
        serde_json::from_slice(&files::read(&pins_path(store))?).map_err(PortalError::Pins)?;
    let next = |wanted: bool, name, old: Vec<PinnedKey>| -> Result<Vec<PinnedKey>, PortalError> {
        if !wanted {
            return Ok(old);
        }
        let mut keys = vec![make_key(store, name)?.pinned()];
        if rotation.keep_old {
            keys.extend(old);
        }
        Ok(keys)
    };
    let keys = ConsentKeys {
        version: 1,
        sequence: old.sequence + 1,
        consent: next(rotation.consent, CONSENT, old.consent)?,
        status: next(rotation.status, STATUS, old.status)?,
    };
    let json = pins_json(store, &keys)?;
    repository::publish_file(store, FILE, &json, expiry).await?;
    files::write(&pins_path(store), &json, files::Access::Everyone)?;
    store.hint_consent_keys(keys.sequence)?;
    Ok(keys)
}

/// The key that signs with.
pub(super) fn signing_key(store: &Store, name: &'static str) -> Result<SigningKey, PortalError> {
    let pkcs8 = zeroize::Zeroizing::new(files::read(&store.portal_dir().join(name))?);
    SigningKey::from_pkcs8(&pkcs8).map_err(|source| PortalError::Key { name, source })
}
