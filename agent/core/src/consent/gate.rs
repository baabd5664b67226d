//! (module gate)
