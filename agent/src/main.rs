//! `mendix-agent`: see `cli.rs` for the commands and `lib.rs` for the map.

use std::process::ExitCode;

fn main() -> ExitCode {
    mendix_agent::cli::main()
}
