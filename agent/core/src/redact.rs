//! (module redact)
