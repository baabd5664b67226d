//! (module ticket)
