//! The channel against a real gRPC server over real mutual TLS on loopback, and an API server that
//! knows Secrets.

mod api;
mod cable;
mod dial;
mod enroll;
mod faults;
pub(crate) mod plane;
mod proxy;
mod session;
mod staged;

use std::time::Duration;

/// Longest wait of a test for something that is bound to happen; only a failing test waits it out.
const PATIENCE: Duration = Duration::from_secs(120);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("no {what}"))
}
