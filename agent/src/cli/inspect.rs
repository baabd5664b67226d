//! `preflight`, `status` and `logs preview`: what looks with the caller's rights and changes nothing.

use std::time::Duration;

use super::Failure;
use crate::{
    cluster::Cluster,
    config::{Config, ConfigError},
    console::{self, Exit, Output, Reader, ShowError},
    errors::describe,
    logs::{self, preview::PreviewError},
    preflight,
    run::{RunError, client},
    status::{Overview, StatusError},
};

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        Self::new(Exit::Cluster, &error)
    }
}

impl From<PreviewError> for Failure {
    fn from(error: PreviewError) -> Self {
        let exit = match error {
            PreviewError::Record(_) => Exit::Cluster,
            _ => Exit::Failed,
        };
        Self::new(exit, &error)
    }
}

/// The command `preflight`: checks everything and changes nothing.
///
/// # Errors
/// None: what is wrong is in the report, and the worst of it in the exit code.
pub(super) async fn preflight(
    config: Result<Config, ConfigError>,
    output: Output,
) -> Result<Exit, Failure> {
    let report = match &config {
        Ok(config) => {
            let client = client().await.map_err(|error| describe(&error));
            preflight::run(config, client).await
        }
        Err(error) => preflight::Report::unconfigured(error),
    };
    output.show(&report.body(), || report.table())?;
    Ok(report.exit())
}

/// The command `status`: reads the agent's objects with the caller's rights and prints them; with
/// `watch` again whenever they changed, looking that often, until nobody reads any more.
///
/// # Errors
/// When Kubernetes can't be reached or refuses; while it watches, that is said, and it goes on.
pub(super) async fn status(
    namespace: String,
    output: Output,
    watch: Option<Duration>,
) -> Result<Exit, Failure> {
    let client = client().await?;
    let mut shown = None;
    loop {
        let read = Overview::read(&client, &namespace).await;
        let Some(pause) = watch else {
            let overview = read?;
            output.show(&overview, || overview.table())?;
            return Ok(Exit::Success);
        };
        match read {
            Ok(overview) => {
                let now = serde_json::to_value(&overview).map_err(ShowError::Json)?;
                if shown.as_ref() != Some(&now) {
                    let between = output.between(shown.is_none());
                    let reader = match console::print(between)? {
                        Reader::Listens => output.show(&now, || overview.table())?,
                        Reader::Gone => Reader::Gone,
                    };
                    if reader == Reader::Gone {
                        return Ok(Exit::Success);
                    }
                    shown = Some(now);
                }
            }
            Err(error) => eprintln!("mendix-agent: {}", describe(&error)),
        }
        tokio::time::sleep(pause).await;
    }
}

/// The command `logs preview`: reads with the caller's rights, sends nothing.
///
/// # Errors
/// When Kubernetes can't be reached or refuses, or the preview can't be written.
pub(super) async fn preview(
    namespace: String,
    arguments: logs::preview::Arguments,
) -> Result<Exit, Failure> {
    let cluster = Cluster::connect(client().await?, namespace).await.map_err(RunError::Cluster)?;
    eprint!("{}", logs::preview::run(cluster, arguments).await?);
    Ok(Exit::Success)
}
