//! Clusters registered and enrolled in bulk, without a network: what a load run begins with.

use std::time::Duration;

use jiff::Timestamp;
use mendix_agent_proto::v1;

use crate::{
    pki::{ChannelCa, PkiError, check_csr},
    store::Store,
};

/// Registers each cluster and issues the certificate its agent asks for, valid for `lifetime`, as
/// enrolment would. `requests` are cluster UIDs with the certificate requests (DER) of their agents;
/// the answers come in the same order.
///
/// # Errors
/// When a cluster is registered already, a request does not fit its cluster, or state can't be
/// written; the clusters before it stay.
pub fn provision(
    store: &Store,
    ring: &str,
    lifetime: Duration,
    requests: &[(String, Vec<u8>)],
) -> Result<Vec<v1::IssuedCertificate>, PkiError> {
    let ca = ChannelCa::load(store)?;
    requests
        .iter()
        .map(|(uid, csr)| {
            store.register_cluster(uid, ring)?;
            let csr = check_csr(csr, uid)?;
            store.update_cluster(uid, |cluster| {
                let (certificate, issued) = ca.issue(&csr, lifetime)?;
                cluster.token_spent_by = Some(csr.spki_sha256.clone());
                cluster.remember(issued, Timestamp::now());
                Ok(certificate)
            })
        })
        .collect()
}
