//! (module logs)
