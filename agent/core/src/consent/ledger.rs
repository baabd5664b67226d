//! (module ledger)
