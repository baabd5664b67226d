//! What the server counts, as Prometheus metrics. Labels are bounded: no name of a cluster, no
//! address.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
        histogram::Histogram,
    },
    registry::Registry,
};
use tonic::{Code, Status};

use super::Shared;

/// Bounds of the buckets for handshakes, seconds.
const HANDSHAKE_BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Why a connection or call got no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Refusal {
    /// The TLS handshake failed.
    Handshake,
    /// No certificate, or one that is unknown, revoked, or for another cluster.
    Identity,
    /// No common protocol version, or a stale epoch.
    Precondition,
    /// The agent broke the protocol, or sent a message over its limit.
    Protocol,
    /// Nothing came in time.
    Silence,
    /// The cluster was deleted.
    Deregistered,
    /// As many sessions as the server takes are open.
    Full,
    /// This identity opened sessions too often.
    IdentityRate,
    /// Too many enrolments, renewals and recoveries at once.
    EnrolmentRate,
    /// The server is going down.
    Draining,
    /// Everything else; the log says what.
    Other,
}

impl Refusal {
    /// Of a call that ended with this status.
    pub(super) fn of(status: &Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Self::Identity,
            Code::FailedPrecondition => Self::Precondition,
            Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange => Self::Protocol,
            Code::DeadlineExceeded => Self::Silence,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: Refusal,
}

/// Counters that only the metrics page shows; [`super::Counters`] has the others.
#[derive(Debug)]
pub(super) struct Telemetry {
    refusals: Family<Reason, Counter>,
    handshakes: Histogram,
    /// Bytes of TLS payload received.
    pub(super) received: AtomicU64,
    /// Bytes of TLS payload sent.
    pub(super) sent: AtomicU64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            refusals: Family::default(),
            handshakes: Histogram::new(HANDSHAKE_BUCKETS),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
        }
    }
}

impl Telemetry {
    pub(super) fn refused(&self, reason: Refusal) {
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn handshake(&self, took: Duration) {
        self.handshakes.observe(took.as_secs_f64());
    }
}

/// The registry behind `/metrics`.
pub(super) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let mut registry = Registry::with_prefix("mendix_control_plane");
        let telemetry = &shared.telemetry;
        registry.register(
            "refusals",
            "Connections and calls that got no further, by reason",
            telemetry.refusals.clone(),
        );
        registry.register(
            "handshake_seconds",
            "Time that successful TLS handshakes took",
            telemetry.handshakes.clone(),
        );
        registry.register_collector(Box::new(Counted(shared.clone())));
        Self { registry }
    }

    pub(super) fn encode(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// What is counted elsewhere.
#[derive(Debug)]
struct Counted(Arc<Shared>);

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = self.0.counters();
        let open = i64::try_from(counters.sessions_open).unwrap_or(i64::MAX);
        let gauge = ConstGauge::new(open);
        let help = "Sessions that are open";
        gauge.encode(encoder.encode_descriptor(
            "sessions_open",
            help,
            None,
            gauge.metric_type(),
        )?)?;
        let telemetry = &self.0.telemetry;
        for (name, help, value) in [
            ("connects", "TCP connections accepted", counters.connects),
            ("sessions", "Sessions that got past Hello", counters.sessions),
            ("certificates", "Certificates that were issued", counters.certificates),
            ("leases", "Leases that were signed", counters.leases),
            ("snapshot_bytes", "Sealed bytes of snapshots accepted", counters.snapshot_bytes),
            ("bundle_bytes", "Bytes of the repository sent", counters.bundle_bytes),
            ("received_bytes", "Bytes of TLS payload received", telemetry.received.load(Relaxed)),
            ("sent_bytes", "Bytes of TLS payload sent", telemetry.sent.load(Relaxed)),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_reason_of_a_bounded_set() {
        assert_eq!(Refusal::of(&Status::unauthenticated("")), Refusal::Identity);
        assert_eq!(Refusal::of(&Status::failed_precondition("")), Refusal::Precondition);
        assert_eq!(Refusal::of(&Status::resource_exhausted("")), Refusal::Protocol);
        assert_eq!(Refusal::of(&Status::unavailable("")), Refusal::Other);
    }
}
