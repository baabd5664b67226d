//! A call to the API server that is not a watch: it ends in time, and an error names the call.

use std::time::Duration;

use futures::FutureExt;
use thiserror::Error;

/// Longest wait for one API call that is not a watch. kube-rs has no read timeout of its own and
/// retries 429/503/504 by itself; this bounds both.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Why a call did not succeed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The API server did not answer in time.
    #[error("{what}: no answer from the Kubernetes API within {} s", after.as_secs())]
    Deadline {
        /// The call.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The API server refused or failed.
    #[error("{what}")]
    Answer {
        /// The call.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
}

impl ApiError {
    /// Whether the API server answered with this HTTP status.
    pub fn is(&self, code: u16) -> bool {
        match self {
            Self::Answer { source, .. } => {
                matches!(&**source, kube::Error::Api(status) if status.code == code)
            }
            Self::Deadline { .. } => false,
        }
    }
}

/// The call's answer, waited for up to [`CALL_DEADLINE`] from now on.
pub(crate) fn call<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> impl Future<Output = Result<T, ApiError>> {
    within(CALL_DEADLINE, what, call)
}

/// The call's answer, waited for up to `deadline` from now on. No `async` function, which would hold
/// the call's future, several KiB, twice.
pub(crate) fn within<T>(
    deadline: Duration,
    what: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> impl Future<Output = Result<T, ApiError>> {
    tokio::time::timeout(deadline, call).map(move |answer| {
        answer
            .map_err(|_| ApiError::Deadline { what, after: deadline })?
            .map_err(|source| ApiError::Answer { what, source: Box::new(source) })
    })
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_in_time_and_its_error_names_it() {
        let silent = call("get Secret a", std::future::pending::<Result<(), _>>()).await;
        let error = silent.unwrap_err();
        assert_eq!(
            error.to_string(),
            "get Secret a: no answer from the Kubernetes API within 30 s"
        );
        assert!(!error.is(404));
        let answer = kube::Error::Api(Status::failure("gone", "NotFound").with_code(404).boxed());
        let error = call("get Secret a", async { Err::<(), _>(answer) }).await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.is(404), error.is(409)),
            ("get Secret a", true, false)
        );
    }
}
