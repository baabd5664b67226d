//! What a person would type during the demo, and what came of it: the operator's command line and
//! kubectl.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use super::Stage;
use crate::install;

impl Stage {
    /// An operator's command to the control plane, shown as it would be typed, with its result as
    /// JSON.
    ///
    /// # Errors
    /// When the command fails, with what it said.
    pub async fn operator(&self, arguments: &[&str]) -> Result<Value> {
        self.ui.command(&format!("mendix-control-plane {}", quoted(arguments)));
        self.quiet_operator(arguments).await
    }

    /// The same without showing it, for looking again and again.
    ///
    /// # Errors
    /// As [`Stage::operator`].
    pub async fn quiet_operator(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(&self.binaries.control_plane)
            .arg("--state")
            .arg(self.state())
            .args(["--output", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .context("run mendix-control-plane")?;
        if !output.status.success() {
            bail!("mendix-control-plane {}: {}", arguments.join(" "), text(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("read the control plane's answer")
    }

    /// kubectl, shown as it would be typed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.ui.command(&format!("kubectl {}", quoted(arguments)));
        let output = self.run_kubectl(arguments).await?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), text(&output.stderr));
        }
        Ok(text(&output.stdout))
    }

    /// kubectl with its output shown.
    ///
    /// # Errors
    /// As [`Stage::kubectl`].
    pub async fn look(&self, arguments: &[&str]) -> Result<()> {
        let shown = self.kubectl(arguments).await?;
        self.ui.line(shown);
        Ok(())
    }

    async fn run_kubectl(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(&self.kubectl);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.args(arguments).stdin(Stdio::null()).output().await.context("run kubectl")
    }

    /// Writes what is needed to understand a failure into the folder.
    pub async fn collect_logs(&self) {
        let pods: [(&str, &[&str]); 4] = [
            (
                "agent.log",
                &[
                    "-n",
                    install::NAMESPACE,
                    "logs",
                    "-l",
                    "app.kubernetes.io/name=mendix-agent",
                    "--prefix",
                    "--tail=-1",
                ],
            ),
            ("pods.txt", &["get", "pods", "-A", "-o", "wide"]),
            ("mendix.yaml", &["get", "mendix", "-A", "-o", "yaml"]),
            ("events.txt", &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]),
        ];
        for (file, arguments) in pods {
            let content = match self.run_kubectl(arguments).await {
                Ok(output) => [output.stdout, output.stderr].concat(),
                Err(error) => error.to_string().into_bytes(),
            };
            if let Err(error) = std::fs::write(self.folder.join(file), content) {
                self.ui.line(format!("could not write {file}: {error}"));
            }
        }
    }
}

fn quoted(arguments: &[&str]) -> String {
    let quote = |word: &&str| {
        if word.contains([' ', '{', '"', '$']) { format!("'{word}'") } else { (*word).to_owned() }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// What a program said.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}
