//! The wire contract between the agent and its control plane: messages, services and the limits
//! that both ends share. See `mendix/agent/v1/*.proto` for the meaning of each field and
//! `docs/protocol.md` for how they play together.

#[cfg(feature = "grpc")]
pub mod codec;
pub mod limits;

/// Version 1 of the protocol, generated from `mendix/agent/v1/*.proto`.
pub mod v1 {
    // Comments are written for .proto files, where <angle brackets> are no HTML.
    #![allow(missing_docs, clippy::all, unreachable_pub, rustdoc::invalid_html_tags)]
    include!(concat!(env!("OUT_DIR"), "/mendix.agent.v1.rs"));
}
