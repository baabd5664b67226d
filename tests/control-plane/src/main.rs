//! `mendix-control-plane`: the server and its operator's commands.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    mendix_control_plane::cli::main().await
}
