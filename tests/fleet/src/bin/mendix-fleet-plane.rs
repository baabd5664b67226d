//! The control plane as the load runs start it: the same program as `mendix-control-plane`, built
//! with this crate so that it is there when its tests run.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    mendix_control_plane::cli::main().await
}
