//! (module readiness)
