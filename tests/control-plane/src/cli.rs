//! The operator's commands. Tables for people, `--output json` for machines, exit codes by kind of
//! failure ([`Exit`]). Every command but `serve` also works while the server runs.

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    pki::ServerNames,
    repository::Expiry,
    store::{Store, StoreError},
};

mod agents;
mod ca;
mod cluster;
mod failure;
mod output;
mod portal;
mod release;
mod serve;
mod snapshot;
mod ticket;

pub use failure::Exit;
use failure::Failure;
use output::{Format, Output};

/// Reference control plane of the Mendix on Azure agent.
#[derive(Debug, Parser)]
#[command(name = "mendix-control-plane", version)]
struct Cli {
    /// Folder with the control plane's state.
    #[arg(
        long,
        global = true,
        env = "MENDIX_CONTROL_PLANE_STATE",
        default_value = "control-plane"
    )]
    state: PathBuf,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a control plane: channel CA, release repository, portal keys, trust folder for agents.
    Init(Names),
    /// Run the server until SIGTERM or Ctrl-C.
    Serve(serve::Serve),
    /// Clusters and their bootstrap tokens.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// The channel CA and its replacement.
    #[command(subcommand)]
    Ca(ca::Command),
    /// What agents are connected and what they report.
    Agents(agents::Agents),
    /// Releases: publish manifests, push to clusters.
    #[command(subcommand)]
    Release(release::Command),
    /// Support tickets and the customer's consent.
    #[command(subcommand)]
    Ticket(ticket::Command),
    /// Keys of the support portal.
    #[command(subcommand)]
    Portal(portal::Command),
    /// Log snapshots: request, list, open.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
}

/// Names under which agents reach the server.
#[derive(Clone, Debug, clap::Args)]
struct Names {
    /// DNS name in the server's certificate; may be repeated.
    #[arg(long = "dns", value_name = "NAME")]
    dns: Vec<String>,
    /// IP address in the server's certificate; may be repeated.
    #[arg(long = "ip", value_name = "ADDRESS")]
    ips: Vec<IpAddr>,
}

impl Names {
    fn server_names(&self) -> ServerNames {
        ServerNames { dns: self.dns.clone(), ips: self.ips.clone() }
    }
}

/// Runs the command that the process was started with.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.output);
    match Box::pin(run(cli, output)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn run(cli: Cli, output: Output) -> Result<(), Failure> {
    if let Command::Init(names) = &cli.command {
        return init(&cli.state, names, output).await;
    }
    let store = Store::open(cli.state)?;
    match cli.command {
        Command::Init(_) => Ok(()),
        Command::Serve(serve) => serve.run(store, output).await,
        Command::Cluster(command) => command.run(&store, output),
        Command::Ca(command) => command.run(&store, output),
        Command::Agents(agents) => agents.run(&store, output).await,
        Command::Release(command) => command.run(&store, output).await,
        Command::Ticket(command) => command.run(&store, output),
        Command::Portal(command) => command.run(&store, output).await,
        Command::Snapshot(command) => command.run(&store, output),
    }
}

async fn init(state: &std::path::Path, names: &Names, output: Output) -> Result<(), Failure> {
    let mut names = names.server_names();
    if names.dns.is_empty() && names.ips.is_empty() {
        names.dns.push("localhost".to_owned());
        names.ips.push(IpAddr::from([127, 0, 0, 1]));
    }
    let store = crate::init(state, &names, Expiry::default()).await?;
    let trust = store.trust_dir();
    output.print(
        &serde_json::json!({
            "state": state,
            "trust": trust,
            "dns": names.dns,
            "ips": names.ips,
        }),
        || {
            format!(
                "A control plane was made in {}.\n\
                 Install agents with {} (root.json, consent-keys.json, channel-ca.pem).\n\
                 Next: `serve`, and `cluster register --uid <UID of namespace kube-system>`.",
                state.display(),
                trust.display()
            )
        },
    );
    Ok(())
}

/// The only cluster there is, or the one that was named.
fn one_cluster(store: &Store, named: Option<&str>) -> Result<String, Failure> {
    if let Some(uid) = named {
        return Ok(store.cluster(uid)?.uid);
    }
    let mut present = store.clusters()?.into_iter().filter(|cluster| cluster.deleted_at.is_none());
    match (present.next(), present.next()) {
        (Some(only), None) => Ok(only.uid),
        (None, _) => Err(StoreError::Refused(
            "no cluster is registered; `cluster register --uid …` comes first".to_owned(),
        )
        .into()),
        (Some(_), Some(_)) => Err(StoreError::Refused(
            "there are several clusters; say which with --cluster".to_owned(),
        )
        .into()),
    }
}
