//! `BundleTransport` against a server on loopback that breaks off, lies and refuses.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt, stream};
use mendix_agent_proto::{
    limits::MAX_FETCH_CHUNK,
    v1::{
        FetchChunk, FetchRequest,
        bundle_service_server::{BundleService, BundleServiceServer},
    },
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, transport::Channel};
use tough::{IntoVec, Transport, TransportError, TransportErrorKind};
use url::Url;

use crate::patch::trust::{FetchError, guard::REPOSITORY, transport::BundleTransport};

const TARGET: &str = "targets/ab.blob";

/// What the server does with one call.
type Script = Arc<Mutex<dyn FnMut(FetchRequest) -> Vec<Result<FetchChunk, Status>> + Send>>;

struct Server(Script);

#[tonic::async_trait]
impl BundleService for Server {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchChunk, Status>> + Send>>;

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let mut items = (self.0.lock().unwrap())(request.into_inner());
        // A refusal before the first chunk is the call's own status.
        match items.pop() {
            Some(Err(status)) if items.is_empty() => return Err(status),
            Some(last) => items.push(last),
            None => {}
        }
        Ok(Response::new(stream::iter(items).boxed()))
    }
}

struct Running {
    transport: BundleTransport,
    _server: AbortOnDropHandle<()>,
}

async fn serve(
    script: impl FnMut(FetchRequest) -> Vec<Result<FetchChunk, Status>> + Send + 'static,
) -> Running {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = BundleServiceServer::new(Server(Arc::new(Mutex::new(script))));
    let server = tonic::transport::Server::builder()
        .serve_with_incoming(service, TcpListenerStream::new(listener));
    let server = tokio::spawn(async move { server.await.unwrap() });
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    Running { transport: BundleTransport::new(channel), _server: AbortOnDropHandle::new(server) }
}

impl Running {
    async fn read(&self, name: &str) -> Result<Vec<u8>, TransportError> {
        let url = Url::parse(REPOSITORY).unwrap().join(name).unwrap();
        self.transport.fetch(url).await?.into_vec().await
    }

    async fn failure(&self) -> (TransportErrorKind, Option<FetchError>) {
        let error = self.read(TARGET).await.unwrap_err();
        let kind = error.kind();
        // Taken apart by hand: the error owns its source and gives out references only.
        let cause = std::error::Error::source(&error)
            .and_then(|cause| cause.downcast_ref::<FetchError>())
            .map(|cause| match cause {
                FetchError::GivenUp { .. } => {
                    FetchError::Deadline { name: "given up".into(), offset: 0 }
                }
                FetchError::Protocol { name, what } => {
                    FetchError::Protocol { name: name.clone(), what }
                }
                FetchError::Refused { name, source } => {
                    FetchError::Refused { name: name.clone(), source: source.clone() }
                }
                FetchError::Deadline { name, offset } => {
                    FetchError::Deadline { name: name.clone(), offset: *offset }
                }
            });
        (kind, cause)
    }
}

fn file(size: usize) -> Vec<u8> {
    (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// The chunks of `file` from `offset` on.
fn chunks(file: &[u8], offset: u64) -> Vec<Result<FetchChunk, Status>> {
    let rest = &file[usize::try_from(offset).unwrap()..];
    rest.chunks(MAX_FETCH_CHUNK)
        .enumerate()
        .map(|(n, data)| {
            let total_size = if n == 0 { file.len() as u64 } else { 0 };
            Ok(FetchChunk { data: data.to_vec().into(), total_size })
        })
        .collect()
}

#[tokio::test]
async fn a_file_of_several_chunks_arrives_whole() {
    let content = file(3 * MAX_FETCH_CHUNK + 7);
    let served = content.clone();
    let running = serve(move |request| {
        assert_eq!(request.name, TARGET);
        chunks(&served, request.offset)
    })
    .await;
    assert_eq!(running.read(TARGET).await.unwrap(), content);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let running = serve(|_| vec![]).await;
    assert_eq!(running.read("metadata/timestamp.json").await.unwrap(), b"");
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_it_broke_off() {
    let content = file(6 * MAX_FETCH_CHUNK);
    let served = content.clone();
    let offsets = Arc::new(Mutex::new(Vec::new()));
    let seen = offsets.clone();
    let running = serve(move |request| {
        seen.lock().unwrap().push(request.offset);
        let mut all = chunks(&served, request.offset);
        // One chunk, then the connection "breaks"; once it just ends.
        all.truncate(1);
        if request.offset > 0 {
            all.push(Err(Status::unavailable("broken")));
        }
        all
    })
    .await;
    assert_eq!(running.read(TARGET).await.unwrap(), content);
    // More attempts than may be fruitless in a row: each of them brought something.
    let expected: Vec<_> = (0..6).map(|n| n * MAX_FETCH_CHUNK as u64).collect();
    assert_eq!(*offsets.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_stream_that_breaks_after_the_last_byte_needs_no_second_call() {
    let content = file(10);
    let served = content.clone();
    let running = serve(move |request| {
        assert_eq!(request.offset, 0);
        let mut all = chunks(&served, 0);
        all.push(Err(Status::unavailable("broken")));
        all
    })
    .await;
    assert_eq!(running.read(TARGET).await.unwrap(), content);
}

#[tokio::test]
async fn only_not_found_is_absence() {
    let running = serve(|_| vec![Err(Status::not_found("no such file"))]).await;
    assert_eq!(running.failure().await.0, TransportErrorKind::FileNotFound);
    for status in [Status::permission_denied("no"), Status::invalid_argument("no")] {
        let running = serve(move |_| vec![Err(status.clone())]).await;
        let (kind, cause) = running.failure().await;
        assert_eq!(kind, TransportErrorKind::Other);
        assert!(matches!(cause, Some(FetchError::Refused { .. })), "{cause:?}");
    }
}

#[tokio::test]
async fn a_file_that_vanishes_while_it_is_read_was_not_absent() {
    let content = file(3 * MAX_FETCH_CHUNK);
    let running = serve(move |request| match request.offset {
        0 => chunks(&content, 0).into_iter().take(1).collect(),
        _ => vec![Err(Status::not_found("gone"))],
    })
    .await;
    assert_eq!(running.failure().await.0, TransportErrorKind::Other);
}

#[tokio::test]
async fn a_server_that_never_delivers_is_given_up() {
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let running = serve(move |_| {
        *counted.lock().unwrap() += 1;
        vec![Err(Status::unavailable("later"))]
    })
    .await;
    let (kind, cause) = running.failure().await;
    assert_eq!(kind, TransportErrorKind::Other);
    assert!(cause.is_some_and(|cause| cause.is_transient()));
    assert_eq!(*calls.lock().unwrap(), 4);
}

#[tokio::test]
async fn chunks_that_break_the_protocol_end_the_read() {
    let chunk = |size: usize, total_size| Ok(FetchChunk { data: file(size).into(), total_size });
    for (what, served) in [
        ("more than announced", vec![chunk(10, 9)]),
        ("no size", vec![chunk(10, 0)]),
        ("an empty chunk", vec![chunk(0, 10)]),
        ("a chunk too large", vec![chunk(MAX_FETCH_CHUNK + 1, 1 << 20)]),
        ("a second size", vec![chunk(5, 10), chunk(5, 10)]),
    ] {
        let mut once = Some(served);
        let running = serve(move |_| once.take().unwrap_or_default()).await;
        let (kind, cause) = running.failure().await;
        assert_eq!(kind, TransportErrorKind::Other, "{what}");
        assert!(matches!(cause, Some(FetchError::Protocol { .. })), "{what}: {cause:?}");
    }
}

#[tokio::test]
async fn a_file_that_changes_its_size_between_attempts_ends_the_read() {
    let running = serve(move |request| {
        let content = file(3 * MAX_FETCH_CHUNK + usize::try_from(request.offset).unwrap());
        chunks(&content, request.offset).into_iter().take(1).collect()
    })
    .await;
    assert!(matches!(running.failure().await.1, Some(FetchError::Protocol { .. })));
}
