//! What single values have to be. A refusal says what would be accepted; who asked adds the key, the value
//! and where it came from.

use std::path::PathBuf;

use tracing_subscriber::filter::{ParseError, Targets};
use url::Url;

pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    let expected = "expected https://HOST:PORT without path, user or query";
    let url = Url::parse(text).map_err(|error| match error {
        // Names are not translated: what looks alike to a reader is told apart here, and the tables for
        // it are not in the agent.
        url::ParseError::IdnaError => format!("{expected}; HOST in ASCII, as DNS has it (xn--…)"),
        error => format!("{expected} ({error})"),
    })?;
    let bare = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    match (url.scheme(), url.host(), bare) {
        ("https", Some(_), true) => Ok(url),
        _ => Err(expected.to_owned()),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path".to_owned()) }
}

pub(super) fn dns_label(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected a DNS label: 1 to 63 of a-z, 0-9 and '-', no '-' at the ends".to_owned())
    }
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    if text.contains('[') {
        // It would be taken for the name of a target, and match nothing.
        return Err("expected a filter such as \"info\", without spans and fields".to_owned());
    }
    targets(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("expected a filter such as \"info\" ({error})"))
}

/// What a log filter says: levels, for all and for targets by the beginning of their names, such as
/// `info,kube_client=off`. No spans or fields: they take regular expressions, of which the agent has none
/// in memory while it is idle.
///
/// # Errors
/// When it says something else.
pub(crate) fn targets(filter: &str) -> Result<Targets, ParseError> {
    // An empty one among them would be a level of its own.
    let wanted: Vec<&str> =
        filter.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
    wanted.join(",").parse()
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_is_read_as_it_is_documented() {
        for text in [
            "info,kube_client=off,mendix_agent::patch=debug",
            "mendix_agent::patch=debug, info,,kube_client=off,",
        ] {
            let filter = targets(text).unwrap();
            for (target, level, written) in [
                ("mendix_agent::run", Level::INFO, true),
                ("mendix_agent::run", Level::DEBUG, false),
                ("mendix_agent::patch::driver", Level::DEBUG, true),
                ("mendix_agent::patch::driver", Level::TRACE, false),
                ("kube_client::client", Level::ERROR, false),
            ] {
                assert_eq!(
                    filter.would_enable(target, &level),
                    written,
                    "{text}: {target} {level}"
                );
            }
        }
        assert!(targets("a=b").is_err() && targets("a=b=c").is_err());
    }
}
