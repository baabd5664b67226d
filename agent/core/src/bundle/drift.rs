//! (module drift)
