//! What the agent was given: its route to the control plane, and the files it trusts.

use rustls::pki_types::CertificateDer;

use super::{Check, Verdict};
use crate::{
    channel::{
        DialError, Target,
        dial::{Hop, tls},
    },
    config::Config,
    errors::describe,
};

pub(super) const CONFIGURATION: &str = "configuration";
const TRUST: &str = "trust";

/// Files of the trust folder besides the channel CA.
const TRUST_FILES: [&str; 2] = ["root.json", "consent-keys.json"];

/// Whether the configuration says how to reach a control plane.
pub(super) fn configuration(config: &Config) -> (Check, Option<Target>) {
    let target = match Target::from_config(config) {
        Ok(target) => target,
        Err(error) => return (Check::of_dial(CONFIGURATION, &error), None),
    };
    let pins = config.route.pins.len();
    let way = match target.hop() {
        Hop::ControlPlane(_) => "directly".to_owned(),
        hop @ Hop::Proxy(_) if pins == 0 => {
            return (Check::of_dial(CONFIGURATION, &DialError::Unpinned { hop }), None);
        }
        hop @ Hop::Proxy(_) => format!("through {hop}"),
    };
    let detail = format!("{} {way}, pins: {pins}", target.name());
    (Check::pass(CONFIGURATION, detail), Some(target))
}

/// Whether the trust folder holds what it should, and the channel CA in it.
pub(super) fn trust(config: &Config) -> (Check, Option<Vec<CertificateDer<'static>>>) {
    let dir = config.trust_dir.display();
    let failed = |detail: String| {
        let cause = "the trust folder is not mounted, or only a part of it";
        let remedy = "mount ConfigMap mendix-agent-trust with root.json, consent-keys.json and \
                      channel-ca.pem of the control plane";
        Check::new(TRUST, Verdict::Fail, detail, cause, remedy)
    };
    let anchors = match tls::channel_ca(&config.trust_dir) {
        Ok(anchors) => anchors,
        Err(error) => return (failed(describe(&error)), None),
    };
    let missing: Vec<&str> =
        TRUST_FILES.into_iter().filter(|file| !config.trust_dir.join(file).is_file()).collect();
    let check = if missing.is_empty() {
        let detail = format!("{dir}: {} channel CA, release root, consent keys", anchors.len());
        Check::pass(TRUST, detail)
    } else {
        failed(format!("{dir}: no {}", missing.join(", no ")))
    };
    (check, Some(anchors))
}
