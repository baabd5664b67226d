//! (module blob)
