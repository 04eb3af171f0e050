//! What it costs a sidecar to answer for names, and to keep connections open at their addresses.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eastway_runtime::descriptors;
use eastway_tests::lab::{Lab, LabNode, StoreKind};
use eastway_tests::{check, eventually};

use super::percentile;
use super::report::Report;
use super::using::resident;

/// Questions a second, and the goals for them: of one core, and in milliseconds.
const RATE: u64 = 5_000;
const CORE: f64 = 20.0;
const SLOWEST: f64 = 1.0;
/// Connections, and the goal for each in KiB.
const IDLE: usize = 10_000;
const EACH: f64 = 20.0;
/// Clock ticks of the kernel in a second, as `/proc` counts.
const TICKS: f64 = 100.0;
/// A port of the lab's payments that speaks HTTP and that anybody may listen on.
const PORT: u16 = 50_051;

/// Measures it; `whole`, or only to see that it runs.
pub(super) fn measure(report: &mut Report, whole: bool) {
    let (seconds, idle) = if whole { (10, IDLE) } else { (1, 10) };
    // Both ends of each connection may be this process's, in descriptors.
    descriptors::prepare(3 * idle as u64, "the bench's connections");
    let mut lab = Lab::new();
    lab.clusters(&["us-east"], StoreKind::Embedded);
    lab.payments("us-east", "a", "payments-1");
    let ip = lab.host();
    let node = LabNode { name: "us-east-named".to_owned(), ip };
    let more = format!("dns: {{ listen: '{ip}:15053' }}\nlimits: {{ connections: 20000 }}\n");
    lab.configure("us-east", "a", &node, "storefront", &more);
    lab.start_role("sidecar", &node.name);
    lab.wait_ready(&node);
    let at = eventually("the name has an address", || address(node.at(15_053)));
    questions(report, &mut lab, &node, seconds);
    connections(report, &mut lab, &node, (at, idle));
}

/// A question for the address of payments, as number `id`.
fn question(id: u16) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in ["payments", "shop", "mesh", "internal"] {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// The address of payments, which stands at the end of the answer.
pub(super) fn address(server: SocketAddr) -> Result<Ipv4Addr, String> {
    let socket = connected(server);
    socket.send(&question(1)).map_err(|error| error.to_string())?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).map_err(|error| error.to_string())?;
    check(answer[3] & 0xf == 0 && answer[7] == 1, || format!("{:?}", &answer[..length]))?;
    let address: [u8; 4] = answer[length - 4..length].try_into().expect("four bytes");
    Ok(address.into())
}

fn connected(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.connect(server).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    socket
}

fn questions(report: &mut Report, lab: &mut Lab, node: &LabNode, seconds: u64) {
    let socket = connected(node.at(15_053));
    let (sent, receiver) = (sent_times(), socket.try_clone().expect("cloned"));
    let times = Arc::clone(&sent);
    let begin = Instant::now();
    let answers = std::thread::spawn(move || {
        let (mut took, mut answer) = (Vec::new(), [0; 512]);
        // It ends when nothing comes for a second.
        while receiver.recv(&mut answer).is_ok() {
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            let then = Duration::from_nanos(times[usize::from(id)].load(Ordering::Acquire));
            took.push(begin.elapsed() - then);
        }
        took
    });
    let (process, all) = (lab.process(&node.name).pid(), RATE * seconds);
    let (before, started) = (busy(process), begin.elapsed());
    for number in 0..all {
        let due = started + Duration::from_secs(1) * number as u32 / RATE as u32;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        let id = number as u16;
        sent[usize::from(id)].store(begin.elapsed().as_nanos() as u64, Ordering::Release);
        socket.send(&question(id)).expect("sent");
    }
    let core = (busy(process) - before) / (begin.elapsed() - started).as_secs_f64() * 100.0;
    let took = answers.join().expect("it ends");
    let what = format!("{RATE} questions a second for a name");
    report.at_most(&format!("{what}: of a core"), core, "%", CORE);
    report.at_most(&format!("{what}: answered, p99"), percentile(&took, 0.99), "ms", SLOWEST);
    report.at_most(&format!("{what}: not answered"), (all as usize - took.len()) as f64, "", 0.0);
}

/// When each number was asked last, in nanoseconds since the begin.
fn sent_times() -> Arc<Vec<AtomicU64>> {
    Arc::new((0..=u16::MAX).map(|_| AtomicU64::new(0)).collect())
}

/// The processor time that a process has had, in seconds.
pub(super) fn busy(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
    let ticks = fields.skip(11).take(2).map(|field| field.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS
}

fn connections(report: &mut Report, lab: &mut Lab, node: &LabNode, (address, count): (Ipv4Addr, usize)) {
    let open = || {
        let mut connection = TcpStream::connect((address, PORT)).expect("connected");
        connection.write_all(b"GET / HTTP/1.1\r\nhost: payments.shop.mesh.internal:50051\r\n\r\n").expect("sent");
        let mut answer = [0; 4_096];
        assert!(connection.read(&mut answer).is_ok_and(|length| answer[..length].starts_with(b"HTTP/1.1 200")));
        connection
    };
    let first = open();
    let before = resident(lab, node);
    let held: Vec<TcpStream> = (0..count).map(|_| open()).collect();
    let each = (resident(lab, node) - before) / held.len() as f64;
    report.at_most(&format!("each of {count} idle connections at a name's address"), each, "KiB", EACH);
    drop((first, held));
}
