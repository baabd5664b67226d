//! The list of steps, and what happens when one fails.

use std::{future::Future, path::Path, pin::Pin, time::Instant};

use anyhow::Result;

use crate::{
    stage::Stage,
    steps::{channel, logs, patch, removal},
    ui::Outcome,
};

type Run = for<'a> fn(&'a Stage) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One thing the demo shows.
struct Step {
    title: &'static str,
    look: &'static str,
    run: Run,
}

const STEPS: [Step; 11] = [
    Step {
        title: "The agent enrols and connects",
        look: "kubectl get agentstatuses -n mendix-agent",
        run: |stage| Box::pin(channel::connects(stage)),
    },
    Step {
        title: "Preflight passes",
        look: "mendix-agent preflight",
        run: |stage| Box::pin(channel::preflight(stage)),
    },
    Step {
        title: "The agent's process holds no more than it needs",
        look: "/proc/PID/status",
        run: |stage| Box::pin(channel::confined(stage)),
    },
    Step {
        title: "A release is verified, applied, healthy, committed",
        look: "kubectl get patchbundles -n mendix-agent",
        run: |stage| Box::pin(patch::good_release(stage)),
    },
    Step {
        title: "A bad patch is rolled back by itself and quarantined",
        look: "kubectl get patchbundles -n mendix-agent -o yaml",
        run: |stage| Box::pin(patch::bad_release(stage)),
    },
    Step {
        title: "A change by hand is put back and attributed",
        look: "kubectl get managedcomponents -n mendix-agent",
        run: |stage| Box::pin(patch::drift(stage)),
    },
    Step {
        title: "Logs are refused without consent",
        look: "kubectl get supporttickets -n mendix-agent",
        run: |stage| Box::pin(logs::refused_without_consent(stage)),
    },
    Step {
        title: "With consent a snapshot arrives, without the secrets",
        look: "kubectl get logsnapshots -n mendix-agent",
        run: |stage| Box::pin(logs::shared_with_consent(stage)),
    },
    Step {
        title: "Solving the ticket ends it",
        look: "mendix-control-plane snapshot list",
        run: |stage| Box::pin(logs::refused_once_solved(stage)),
    },
    Step {
        title: "The record of it all",
        look: "kubectl get mendix -A",
        run: |stage| Box::pin(logs::record(stage)),
    },
    Step {
        title: "Uninstalled, it leaves nothing but the components",
        look: "kubectl get pods -A",
        run: |stage| Box::pin(removal::uninstalled(stage)),
    },
];

/// Runs all steps up to the first that fails, and prints the summary.
///
/// # Errors
/// The failed step with its reason, after the logs were written to `folder`.
pub async fn play(stage: &mut Stage, folder: &Path) -> Result<()> {
    for (number, step) in STEPS.iter().enumerate() {
        stage.ui.heading(number + 1, step.title);
        let started = Instant::now();
        let result = (step.run)(stage).await;
        let outcome = if result.is_ok() { Outcome::Shown } else { Outcome::Failed };
        stage.ui.record(step.title, outcome, started.elapsed(), step.look);
        if let Err(error) = result {
            stage.collect_logs().await;
            stage.ui.summary();
            return Err(error.context(format!(
                "step {} failed: {}; logs are in {}",
                number + 1,
                step.title,
                folder.display()
            )));
        }
    }
    stage.ui.summary();
    Ok(())
}
