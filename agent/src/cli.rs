//! The command line: parse, set up what every command needs, run one, turn its end into an exit
//! code.

mod audit;
mod bundle;
mod consent;
mod inspect;

use std::{fmt, path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    config::{ConfigError, Layer, Sources},
    console::{self, Exit, Output, ShowError},
    crd,
    errors::describe,
    hardening,
    logging::Level,
    logs, run,
};

/// Worker threads of the runtime. The agent waits most of its life; two let a redaction and the
/// session's heartbeats run at once.
const WORKERS: usize = 2;

/// In-cluster agent of Mendix on Azure.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct Cli {
    /// Configuration file; without it /etc/mendix-agent/config.yaml is read if it is there.
    #[arg(long, global = true, value_name = "FILE", env = "MENDIX_AGENT_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    layer: Layer,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until it is told to stop.
    Run,
    /// Watch new versions of the agent on trial, and put the former one back when one fails.
    Guard,
    /// Check everything the agent needs, and say what to do about what is missing.
    Preflight {
        /// How to print the result.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
        /// End with 0 instead of 10 when there are warnings and nothing failed.
        #[arg(long)]
        accept_warnings: bool,
    },
    /// Show what runs, what is pending, what was refused and what was shared.
    Status {
        /// How to print it.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
        /// Print it again whenever it changed, looking every SECONDS (2 unless given).
        #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
    },
    /// What the audit log of this cluster says, and whether it was tampered with.
    #[command(subcommand)]
    Audit(audit::Command),
    /// What each support ticket allows, and why not; grants and leases, checked offline.
    #[command(subcommand)]
    Consent(consent::Command),
    /// Look at a release in a file, and check it, away from any cluster.
    Bundle {
        #[command(subcommand)]
        command: bundle::Command,
    },
    /// Look at what log snapshots would hold.
    #[command(subcommand)]
    Logs(Logs),
    /// Print the custom resource definitions of the agent as YAML.
    Crds,
    /// Print what a shell needs to complete this program's arguments.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Logs {
    Preview(Box<logs::preview::Arguments>),
}

/// The commands and their arguments.
pub fn commands() -> clap::Command {
    Cli::command()
}

/// Why a command ended early, with the exit code that says so.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    fn new(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { exit, message: describe(error) }
    }
}

impl From<ShowError> for Failure {
    fn from(error: ShowError) -> Self {
        Self::new(Exit::Failed, &error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, &error)
    }
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("mendix-agent: {failure}");
            failure.exit.into()
        }
    }
}

fn execute(cli: Cli) -> Result<Exit, Failure> {
    // Fails only when a provider is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let env = |name: &str| std::env::var(name).ok();
    let sources = || Sources::read(&cli.layer, &env, cli.config.as_deref());
    match cli.command {
        Command::Crds => show(crd::YAML),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut commands(), "mendix-agent", &mut script);
            show(&String::from_utf8_lossy(&script))
        }
        Command::Bundle { command } => command.execute(),
        Command::Run => {
            let config = sources()?.resolve()?;
            hardening::keep_memory_private().map_err(|error| Failure::new(Exit::Failed, &error))?;
            let level = Level::start(&config.log, cli.layer, cli.config);
            tell_panics_by_place();
            block_on(run::run(config, level))
        }
        Command::Guard => {
            let config = sources()?.guard()?;
            let level = Level::start(&config.log, cli.layer, cli.config);
            tell_panics_by_place();
            block_on(run::guard(config, level))
        }
        Command::Preflight { output, accept_warnings } => {
            let config = sources().and_then(|sources| sources.resolve());
            match block_on(inspect::preflight(config, output))? {
                Exit::Warned if accept_warnings => Ok(Exit::Success),
                exit => Ok(exit),
            }
        }
        Command::Logs(Logs::Preview(arguments)) => {
            block_on(inspect::preview(sources()?.namespace()?, *arguments))
        }
        Command::Status { output, watch } => {
            let watch = watch.map(Duration::from_secs);
            block_on(inspect::status(sources()?.namespace()?, output, watch))
        }
        Command::Audit(command) => command.run(|| Ok(sources()?.namespace()?)),
        Command::Consent(command) => command.run(|| Ok(sources()?.namespace()?)),
    }
}

impl From<run::RunError> for Failure {
    fn from(error: run::RunError) -> Self {
        Self::new(error.exit(), &error)
    }
}

fn show(text: &str) -> Result<Exit, Failure> {
    console::print(text)?;
    Ok(Exit::Success)
}

fn block_on<E: Into<Failure>>(
    command: impl Future<Output = Result<Exit, E>>,
) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(command);
    // What a second signal left behind is not waited for.
    runtime.shutdown_background();
    result.map_err(Into::into)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, &error))
}

/// The text of a panic could quote what was being worked on, such as a customer's log line. Only its
/// place is told.
fn tell_panics_by_place() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        commands().debug_assert();
    }
}
