//! From a request's path to its service. tonic's own router would bring a web framework along for
//! four prefixes.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use mendix_agent_proto::{
    limits,
    v1::{
        bundle_service_server::BundleServiceServer, control_service_server::ControlServiceServer,
        enrollment_service_server::EnrollmentServiceServer,
        snapshot_service_server::SnapshotServiceServer,
    },
};
use tonic::{Status, body::Body, codegen::BoxFuture, server::NamedService};
use tower::Service;

use super::{
    Shared, bundle::Bundle, enrollment::Enrollment, session::Control, snapshot::Snapshots,
};

/// Largest CSR with an expired certificate or tokens beside it.
const MAX_ENROLLMENT_MESSAGE: usize = 4 * limits::MAX_CERTIFICATE;
/// Largest FetchRequest.
const MAX_FETCH_MESSAGE: usize = 2 * limits::MAX_FETCH_NAME;
/// Largest chunk with its frame.
const MAX_CHUNK_MESSAGE: usize = limits::MAX_SNAPSHOT_CHUNK + 1024;

/// The four services.
#[derive(Clone)]
pub(super) struct Routes {
    control: ControlServiceServer<Control>,
    enrollment: EnrollmentServiceServer<Enrollment>,
    bundle: BundleServiceServer<Bundle>,
    snapshot: SnapshotServiceServer<Snapshots>,
}

impl Routes {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            control: ControlServiceServer::new(Control::new(shared.clone()))
                .max_decoding_message_size(limits::MAX_AGENT_MESSAGE)
                .max_encoding_message_size(limits::MAX_CONTROL_MESSAGE),
            enrollment: EnrollmentServiceServer::new(Enrollment::new(shared.clone()))
                .max_decoding_message_size(MAX_ENROLLMENT_MESSAGE),
            bundle: BundleServiceServer::new(Bundle::new(shared.clone()))
                .max_decoding_message_size(MAX_FETCH_MESSAGE),
            snapshot: SnapshotServiceServer::new(Snapshots::new(shared.clone()))
                .max_decoding_message_size(MAX_CHUNK_MESSAGE),
        }
    }
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = request.uri().path().trim_start_matches('/').split('/').next();
        match service.unwrap_or_default() {
            <ControlServiceServer<Control>>::NAME => self.control.call(request),
            <EnrollmentServiceServer<Enrollment>>::NAME => self.enrollment.call(request),
            <BundleServiceServer<Bundle>>::NAME => self.bundle.call(request),
            <SnapshotServiceServer<Snapshots>>::NAME => self.snapshot.call(request),
            _ => Box::pin(async { Ok(Status::unimplemented("no such service").into_http()) }),
        }
    }
}
