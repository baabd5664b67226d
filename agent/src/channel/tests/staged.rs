//! A network whose names and addresses a test sets up; connections lead to loopback.

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;

use crate::channel::dial::network::{Network, Purpose, System, Wire};

/// What the resolver says of a name.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// These addresses, with the port that was asked for.
    Addresses(Vec<&'static str>),
    /// Nothing, ever.
    Silence,
}

/// The network. Names that are not staged don't exist, addresses that are not don't answer.
#[derive(Debug, Default)]
pub(super) struct Staged {
    names: Mutex<HashMap<&'static str, Answer>>,
    addresses: Mutex<HashMap<&'static str, SocketAddr>>,
    /// What was asked for and connected to, in order.
    pub(super) seen: Mutex<Vec<String>>,
}

impl Staged {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn name(&self, name: &'static str, addresses: &[&'static str]) {
        self.names.lock().unwrap().insert(name, Answer::Addresses(addresses.to_vec()));
    }

    pub(super) fn silent(&self, name: &'static str) {
        self.names.lock().unwrap().insert(name, Answer::Silence);
    }

    /// What answers at `address`, whatever the port.
    pub(super) fn host(&self, address: &'static str, at: SocketAddr) {
        self.addresses.lock().unwrap().insert(address, at);
    }

    pub(super) fn gone(&self, address: &'static str) {
        self.addresses.lock().unwrap().remove(address);
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

#[async_trait]
impl Network for Staged {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.seen.lock().unwrap().push(format!("resolve {host}"));
        let answer = self.names.lock().unwrap().get(host).cloned();
        match answer {
            Some(Answer::Addresses(addresses)) => Ok(addresses
                .iter()
                .map(|address| SocketAddr::new(address.parse().unwrap(), port))
                .collect()),
            Some(Answer::Silence) => pending().await,
            None => Err(io::Error::other("no such name")),
        }
    }

    async fn connect(&self, address: SocketAddr, purpose: Purpose) -> io::Result<Wire> {
        self.seen.lock().unwrap().push(format!("connect {}", address.ip()));
        let at = self.addresses.lock().unwrap().get(address.ip().to_string().as_str()).copied();
        match at {
            Some(at) => System::default().connect(at, purpose).await,
            None => pending().await,
        }
    }
}
