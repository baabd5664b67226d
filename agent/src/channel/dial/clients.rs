//! Clients of the control plane's services, each with its message limits.

use mendix_agent_proto::{limits, v1};
use tonic::transport::Channel;

/// A client of the session's service with its message limits.
pub fn control_client(
    channel: Channel,
) -> v1::control_service_client::ControlServiceClient<Channel> {
    v1::control_service_client::ControlServiceClient::new(channel)
        .max_decoding_message_size(limits::MAX_CONTROL_MESSAGE)
        .max_encoding_message_size(limits::MAX_AGENT_MESSAGE)
}

/// Room for the fields around the payload of a chunk or a certificate.
const FRAME: usize = 4 * 1024;

/// A client of the release repository with its message limits.
pub fn bundle_client(channel: Channel) -> v1::bundle_service_client::BundleServiceClient<Channel> {
    v1::bundle_service_client::BundleServiceClient::new(channel)
        .max_decoding_message_size(limits::MAX_FETCH_CHUNK + FRAME)
        .max_encoding_message_size(FRAME)
}

/// A client of the snapshot store with its message limits.
pub fn snapshot_client(
    channel: Channel,
) -> v1::snapshot_service_client::SnapshotServiceClient<Channel> {
    v1::snapshot_service_client::SnapshotServiceClient::new(channel)
        .max_decoding_message_size(FRAME)
        .max_encoding_message_size(limits::MAX_SNAPSHOT_CHUNK + FRAME)
}

/// A client of the enrolment service with its message limits.
pub(crate) fn enrollment_client(
    channel: Channel,
) -> v1::enrollment_service_client::EnrollmentServiceClient<Channel> {
    let certificates = limits::MAX_CHAIN + limits::MAX_TRUST_ANCHORS;
    v1::enrollment_service_client::EnrollmentServiceClient::new(channel)
        .max_decoding_message_size(certificates * limits::MAX_CERTIFICATE + FRAME)
        .max_encoding_message_size(3 * limits::MAX_CERTIFICATE + FRAME)
}
