//! Redaction, as [`redact`] says. `mendix-agent-core` shows it as a module of its own.

pub mod redact;
