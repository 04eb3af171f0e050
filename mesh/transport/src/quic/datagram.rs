//! The socket as quinn sees it: tokio's, made safe for large packets.
//!
//! quinn hands over up to ten packets at once, to be cut up by the kernel. With packets of 8,952 bytes that is more than a
//! UDP send can take: it would fail as a whole, look like loss of every large packet, and throw the connection back to
//! 1,200 bytes for ten minutes. Here such a batch is cut to what fits. Packets that travel at a smaller size keep their
//! full batches, which a fixed lower limit on segments would take from them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// A socket for packets of up to `payload` bytes.
pub(super) struct LargePackets {
    socket: Arc<dyn AsyncUdpSocket>,
    payload: u16,
}

impl LargePackets {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, payload: u16) -> Self {
        Self { socket, payload }
    }
}

impl fmt::Debug for LargePackets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl AsyncUdpSocket for LargePackets {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    /// If a later part of a batch does not fit into the socket's buffer, quinn sends the whole batch again: packets that
    /// arrive twice are dropped by their numbers, which is cheaper than taking them for lost.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit.segment_size.filter(|_| transmit.contents.len() > MAX_SEND) else {
            return self.socket.try_send(transmit);
        };
        let batch = segment * (MAX_SEND / segment.max(1)).max(1);
        transmit.contents.chunks(batch.max(1)).try_for_each(|contents| {
            let segment_size = (contents.len() > segment).then_some(segment);
            self.socket.try_send(&Transmit { contents, segment_size, ..*transmit })
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    /// quinn reserves this many payloads for each of 32 receive buffers, but the kernel never merges more than 64 KiB into
    /// one: counting by that keeps an endpoint's buffers at 2 MiB instead of 18 MiB with jumbo frames.
    fn max_receive_segments(&self) -> usize {
        let merged = MAX_MERGED.div_ceil(usize::from(self.payload.max(1)));
        self.socket.max_receive_segments().min(merged)
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// The most that one UDP send takes over IPv4, in bytes.
const MAX_SEND: usize = 65_507;
/// The most that the kernel merges into one received buffer, in bytes.
const MAX_MERGED: usize = 65_535;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Notes what is sent.
    #[derive(Debug, Default)]
    struct Sent(Mutex<Vec<(usize, Option<usize>)>>);

    impl AsyncUdpSocket for Sent {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nobody waits in these tests")
        }
        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            self.0.lock().push((transmit.contents.len(), transmit.segment_size));
            Ok(())
        }
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn max_receive_segments(&self) -> usize {
            64
        }
    }

    fn send(len: usize, segment_size: Option<usize>) -> Vec<(usize, Option<usize>)> {
        let sent = Arc::new(Sent::default());
        let socket = LargePackets::new(Arc::clone(&sent) as Arc<dyn AsyncUdpSocket>, 8952);
        let contents = vec![0; len];
        let destination = SocketAddr::from(([127, 0, 0, 1], 9));
        let transmit = Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None };
        socket.try_send(&transmit).expect("sent");
        sent.0.lock().split_off(0)
    }

    #[test]
    fn what_fits_is_sent_as_it_is() {
        assert_eq!(send(1200, None), [(1200, None)]);
        assert_eq!(send(14_520, Some(1452)), [(14_520, Some(1452))]);
        assert_eq!(send(7 * 8952, Some(8952)), [(7 * 8952, Some(8952))]);
    }

    #[test]
    fn a_batch_that_is_too_large_for_one_send_is_cut_between_packets() {
        assert_eq!(send(10 * 8952, Some(8952)), [(7 * 8952, Some(8952)), (3 * 8952, Some(8952))]);
        assert_eq!(send(8 * 8952, Some(8952)), [(7 * 8952, Some(8952)), (8952, None)]);
        assert_eq!(send(7 * 8952 + 40_000, Some(60_000)), [(60_000, None), (42_664, None)]);
    }

    #[test]
    fn receive_buffers_are_sized_by_what_the_kernel_merges() {
        let segments = |payload| LargePackets::new(Arc::<Sent>::default(), payload).max_receive_segments();
        assert_eq!((segments(1200), segments(1472), segments(8952), segments(65_507)), (55, 45, 8, 2));
    }
}
