//! (module admission)
