//! The value that a path such as `$.credential['access_token']` leads to.
//!
//! kube asks for such a value in one place: a kubeconfig's `auth-provider` names a command, and where in
//! the command's answer the token and its expiry are (`token-key`, `expiry-key`). The library that kube
//! asks brings a grammar, a parser generator and a second engine for regular expressions with all tables of
//! Unicode: half a megabyte of the agent, for filters and unions that a place never has. This is what
//! is left when a path names one place: members and elements, as in RFC 9535. Everything else is refused,
//! not passed over.

use serde_json::Value;
use thiserror::Error;

/// A path that this does not follow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "at byte {at}: expected `.name`, `['name']` or `[number]`; only paths to one value are followed"
)]
pub struct PathError {
    /// Where in the path.
    pub at: usize,
}

/// JSON that can be asked for a value by its path.
pub trait JsonPath {
    /// The value at `path`, which begins with `$`: at most one.
    ///
    /// # Errors
    /// [`PathError`] when the path is no path, or one that may lead to many values.
    fn query(&self, path: &str) -> Result<Vec<&Value>, PathError>;
}

impl JsonPath for Value {
    fn query(&self, path: &str) -> Result<Vec<&Value>, PathError> {
        let mut rest = path.strip_prefix('$').ok_or(PathError { at: 0 })?;
        let mut found = Some(self);
        while !rest.is_empty() {
            // The whole path is read, also where nothing is: whether it is one does not depend on the value.
            let (step, after) = step(rest).ok_or(PathError { at: path.len() - rest.len() })?;
            found = found.and_then(|value| match step {
                Step::Member(name) => value.as_object()?.get(name),
                Step::Element(index) => value.as_array()?.get(index),
            });
            rest = after;
        }
        Ok(found.into_iter().collect())
    }
}

enum Step<'a> {
    Member(&'a str),
    Element(usize),
}

/// The first step of a path, and what follows it.
fn step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(name) = path.strip_prefix('.') {
        let end = name.find(|c| !in_name(c)).unwrap_or(name.len());
        let (name, after) = name.split_at(end);
        let named = name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        return named.then_some((Step::Member(name), after));
    }
    let inside = path.strip_prefix('[')?;
    let quote = inside.chars().next().filter(|c| matches!(c, '\'' | '"'));
    if let Some(quote) = quote {
        let (name, after) = inside[1..].split_once(quote)?;
        // An escape may be of the very sign that ended the name.
        let plain = !name.contains('\\');
        return Some((Step::Member(name), after.strip_prefix(']')?)).filter(|_| plain);
    }
    let (index, after) = inside.split_once(']')?;
    let digits = index == "0" || index.starts_with(|c: char| matches!(c, '1'..='9'));
    Some((Step::Element(index.parse().ok().filter(|_| digits)?), after))
}

/// What a name without quotes is made of. RFC 9535 has no hyphen; what kubeconfigs are written for has.
fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-') || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_a_token_and_its_expiry_lead_there() {
        let answer = json!({ "credential": { "access_token": "t", "token-expiry": "2026-11-22T00:00:00Z" },
            "all": [{ "a": 1 }, { "b.c": [2, 3] }] });
        let at = |path| answer.query(path).unwrap().into_iter().next().cloned();
        assert_eq!(at("$.credential.access_token"), Some(json!("t")));
        assert_eq!(at("$.credential.token-expiry"), Some(json!("2026-11-22T00:00:00Z")));
        assert_eq!(at("$['credential'][\"access_token\"]"), Some(json!("t")));
        assert_eq!(at("$.all[1]['b.c'][0]"), Some(json!(2)));
        assert_eq!(at("$"), Some(answer.clone()));
    }

    #[test]
    fn where_nothing_is_nothing_is_found() {
        let answer = json!({ "list": ["a"], "text": "b" });
        for path in
            ["$.none", "$.text.more", "$.list.text", "$.list[1]", "$.text[0]", "$.none[7].x"]
        {
            assert_eq!(answer.query(path), Ok(vec![]), "{path}");
        }
    }

    #[test]
    fn what_may_lead_to_many_values_or_is_no_path_is_refused_where_it_is() {
        for (path, at) in [
            ("", 0),
            ("a", 0),
            ("$a", 1),
            ("$.", 1),
            ("$.1", 1),
            ("$..a", 1),
            ("$.*", 1),
            ("$.a[*]", 3),
            ("$.a[-1]", 3),
            ("$.a[+1]", 3),
            ("$.a[01]", 3),
            ("$.a[99999999999999999999]", 3),
            ("$.a[0:1]", 3),
            ("$.a[?@.b]", 3),
            ("$.a['b','c']", 3),
            ("$.a['b\\'c']", 3),
            ("$.a['b", 3),
            ("$.a[", 3),
            ("$.a b", 3),
        ] {
            assert_eq!(json!({ "a": ["x"] }).query(path), Err(PathError { at }), "{path}");
        }
    }
}
