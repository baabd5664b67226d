//! A network of cables in memory, for tests in which hours pass: everything from the driver down to
//! TLS and HTTP/2 is the real code, and time is tokio's virtual time.
//!
//! Each connection is a cable with a fault of its own, which may change while it is in use.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::{mpsc, watch},
    time::Instant,
};

use crate::channel::dial::network::{Network, Purpose, Wire};

/// Bytes that a cable holds in each direction.
const ROOM: usize = 64 * 1024;

/// What a cable does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Carries bytes.
    None,
    /// Takes bytes and loses them: nobody is told, as with a flow that a load balancer forgot.
    Vanish,
    /// Takes no more bytes than fit into it.
    Stall,
    /// Ends, both ways.
    Cut,
}

/// What a new connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Welcome {
    /// A cable to the control plane.
    Cable,
    /// One that is accepted and closed.
    Close,
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Cable {
    pub(super) purpose: Purpose,
    pub(super) at: Instant,
    fault: watch::Sender<Fault>,
}

impl Cable {
    pub(super) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Cables {
    plane: mpsc::Sender<Wire>,
    welcome: watch::Sender<Welcome>,
    laid: Mutex<Vec<Cable>>,
}

impl Cables {
    /// The network, and where its other ends come out.
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<Wire>) {
        let (plane, wires) = mpsc::channel(16);
        let welcome = watch::Sender::new(Welcome::Cable);
        (Arc::new(Self { plane, welcome, laid: Mutex::default() }), wires)
    }

    pub(super) fn welcome(&self, welcome: Welcome) {
        self.welcome.send_replace(welcome);
    }

    /// All connections so far.
    pub(super) fn laid(&self) -> Vec<Cable> {
        self.laid.lock().unwrap().clone()
    }

    /// The newest connection.
    pub(super) fn last(&self) -> Cable {
        self.laid().pop().unwrap()
    }
}

#[async_trait]
impl Network for Cables {
    async fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([10, 0, 0, 4], port))])
    }

    async fn connect(&self, _address: SocketAddr, purpose: Purpose) -> io::Result<Wire> {
        let fault = watch::Sender::new(Fault::None);
        self.laid.lock().unwrap().push(Cable { purpose, at: Instant::now(), fault: fault.clone() });
        let (ours, near) = duplex(ROOM);
        if *self.welcome.borrow() == Welcome::Close {
            return Ok(Box::new(ours));
        }
        let (far, theirs) = duplex(ROOM);
        tokio::spawn(carry(near, far, fault.subscribe()));
        self.plane.send(Box::new(theirs)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(ours))
    }
}

/// Carries both directions until either side ends.
async fn carry(near: DuplexStream, far: DuplexStream, fault: watch::Receiver<Fault>) {
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let mut cut = fault.clone();
    tokio::select! {
        () = half(&mut from_near, &mut to_far, fault.clone()) => {}
        () = half(&mut from_far, &mut to_near, fault) => {}
        _ = cut.wait_for(|fault| *fault == Fault::Cut) => {}
    }
}

async fn half(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut fault: watch::Receiver<Fault>,
) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        if fault.wait_for(|fault| *fault != Fault::Stall).await.is_err() {
            return;
        }
        let read = tokio::select! {
            changed = fault.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut piece) => read,
        };
        let Ok(read @ 1..) = read else { return };
        if *fault.borrow() == Fault::Vanish {
            continue;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
