//! Preflight: everything the agent needs, checked before it needs it, each with its likely cause and
//! what to do about it.
//!
//! The checks of the channel are the dialler's own layers, so what passes here is what the agent
//! does. Nothing is changed and nothing is spent: a bootstrap token is looked at, not used.
//!
//! ```text
//! configuration, trust ─▶ DNS ─▶ addresses ─▶ TCP ─▶ proxy ─▶ TLS ─┬─▶ authentication, stream, round trip
//! Kubernetes ─▶ permissions, nodes, CRDs ───────────────────────────┘
//! ```
//!
//! The command runs it once ([`run`]); the agent runs it when it starts and while it can't connect
//! ([`watch`]).

pub mod access;
mod capacity;
mod kubernetes;
mod network;
mod render;
mod service;
mod trust;
pub mod watch;

use std::time::Duration;

use kube::Client;
use mendix_agent_proto::v1;
use serde::Serialize;

use crate::{
    channel::DialError,
    config::{Config, ConfigError},
    console::Exit,
    errors::describe,
};

/// Longest time for one check of the cluster. The dialler's layers have deadlines of their own.
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
    /// What it most likely is; empty when it passed.
    pub cause: String,
    /// What to do; empty when it passed.
    pub remedy: String,
}

impl Check {
    fn new(
        name: &'static str,
        result: Verdict,
        detail: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, result, detail: detail.into(), cause: cause.into(), remedy: remedy.into() }
    }

    /// A layer of the dial that failed.
    fn of_dial(name: &'static str, error: &DialError) -> Self {
        let advice = error.advice();
        Self::new(name, Verdict::Fail, describe(error), advice.cause, advice.remedy)
    }

    fn pass(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Verdict::Pass, detail, "", "")
    }

    fn skip(name: &'static str, because: &str) -> Self {
        Self::new(name, Verdict::Skip, format!("not checked: {because}"), "", "")
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

    /// Whether the agent may not do what it has to.
    fn lacks_rights(&self) -> bool {
        let mut checks = self.checks.iter();
        checks.any(|check| check.name == kubernetes::PERMISSIONS && check.result == Verdict::Fail)
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
            cause: check.cause.clone(),
        });
        v1::PreflightReport { result: result.into(), checks: checks.collect() }
    }

    /// The report when there is no configuration to check anything with.
    pub fn unconfigured(error: &ConfigError) -> Self {
        let cause =
            "a key is missing or can't be read; the message names it and where it came from";
        let remedy = "mend the configuration file, the environment variable or the flag";
        let detail = describe(error);
        let check = Check::new(trust::CONFIGURATION, Verdict::Fail, detail, cause, remedy);
        Self { checks: vec![check] }
    }
}

/// One line for each check that failed, or else for each with a warning.
pub fn findings(report: &v1::PreflightReport) -> Vec<String> {
    let of = |result: Verdict| {
        let found = report.checks.iter().filter(|check| check.result == result.as_str());
        found.map(|it| format!("{}: {}; {}", it.name, it.detail, it.remedy)).collect::<Vec<_>>()
    };
    match of(Verdict::Fail) {
        failed if failed.is_empty() => of(Verdict::Warn),
        failed => failed,
    }
}

/// Runs all checks. `client` is the way to the Kubernetes API, or why there is none. Ends within a
/// few times 30 s whatever happens.
pub async fn run(config: &Config, client: Result<Client, String>) -> Report {
    let (configuration, target) = trust::configuration(config);
    let (trust, anchors) = trust::trust(config);
    let (network, kubernetes) = tokio::join!(
        network::layers(target.as_ref(), anchors.as_deref()),
        kubernetes::checks(config, client),
    );
    let reached = target.as_ref().filter(|_| network.secured);
    let cluster = kubernetes.cluster.as_ref();
    let service = service::checks(config, reached, anchors.as_deref(), cluster).await;
    let mut checks = vec![configuration, trust];
    checks.extend(network.checks);
    checks.extend(service.checks);
    checks.push(kubernetes::clock(kubernetes.ahead, service.ahead));
    checks.extend(kubernetes.checks);
    Report { checks }
}

/// `check`, or a failure when it does not end in time.
async fn bounded(name: &'static str, check: impl Future<Output = Check>) -> Check {
    tokio::time::timeout(CHECK_DEADLINE, check).await.unwrap_or_else(|_| {
        let detail = format!("did not end within {} s", CHECK_DEADLINE.as_secs());
        let cause = "the API server is overloaded, or the way to it";
        Check::new(
            name,
            Verdict::Fail,
            detail,
            cause,
            "run preflight again; if this stays, report it",
        )
    })
}

#[cfg(test)]
mod tests;
