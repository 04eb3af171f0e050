//! A way that takes longer: packets go into a tunnel device, wait in this process, and come out again.
//!
//! The kernels of test machines often have no `netem`. Only what a host is told to send by the detour passes here.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::namespace::Namespace;

/// The threads that hold packets up. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Delays {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Packets on their way at most; what comes beyond is lost, as in a router's queue.
const QUEUE: usize = 8_192;
/// How often the threads look whether they are to end.
const LOOK: Duration = Duration::from_millis(100);
/// No packet is larger: the device has the usual 1,500 bytes, and takes no large segments.
const LARGEST: usize = 2_048;

impl Delays {
    /// Holds up for `one_way` what arrives in `detour`, and sends it on.
    ///
    /// # Panics
    /// Without root, or without tunnel devices.
    pub(super) fn start(detour: &Namespace, one_way: Duration) -> Self {
        detour.run("sh", "dash", &["-c", FORWARD], "");
        detour.run("ip", "iproute2", &["tuntap", "add", "dev", "slow", "mode", "tun"], "");
        detour.run("ip", "iproute2", &["-batch", "-"], ROUTES);
        let device = detour.inside(attach);
        let writer = device.try_clone().expect("a file can be cloned");
        let (on_the_way, arriving) = sync_channel::<(Instant, Vec<u8>)>(QUEUE);
        let ended = Arc::new(AtomicBool::new(false));
        let (reading, writing) = (Arc::clone(&ended), Arc::clone(&ended));
        let reader = std::thread::spawn(move || take_in(device, one_way, &on_the_way, &reading));
        let sender = std::thread::spawn(move || {
            while !writing.load(Ordering::Relaxed) {
                match arriving.recv_timeout(LOOK) {
                    // All take equally long, so the first one is always the next.
                    Ok((due, packet)) => {
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        // What cannot be sent is lost, as packets are.
                        let _ = (&writer).write(&packet);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { ended, threads: vec![reader, sender] }
    }
}

impl Drop for Delays {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn take_in(mut device: File, one_way: Duration, on_the_way: &SyncSender<(Instant, Vec<u8>)>, ended: &AtomicBool) {
    let mut packet = vec![0; LARGEST];
    while !ended.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(LOOK).expect("a short time");
        if !matches!(poll(&mut waiting, limit), Ok(1..)) {
            continue;
        }
        match device.read(&mut packet) {
            Ok(length) => drop(on_the_way.try_send((Instant::now() + one_way, packet[..length].to_vec()))),
            // The device is gone, with its namespace.
            Err(_) => return,
        }
    }
}

/// What arrives from other hosts goes into the device; what comes out of it, to its host.
const ROUTES: &str = "link set slow up\nroute add default dev slow table 77\nrule add iif eth0 table 77\n";
/// A router, which sends back where packets came from, and asks nobody to go straight.
const FORWARD: &str = "cd /proc/sys/net/ipv4 && echo 1 > ip_forward && for each in conf/*; do \
                       echo 0 > $each/rp_filter; echo 0 > $each/send_redirects; done";

/// Opens the device of the calling thread's namespace.
fn attach() -> File {
    let device = File::options().read(true).write(true).open("/dev/net/tun");
    let device = device.unwrap_or_else(|error| panic!("/dev/net/tun: {error} (this needs tunnel devices)"));
    let mut name = [0; 16];
    name.iter_mut().zip(b"slow").for_each(|(to, from)| *to = *from as libc::c_char);
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    let request = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    attach::to(&device, &request).unwrap_or_else(|error| panic!("the tunnel device: {error}"));
    device
}

#[expect(unsafe_code, reason = "a tunnel device is had by an ioctl and in no other way")]
mod attach {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use nix::libc;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);

    /// Makes an open file of `/dev/net/tun` the interface that is named.
    pub(super) fn to(device: &File, request: &libc::ifreq) -> nix::Result<()> {
        // SAFETY: the descriptor is open, and the kernel reads and writes no more than the request, whose answer nobody reads.
        unsafe { set_interface(device.as_raw_fd(), &raw const *request) }.map(drop)
    }
}
