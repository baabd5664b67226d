//! Limits on everything that crosses the wire, in one place, used by both ends.
//!
//! Sizes are bytes. What the control plane may tune is clamped by the agent to the bounds here.

use std::time::Duration;

/// Oldest and newest protocol version this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// See [`PROTOCOL_MIN`].
pub const PROTOCOL_MAX: u32 = 1;

/// Largest message an agent sends on a session.
pub const MAX_AGENT_MESSAGE: usize = 1024 * 1024;
/// Largest message a control plane sends on a session.
pub const MAX_CONTROL_MESSAGE: usize = 512 * 1024;
/// Largest `DesiredState`; a larger one is reported and the last good one kept.
pub const MAX_DESIRED_STATE: usize = 256 * 1024;
/// Largest lease envelope.
pub const MAX_LEASE_ENVELOPE: usize = 4 * 1024;
/// Largest grant envelope.
pub const MAX_GRANT_ENVELOPE: usize = 16 * 1024;
/// Largest certificate, CSR or trust anchor, DER.
pub const MAX_CERTIFICATE: usize = 16 * 1024;
/// Largest `FetchChunk.data`.
pub const MAX_FETCH_CHUNK: usize = 64 * 1024;
/// Longest `FetchRequest.name`.
pub const MAX_FETCH_NAME: usize = 256;
/// Plaintext in one sealed segment of a snapshot.
pub const SEGMENT_PLAINTEXT: usize = 64 * 1024;
/// Largest `Chunk.data`: one sealed segment (plaintext and AES-GCM tag).
pub const MAX_SNAPSHOT_CHUNK: usize = SEGMENT_PLAINTEXT + 16;
/// Sealed bytes that may be sent and not yet acknowledged.
pub const MAX_SNAPSHOT_UNACKED: usize = 2 * MAX_SNAPSHOT_CHUNK;

/// Heartbeat interval unless `Welcome` says otherwise.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(60);
/// Bounds of the heartbeat interval.
pub const HEARTBEAT_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(10), Duration::from_secs(300));
/// Heartbeats without acknowledgement after which the session is redialled.
pub const HEARTBEAT_MISSES: u32 = 3;
/// Session age at which it is replaced unless `Welcome` says otherwise.
pub const SESSION_AGE_DEFAULT: Duration = Duration::from_secs(3600);
/// Bounds of the session age.
pub const SESSION_AGE_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// Bounds of `Throttle.retry_after`.
pub const RETRY_AFTER_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(900));
/// Upper bound of `Drain.spread`.
pub const DRAIN_SPREAD_MAX: Duration = Duration::from_secs(600);
/// HTTP/2 PING interval and timeout, agreed by both ends (a server closes a client that pings more
/// often than its policy allows).
pub const HTTP2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Initial HTTP/2 window of one stream, both ends: more than the largest message, and enough for
/// 64 MiB/s at 8 ms of latency.
pub const HTTP2_STREAM_WINDOW: u32 = 512 * 1024;
/// Initial HTTP/2 window of a connection, both ends: twice a stream's, so that one stalled stream
/// can't take all of it.
pub const HTTP2_CONNECTION_WINDOW: u32 = 2 * HTTP2_STREAM_WINDOW;
/// How long unacknowledged data may stay in the kernel before a connection is given up
/// (`TCP_USER_TIMEOUT`).
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Send buffer asked for on an upload's socket (`SO_SNDBUF`): what may be on its way to a server that
/// has stopped reading.
pub const UPLOAD_SEND_BUFFER: usize = 128 * 1024;
/// Bytes that an upload's socket takes before it has sent them (`TCP_NOTSENT_LOWAT`).
pub const UPLOAD_UNSENT: u32 = 32 * 1024;
/// How long the server may take from an opened stream to `Welcome`.
pub const WELCOME_DEADLINE: Duration = Duration::from_secs(20);
/// Most certificates in an issued chain.
pub const MAX_CHAIN: usize = 4;
/// Most trust anchors an agent keeps.
pub const MAX_TRUST_ANCHORS: usize = 8;

/// How long a lease proves that a ticket is active, counted from the sending of its nonce.
pub const LEASE_TTL: Duration = Duration::from_secs(60);
/// How often a nonce is sent while a snapshot is being taken.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(20);
/// How long after a broken connection an upload may be resumed.
pub const RESUME_WINDOW: Duration = Duration::from_secs(60);
