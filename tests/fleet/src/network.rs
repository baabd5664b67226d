//! The network of one simulated agent: real sockets, from a loopback address of its own, so that
//! ten thousand agents don't share the ports of one address, and the server sees as many peers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use async_trait::async_trait;
use mendix_agent::channel::dial::network::{Network, Purpose, Wire};
use tokio::net::TcpSocket;

use crate::record::{Record, What};

/// Sockets bound to one loopback address. Every connection that is begun is recorded.
#[derive(Clone, Debug)]
pub struct Loopback {
    agent: u32,
    source: Ipv4Addr,
    record: Record,
}

impl Loopback {
    /// The network of agent number `agent` (below 2²⁴).
    pub fn new(agent: u32, record: Record) -> Self {
        // 127.0.0.0/9 is left to servers and other tests.
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 128, 0, 1)) + agent);
        Self { agent, source, record }
    }
}

#[async_trait]
impl Network for Loopback {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let address: IpAddr =
            host.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(vec![SocketAddr::new(address, port)])
    }

    async fn connect(&self, address: SocketAddr, _purpose: Purpose) -> io::Result<Wire> {
        self.record.note(self.agent, What::Dialled);
        let socket = TcpSocket::new_v4()?;
        socket.set_nodelay(true)?;
        socket.bind(SocketAddr::from((self.source, 0)))?;
        Ok(Box::new(socket.connect(address).await?))
    }
}
