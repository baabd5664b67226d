//! (module seal)
