//! Happy eyeballs (RFC 8305): several addresses of one name are tried with a small stagger, and the
//! first that accepts wins. A private endpoint that is moving, or a family that is routed nowhere,
//! costs a quarter of a second and not a TCP timeout.

use std::{fmt, io, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use mendix_agent_core::session::alternate;
use tokio::time::sleep;

/// Pause between the starts of two attempts (RFC 8305, section 8). A failure starts the next at once.
const STAGGER: Duration = Duration::from_millis(250);

/// Every address that was tried, with its failure.
#[derive(Debug)]
pub struct Unreached(pub Vec<(SocketAddr, io::Error)>);

impl Unreached {
    /// Whether every address was reached and said no.
    pub(super) fn is_refused(&self) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|(_, error)| error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl std::error::Error for Unreached {}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (address, error)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{address}: {error}")?;
        }
        Ok(())
    }
}

/// The first of `addresses` for which `attempt` succeeds. The others are dropped.
///
/// # Errors
/// With all failures, in the order in which they came.
pub(super) async fn first<T, F>(
    addresses: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Unreached>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = alternate(addresses).into_iter();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            let attempt = attempt(address);
            running.push(async move { (address, attempt.await) });
        }
        let more = !waiting.as_slice().is_empty();
        tokio::select! {
            ended = running.next() => match ended {
                Some((address, Ok(connection))) => return Ok((address, connection)),
                Some((address, Err(error))) => failures.push((address, error)),
                None => return Err(Unreached(failures)),
            },
            () = sleep(STAGGER), if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|it| it.parse().unwrap()).collect()
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_a_quarter_of_a_second() {
        let began = Instant::now();
        let list = addresses(&["[fd00::1]:1", "10.0.0.1:1"]);
        let (winner, ()) = first(&list, async |address: SocketAddr| match address {
            SocketAddr::V6(_) => pending().await,
            SocketAddr::V4(_) => Ok(()),
        })
        .await
        .unwrap();
        assert_eq!(winner, list[1]);
        assert_eq!(began.elapsed(), STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_starts_the_next_at_once() {
        let began = Instant::now();
        let list = addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
        let last = list[2];
        let attempt =
            async |address: SocketAddr| if address == last { Ok(()) } else { Err(refused()) };
        assert_eq!(first(&list, attempt).await.unwrap().0, last);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_still_wins_over_failing_ones() {
        let list = addresses(&["10.0.0.1:1", "10.0.0.2:1"]);
        let slow = list[0];
        let attempt = async |address: SocketAddr| {
            if address != slow {
                return Err(refused());
            }
            sleep(Duration::from_secs(3)).await;
            Ok(())
        };
        assert_eq!(first(&list, attempt).await.unwrap().0, slow);
    }

    #[tokio::test(start_paused = true)]
    async fn all_failures_are_told() {
        let list = addresses(&["10.0.0.1:1", "[fd00::1]:1"]);
        let error = first(&list, async |_| Err::<(), _>(refused())).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "10.0.0.1:1: connection refused, [fd00::1]:1: connection refused"
        );
        let none = first(&[], async |_| Err::<(), _>(refused())).await.unwrap_err();
        assert!(none.0.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_losers_are_dropped() {
        struct Held(Arc<AtomicUsize>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let open = Arc::new(AtomicUsize::new(0));
        let list = addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
        let last = list[2];
        let attempt = |address| {
            open.fetch_add(1, Ordering::Relaxed);
            let held = Held(Arc::clone(&open));
            async move {
                let _held = held;
                if address == last { Ok(()) } else { pending().await }
            }
        };
        first(&list, attempt).await.unwrap();
        assert_eq!(open.load(Ordering::Relaxed), 0);
    }
}
