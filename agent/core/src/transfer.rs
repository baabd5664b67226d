//! (module transfer)
