//! Who calls: from the client certificate to a registered cluster.

use jiff::Timestamp;
use tonic::{Extensions, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Shared, incoming::AgentConnection, shared::blocking};
use crate::{
    crypto,
    store::{ClusterRecord, Issued, StoreError},
};

/// A caller with a certificate of the channel CA that was issued to a registered cluster and is not
/// revoked.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The cluster, as it was when the call began; it may have been deleted.
    pub(super) cluster: ClusterRecord,
    /// SHA-256 of the leaf, hex.
    pub(super) leaf_sha256: String,
}

impl Peer {
    /// Its cluster's UID.
    pub(super) fn uid(&self) -> &str {
        &self.cluster.uid
    }

    /// Refuses a cluster that was deleted. Only a session has a better answer, `Deregistered`.
    pub(super) fn present(self) -> Result<Self, Status> {
        match self.cluster.deleted_at {
            Some(_) => {
                let uid = self.uid();
                Err(Status::permission_denied(format!("cluster {uid} was deleted")))
            }
            None => Ok(self),
        }
    }
}

/// Finds out who calls.
pub(super) async fn authenticate(shared: &Shared, call: &Extensions) -> Result<Peer, Status> {
    let leaf = call
        .get::<AgentConnection>()
        .and_then(|connection| connection.certificate.clone())
        .ok_or_else(|| Status::unauthenticated("a client certificate is needed; enrol first"))?;
    let uid = common_name(&leaf)
        .ok_or_else(|| Status::unauthenticated("the client certificate names no cluster"))?;
    let store = shared.store.clone();
    let name = uid.clone();
    let cluster = blocking(move || store.find_cluster(&name))
        .await?
        .ok_or_else(|| Status::unauthenticated(format!("cluster {uid} is not registered")))?;
    let cluster = match cluster.issued_leaf(&leaf) {
        None if cluster.takes_external => remember(shared, cluster.uid, &leaf).await?,
        _ => cluster,
    };
    let unknown = "the client certificate was not issued by this control plane; enrol again";
    let issued = cluster.issued_leaf(&leaf).ok_or_else(|| Status::unauthenticated(unknown))?;
    if issued.revoked {
        return Err(Status::unauthenticated("the client certificate was revoked; enrol again"));
    }
    Ok(Peer { leaf_sha256: crypto::sha256_hex(&leaf), cluster })
}

/// Remembers a certificate that somebody else had signed by the channel CA, so that it can be revoked
/// like any other.
async fn remember(shared: &Shared, uid: String, leaf: &[u8]) -> Result<ClusterRecord, Status> {
    let unreadable = || Status::unauthenticated("the client certificate can't be read");
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
    let not_after = certificate.validity().not_after.timestamp();
    let issued = Issued {
        leaf_sha256: crypto::sha256_hex(leaf),
        spki_sha256: crypto::sha256_hex(certificate.public_key().raw),
        not_after: Timestamp::from_second(not_after).map_err(|_| unreadable())?,
        ca: "external".to_owned(),
        revoked: false,
    };
    let store = shared.store.clone();
    blocking(move || {
        store.update_cluster::<_, StoreError>(&uid, |cluster| {
            if cluster.takes_external {
                cluster.remember(issued, Timestamp::now());
            }
            Ok(cluster.clone())
        })
    })
    .await
}

/// Subject CN of a certificate.
pub(super) fn common_name(certificate_der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}
