//! Real parts for the tests and the demo of the Mendix on Azure agent.
//!
//! The agent is tested against what it meets in production, not against imitations: a real
//! kube-apiserver with etcd ([`apiserver`]), a whole one-node Kubernetes with real pods ([`node`]),
//! images made from files ([`image`]), real certificates ([`pki`]), a network that stalls and breaks
//! on demand ([`proxy`]), hosts that vanish ([`hosts`]), a machine with systemd ([`machine`]) and what is
//! installed there ([`deb`]), a real Helm ([`helm`]) and a real Prometheus ([`prometheus`]). [`assets`]
//! finds or builds the Kubernetes programs, [`wait`] is how tests wait: on a condition, with a
//! deadline.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mendix_test_kit::apiserver::ApiServer;
//!
//! let server = ApiServer::shared().await?; // one per test process
//! let namespace = server.namespace("apply").await?; // one per test
//! let client = server.client().await?;
//! # let _ = (namespace, client); Ok(())
//! # }
//! ```
//!
//! Everything started here ends with the process that started it, also when that is killed with
//! SIGKILL: children get the kernel's parent-death signal, and a small shell that waits for the end
//! of its standard input puts the machine back (see `undo.sh`).

pub mod agent_image;
pub mod apiserver;
pub mod assets;
pub mod deb;
pub mod helm;
pub mod hosts;
pub mod inventory;
pub mod machine;
pub mod node;
pub mod pki;
pub mod port;
mod process;
pub mod progress;
pub mod prometheus;
pub mod proxy;
mod skip;
pub mod wait;

/// Images made from files.
pub use mendix_agent_image::archive as image;
pub use skip::skip;
