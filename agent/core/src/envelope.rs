//! (module envelope)
