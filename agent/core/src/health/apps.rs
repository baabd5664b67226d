//! The customer's Mendix apps, counted by state and by runtime. Mendix on Azure supports apps from
//! 10.10 on; versions are compared as numbers (10.9 is older than 10.10).

use std::{collections::BTreeMap, fmt, str::FromStr};

use mendix_agent_proto::v1;
use thiserror::Error;

/// Oldest runtime that Mendix on Azure supports: major and minor version.
pub const MINIMUM_RUNTIME: (u32, u32) = (10, 10);
/// Different states and versions that are told apart; the rest is counted together.
const MOST_NAMES: usize = 40;
/// Longest name of a state that is passed on.
const MAX_STATE: usize = 40;
/// What the rest is called.
const OTHER: &str = "other";

/// What is known of one app. Its name is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSeen {
    /// Its state as the Operator writes it; empty when it says nothing.
    pub state: String,
    /// Version of its runtime as text; empty when nothing says it.
    pub runtime: String,
}

/// Version of a Mendix runtime. The build number, the fourth part, does not matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Runtime {
    /// 10 in 10.24.3.
    pub major: u32,
    /// 24 in 10.24.3.
    pub minor: u32,
    /// 3 in 10.24.3; 0 when there is none.
    pub patch: u32,
}

/// A text that is no version: nobody knows whether it is old enough to worry.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a version of the Mendix runtime: two to four numbers with dots are")]
pub struct RuntimeUnreadable;

impl Runtime {
    /// Whether Mendix on Azure supports it.
    pub fn is_supported(self) -> bool {
        (self.major, self.minor) >= MINIMUM_RUNTIME
    }
}

impl FromStr for Runtime {
    type Err = RuntimeUnreadable;

    fn from_str(text: &str) -> Result<Self, RuntimeUnreadable> {
        let number = |part: &str| match part.len() {
            // More digits would not fit, and u32's own parser takes a sign.
            1..=9 if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                part.parse().map_err(|_| RuntimeUnreadable)
            }
            _ => Err(RuntimeUnreadable),
        };
        let parts = text.split('.').map(number).collect::<Result<Vec<u32>, _>>()?;
        match parts[..] {
            [major, minor] => Ok(Self { major, minor, patch: 0 }),
            [major, minor, patch] | [major, minor, patch, _] => Ok(Self { major, minor, patch }),
            _ => Err(RuntimeUnreadable),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Counts apps.
pub fn count_apps(apps: &[AppSeen]) -> v1::AppsHealth {
    let mut states = BTreeMap::new();
    let mut runtimes = BTreeMap::new();
    let (mut below, mut unknown) = (0, 0);
    for app in apps {
        count(&mut states, state(&app.state));
        let name = match app.runtime.trim().parse::<Runtime>() {
            Ok(runtime) => {
                below += u32::from(!runtime.is_supported());
                runtime.to_string()
            }
            Err(RuntimeUnreadable) => {
                unknown += 1;
                "unknown".to_owned()
            }
        };
        count(&mut runtimes, name);
    }
    v1::AppsHealth {
        total: u32::try_from(apps.len()).unwrap_or(u32::MAX),
        by_state: counts(states),
        by_runtime: counts(runtimes),
        below_minimum: below,
        unknown_runtime: unknown,
    }
}

/// A state as it may leave the cluster: a word. Text of another form could be anything.
fn state(text: &str) -> String {
    let word = |text: &str| {
        text.len() <= MAX_STATE && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    match text {
        "" => "Unknown".to_owned(),
        text if word(text) => text.to_owned(),
        _ => OTHER.to_owned(),
    }
}

fn count(counts: &mut BTreeMap<String, u32>, name: String) {
    let known = counts.len() < MOST_NAMES || counts.contains_key(&name);
    *counts.entry(if known { name } else { OTHER.to_owned() }).or_default() += 1;
}

fn counts(counts: BTreeMap<String, u32>) -> Vec<v1::AppCount> {
    counts.into_iter().map(|(name, count)| v1::AppCount { name, count }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(state: &str, runtime: &str) -> AppSeen {
        AppSeen { state: state.into(), runtime: runtime.into() }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let supported = |text: &str| text.parse::<Runtime>().unwrap().is_supported();
        for old in ["10.9", "10.9.99.1", "9.24.30", "7.23.3.48173", "0.0"] {
            assert!(!supported(old), "{old}");
        }
        for new in ["10.10", "10.10.0.12345", "10.100.0", "11.0", "999999999.0"] {
            assert!(supported(new), "{new}");
        }
    }

    #[test]
    fn what_is_no_version_is_unknown_not_new_and_not_old() {
        for text in ["", "10", "v10.10", "10.x", "10..1", "+10.10", "10.10.0.1.2", "9999999999.1"] {
            assert_eq!(text.parse::<Runtime>(), Err(RuntimeUnreadable), "{text}");
        }
        let counted = count_apps(&[app("", "latest"), app("", "")]);
        assert_eq!((counted.unknown_runtime, counted.below_minimum), (2, 0));
    }

    #[test]
    fn apps_are_counted_by_state_and_by_runtime() {
        let counted = count_apps(&[
            app("Running", "10.10.0.1"),
            app("Running", "10.10.0.2"),
            app("Stopped", "9.24.1"),
        ]);
        let names = |counts: &[v1::AppCount]| {
            counts.iter().map(|it| (it.name.clone(), it.count)).collect::<Vec<_>>()
        };
        assert_eq!(names(&counted.by_state), [("Running".into(), 2), ("Stopped".into(), 1)]);
        assert_eq!(names(&counted.by_runtime), [("10.10.0".into(), 2), ("9.24.1".into(), 1)]);
        assert_eq!((counted.total, counted.below_minimum), (3, 1));
    }

    #[test]
    fn what_leaves_is_bounded_and_holds_no_free_text() {
        let mut apps: Vec<_> =
            (0..1000).map(|number| app(&format!("State{number}"), "10.10")).collect();
        apps.push(app("jan@example.com said: no", "10.10"));
        let counted = count_apps(&apps);
        assert!(counted.by_state.len() <= MOST_NAMES + 1);
        assert_eq!(counted.by_state.iter().map(|it| it.count).sum::<u32>(), 1001);
        assert!(!format!("{counted:?}").contains("example.com"));
    }
}
