//! The release repository over `BundleService.Fetch`: one file at a time, resumed by offset.
//!
//! Nothing here is trusted: what arrives is verified by tough against the release root. This side
//! only bounds how long and how much.

use std::{fmt, time::Duration};

use bytes::Bytes;
use mendix_agent_proto::{
    limits::MAX_FETCH_CHUNK,
    v1::{FetchChunk, FetchRequest, bundle_service_client::BundleServiceClient},
};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use super::guard::file_name;

/// Chunks between the connection and the verifier; a slow verifier stops the sender.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Longest wait for the next chunk.
const IDLE: Duration = Duration::from_secs(30);
/// Longest time for one file with all its resumptions: 16 MiB at 30 KiB/s.
const FILE_DEADLINE: Duration = Duration::from_secs(600);
/// Attempts in a row that bring no byte, after which a file is given up.
const FRUITLESS_ATTEMPTS: u32 = 4;
/// Wait before the second attempt; doubled before each further one.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// A chunk and its framing.
const MAX_MESSAGE: usize = MAX_FETCH_CHUNK + 1024;

/// Why a file could not be read.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The connection or the server failed, also when tried again.
    #[error("{name}: given up at byte {offset} after {attempts} attempts")]
    GivenUp {
        /// The file.
        name: String,
        /// Bytes that did arrive.
        offset: u64,
        /// Attempts in a row without a byte.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<Interruption>,
    },
    /// The whole file took too long.
    #[error("{name}: not read within {} s; {offset} bytes arrived", FILE_DEADLINE.as_secs())]
    Deadline {
        /// The file.
        name: String,
        /// Bytes that did arrive.
        offset: u64,
    },
    /// The server refused the request; trying again would not help.
    #[error("{name}: the server refused")]
    Refused {
        /// The file.
        name: String,
        /// What it said.
        #[source]
        source: Box<Status>,
    },
    /// The server broke the protocol.
    #[error("{name}: {what}")]
    Protocol {
        /// The file.
        name: String,
        /// What was wrong.
        what: &'static str,
    },
}

impl FetchError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::GivenUp { .. } | Self::Deadline { .. })
    }
}

/// What ended one attempt.
#[derive(Debug, Error)]
pub enum Interruption {
    /// The call or its stream failed.
    #[error("the stream failed")]
    Status(#[source] Box<Status>),
    /// Nothing came for too long.
    #[error("no byte for {} s", IDLE.as_secs())]
    Idle,
    /// The stream ended before the file did.
    #[error("the stream ended before the file")]
    Short,
}

/// Reads repository files over a channel of its own, so that a large blob can't hold up heartbeats.
#[derive(Clone)]
pub(super) struct BundleTransport {
    client: BundleServiceClient<Channel>,
}

impl BundleTransport {
    pub(super) fn new(channel: Channel) -> Self {
        Self { client: BundleServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE) }
    }
}

impl fmt::Debug for BundleTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BundleTransport").finish_non_exhaustive()
    }
}

#[tough::async_trait]
impl Transport for BundleTransport {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let Some(name) = file_name(&url) else {
            return Err(TransportError::new(
                TransportErrorKind::UnsupportedUrlScheme,
                url.as_str(),
            ));
        };
        let (chunks, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let download =
            Download { client: self.client.clone(), url, name, chunks, offset: 0, total: None };
        // Ends by its deadline, or as soon as the reader is dropped.
        tokio::spawn(download.run());
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

struct Download {
    client: BundleServiceClient<Channel>,
    url: Url,
    name: String,
    chunks: mpsc::Sender<Result<Bytes, TransportError>>,
    /// Next byte wanted.
    offset: u64,
    /// Size of the file, once the server said it.
    total: Option<u64>,
}

/// How an attempt ended when it did not end the file.
enum Ended {
    NotFound(Box<Status>),
    Failed(FetchError),
    Interrupted(Interruption),
    /// Nobody reads any more.
    Unwanted,
}

impl Download {
    async fn run(mut self) {
        let chunks = self.chunks.clone();
        let (url, name) = (self.url.clone(), self.name.clone());
        let outcome = tokio::select! {
            () = chunks.closed() => return,
            outcome = tokio::time::timeout(FILE_DEADLINE, self.attempts()) => outcome,
        };
        let (kind, cause): (_, Box<dyn std::error::Error + Send + Sync>) = match outcome {
            Ok(Ok(())) | Ok(Err(Ended::Unwanted | Ended::Interrupted(_))) => return,
            Ok(Err(Ended::NotFound(status))) => (TransportErrorKind::FileNotFound, status),
            Ok(Err(Ended::Failed(error))) => (TransportErrorKind::Other, Box::new(error)),
            Err(_) => {
                let error = FetchError::Deadline { name, offset: self.offset };
                (TransportErrorKind::Other, Box::new(error))
            }
        };
        // A reader that is gone needs no reason.
        let _ = chunks.send(Err(TransportError::new_with_cause(kind, url.as_str(), cause))).await;
    }

    async fn attempts(&mut self) -> Result<(), Ended> {
        let mut fruitless = 0;
        loop {
            let before = self.offset;
            let interruption = match self.attempt().await {
                Err(Ended::Interrupted(interruption)) => interruption,
                other => return other,
            };
            if self.total == Some(self.offset) {
                // Only the end of the stream was lost; there is nothing left to ask for.
                return Ok(());
            }
            fruitless = if self.offset > before { 1 } else { fruitless + 1 };
            tracing::debug!(
                file = self.name, offset = self.offset, fruitless, %interruption,
                "reading a release file was interrupted"
            );
            if fruitless == FRUITLESS_ATTEMPTS {
                return Err(Ended::Failed(FetchError::GivenUp {
                    name: self.name.clone(),
                    offset: self.offset,
                    attempts: fruitless,
                    source: Box::new(interruption),
                }));
            }
            tokio::time::sleep(RETRY_BASE * 2_u32.pow(fruitless - 1)).await;
        }
    }

    /// Reads from the current offset to the end of the file, as far as it gets.
    async fn attempt(&mut self) -> Result<(), Ended> {
        let request = FetchRequest { name: self.name.clone(), offset: self.offset };
        let mut stream: Streaming<FetchChunk> = match idle(self.client.fetch(request)).await? {
            Ok(response) => response.into_inner(),
            Err(status) => return Err(self.ended(status)),
        };
        let mut first = true;
        loop {
            let chunk = match idle(stream.message()).await? {
                Ok(Some(chunk)) => chunk,
                Ok(None) if self.total.unwrap_or(0) == self.offset => return Ok(()),
                Ok(None) => return Err(Ended::Interrupted(Interruption::Short)),
                Err(status) => return Err(self.ended(status)),
            };
            self.check(&chunk, first)?;
            first = false;
            self.offset += chunk.data.len() as u64;
            if self.chunks.send(Ok(chunk.data)).await.is_err() {
                return Err(Ended::Unwanted);
            }
        }
    }

    fn check(&mut self, chunk: &FetchChunk, first: bool) -> Result<(), Ended> {
        let broken =
            |what| Err(Ended::Failed(FetchError::Protocol { name: self.name.clone(), what }));
        if chunk.data.is_empty() || chunk.data.len() > MAX_FETCH_CHUNK {
            return broken("a chunk is empty or too large");
        }
        if first {
            if self.total.is_some_and(|total| total != chunk.total_size) {
                return broken("the file changed its size while it was read");
            }
            self.total = Some(chunk.total_size);
        } else if chunk.total_size != 0 {
            return broken("total_size is in a later chunk");
        }
        if self.offset + chunk.data.len() as u64 > self.total.unwrap_or(0) {
            return broken("more bytes than total_size");
        }
        Ok(())
    }

    fn ended(&self, status: Status) -> Ended {
        match status.code() {
            // A file that was there a moment ago is no reason to believe that it never was.
            Code::NotFound if self.offset == 0 => Ended::NotFound(Box::new(status)),
            Code::InvalidArgument
            | Code::NotFound
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::FailedPrecondition => Ended::Failed(FetchError::Refused {
                name: self.name.clone(),
                source: Box::new(status),
            }),
            _ => Ended::Interrupted(Interruption::Status(Box::new(status))),
        }
    }
}

async fn idle<T>(call: impl Future<Output = T>) -> Result<T, Ended> {
    tokio::time::timeout(IDLE, call).await.map_err(|_| Ended::Interrupted(Interruption::Idle))
}
