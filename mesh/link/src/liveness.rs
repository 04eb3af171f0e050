//! Whether the peer is still there: pings, sent only when something is awaited and nothing comes.
//!
//! A host whose processes stand still keeps acknowledging bytes, so that the transport never notices. Whatever arrives is
//! evidence of life, not only the answer to the ping: a slow answer behind much data is no silence.

use std::time::Duration;

use eastway_core::Timestamp;

use crate::options::LinkOptions;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    /// The peer was silent for so long after it was asked.
    Lost(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    ping_after: Duration,
    ping_timeout: Duration,
    /// Until the peer's HELLO has come: when it must have.
    hello_by: Option<Timestamp>,
    started: Timestamp,
    heard: Timestamp,
    /// How many things are awaited from the peer, and since when there is one.
    awaited: usize,
    awaited_since: Timestamp,
    /// The ping that has no answer yet.
    ping: Option<(u64, Timestamp)>,
    pings: u64,
    rtt: Option<Duration>,
    min_rtt: Option<Duration>,
}

impl Liveness {
    pub(crate) fn new(options: &LinkOptions, now: Timestamp) -> Self {
        Self {
            ping_after: options.ping_after,
            ping_timeout: options.ping_timeout,
            hello_by: Some(now + options.hello_timeout),
            started: now,
            heard: now,
            awaited: 0,
            awaited_since: now,
            ping: None,
            pings: 0,
            rtt: None,
            min_rtt: None,
        }
    }

    /// Something came from the peer.
    #[inline]
    pub(crate) fn heard(&mut self, now: Timestamp) {
        self.heard = now;
    }

    /// The peer's HELLO came.
    pub(crate) fn greeted(&mut self) {
        self.hello_by = None;
    }

    /// One more thing is awaited from the peer.
    #[inline]
    pub(crate) fn awaits(&mut self, now: Timestamp) {
        if self.awaited == 0 {
            self.awaited_since = now;
        }
        self.awaited += 1;
    }

    /// One thing less is awaited.
    #[inline]
    pub(crate) fn got(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }

    #[cfg(test)]
    pub(crate) const fn awaited(&self) -> usize {
        self.awaited
    }

    /// The content of a ping that is sent now; `None` while another one waits for its answer.
    pub(crate) fn ping(&mut self, now: Timestamp) -> Option<[u8; 8]> {
        if self.ping.is_some() {
            return None;
        }
        self.pings += 1;
        self.ping = Some((self.pings, now));
        Some(self.pings.to_be_bytes())
    }

    /// An answer came; false if nothing was asked that it answers.
    pub(crate) fn pong(&mut self, payload: [u8; 8], now: Timestamp) -> bool {
        let Some((_, sent)) = self.ping.filter(|(number, _)| number.to_be_bytes() == payload) else { return false };
        self.ping = None;
        let sample = now - sent;
        self.rtt = Some(self.rtt.map_or(sample, |smoothed| (smoothed * 7 + sample) / 8));
        self.min_rtt = Some(self.min_rtt.map_or(sample, |least| least.min(sample)));
        true
    }

    /// When [`Liveness::due`] has an answer; `None` while nothing is awaited.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let silence = match self.ping {
            Some((_, sent)) => Some(sent.max(self.heard) + self.ping_timeout),
            None if self.awaited > 0 => Some(self.awaited_since.max(self.heard) + self.ping_after),
            None => None,
        };
        match (silence, self.hello_by) {
            (Some(silence), Some(hello)) => Some(silence.min(hello)),
            (silence, hello) => silence.or(hello),
        }
    }

    /// What is to be done at `now`.
    pub(crate) fn due(&self, now: Timestamp) -> Due {
        if self.hello_by.is_some_and(|by| now >= by) {
            return Due::Lost(now - self.started);
        }
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Due::Nothing;
        }
        match self.ping {
            Some((_, sent)) => Due::Lost(now - sent.max(self.heard)),
            None => Due::Ping,
        }
    }

    pub(crate) const fn rtt(&self) -> (Option<Duration>, Option<Duration>) {
        (self.rtt, self.min_rtt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn greeted() -> Liveness {
        let mut liveness = Liveness::new(&LinkOptions::default(), at(0));
        liveness.greeted();
        liveness
    }

    #[test]
    fn an_idle_connection_asks_nothing() {
        let liveness = greeted();
        assert_eq!((liveness.deadline(), liveness.due(at(1_000_000))), (None, Due::Nothing));
    }

    #[test]
    fn silence_is_counted_from_when_something_is_awaited() {
        let mut liveness = greeted();
        liveness.awaits(at(10_000));
        assert_eq!(liveness.deadline(), Some(at(10_200)));
        liveness.heard(at(10_100));
        assert_eq!((liveness.due(at(10_299)), liveness.due(at(10_300))), (Due::Nothing, Due::Ping));
        liveness.got();
        assert_eq!(liveness.deadline(), None);
    }

    #[test]
    fn a_ping_without_an_answer_ends_the_connection_and_any_sign_of_life_puts_it_off() {
        let mut liveness = greeted();
        liveness.awaits(at(0));
        let payload = liveness.ping(at(200)).expect("none is waiting");
        assert_eq!(liveness.ping(at(201)), None);
        assert_eq!(
            (liveness.due(at(449)), liveness.due(at(450))),
            (Due::Nothing, Due::Lost(Duration::from_millis(250)))
        );
        liveness.heard(at(400));
        assert_eq!(
            (liveness.due(at(649)), liveness.due(at(650))),
            (Due::Nothing, Due::Lost(Duration::from_millis(250)))
        );
        assert!(liveness.pong(payload, at(500)));
        assert!(!liveness.pong(payload, at(501)), "answered twice");
        assert_eq!(liveness.rtt(), (Some(Duration::from_millis(300)), Some(Duration::from_millis(300))));
        assert_eq!(liveness.due(at(600)), Due::Ping, "heard at 400, and still awaited");
    }

    #[test]
    fn a_peer_that_never_says_hello_is_lost() {
        let liveness = Liveness::new(&LinkOptions::default(), at(1));
        assert_eq!((liveness.deadline(), liveness.due(at(5000))), (Some(at(5001)), Due::Nothing));
        assert_eq!(liveness.due(at(5001)), Due::Lost(Duration::from_secs(5)));
    }
}
