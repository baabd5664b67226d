//! What every command shares: how it prints its result, and how it ends.

use std::process::ExitCode;

use clap::ValueEnum;

/// How a command ended; documented in docs/operations.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Success,
    /// 1: failed; the message says at what.
    Failed,
    /// 3: the configuration can't be used (2 is clap's, for wrong arguments).
    Config,
    /// 4: the Kubernetes API can't be reached or refused.
    Cluster,
    /// 5: a file does not verify, or what it holds would be refused; the message says why.
    NotVerified,
    /// 10: preflight passed with warnings.
    Warned,
    /// 11: a preflight check failed.
    PreflightFailed,
    /// 12: what was to be verified is not in order.
    NotSound,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Config => 3,
            Exit::Cluster => 4,
            Exit::NotVerified => 5,
            Exit::Warned => 10,
            Exit::PreflightFailed => 11,
            Exit::NotSound => 12,
        })
    }
}

/// How a command prints its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For machines.
    Json,
}
