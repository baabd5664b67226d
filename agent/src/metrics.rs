//! Prometheus metrics: each path registers its own families here; names carry their unit, labels
//! are bounded.
