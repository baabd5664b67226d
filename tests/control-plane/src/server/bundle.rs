//! BundleService: the files of the release repository. Nothing here vouches for them; their
//! signatures do.

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use mendix_agent_proto::{
    limits::{MAX_FETCH_CHUNK, MAX_FETCH_NAME},
    v1::{FetchChunk, FetchRequest, bundle_service_server::BundleService},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Shared, peer::authenticate};

/// Chunks read ahead of the agent.
const READ_AHEAD: usize = 4;
/// Longest wait for an agent to take a chunk.
const SEND_DEADLINE: Duration = Duration::from_secs(60);

pub(super) struct Bundle {
    shared: Arc<Shared>,
}

impl Bundle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl BundleService for Bundle {
    type FetchStream = ReceiverStream<Result<FetchChunk, Status>>;

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        authenticate(&self.shared, request.extensions()).await?.present()?;
        let FetchRequest { name, offset } = request.into_inner();
        check_name(&name)?;
        let (file, total) = open(&self.shared.store.repository_dir(), &name).await?;
        if offset > total {
            return Err(Status::out_of_range(format!(
                "{name} has {total} bytes; there is nothing at {offset}"
            )));
        }
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            if let Err(error) = send(file, offset, total, &sender, &shared).await {
                tracing::warn!(%error, name, "can't read a file of the repository");
                let status = Status::unavailable("the file can't be read; try again");
                let _ = tokio::time::timeout(SEND_DEADLINE, sender.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// `metadata/<file>` or `targets/<file>`, and nothing that could lead elsewhere.
fn check_name(name: &str) -> Result<(), Status> {
    let refuse = |reason: &str| Err(Status::invalid_argument(format!("file name: {reason}")));
    if name.len() > MAX_FETCH_NAME {
        return refuse("longer than 256 bytes");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if !name.bytes().all(allowed) {
        return refuse("only A-Z, a-z, 0-9, '.', '_', '-' and '/' are possible");
    }
    match name.split_once('/') {
        Some(("metadata" | "targets", file))
            if !file.is_empty() && !file.contains('/') && !file.starts_with('.') =>
        {
            Ok(())
        }
        _ => refuse("it must be metadata/<file> or targets/<file>"),
    }
}

async fn open(repository: &Path, name: &str) -> Result<(File, u64), Status> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Status::not_found(format!("there is no {name}")),
        _ => {
            tracing::warn!(%error, name, "can't open a file of the repository");
            Status::unavailable("the file can't be read; try again")
        }
    };
    let file = File::open(repository.join(name)).await.map_err(failed)?;
    let total = file.metadata().await.map_err(failed)?.len();
    Ok((file, total))
}

async fn send(
    mut file: File,
    offset: u64,
    total: u64,
    sender: &mpsc::Sender<Result<FetchChunk, Status>>,
    shared: &Shared,
) -> io::Result<()> {
    file.seek(io::SeekFrom::Start(offset)).await?;
    // As long as when it was opened: a file of the repository is replaced, never changed.
    let mut file = file.take(total - offset);
    let mut first = true;
    loop {
        let mut data = BytesMut::with_capacity(MAX_FETCH_CHUNK);
        while data.len() < MAX_FETCH_CHUNK {
            let room = MAX_FETCH_CHUNK - data.len();
            if file.read_buf(&mut (&mut data).limit(room)).await? == 0 {
                break;
            }
        }
        if data.is_empty() {
            return Ok(());
        }
        let size = data.len() as u64;
        let chunk = FetchChunk { data: data.freeze(), total_size: if first { total } else { 0 } };
        first = false;
        match tokio::time::timeout(SEND_DEADLINE, sender.send(Ok(chunk))).await {
            Ok(Ok(())) => shared.count.bundle_bytes.fetch_add(size, Relaxed),
            // The agent hung up, or stopped reading: it comes back with an offset.
            Ok(Err(_)) | Err(_) => return Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn only_files_of_the_repository_have_a_name() {
        for name in ["metadata/timestamp.json", "targets/0a.release-1.json", "metadata/1.root.json"]
        {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = format!("targets/{}", "a".repeat(256));
        for name in [
            "",
            "timestamp.json",
            "metadata/",
            "metadata/../../portal/consent.pk8",
            "metadata/..",
            "metadata/a/b",
            "/metadata/a",
            "portal/consent.pk8",
            "metadata/a\0b",
            "metadata/a b",
            "targets/.hidden",
            &long,
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
