//! `serve`: runs the server until a signal.

use std::{
    io::{self, IsTerminal as _},
    net::SocketAddr,
    time::Duration,
};

use clap::Args;
use jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Failure, Names, Output};
use crate::{
    server::{ControlPlane, Options, Rate},
    store::{Store, StoreError},
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address to listen on; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    #[command(flatten)]
    names: Names,
    /// Lifetime of an agent's certificate, such as 24h or 5m.
    #[arg(long, default_value = "24h", value_parser = duration)]
    certificate_lifetime: Duration,
    /// Heartbeat interval that agents are told (10s to 5m).
    #[arg(long, default_value = "60s", value_parser = duration)]
    heartbeat: Duration,
    /// Age at which agents replace their session (1m to 24h).
    #[arg(long, default_value = "60m", value_parser = duration)]
    session_age: Duration,
    /// How long sessions are kept once a shutdown began.
    #[arg(long, default_value = "2s", value_parser = duration)]
    drain: Duration,
    /// Over which time agents come back after a shutdown, at most; fewer agents take less.
    #[arg(long, default_value = "60s", value_parser = duration)]
    spread: Duration,
    /// Agents that may come back in a second after a shutdown.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    comebacks: u32,
    /// TLS handshakes in a second; what comes faster waits.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    handshakes: u32,
    /// Sessions at once; more are told to come back later.
    #[arg(long, default_value_t = 20_000)]
    max_sessions: usize,
    /// Loopback address for `/metrics`; port 0 takes a free one, which is printed.
    #[arg(long)]
    metrics: Option<SocketAddr>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let duration = Duration::try_from(parsed).map_err(|_| "a duration is positive".to_owned())?;
    if duration.is_zero() { Err("a duration is positive".to_owned()) } else { Ok(duration) }
}

impl Serve {
    pub(super) async fn run(self, store: Store, output: Output) -> Result<(), Failure> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        if io::stderr().is_terminal() {
            log.init()
        } else {
            log.with_ansi(false).init()
        }
        let signals = |kind| {
            signal(kind).map_err(|source| StoreError::file("watch", "signals".as_ref(), source))
        };
        let mut terminate = signals(SignalKind::terminate())?;
        let mut interrupt = signals(SignalKind::interrupt())?;
        let options = Options {
            listen: self.listen,
            names: self.names.server_names(),
            certificate_lifetime: self.certificate_lifetime,
            heartbeat_interval: self.heartbeat,
            max_session_age: self.session_age,
            drain: self.drain,
            spread: self.spread,
            comebacks: Rate::per_second(self.comebacks),
            handshakes: Rate::per_second(self.handshakes),
            max_sessions: self.max_sessions,
            metrics: self.metrics,
            ..Options::default()
        };
        let mut running = ControlPlane::start(store, options).await?;
        let address = running.address();
        let metrics = running.metrics();
        output.print(
            &serde_json::json!({ "listening": address.to_string(), "metrics": metrics }),
            || match metrics {
                Some(metrics) => {
                    format!("listening on {address}; metrics on http://{metrics}/metrics")
                }
                None => format!("listening on {address}"),
            },
        );
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            error = running.ended() => return Err(error.into()),
        }
        tracing::info!("going down; a second signal ends it at once");
        tokio::select! {
            result = running.shutdown() => Ok(result?),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    }
}
