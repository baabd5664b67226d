//! `cargo demo`: the three jobs of the agent on a real Kubernetes, step by step.

use std::{net::IpAddr, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Parser;
use mendix_e2e::{
    demo,
    stage::{Given, Stage, Where},
};
use mendix_test_kit::node::Node;

/// Shows the three jobs of mendix-agent on a real Kubernetes, step by step.
///
/// Without options it makes a one-node Kubernetes of its own (Debian 12, root). With --context it uses a
/// cluster that is there; the agent's image and an image with a shell must be in it, and its pods must
/// reach --listen.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", version)]
struct Arguments {
    /// Leave everything running at the end and print what to try next.
    #[arg(long, conflicts_with = "context")]
    keep: bool,
    /// End what an earlier --keep left running.
    #[arg(long, exclusive = true)]
    stop: bool,
    /// Use this context of the kubeconfig instead of making a cluster.
    #[arg(long, requires_all = ["agent_image", "workload_image", "listen"])]
    context: Option<String>,
    /// The agent's image in that cluster, NAME@sha256:….
    #[arg(long, value_name = "IMAGE", requires = "context")]
    agent_image: Option<String>,
    /// An image with sh in that cluster, NAME@sha256:….
    #[arg(long, value_name = "IMAGE", requires = "context")]
    workload_image: Option<String>,
    /// Address of this machine that the cluster's pods reach.
    #[arg(long, value_name = "ADDRESS", requires = "context")]
    listen: Option<IpAddr>,
}

impl Arguments {
    fn place(&self) -> Where {
        match (&self.agent_image, &self.workload_image, self.listen) {
            (Some(agent_image), Some(workload_image), Some(listen)) => Where::Given(Given {
                context: self.context.clone(),
                agent_image: agent_image.clone(),
                workload_image: workload_image.clone(),
                listen,
            }),
            _ => Where::Own { keep: self.keep },
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // Fails only when a provider is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = tokio::select! {
        result = Box::pin(run(Arguments::parse())) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; everything was ended")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    if arguments.stop {
        let node = Node::attach().await?;
        return Ok(tokio::task::spawn_blocking(move || node.stop()).await??);
    }
    if arguments.context.is_none()
        && let Some(obstacle) = Node::obstacle()
    {
        bail!(
            "{obstacle}\n\nThe demo makes a Kubernetes node on this machine, for which it needs root on \
             Debian 12. Run it as root, or give it a cluster: cargo demo --context NAME --agent-image … \
             --workload-image … --listen … (see --help)."
        );
    }
    let folder = tempfile::Builder::new()
        .prefix("mendix-agent-demo-")
        .tempdir()
        .context("make a folder for this run")?
        .keep();
    let mut stage = Stage::set(arguments.place(), folder.clone()).await?;
    let shown = demo::play(&mut stage, &folder).await;
    match shown {
        Ok(()) if arguments.keep => {
            stage.keep();
            Ok(())
        }
        Ok(()) => {
            stage.strike().await?;
            std::fs::remove_dir_all(&folder).context("remove the run's folder")
        }
        Err(error) => {
            stage.strike().await?;
            Err(error)
        }
    }
}
