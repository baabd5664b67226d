//! What makes the request loop look again: other requests, other tickets, another state of the
//! session.

use mendix_agent_proto::v1;
use tokio::sync::watch;

use super::Logs;
use crate::channel::{Link, Revised};

/// Remembers what was seen, so that each change wakes once. The receivers live as long as the loop: a
/// fresh clone has seen nothing and would wake at once, for ever.
pub(super) struct News {
    wanted: watch::Receiver<Option<Revised<v1::RequestsSection>>>,
    tickets: watch::Receiver<Option<Revised<v1::TicketsSection>>>,
    link: watch::Receiver<Link>,
}

/// The channel has gone, and with it whatever could change.
pub(super) struct Gone;

impl News {
    pub(super) fn of(logs: &Logs) -> Self {
        Self {
            wanted: logs.wanted.clone(),
            tickets: logs.sources.tickets.clone(),
            link: logs.sources.link.clone(),
        }
    }

    /// Waits for the next change; one that came since the last call counts.
    pub(super) async fn next(&mut self) -> Result<(), Gone> {
        tokio::select! {
            changed = self.wanted.changed() => changed,
            changed = self.tickets.changed() => changed,
            changed = self.link.changed() => changed,
        }
        .map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_change_wakes_once_and_without_one_there_is_rest() {
        let (_wanted, wanted) = watch::channel(None);
        let (tickets, tickets_seen) = watch::channel(None);
        let (_link, link) = watch::channel(Link::WaitingForConnection { last_failure: None });
        let mut news = News { wanted, tickets: tickets_seen, link };
        assert!(news.next().now_or_never().is_none(), "nothing changed");

        let section = v1::TicketsSection::default();
        tickets.send_replace(Some(Revised { revision: 1, value: section }));
        assert!(news.next().now_or_never().is_some_and(|woken| woken.is_ok()));
        for _ in 0..3 {
            assert!(news.next().now_or_never().is_none(), "one change, one wake");
        }
    }
}
