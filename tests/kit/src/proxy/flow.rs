//! What happens to the bytes of one direction: the rule in force, on all connections together, and the
//! hold on one alone.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
};

/// Largest piece that is passed on at once.
pub(super) const PIECE: usize = 16 * 1024;

/// What happens to bytes of one direction, on all connections together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// They pass.
    Pass,
    /// Nothing passes, not even the end of a connection; no side learns of it. A piece that is being
    /// passed on at this moment still arrives.
    Stall,
    /// Each piece of up to 16 KiB waits so long before it is passed on.
    Delay(Duration),
    /// So many more bytes pass, exactly; then every connection that has more is reset.
    CutAfter(u64),
    /// So many more bytes pass, exactly; then as [`Rule::Stall`].
    StallAfter(u64),
}

/// One direction of all connections: the rule in force, and what has passed.
#[derive(Debug)]
pub(super) struct Flow {
    rule: watch::Sender<Active>,
    passed: AtomicU64,
}

/// A rule in force, with what is left of its limit.
#[derive(Clone, Debug)]
struct Active {
    rule: Rule,
    left: Arc<AtomicU64>,
}

/// Why a direction stops without either side having closed it.
pub(super) enum Stop {
    /// By the proxy.
    Cut,
    /// By an end that has gone.
    Broken,
}

impl Flow {
    pub(super) fn new() -> Self {
        let active = Active { rule: Rule::Pass, left: Arc::default() };
        Self { rule: watch::Sender::new(active), passed: AtomicU64::new(0) }
    }

    /// Puts another rule in force, on open connections too.
    pub(super) fn set(&self, rule: Rule) {
        let left = match rule {
            Rule::CutAfter(bytes) | Rule::StallAfter(bytes) => bytes,
            Rule::Pass | Rule::Stall | Rule::Delay(_) => 0,
        };
        self.rule.send_replace(Active { rule, left: Arc::new(AtomicU64::new(left)) });
    }

    /// Bytes that were passed on.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Carries one direction of one connection to its end.
    pub(super) async fn carry(
        &self,
        mut gate: Gate,
        from: &mut (impl tokio::io::AsyncRead + Unpin),
        to: &mut (impl tokio::io::AsyncWrite + Unpin),
    ) -> Result<(), Stop> {
        let mut rules = self.rule.subscribe();
        let mut piece = vec![0; PIECE];
        loop {
            gate.passed().await?;
            let active = rules.borrow_and_update().clone();
            let may = match active.allowance() {
                Allowance::Bytes(bytes) => bytes,
                Allowance::Nothing => {
                    rules.changed().await.map_err(|_| Stop::Broken)?;
                    continue;
                }
                Allowance::Reset => {
                    // Only a connection that has more to say is reset.
                    tokio::select! {
                        _ = rules.changed() => continue,
                        read = from.read(&mut piece[..1]) => match read {
                            Ok(0) => return to.shutdown().await.map_err(|_| Stop::Broken),
                            _ => return Err(Stop::Cut),
                        },
                    }
                }
            };
            let read = tokio::select! {
                biased;
                changed = rules.changed() => {
                    active.give_back(may);
                    changed.map_err(|_| Stop::Broken)?;
                    continue;
                }
                closed = gate.closed() => {
                    active.give_back(may);
                    closed?;
                    continue;
                }
                read = from.read(&mut piece[..may]) => read,
            };
            let read = read.map_err(|_| Stop::Broken)?;
            active.give_back(may - read);
            if read == 0 {
                return to.shutdown().await.map_err(|_| Stop::Broken);
            }
            if let Rule::Delay(time) = active.rule {
                tokio::time::sleep(time).await;
            }
            // A stall that was set meanwhile holds what was just read.
            rules
                .wait_for(|active| !matches!(active.rule, Rule::Stall))
                .await
                .map_err(|_| Stop::Broken)?;
            gate.passed().await?;
            to.write_all(&piece[..read]).await.map_err(|_| Stop::Broken)?;
            self.passed.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}

/// Whether one connection is held.
#[derive(Clone)]
pub(super) struct Gate {
    number: u64,
    held: watch::Receiver<BTreeSet<u64>>,
}

impl Gate {
    /// Of the connection with this number.
    pub(super) fn new(number: u64, held: watch::Receiver<BTreeSet<u64>>) -> Self {
        Self { number, held }
    }

    /// Over when the connection is not held.
    async fn passed(&mut self) -> Result<(), Stop> {
        let open = self.held.wait_for(|held| !held.contains(&self.number)).await;
        open.map(drop).map_err(|_| Stop::Broken)
    }

    /// Over when it is.
    async fn closed(&mut self) -> Result<(), Stop> {
        let closed = self.held.wait_for(|held| held.contains(&self.number)).await;
        closed.map(drop).map_err(|_| Stop::Broken)
    }
}

enum Allowance {
    Bytes(usize),
    Nothing,
    Reset,
}

impl Active {
    /// How much may be read now; of a limit, that much is taken.
    fn allowance(&self) -> Allowance {
        match self.rule {
            Rule::Pass | Rule::Delay(_) => return Allowance::Bytes(PIECE),
            Rule::Stall => return Allowance::Nothing,
            Rule::CutAfter(_) | Rule::StallAfter(_) => {}
        }
        let take = |left: u64| left.min(PIECE as u64);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - take(left)))
            .unwrap_or(0);
        match (usize::try_from(take(left)), self.rule) {
            (Ok(bytes), _) if bytes > 0 => Allowance::Bytes(bytes),
            (_, Rule::CutAfter(_)) => Allowance::Reset,
            _ => Allowance::Nothing,
        }
    }

    fn give_back(&self, bytes: usize) {
        if matches!(self.rule, Rule::CutAfter(_) | Rule::StallAfter(_)) {
            self.left.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}
