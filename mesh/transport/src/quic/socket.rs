//! Sockets that share a UDP port, and the program that steers packets among them.
//!
//! Without steering, the kernel would spread packets by address: a connection whose peer's address changes would reach the
//! wrong socket, and control connections would queue behind data.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::libc::{sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::QuicOptions;

/// One socket for control connections and one for each of `data_workers`, in this order, all on `address`; port 0 takes a
/// free one. Without data workers there is a single socket, which gets everything.
///
/// # Errors
/// What the operating system says. That somebody else listens there is an error too: the kernel would let a second process
/// join, and the steering program would then point at the sockets of both.
pub fn bind(address: SocketAddr, data_workers: usize, options: &QuicOptions) -> io::Result<Vec<UdpSocket>> {
    let workers = u8::try_from(data_workers).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("at most 255 data workers share a port, not {data_workers}"),
        )
    })?;
    let alone = unbound(address)?;
    alone.bind(&address.into())?;
    if workers == 0 {
        return Ok(vec![finished(alone, options)?]);
    }
    let address = crate::io_address(&alone)?;
    drop(alone);
    let sockets = (0..=workers)
        .map(|_| {
            let socket = unbound(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            finished(socket, options)
        })
        .collect::<io::Result<Vec<_>>>()?;
    steer(&sockets[0], workers)?;
    Ok(sockets)
}

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Small buffers are the commonest cause of loss between fast gateways: the kernel drops what comes in a burst.
fn finished(socket: Socket, options: &QuicOptions) -> io::Result<UdpSocket> {
    let wanted = options.socket_buffer;
    // Only a privileged process may exceed the system's limit; everyone else gets as much as that allows.
    if setsockopt(&socket, sockopt::RcvBufForce, &wanted).is_err() {
        socket.set_recv_buffer_size(wanted)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &wanted).is_err() {
        socket.set_send_buffer_size(wanted)?;
    }
    // The kernel reports twice what it was asked for, because it counts its own bookkeeping.
    let granted = socket.recv_buffer_size()? / 2;
    if granted < wanted {
        tracing::warn!(
            granted,
            wanted,
            "the UDP receive buffer is smaller than configured: bursts will be lost; raise net.core.rmem_max"
        );
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Attaches the steering program to the group that `socket` belongs to.
fn steer(socket: &UdpSocket, workers: u8) -> io::Result<()> {
    let mut program = program(workers);
    let attached = sock_fprog { len: PROGRAM_LEN as u16, filter: program.as_mut_ptr() };
    setsockopt(socket, sockopt::AttachReusePortCbpf, &attached).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("the kernel does not take the program that steers packets: {error}"))
    })
}

/// The program, in classic BPF. It sees the UDP payload and answers with the index of a socket: 0 where the first byte of
/// the destination connection id is 0, and `1 + (byte - 1) % workers` otherwise.
///
/// The id starts at byte 6 of a long header and at byte 1 of a short one. Of a packet too short for that, the kernel ends
/// the program with 0; the control socket's endpoint then drops it.
fn program(workers: u8) -> [sock_filter; PROGRAM_LEN] {
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    [
        op(LOAD_BYTE, 0, 0, 0),
        op(JUMP_IF_BITS, 0, 2, 0x80),
        op(LOAD_BYTE, 0, 0, 6),
        op(JUMP, 0, 0, 1),
        op(LOAD_BYTE, 0, 0, 1),
        op(JUMP_IF_EQUAL, 3, 0, 0),
        op(SUBTRACT, 0, 0, 1),
        op(MODULO, 0, 0, u32::from(workers)),
        op(ADD, 0, 0, 1),
        op(RETURN_A, 0, 0, 0),
    ]
}

const PROGRAM_LEN: usize = 10;
const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_BITS: u16 = 0x45;
const ADD: u16 = 0x04;
const SUBTRACT: u16 = 0x14;
const MODULO: u16 = 0x94;
const RETURN_A: u16 = 0x16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn loopback(data_workers: usize) -> Vec<UdpSocket> {
        let sockets = bind(SocketAddr::from(([127, 0, 0, 1], 0)), data_workers, &QuicOptions::default());
        let sockets = sockets.expect("bound");
        for socket in &sockets {
            socket.set_nonblocking(false).expect("blocking");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        }
        sockets
    }

    /// A packet with a long or a short header whose destination id starts with `byte`.
    fn packet(long: bool, byte: u8) -> Vec<u8> {
        let mut packet = if long { vec![0xc0, 0, 0, 0, 1, 8] } else { vec![0x40] };
        packet.extend([byte; 20]);
        packet
    }

    #[test]
    fn all_sockets_share_one_port_also_when_it_was_free_to_choose() {
        let sockets = loopback(3);
        let addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().expect("address")).collect();
        assert_eq!(addresses.len(), 4);
        assert!(addresses[0].port() != 0 && addresses.iter().all(|a| *a == addresses[0]));
    }

    #[test]
    fn packets_go_where_the_first_byte_of_their_id_says() {
        let sockets = loopback(3);
        let target = sockets[0].local_addr().expect("address");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("sender");
        for long in [true, false] {
            for (byte, index) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 1), (254, 2), (255, 3), (0, 0)] {
                sender.send_to(&packet(long, byte), target).expect("sent");
                let mut buffer = [0; 64];
                let (len, from) = sockets[index].recv_from(&mut buffer).expect("received at the right socket");
                assert_eq!((&buffer[..len], from), (&packet(long, byte)[..], sender.local_addr().expect("address")));
            }
        }
    }

    #[test]
    fn packets_too_short_for_an_id_go_to_the_control_socket() {
        let sockets = loopback(2);
        let target = sockets[0].local_addr().expect("address");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("sender");
        for packet in [&[0xc0, 0, 0][..], &[0x40]] {
            sender.send_to(packet, target).expect("sent");
            let mut buffer = [0; 8];
            assert_eq!(sockets[0].recv(&mut buffer).expect("received"), packet.len());
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_not_shared_with_him() {
        let sockets = loopback(2);
        let address = sockets[0].local_addr().expect("address");
        let error = bind(address, 2, &QuicOptions::default()).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn more_workers_than_a_byte_can_name_are_refused() {
        let error = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 256, &QuicOptions::default()).expect_err("too many");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_single_socket_needs_no_steering() {
        assert_eq!(loopback(0).len(), 1);
    }
}
