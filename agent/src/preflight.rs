//! Preflight: everything the agent needs, checked before it needs it, each with what to do about it.
//!
//! The checks of the channel are the dialler's own layers, so what passes here is what the agent
//! does. Nothing is changed and nothing is spent: a bootstrap token is looked at, not used.
//!
//! ```text
//! trust ─▶ DNS ─▶ addresses ─▶ TCP ─▶ TLS ─┐
//! Kubernetes ─▶ clock, permissions, CRDs ──┴─▶ authentication
//! ```

pub mod access;
mod kubernetes;
mod network;
mod render;

use std::time::Duration;

use kube::Client;
use mendix_agent_proto::v1;
use serde::Serialize;

use crate::{config::Config, console::Exit};

/// Longest time for one check. The dialler's own deadlines are shorter except where many addresses
/// time out one after the other.
const CHECK_DEADLINE: Duration = Duration::from_secs(30);

/// How a check ended, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// Could not be checked, because something before it failed.
    Skip,
    /// As it should be.
    Pass,
    /// Works, and should be looked at.
    Warn,
    /// Does not work.
    Fail,
}

impl Verdict {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "Skip",
            Self::Pass => "Pass",
            Self::Warn => "Warn",
            Self::Fail => "Fail",
        }
    }
}

/// One check with its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it ended.
    pub result: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do; empty when it passed.
    pub remedy: String,
}

impl Check {
    fn new(
        name: &'static str,
        result: Verdict,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, result, detail: detail.into(), remedy: remedy.into() }
    }

    fn pass(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Verdict::Pass, detail, "")
    }

    fn skip(name: &'static str, because: &str) -> Self {
        Self::new(name, Verdict::Skip, format!("not checked: {because}"), "")
    }
}

/// Result of all checks, in the order of the flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// The worst result. A check that was skipped is not the cause of anything.
    pub fn worst(&self) -> Verdict {
        self.checks.iter().map(|check| check.result).max().unwrap_or(Verdict::Skip)
    }

    /// The exit code of the command.
    pub fn exit(&self) -> Exit {
        match self.worst() {
            Verdict::Fail => Exit::PreflightFailed,
            Verdict::Warn => Exit::Warned,
            Verdict::Pass | Verdict::Skip => Exit::Success,
        }
    }

    /// What is reported to the control plane.
    pub fn to_proto(&self) -> v1::PreflightReport {
        let result = match self.worst() {
            Verdict::Fail => "Failed",
            Verdict::Warn => "Warned",
            Verdict::Pass | Verdict::Skip => "Passed",
        };
        let checks = self.checks.iter().map(|check| v1::PreflightCheck {
            name: check.name.into(),
            result: check.result.as_str().into(),
            detail: check.detail.clone(),
            remedy: check.remedy.clone(),
        });
        v1::PreflightReport { result: result.into(), checks: checks.collect() }
    }
}

/// Runs all checks. `client` is the way to the Kubernetes API, or why there is none. Ends within a
/// few times 30 s whatever happens.
pub async fn run(config: &Config, client: Result<Client, String>) -> Report {
    let trust = network::trust(config);
    let (network, kubernetes) =
        tokio::join!(network::layers(config, &trust), kubernetes::checks(config, client));
    let authentication = network::authentication(config, &network, kubernetes.cluster).await;
    let mut checks = vec![trust.check];
    checks.extend(network.checks);
    checks.push(authentication);
    checks.extend(kubernetes.checks);
    Report { checks }
}

/// `check`, or a failure when it does not end in time.
async fn bounded(name: &'static str, check: impl Future<Output = Check>) -> Check {
    tokio::time::timeout(CHECK_DEADLINE, check).await.unwrap_or_else(|_| {
        let detail = format!("did not end within {} s", CHECK_DEADLINE.as_secs());
        Check::new(name, Verdict::Fail, detail, "run preflight again; if this stays, report it")
    })
}

#[cfg(test)]
mod tests;
