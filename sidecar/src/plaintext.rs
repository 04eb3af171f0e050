//! Who comes around the mesh, in plain text: counted by where they come from, so that an operator sees who has still to be moved
//! into it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use eastway_telemetry::metrics::PlainMetrics;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// Callers that are told apart; a further one takes the place of the one that has not come for the longest time.
const CALLERS: usize = 256;
/// How long a caller is listed after it came last.
const LISTED: Duration = Duration::from_secs(24 * 3_600);

/// Who has come in plain text.
#[derive(Debug)]
pub(crate) struct Plaintext {
    callers: Mutex<BTreeMap<(IpAddr, u16), Caller>>,
    metrics: PlainMetrics,
}

#[derive(Debug)]
struct Caller {
    connections: u64,
    last: Instant,
}

/// A caller, for operators.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PlainCaller {
    pub(crate) from: IpAddr,
    /// The application's port that it came to.
    pub(crate) port: u16,
    pub(crate) connections: u64,
    /// Seconds since its last connection.
    pub(crate) last_seconds: f64,
}

impl Plaintext {
    /// Nobody yet.
    pub(crate) fn new(metrics: PlainMetrics) -> Self {
        Self { callers: Mutex::default(), metrics }
    }

    /// A connection from `from` to the application's `port`.
    pub(crate) fn came(&self, from: IpAddr, port: u16) {
        self.metrics.connected();
        let now = Instant::now();
        let mut callers = self.callers.lock();
        if callers.len() >= CALLERS
            && !callers.contains_key(&(from, port))
            && let Some(oldest) = callers.iter().min_by_key(|(_, caller)| caller.last).map(|(key, _)| *key)
        {
            callers.remove(&oldest);
        }
        let caller = callers.entry((from, port)).or_insert(Caller { connections: 0, last: now });
        caller.connections += 1;
        caller.last = now;
    }

    /// Those of the last day, the latest first.
    pub(crate) fn listing(&self) -> Vec<PlainCaller> {
        let mut callers = self.callers.lock();
        callers.retain(|_, caller| caller.last.elapsed() < LISTED);
        let listed = callers.iter().map(|((from, port), caller)| PlainCaller {
            from: *from,
            port: *port,
            connections: caller.connections,
            last_seconds: caller.last.elapsed().as_secs_f64(),
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_by(|a, b| a.last_seconds.total_cmp(&b.last_seconds));
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn callers_are_counted_by_address_and_port_and_the_oldest_makes_room() {
        let plaintext = Plaintext::new(PlainMetrics::default());
        let from = |last: u8| IpAddr::from([192, 0, 2, last]);
        plaintext.came(from(1), 8080);
        tokio::time::advance(Duration::from_secs(1)).await;
        plaintext.came(from(2), 8080);
        plaintext.came(from(2), 8080);
        plaintext.came(from(2), 9000);
        let listed: Vec<_> = plaintext.listing().into_iter().map(|c| (c.from, c.port, c.connections)).collect();
        assert_eq!(listed, [(from(2), 8080, 2), (from(2), 9000, 1), (from(1), 8080, 1)]);
        for number in 0..CALLERS as u16 - 2 {
            plaintext.came(IpAddr::from([198, 51, 100, 1]), number);
        }
        let listed = plaintext.listing();
        assert_eq!((listed.len(), listed.iter().any(|caller| caller.from == from(1))), (CALLERS, false));
        tokio::time::advance(LISTED).await;
        assert_eq!(plaintext.listing(), []);
    }
}
