//! (module patch)

pub mod trust;
