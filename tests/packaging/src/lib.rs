//! Tests live in `tests/packaging`; this crate has no code of its own.
