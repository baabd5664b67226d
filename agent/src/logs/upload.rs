//! Sends one sealed stream over a connection of its own, and again over another when it breaks.
//!
//! Nothing is handed to the wire without asking the consent first and spending the bytes. What may be
//! unacknowledged is bounded by the [`Sender`]; dropping the future drops the connection with it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use mendix_agent_core::{
    consent::Refusal,
    seal::WrappedKey,
    transfer::{OutChunk, Sender, Totals, TransferError},
};
use mendix_agent_proto::{
    limits::RESUME_WINDOW,
    v1::{
        AbortRequest, BeginRequest, Chunk, ChunkAck, FinishRequest, QueryRequest,
        query_response::State, snapshot_service_client::SnapshotServiceClient,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{ledger::Budget, live::Live};
use crate::{
    channel::{DialError, Dialer, snapshot_client},
    clock::boot,
};

/// Longest wait for an answer to Begin, Finish, Abort or Query, and for Put to open.
const RPC_DEADLINE: Duration = Duration::from_secs(20);
/// Longest wait for an acknowledgement while something is unacknowledged.
const ACK_DEADLINE: Duration = Duration::from_secs(30);
/// Pause between attempts to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(2);
/// Chunks on their way to the connection: as many as may be unacknowledged, and one.
const WIRE_BACKLOG: usize = 4;

/// Why an upload did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// Consent ended; the reason is with the [`Live`].
    #[error("consent ended")]
    ConsentEnded,
    /// The budget is used up, or can't be spent.
    #[error("the budget can't be spent")]
    Budget(#[source] Refusal),
    /// No connection for the whole of the resume window.
    #[error("no connection to the snapshot store for {} s", RESUME_WINDOW.as_secs())]
    Unreachable(#[source] Box<Broken>),
    /// The server said no.
    #[error("the snapshot store refused: {}", .0.message())]
    Refused(Box<Status>),
    /// The two ends disagree on what was sent.
    #[error("the upload can't go on")]
    Transfer(#[from] TransferError),
    /// The server lost the upload, or ended it.
    #[error("the snapshot store has no upload to continue ({state})")]
    Lost {
        /// What it says.
        state: &'static str,
    },
    /// Whoever makes the stream has gone.
    #[error("the stream ended before it was complete")]
    Cut,
}

/// Why a connection can't be used any more; another one may do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It could not be opened.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It failed.
    #[error("the connection failed: {}", .0.message())]
    Rpc(Box<Status>),
    /// The server took too long.
    #[error("the server did not answer in time")]
    Silent,
}

/// What ends the use of one connection.
enum End {
    Broken(Broken),
    Fatal(UploadError),
}

impl From<UploadError> for End {
    fn from(error: UploadError) -> Self {
        Self::Fatal(error)
    }
}

impl From<TransferError> for End {
    fn from(error: TransferError) -> Self {
        Self::Fatal(error.into())
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        match status.code() {
            // The server knows what it says no to; asking again gives the same answer.
            Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unimplemented => Self::Fatal(UploadError::Refused(Box::new(status))),
            // Also damage on the way (DATA_LOSS, OUT_OF_RANGE): what the server has is asked for on
            // the next connection.
            _ => Self::Broken(Broken::Rpc(Box::new(status))),
        }
    }
}

/// One upload; see the module's head.
pub(super) struct Upload<'a> {
    pub(super) dialer: &'a Dialer,
    pub(super) live: &'a Live,
    pub(super) begin: BeginRequest,
    pub(super) budget: &'a mut Budget,
    /// Sealed bytes handed to the wire, for the receipt.
    pub(super) sent: &'a AtomicU64,
    sender: Sender,
    begun: bool,
    complete: bool,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        dialer: &'a Dialer,
        live: &'a Live,
        begin: BeginRequest,
        budget: &'a mut Budget,
        sent: &'a AtomicU64,
    ) -> Self {
        let sender = Sender::new();
        Self { dialer, live, begin, budget, sent, sender, begun: false, complete: false }
    }

    /// Sends what `segments` gives, until a `None` in it says that the stream is complete. Returns
    /// when all of it is acknowledged.
    pub(super) async fn run(
        mut self,
        segments: &mut mpsc::Receiver<Option<Vec<u8>>>,
    ) -> Result<Totals, UploadError> {
        let mut down_since = boot();
        loop {
            let before = self.sender.acked();
            let broken = match self.connection(segments).await {
                Ok(totals) => return Ok(totals),
                Err(End::Fatal(error)) => return Err(error),
                Err(End::Broken(broken)) => broken,
            };
            let now = boot();
            if self.begun {
                self.sender.disconnected(now);
            }
            if self.sender.acked() > before {
                down_since = now;
            }
            if now.saturating_sub(down_since) > RESUME_WINDOW {
                return Err(UploadError::Unreachable(Box::new(broken)));
            }
            tracing::warn!(error = crate::errors::describe(&broken), "upload interrupted");
            sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn connection(
        &mut self,
        segments: &mut mpsc::Receiver<Option<Vec<u8>>>,
    ) -> Result<Totals, End> {
        let channel = self.dialer.connect_for_upload().await.map_err(Broken::Dial)?;
        let mut client = snapshot_client(channel);
        let next_offset = self.position(&mut client).await?;
        let again = self.sender.resume(boot(), next_offset)?;
        let (wire, chunks) = mpsc::channel(WIRE_BACKLOG);
        let open = client.put(ReceiverStream::new(chunks));
        let mut acks = answer(open).await?;
        for chunk in again {
            self.send(&wire, chunk).await?;
        }
        self.pump(&wire, &mut acks, segments).await
    }

    /// Where the server stands.
    async fn position(&mut self, client: &mut SnapshotServiceClient<Channel>) -> Result<u64, End> {
        if !self.begun {
            // Repeating Begin is how a lost answer to it is survived.
            let begun = answer(client.begin(self.begin.clone())).await?;
            self.begun = true;
            return Ok(begun.next_offset);
        }
        let request = QueryRequest { snapshot_id: self.begin.snapshot_id.clone() };
        let found = answer(client.query(request)).await?;
        match found.state() {
            State::Receiving => Ok(found.next_offset),
            State::Unspecified | State::Unknown => {
                Err(UploadError::Lost { state: "unknown" }.into())
            }
            State::Finished => Err(UploadError::Lost { state: "finished" }.into()),
            State::Aborted => Err(UploadError::Lost { state: "aborted" }.into()),
        }
    }

    async fn pump(
        &mut self,
        wire: &mpsc::Sender<Chunk>,
        acks: &mut Streaming<ChunkAck>,
        segments: &mut mpsc::Receiver<Option<Vec<u8>>>,
    ) -> Result<Totals, End> {
        let mut ack_by = Instant::now() + ACK_DEADLINE;
        loop {
            if self.complete
                && let Ok(totals) = self.sender.totals()
            {
                return Ok(totals);
            }
            let waiting = self.sender.sent() > self.sender.acked();
            tokio::select! {
                biased;
                ack = acks.message() => match ack? {
                    Some(ack) => {
                        self.sender.acknowledged(ack.next_offset)?;
                        ack_by = Instant::now() + ACK_DEADLINE;
                    }
                    None => {
                        let ended = Status::unavailable("the server ended the stream");
                        return Err(Broken::Rpc(Box::new(ended)).into());
                    }
                },
                segment = segments.recv(), if !self.complete && self.sender.room() => {
                    match segment {
                        None => return Err(UploadError::Cut.into()),
                        Some(None) => self.complete = true,
                        Some(Some(segment)) => {
                            if !waiting {
                                ack_by = Instant::now() + ACK_DEADLINE;
                            }
                            self.budget.spend(segment.len() as u64).await.map_err(UploadError::Budget)?;
                            let chunk = self.sender.accept(Bytes::from(segment))?;
                            self.sent.store(self.sender.sent(), Ordering::Relaxed);
                            self.send(wire, chunk).await?;
                        }
                    }
                }
                () = sleep_until(ack_by), if waiting => return Err(Broken::Silent.into()),
            }
        }
    }

    /// The one place where sealed bytes go to the wire.
    async fn send(&self, wire: &mpsc::Sender<Chunk>, chunk: OutChunk) -> Result<(), End> {
        if !self.live.holds() {
            return Err(UploadError::ConsentEnded.into());
        }
        let chunk = Chunk {
            snapshot_id: self.begin.snapshot_id.clone(),
            offset: chunk.offset,
            data: chunk.data,
            sha256: chunk.sha256.to_vec(),
        };
        wire.send(chunk).await.map_err(|_| {
            let ended = Status::unavailable("the server no longer takes chunks");
            Broken::Rpc(Box::new(ended)).into()
        })
    }
}

async fn answer<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, End> {
    match timeout(RPC_DEADLINE, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Broken::Silent.into()),
    }
}

/// Completes an upload: totals and the wrapped key. Repeats it over new connections: the server may
/// have it although the answer was lost.
pub(super) async fn finish(
    dialer: &Dialer,
    snapshot_id: &str,
    totals: Totals,
    key: WrappedKey,
) -> Result<(), UploadError> {
    let request = FinishRequest {
        snapshot_id: snapshot_id.to_owned(),
        total_size: totals.size,
        sha256: totals.sha256.to_vec(),
        encapsulated_key: key.encapsulated_key,
        wrapped_key: key.wrapped_key,
    };
    let since = boot();
    loop {
        let attempt = async {
            let channel = dialer.connect_for_upload().await.map_err(Broken::Dial)?;
            answer(snapshot_client(channel).finish(request.clone())).await
        };
        match attempt.await {
            Ok(_) => return Ok(()),
            Err(End::Fatal(error)) => return Err(error),
            Err(End::Broken(broken)) => {
                if boot().saturating_sub(since) > RESUME_WINDOW {
                    return Err(UploadError::Unreachable(Box::new(broken)));
                }
            }
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

/// What the server makes of an upload that did not end well here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It holds nothing of it, or soon will not.
    Discarded,
    /// It was complete: only the answer to Finish was lost, or the agent's memory of it.
    Finished {
        /// Length of the sealed stream.
        size: u64,
    },
}

/// Tells the server to discard an upload, and asks what became of it if that is too late. Over a
/// connection of its own: the one with the upload on it is gone.
pub(super) async fn settle(
    dialer: &Dialer,
    snapshot_id: &str,
    reason: &str,
) -> Result<Settled, UploadError> {
    let attempt = async {
        let channel = dialer.connect_for_upload().await.map_err(Broken::Dial)?;
        let mut client = snapshot_client(channel);
        let request =
            AbortRequest { snapshot_id: snapshot_id.to_owned(), reason: reason.to_owned() };
        match answer(client.abort(request)).await {
            Ok(_) => return Ok(Settled::Discarded),
            Err(End::Fatal(UploadError::Refused(_))) => {}
            Err(end) => return Err(end),
        }
        let request = QueryRequest { snapshot_id: snapshot_id.to_owned() };
        let found = answer(client.query(request)).await?;
        Ok(match found.state() {
            State::Finished => Settled::Finished { size: found.next_offset },
            // Not resumed in time, it is discarded without being told.
            State::Unspecified | State::Unknown | State::Receiving | State::Aborted => {
                Settled::Discarded
            }
        })
    };
    match attempt.await {
        Ok(settled) => Ok(settled),
        Err(End::Fatal(error)) => Err(error),
        Err(End::Broken(broken)) => Err(UploadError::Unreachable(Box::new(broken))),
    }
}
