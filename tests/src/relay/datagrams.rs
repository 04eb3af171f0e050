//! A relay of datagrams, as long as a way between two regions, that loses what a test wants it to lose.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Passes datagrams on to another address and the answers back, each after the same time. It ends with the process that
/// made it.
#[derive(Clone, Debug)]
pub struct DatagramRelay {
    address: SocketAddr,
    losses: Arc<Losses>,
}

#[derive(Debug, Default)]
struct Losses {
    /// One of so many datagrams is dropped; of 0, none.
    one_in: AtomicU32,
    seen: AtomicU32,
}

/// A datagram on its way, and when it arrives.
type Delayed = (Instant, Vec<u8>);

impl DatagramRelay {
    /// A relay at a free port of `host` that leads to `target`, which is `one_way` away.
    ///
    /// # Panics
    /// If there is no port.
    pub fn start(host: IpAddr, target: SocketAddr, one_way: Duration) -> Self {
        Self::at((host, 0).into(), target, one_way)
    }

    /// The same at an address that is known, such as that of a relay of connections.
    ///
    /// # Panics
    /// If it is in use.
    pub fn at(address: SocketAddr, target: SocketAddr, one_way: Duration) -> Self {
        let near = Arc::new(UdpSocket::bind(address).expect("a free port"));
        let address = near.local_addr().expect("bound");
        let relay = Self { address, losses: Arc::default() };
        let passing = relay.clone();
        std::thread::spawn(move || {
            let mut ways: BTreeMap<SocketAddr, Sender<Delayed>> = BTreeMap::new();
            let mut datagram = vec![0; LARGEST];
            loop {
                // Some kernels tell of an earlier datagram here that nobody took.
                let Ok((length, client)) = near.recv_from(&mut datagram) else { continue };
                let way = ways.entry(client).or_insert_with(|| passing.open(&near, client, target, one_way));
                passing.delay(way, &datagram[..length], one_way);
            }
        });
        relay
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops one of so many datagrams from now on, both ways together. Nobody is told. 1 drops everything, 0 nothing.
    pub fn drop_one_in(&self, datagrams: u32) {
        self.losses.one_in.store(datagrams, Ordering::Relaxed);
    }

    /// A socket of its own for what one client sends, and the way back to it.
    fn open(
        &self,
        near: &Arc<UdpSocket>,
        client: SocketAddr,
        target: SocketAddr,
        one_way: Duration,
    ) -> Sender<Delayed> {
        let far = Arc::new(UdpSocket::bind((self.address.ip(), 0)).expect("a free port"));
        far.connect(target).expect("an address of this machine");
        let (there, arriving) = channel();
        let (back, returning) = channel();
        let (near, sending, relay) = (Arc::clone(near), Arc::clone(&far), self.clone());
        // What cannot be sent is lost, as datagrams are.
        std::thread::spawn(move || arrive(&arriving, |datagram| drop(sending.send(datagram))));
        std::thread::spawn(move || arrive(&returning, |datagram| drop(near.send_to(datagram, client))));
        std::thread::spawn(move || {
            let mut datagram = vec![0; LARGEST];
            loop {
                let Ok(length) = far.recv(&mut datagram) else { continue };
                relay.delay(&back, &datagram[..length], one_way);
            }
        });
        there
    }

    /// Sends a datagram on its way, unless it is one that is lost.
    fn delay(&self, way: &Sender<Delayed>, datagram: &[u8], one_way: Duration) {
        let seen = self.losses.seen.fetch_add(1, Ordering::Relaxed);
        if seen.checked_rem(self.losses.one_in.load(Ordering::Relaxed)) != Some(0) {
            // Fails only if the thread at its end is gone, and with it the process.
            let _ = way.send((Instant::now() + one_way, datagram.to_vec()));
        }
    }
}

/// Hands every datagram over when its time has come; all take equally long, so the first one is always the next.
fn arrive(way: &Receiver<Delayed>, mut hand_over: impl FnMut(&[u8])) {
    for (due, datagram) in way {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        hand_over(&datagram);
    }
}

/// No datagram is larger.
const LARGEST: usize = 65_536;
