//! (module patch)
