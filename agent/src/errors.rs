//! How errors are told: one line, the chain of causes in order, each said once.

use std::error::Error;

/// An error with its chain of causes on one line.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut line = own_text(error);
    let mut cause = source(error);
    while let Some(error) = cause {
        let text = own_text(error);
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = source(error);
    }
    line
}

/// The next cause. The one behind an answer of the API server is that answer again.
fn source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match of_kube(error) {
        Some(kube::Error::Api(_)) => None,
        _ => error.source(),
    }
}

/// An error of kube's, which the errors of calls hold in a box.
fn of_kube<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a kube::Error> {
    let boxed = || error.downcast_ref::<Box<kube::Error>>().map(|boxed| &**boxed);
    error.downcast_ref().or_else(boxed)
}

/// What an error says of itself. kube's own text for an answer of the API server repeats the message
/// and ends in a dump of the whole status.
fn own_text(error: &(dyn Error + 'static)) -> String {
    match of_kube(error) {
        Some(kube::Error::Api(status)) => match status.reason.as_str() {
            "" => format!("{} ({})", status.message, status.code),
            reason => format!("{} ({} {reason})", status.message, status.code),
        },
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use kube::core::Status;
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("write the ledger")]
    struct Outer<E: Error + 'static>(#[source] E);

    #[test]
    fn causes_follow_in_order_and_none_is_said_twice() {
        let inner = Outer(io::Error::other("disk full"));
        assert_eq!(describe(&inner), "write the ledger: disk full");
        assert_eq!(describe(&Outer(Outer(io::Error::other("x")))), "write the ledger: x");
    }

    #[test]
    fn an_answer_of_the_api_server_is_its_message_and_code() {
        let status = Status::failure("name must be provided", "BadRequest").with_code(400);
        let error = Outer(kube::Error::Api(status.boxed()));
        let says = "write the ledger: name must be provided (400 BadRequest)";
        assert_eq!(describe(&error), says);
        // As calls hold it.
        let status = Status::failure("name must be provided", "BadRequest").with_code(400);
        assert_eq!(describe(&Outer(Box::new(kube::Error::Api(status.boxed())))), says);
    }
}
