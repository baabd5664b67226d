//! Replacing the channel CA while agents use it, and while some of them are away.
//!
//! ```text
//! begin    the new CA exists; both are trusted; the old one issues
//! switch   both are trusted; the new one issues, the server's certificate too
//! finish   only the new one is trusted
//! ```
//!
//! Agents get all trusted CAs with every certificate, that is within half of a certificate's life;
//! those that are away read them from `trust/channel-ca.pem`, when that was put into their cluster. A
//! server takes a step over when it starts again.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use super::{CA_LIFETIME, PkiError, crypto_error, set_lifetime};
use crate::store::{Store, StoreError, files};

/// Name of the CA that a control plane is made with.
pub(crate) const FIRST: &str = "ca";
/// Which CAs there are.
const NAMES: &str = "rotation.json";

/// Which CAs there are, by the names of their files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Issues certificates.
    pub issuing: String,
    /// Will issue, and is trusted already.
    pub next: Option<String>,
    /// Has issued, and is still trusted.
    pub previous: Option<String>,
}

impl Default for Names {
    fn default() -> Self {
        Self { issuing: FIRST.to_owned(), next: None, previous: None }
    }
}

impl Names {
    /// Which CAs there are now.
    ///
    /// # Errors
    /// When state can't be read.
    pub fn read(store: &Store) -> Result<Self, StoreError> {
        Ok(files::read_json(&store.channel_ca_dir().join(NAMES))?.unwrap_or_default())
    }

    /// All that are trusted, the one that issues first.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let others = [self.next.as_deref(), self.previous.as_deref()];
        [Some(self.issuing.as_str())].into_iter().chain(others).flatten()
    }
}

/// Makes the new CA and has it trusted.
///
/// # Errors
/// [`StoreError::Refused`] while a rotation is under way.
pub fn begin(store: &Store) -> Result<Names, PkiError> {
    let _lock = store.lock()?;
    let mut names = Names::read(store)?;
    match (&names.next, &names.previous) {
        (None, None) => {}
        (Some(_), _) => return refuse("a rotation has begun; the next step is `ca switch`"),
        (_, Some(_)) => return refuse("a rotation is under way; the next step is `ca finish`"),
    }
    let number = names.issuing.strip_prefix("ca-").and_then(|number| number.parse().ok());
    let next = format!("ca-{}", number.unwrap_or(1u32).saturating_add(1));
    make(&store.channel_ca_dir(), &next)?;
    names.next = Some(next);
    publish(store, &names)?;
    Ok(names)
}

/// Has the new CA issue certificates.
///
/// # Errors
/// [`StoreError::Refused`] when none was made.
pub fn switch(store: &Store) -> Result<Names, PkiError> {
    let _lock = store.lock()?;
    let old = Names::read(store)?;
    let Some(next) = old.next else {
        return refuse("there is no new CA to switch to; the first step is `ca begin`");
    };
    let names = Names { issuing: next, next: None, previous: Some(old.issuing) };
    publish(store, &names)?;
    Ok(names)
}

/// Ends trust in the old CA and deletes its key. Refused while agents hold certificates of it that
/// are still good, unless `force`: those agents come back through Recover.
///
/// # Errors
/// [`StoreError::Refused`].
pub fn finish(store: &Store, force: bool) -> Result<Names, PkiError> {
    let _lock = store.lock()?;
    let mut names = Names::read(store)?;
    let Some(previous) = names.previous.take() else {
        return refuse("there is no old CA to drop");
    };
    let holders = holders(store, &previous)?;
    if !force && !holders.is_empty() {
        return refuse(&format!(
            "{} still hold certificates of the old CA: {}; they renew within half of a \
             certificate's life while they are connected. --force drops it anyway, and they come \
             back through Recover",
            holders.len(),
            holders.join(", ")
        ));
    }
    publish(store, &names)?;
    let path = key_file(&store.channel_ca_dir(), &previous);
    std::fs::remove_file(&path).map_err(|source| StoreError::file("remove", &path, source))?;
    Ok(names)
}

/// Clusters whose newest good certificate was issued by this CA.
fn holders(store: &Store, ca: &str) -> Result<Vec<String>, StoreError> {
    let now = Timestamp::now();
    let clusters = store.clusters()?.into_iter().filter(|cluster| cluster.deleted_at.is_none());
    let held = clusters.filter(|cluster| {
        let good = cluster.issued.iter().filter(|it| !it.revoked && it.not_after > now);
        good.max_by_key(|it| it.not_after).is_some_and(|newest| newest.ca == ca)
    });
    Ok(held.map(|cluster| cluster.uid).collect())
}

fn refuse<T>(why: &str) -> Result<T, PkiError> {
    Err(StoreError::Refused(why.to_owned()).into())
}

/// Makes a CA with its key.
pub(super) fn make(dir: &Path, name: &str) -> Result<(), PkiError> {
    let key = KeyPair::generate().map_err(crypto_error("make the CA's key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let title = format!("Mendix reference channel CA ({name})");
    params.distinguished_name.push(DnType::CommonName, title);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_lifetime(&mut params, CA_LIFETIME);
    let ca = params.self_signed(&key).map_err(crypto_error("sign the CA's certificate"))?;
    let owner = files::Access::Owner;
    files::write(&key_file(dir, name), key.serialize_pem().as_bytes(), owner)?;
    files::write(&dir.join(format!("{name}.pem")), ca.pem().as_bytes(), files::Access::Everyone)?;
    Ok(())
}

/// Makes these the CAs, in the order in which a reader may see them: what is trusted first.
pub(super) fn publish(store: &Store, names: &Names) -> Result<(), PkiError> {
    let dir = store.channel_ca_dir();
    let mut bundle = Vec::new();
    for name in names.all() {
        bundle.extend(files::read(&dir.join(format!("{name}.pem")))?);
    }
    files::write(&store.trust_dir().join("channel-ca.pem"), &bundle, files::Access::Everyone)?;
    files::write_json(&dir.join(NAMES), names)?;
    Ok(())
}

pub(super) fn key_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.key.pem"))
}

pub(super) fn certificate(dir: &Path, name: &str) -> Result<CertificateDer<'static>, PkiError> {
    let path = dir.join(format!("{name}.pem"));
    CertificateDer::from_pem_slice(&files::read(&path)?).map_err(|_| PkiError::Pem { path })
}
