//! Congestion control: Cubic, with room for large packets and for the last one.
//!
//! quinn-proto 0.11 counts the packet that closes a connection against the congestion window (quinn-rs/quinn#2785, mended
//! in 0.12). A connection whose window is full when it is closed would never tell its peer, because nothing that could
//! make room is looked at any more. So the window is opened first: a closing connection sends nothing but that packet.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// Makes the controllers of an endpoint's connections.
#[derive(Debug)]
pub(super) struct Congestion {
    cubic: Arc<CubicConfig>,
    closing: Arc<AtomicBool>,
}

impl Congestion {
    /// For packets of up to `payload` bytes, until `closing` says that all connections close.
    pub(super) fn new(payload: u16, closing: Arc<AtomicBool>) -> Self {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(initial_window(payload));
        Self { cubic: Arc::new(cubic), closing }
    }
}

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Cubic::new(Arc::clone(&self.cubic), now, current_mtu);
        Box::new(Closable { cubic, endpoint_closes: Arc::clone(&self.closing), closes: Arc::default() })
    }
}

/// Opens the window of a connection that is about to be closed.
pub(super) fn open_window(connection: &quinn::Connection) {
    if let Ok(controller) = connection.congestion_state().into_any().downcast::<Closable>() {
        controller.closes.store(true, Ordering::Relaxed);
    }
}

/// Ten packets, as RFC 9002 has it, also where packets are large: with room for fewer than two of them, the next packet
/// waits for the acknowledgement of a probe, and so do acknowledgements themselves.
fn initial_window(payload: u16) -> u64 {
    let payload = u64::from(payload);
    (10 * payload).clamp(MIN_INITIAL_WINDOW, MAX_INITIAL_WINDOW).max(2 * payload)
}

/// Cubic that can be told to let everything pass.
#[derive(Clone, Debug)]
struct Closable {
    cubic: Cubic,
    endpoint_closes: Arc<AtomicBool>,
    closes: Arc<AtomicBool>,
}

impl Controller for Closable {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let closes = self.closes.load(Ordering::Relaxed) || self.endpoint_closes.load(Ordering::Relaxed);
        if closes { u64::MAX } else { self.cubic.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// What RFC 9002 recommends for packets of usual size, in bytes.
const MIN_INITIAL_WINDOW: u64 = 14_720;
/// More than this is not sent into an unknown network at once, in bytes.
const MAX_INITIAL_WINDOW: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn build(payload: u16, closing: &Arc<AtomicBool>) -> Box<dyn Controller> {
        Arc::new(Congestion::new(payload, Arc::clone(closing))).build(Instant::now(), 1200)
    }

    #[test]
    fn the_first_window_holds_several_packets_of_any_size() {
        for (payload, window) in [(1200, 14_720), (1472, 14_720), (8952, 89_520), (60_000, 131_072), (65_507, 131_072)]
        {
            let controller = build(payload, &Arc::default());
            assert_eq!((controller.window(), controller.initial_window()), (window, window));
            assert!(window >= 2 * u64::from(payload));
        }
    }

    #[test]
    fn the_window_of_a_closing_endpoint_is_open_for_all_of_its_connections() {
        let closing = Arc::default();
        let (first, second) = (build(1472, &closing), build(1472, &closing));
        closing.store(true, Ordering::Relaxed);
        assert_eq!((first.window(), second.window()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn copies_of_a_controller_close_together() {
        let controller = build(1472, &Arc::default());
        let copy = controller.clone_box();
        let copy = copy.into_any().downcast::<Closable>().expect("of our kind");
        copy.closes.store(true, Ordering::Relaxed);
        assert_eq!(controller.window(), u64::MAX);
    }
}
