//! Whether the peer is still there: pings, sent when something is awaited and nothing comes, and now and then while streams are
//! open on which nobody has anything to say.
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
    keepalive: Duration,
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
            keepalive: options.keepalive,
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

    /// When [`Liveness::due`] has an answer; `None` while nothing is awaited and no stream is `open`.
    pub(crate) fn deadline(&self, open: bool) -> Option<Timestamp> {
        let silence = match self.ping {
            // What is awaited since the ping was sent has not waited long.
            Some((_, sent)) if self.awaited > 0 => {
                Some(sent.max(self.heard).max(self.awaited_since + self.ping_after) + self.ping_timeout)
            }
            // Nobody waits: a peer that is late hinders none.
            Some((_, sent)) => Some(sent.max(self.heard) + self.ping_timeout.max(self.keepalive)),
            None if self.awaited > 0 => Some(self.awaited_since.max(self.heard) + self.ping_after),
            None if open => Some(self.heard + self.keepalive),
            None => None,
        };
        match (silence, self.hello_by) {
            (Some(silence), Some(hello)) => Some(silence.min(hello)),
            (silence, hello) => silence.or(hello),
        }
    }

    /// What is to be done at `now`.
    pub(crate) fn due(&self, now: Timestamp, open: bool) -> Due {
        if self.hello_by.is_some_and(|by| now >= by) {
            return Due::Lost(now - self.started);
        }
        if self.deadline(open).is_none_or(|deadline| now < deadline) {
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
        assert_eq!((liveness.deadline(false), liveness.due(at(1_000_000), false)), (None, Due::Nothing));
    }

    #[test]
    fn streams_on_which_nobody_says_anything_are_kept_alive_and_a_peer_that_is_gone_is_noticed() {
        let mut liveness = greeted();
        assert_eq!((liveness.due(at(29_999), true), liveness.due(at(30_000), true)), (Due::Nothing, Due::Ping));
        let payload = liveness.ping(at(30_000)).expect("none is waiting");
        assert_eq!(liveness.due(at(30_250), true), Due::Nothing, "nobody waits for it");
        assert_eq!(liveness.due(at(60_000), true), Due::Lost(Duration::from_secs(30)));
        // Something is awaited while the ping is: it has its own time.
        liveness.awaits(at(40_000));
        assert_eq!(liveness.due(at(40_449), true), Due::Nothing);
        assert_eq!(liveness.due(at(40_450), true), Due::Lost(Duration::from_millis(10_450)));
        liveness.heard(at(40_400));
        assert!(liveness.pong(payload, at(40_400)));
        liveness.got();
        assert_eq!(liveness.deadline(true), Some(at(70_400)));
    }

    #[test]
    fn silence_is_counted_from_when_something_is_awaited() {
        let mut liveness = greeted();
        liveness.awaits(at(10_000));
        assert_eq!(liveness.deadline(false), Some(at(10_200)));
        liveness.heard(at(10_100));
        assert_eq!((liveness.due(at(10_299), false), liveness.due(at(10_300), false)), (Due::Nothing, Due::Ping));
        liveness.got();
        assert_eq!(liveness.deadline(false), None);
    }

    #[test]
    fn a_ping_without_an_answer_ends_the_connection_and_any_sign_of_life_puts_it_off() {
        let mut liveness = greeted();
        liveness.awaits(at(0));
        let payload = liveness.ping(at(200)).expect("none is waiting");
        assert_eq!(liveness.ping(at(201)), None);
        assert_eq!(
            (liveness.due(at(449), false), liveness.due(at(450), false)),
            (Due::Nothing, Due::Lost(Duration::from_millis(250)))
        );
        liveness.heard(at(400));
        assert_eq!(
            (liveness.due(at(649), false), liveness.due(at(650), false)),
            (Due::Nothing, Due::Lost(Duration::from_millis(250)))
        );
        assert!(liveness.pong(payload, at(500)));
        assert!(!liveness.pong(payload, at(501)), "answered twice");
        assert_eq!(liveness.rtt(), (Some(Duration::from_millis(300)), Some(Duration::from_millis(300))));
        assert_eq!(liveness.due(at(600), false), Due::Ping, "heard at 400, and still awaited");
    }

    #[test]
    fn a_peer_that_never_says_hello_is_lost() {
        let liveness = Liveness::new(&LinkOptions::default(), at(1));
        assert_eq!((liveness.deadline(false), liveness.due(at(5000), false)), (Some(at(5001)), Due::Nothing));
        assert_eq!(liveness.due(at(5001), false), Due::Lost(Duration::from_secs(5)));
    }
}
