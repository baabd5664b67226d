//! What the control plane makes of the agent: whether its identity is accepted, whether gRPC gets
//! through, how long an answer takes, and what time it is there.
//!
//! The probe asks the release repository for the file that every agent asks for first. It changes
//! nothing, and unlike a session it pushes no other session aside. Without a certificate the server
//! refuses it, which shows as well that the way is open.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use mendix_agent_proto::v1;
use rustls::{ClientConfig, pki_types::CertificateDer};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, metadata::MetadataMap, transport::Channel};

use super::{Check, Verdict};
use crate::{
    channel::{
        Target,
        dial::{bundle_client, describe, tls},
        enroll,
        identity::{Identity, IdentityError, store::Store},
    },
    cluster::Cluster,
    config::Config,
};

const AUTHENTICATION: &str = "authentication";
const STREAM: &str = "stream";
const ROUND_TRIP: &str = "round trip";

/// Longest wait for one answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Answers that are waited for; the fastest is told.
const PROBES: u32 = 3;
/// A round trip that takes longer is worth a warning: leases live for 60 s, and every message of a
/// session waits for the one before.
const SLOW: Duration = Duration::from_secs(1);
/// What is asked for.
const PROBE: &str = "metadata/timestamp.json";

/// What came out.
pub(super) struct Outcome {
    pub(super) checks: Vec<Check>,
    /// The control plane's clock minus ours, seconds.
    pub(super) ahead: Option<i64>,
}

/// Who the agent can be to the control plane.
enum Standing {
    /// With a certificate.
    Enrolled { tls: Arc<ClientConfig>, until: Timestamp },
    /// Without; the check says what comes of that.
    Stranger(Check),
}

/// Authentication, stream, round trip.
pub(super) async fn checks(
    config: &Config,
    target: Option<&Target>,
    anchors: Option<&[CertificateDer<'static>]>,
    cluster: Option<&Cluster>,
) -> Outcome {
    let standing = match cluster {
        None => Standing::Stranger(Check::skip(
            AUTHENTICATION,
            "the identity is kept in Kubernetes, which was not reached",
        )),
        Some(cluster) => standing(config, cluster).await,
    };
    let skipped = |authentication: Check, because: &str| Outcome {
        checks: vec![
            authentication,
            Check::skip(STREAM, because),
            Check::skip(ROUND_TRIP, because),
        ],
        ahead: None,
    };
    let unreached = "the control plane was not reached";
    let Some(target) = target else {
        let authentication = match standing {
            Standing::Enrolled { .. } => Check::skip(AUTHENTICATION, unreached),
            Standing::Stranger(check) => check,
        };
        return skipped(authentication, unreached);
    };
    let (tls, authentication) = match &standing {
        Standing::Enrolled { tls, until } => {
            let detail = format!("certificate accepted, valid until {until}");
            (Some(Arc::clone(tls)), Check::pass(AUTHENTICATION, detail))
        }
        Standing::Stranger(check) => {
            (anchors.and_then(|anchors| tls::server_authenticated(anchors).ok()), check.clone())
        }
    };
    let Some(tls) = tls else { return skipped(authentication, "there is no channel CA") };
    let channel = match target.connect(tls).await {
        Ok(channel) => channel,
        Err(error) => {
            return match standing {
                Standing::Enrolled { .. } => {
                    skipped(Check::of_dial(AUTHENTICATION, &error), "authentication failed")
                }
                Standing::Stranger(check) => Outcome {
                    checks: vec![
                        check,
                        Check::of_dial(STREAM, &error),
                        Check::skip(ROUND_TRIP, "stream failed"),
                    ],
                    ahead: None,
                },
            };
        }
    };
    let enrolled = matches!(standing, Standing::Enrolled { .. });
    probe(channel, enrolled, authentication).await
}

async fn standing(config: &Config, cluster: &Cluster) -> Standing {
    let stored = match Store::new(cluster).load(&cluster.uid).await {
        Ok(stored) => stored,
        Err(error) => {
            let cause = "the agent may not read its own Secrets, or the API server failed";
            let remedy = "apply the RBAC of the agent's manifests again";
            let detail = describe(&error);
            return Standing::Stranger(Check::new(
                AUTHENTICATION,
                Verdict::Fail,
                detail,
                cause,
                remedy,
            ));
        }
    };
    match stored.identity {
        None => Standing::Stranger(unenrolled(config, "not enrolled yet")),
        Some(Err(error)) => Standing::Stranger(unenrolled(config, &describe(&error))),
        Some(Ok(identity)) => of_identity(&identity),
    }
}

fn of_identity(identity: &Identity) -> Standing {
    let until = identity.not_after();
    match identity.verify(Timestamp::now()) {
        Ok(credentials) => Standing::Enrolled { tls: Arc::clone(credentials.tls()), until },
        Err(IdentityError::Expired { .. }) => Standing::Stranger(Check::new(
            AUTHENTICATION,
            Verdict::Warn,
            format!("the certificate expired at {until}; the agent asks to recover it"),
            "the agent was away for longer than its certificate lives",
            "if the agent does not recover by itself, mount a new bootstrap token",
        )),
        Err(error) => Standing::Stranger(Check::new(
            AUTHENTICATION,
            Verdict::Fail,
            describe(&error),
            "this node's clock is off, or the stored identity is damaged",
            "check this node's clock; otherwise mount a new bootstrap token",
        )),
    }
}

pub(super) fn unenrolled(config: &Config, why: &str) -> Check {
    let file = &config.bootstrap_token_file;
    let token = std::fs::read_to_string(file).map(SecretString::from);
    match token.as_ref().map(|token| token.expose_secret().trim()) {
        Ok(token) if !enroll::is_one_word(token) => Check::new(
            AUTHENTICATION,
            Verdict::Fail,
            format!("{why}, and {} {}", file.display(), enroll::MORE_THAN_A_TOKEN),
            "it was made from the output of a command, with the sentence around the token",
            "put the token alone into Secret mendix-agent-bootstrap",
        ),
        Ok(token) if !token.is_empty() => {
            let detail = format!("{why}; the agent enrols with the token in {}", file.display());
            Check::pass(AUTHENTICATION, detail)
        }
        _ => Check::new(
            AUTHENTICATION,
            Verdict::Fail,
            format!("{why}, and there is no bootstrap token in {}", file.display()),
            "the Secret with the token was not made, or is not mounted",
            "get a bootstrap token for this cluster and put it into Secret mendix-agent-bootstrap",
        ),
    }
}

/// Asks a few times.
async fn probe(channel: Channel, enrolled: bool, authentication: Check) -> Outcome {
    let mut fastest = Duration::MAX;
    let mut ahead = None;
    for _ in 0..PROBES {
        let began = Instant::now();
        match timeout(ANSWER_DEADLINE, ask(channel.clone())).await {
            Ok(Ok(metadata)) => ahead = skew(&metadata),
            Ok(Err(status)) => match judge(&status, enrolled) {
                Answer::Fine => ahead = skew(status.metadata()),
                Answer::Stranger => {
                    return Outcome {
                        checks: vec![
                            refused(&status),
                            Check::pass(STREAM, "gRPC gets through"),
                            Check::skip(ROUND_TRIP, "authentication failed"),
                        ],
                        ahead: skew(status.metadata()),
                    };
                }
                Answer::None => return silent(authentication, &said(&status)),
            },
            Err(_) => {
                let detail = format!("no answer within {} s", ANSWER_DEADLINE.as_secs());
                return silent(authentication, &detail);
            }
        }
        fastest = fastest.min(began.elapsed());
    }
    let stream = Check::pass(STREAM, "gRPC gets through");
    Outcome { checks: vec![authentication, stream, round_trip(fastest)], ahead }
}

/// One call; the headers of its answer.
async fn ask(channel: Channel) -> Result<MetadataMap, Status> {
    let request = v1::FetchRequest { name: PROBE.into(), offset: 0 };
    let mut answer = bundle_client(channel).fetch(request).await?;
    answer.get_mut().message().await?;
    Ok(answer.metadata().clone())
}

/// What an error says of the way.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The control plane answered.
    Fine,
    /// It answered that it does not take this agent's certificate.
    Stranger,
    /// Somebody or nobody answered.
    None,
}

fn judge(status: &Status, enrolled: bool) -> Answer {
    match status.code() {
        Code::Unknown | Code::Unavailable | Code::Internal | Code::Cancelled => Answer::None,
        Code::DeadlineExceeded => Answer::None,
        Code::Unauthenticated | Code::PermissionDenied if enrolled => Answer::Stranger,
        _ => Answer::Fine,
    }
}

fn said(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

fn refused(status: &Status) -> Check {
    let cause = "the certificate was revoked, or the cluster was deleted at the control plane";
    let remedy = "mount a new bootstrap token for this cluster";
    Check::new(AUTHENTICATION, Verdict::Fail, said(status), cause, remedy)
}

fn silent(authentication: Check, detail: &str) -> Outcome {
    let cause = "a proxy or load balancer holds the connection while the control plane behind it is \
                 down, or it does not carry gRPC";
    let remedy = "exempt the endpoint from inspection; if this stays, report it to Mendix support";
    let stream = Check::new(STREAM, Verdict::Fail, detail, cause, remedy);
    let round_trip = Check::skip(ROUND_TRIP, "stream failed");
    Outcome { checks: vec![authentication, stream, round_trip], ahead: None }
}

fn round_trip(fastest: Duration) -> Check {
    let detail = format!("{} ms", fastest.as_millis());
    if fastest > SLOW {
        let cause = "the way is long or full, or the control plane is overloaded";
        let remedy = "look for a proxy or link that delays; if this stays, report it";
        return Check::new(ROUND_TRIP, Verdict::Warn, detail, cause, remedy);
    }
    Check::pass(ROUND_TRIP, detail)
}

fn skew(metadata: &MetadataMap) -> Option<i64> {
    let date = metadata.get("date")?.to_str().ok()?;
    let server = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(server.timestamp().as_second() - Timestamp::now().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_control_plane_is_told_from_one_of_what_is_between() {
        let of = |code, enrolled| judge(&Status::new(code, ""), enrolled);
        assert_eq!(of(Code::NotFound, true), Answer::Fine);
        assert_eq!(of(Code::Unauthenticated, false), Answer::Fine);
        assert_eq!(of(Code::Unauthenticated, true), Answer::Stranger);
        assert_eq!(of(Code::PermissionDenied, true), Answer::Stranger);
        // What tonic makes of an HTML page, of a 502, and of a broken connection.
        for code in [Code::Unknown, Code::Unavailable, Code::Internal] {
            assert_eq!(of(code, false), Answer::None, "{code:?}");
        }
    }

    #[test]
    fn a_slow_way_is_worth_a_warning() {
        assert_eq!(round_trip(SLOW).result, Verdict::Pass);
        assert_eq!(round_trip(SLOW + Duration::from_millis(1)).result, Verdict::Warn);
    }
}
