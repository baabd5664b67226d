//! A gateway that speaks HTTP/2 itself, as an application gateway or a service mesh does: each of its
//! two sides is a connection of its own, so it answers PING, and goes on answering when what is behind
//! it is dead. All other frames pass as they are.
//!
//! It carries plain streams: what it ends TLS with, and on which network (a simulated one, too), is
//! the caller's.

use std::{
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::{Mutex, watch},
};

/// What a client begins with (RFC 9113, section 3.4), bytes.
const PREFACE: usize = 24;
/// Head of a frame, bytes: three of length, type, flags, four of the stream.
const HEAD: usize = 9;
/// Largest payload that is carried, bytes; nobody here asks for more than HTTP/2's default of 16 KiB.
const MAX_PAYLOAD: usize = 64 * 1024;
/// SETTINGS without any: with these a server begins.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const PING: u8 = 6;
const ACK: u8 = 1;

/// What is behind a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// It is there.
    Alive,
    /// It neither hears nor says anything; its connection stays open, and nobody is told.
    Dead,
}

/// A gateway. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Control>);

#[derive(Debug)]
struct Control {
    backend: watch::Sender<Backend>,
    answered: AtomicU64,
    lost: AtomicU64,
}

impl Default for Gateway {
    fn default() -> Self {
        Self(Arc::new(Control {
            backend: watch::Sender::new(Backend::Alive),
            answered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }))
    }
}

impl Gateway {
    /// Lets what is behind it die or live, on open connections too. What was lost stays lost: a
    /// connection over which something was said meanwhile is of no use any more.
    pub fn set(&self, backend: Backend) {
        self.0.backend.send_replace(backend);
    }

    /// PINGs of clients that it answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.0.answered.load(Relaxed)
    }

    /// Frames of clients that reached nobody.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }

    /// Carries one connection of a client over one to what is behind, until either side ends it; a
    /// backend that is dead can't. HTTP/2 begins with the settings of what is behind, or, if that is
    /// dead, with the gateway's own.
    ///
    /// # Errors
    /// When a side breaks, or does not speak HTTP/2.
    pub async fn carry(
        &self,
        client: impl AsyncRead + AsyncWrite,
        backend: impl AsyncRead + AsyncWrite,
    ) -> io::Result<()> {
        let (mut from_client, to_client) = split(client);
        let (mut from_backend, to_backend) = split(backend);
        let (to_client, to_backend) = (Mutex::new(to_client), Mutex::new(to_backend));
        let mut preface = [0; PREFACE];
        from_client.read_exact(&mut preface).await?;
        send(&to_backend, &preface).await?;
        if self.dead() {
            send(&to_client, SETTINGS).await?;
        }
        let up = async {
            loop {
                let frame = frame(&mut from_client).await?;
                if let Some(answer) = ping(&frame) {
                    if let Some(answer) = answer {
                        send(&to_client, &answer).await?;
                        self.0.answered.fetch_add(1, Relaxed);
                    }
                } else if self.dead() {
                    self.0.lost.fetch_add(1, Relaxed);
                } else {
                    send(&to_backend, &frame).await?;
                }
            }
        };
        let down = async {
            loop {
                let frame = match frame(&mut from_backend).await {
                    Err(_) if self.dead() => pending().await,
                    frame => frame?,
                };
                match ping(&frame) {
                    _ if self.dead() => {}
                    Some(Some(answer)) => send(&to_backend, &answer).await?,
                    Some(None) => {}
                    None => send(&to_client, &frame).await?,
                }
            }
        };
        let ended: io::Result<()> = tokio::select! { up = up => up, down = down => down };
        match ended {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            ended => ended,
        }
    }

    fn dead(&self) -> bool {
        *self.0.backend.borrow() == Backend::Dead
    }
}

/// One frame, head and payload.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEAD];
    from.read_exact(&mut frame).await?;
    let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
    if length > MAX_PAYLOAD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP/2"));
    }
    frame.resize(HEAD + length, 0);
    from.read_exact(&mut frame[HEAD..]).await?;
    Ok(frame)
}

/// For a PING what is to be answered, which for the answer to one is nothing; `None` for other frames.
fn ping(frame: &[u8]) -> Option<Option<Vec<u8>>> {
    (frame[3] == PING).then(|| {
        (frame[4] & ACK == 0).then(|| {
            let mut answer = frame.to_vec();
            answer[4] |= ACK;
            answer
        })
    })
}

async fn send(to: &Mutex<impl AsyncWrite + Unpin>, bytes: &[u8]) -> io::Result<()> {
    let mut to = to.lock().await;
    to.write_all(bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(120);
    const PING_FRAME: &[u8] = b"\0\0\x08\x06\0\0\0\0\0payload1";
    const PONG_FRAME: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0payload1";
    const DATA_FRAME: &[u8] = b"\0\0\x03\0\0\0\0\0\x01abc";

    /// A gateway with both its neighbours, past the preface.
    async fn begin() -> (Gateway, DuplexStream, DuplexStream) {
        let gateway = Gateway::default();
        let ((client, near), (far, mut backend)) = (duplex(1024), duplex(1024));
        let carrying = gateway.clone();
        tokio::spawn(async move { carrying.carry(near, far).await });
        let mut client = client;
        client.write_all(&[b'p'; PREFACE]).await.unwrap();
        expect(&mut backend, &[b'p'; PREFACE]).await;
        (gateway, client, backend)
    }

    async fn expect(from: &mut DuplexStream, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        timeout(DEADLINE, from.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, bytes);
    }

    #[tokio::test]
    async fn it_answers_ping_on_both_sides_and_passes_the_rest() {
        let (gateway, mut client, mut backend) = begin().await;
        client.write_all(PING_FRAME).await.unwrap();
        client.write_all(DATA_FRAME).await.unwrap();
        expect(&mut client, PONG_FRAME).await;
        expect(&mut backend, DATA_FRAME).await;
        backend.write_all(PING_FRAME).await.unwrap();
        backend.write_all(DATA_FRAME).await.unwrap();
        expect(&mut backend, PONG_FRAME).await;
        expect(&mut client, DATA_FRAME).await;
        assert_eq!((gateway.answered(), gateway.lost()), (1, 0));
        drop(backend);
        let mut rest = Vec::new();
        timeout(DEADLINE, client.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest, b"", "a backend that ends its connection ends the client's");
    }

    #[tokio::test]
    async fn it_answers_ping_for_a_backend_that_is_dead() {
        let (gateway, mut client, mut backend) = begin().await;
        gateway.set(Backend::Dead);
        backend.write_all(DATA_FRAME).await.unwrap();
        client.write_all(DATA_FRAME).await.unwrap();
        client.write_all(PING_FRAME).await.unwrap();
        expect(&mut client, PONG_FRAME).await;
        assert_eq!((gateway.answered(), gateway.lost()), (1, 1));
        drop(backend);
        client.write_all(PING_FRAME).await.unwrap();
        expect(&mut client, PONG_FRAME).await;
    }
}
