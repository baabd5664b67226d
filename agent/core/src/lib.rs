//! Decisions of the Mendix on Azure agent, without I/O.
//!
//! Everything here is a function or a state machine over values: no sockets, no clock, no
//! randomness that was not passed in. The crate `mendix-agent` is the thin edge that feeds it.
//! Dependencies run one way: `proto, redact ← core ← agent`.
//!
//! | path | modules, in the order of the flow |
//! |---|---|
//! | who leads | [`leadership`] |
//! | channel | [`session`] |
//! | installing | [`initialization`] |
//! | health | [`health`] |
//! | patch bundles | [`bundle`] |
//! | the agent's own upgrade | [`upgrade`] |
//! | all | [`audit`], [`ordered`] |
//! | log snapshots | [`envelope`] → [`consent`] → [`masked`], [`redact`] → [`archive`] → [`seal`] → [`transfer`] |

pub mod archive;
pub mod audit;
pub mod bundle;
pub mod consent;
pub mod envelope;
pub mod health;
pub mod initialization;
pub mod leadership;
pub mod masked;
pub mod ordered;
pub mod seal;
pub mod session;
pub mod transfer;
pub mod upgrade;

pub use mendix_agent_redact as redact;
