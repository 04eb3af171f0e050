//! `open`: requests at a fixed rate, whatever becomes of them.
//!
//! Each of N connections sends every Nth request when it is due, and each latency counts from then: a stall shows in all
//! the requests that it delayed, also in those that could not be sent. A load that waits for answers would not see them.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::http::{Connection, request};

/// Latencies in nanoseconds, three digits of them, and how many requests had no good answer.
type Seen = (Histogram<u64>, u64);

#[derive(Clone, Copy, Debug)]
struct Plan {
    address: SocketAddr,
    connections: u64,
    rate: u64,
    requests: u64,
    start: Instant,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, String> {
    let (rate, seconds) = (arguments.required::<u64>("rate")?.max(1), arguments.required::<u64>("seconds")?);
    let plan = Plan {
        address: arguments.address()?,
        connections: arguments.or("connections", 32)?,
        rate,
        requests: rate.saturating_mul(seconds),
        // All threads have begun by then.
        start: Instant::now() + Duration::from_millis(200),
    };
    let request = request(&arguments.required::<String>("host")?, "/");
    let parts: Vec<Result<Seen, String>> = thread::scope(|scope| {
        let request = &request;
        let threads: Vec<_> =
            (0..plan.connections).map(|index| scope.spawn(move || connection(plan, index, request))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread failed".to_owned()))).collect()
    });
    let (mut latencies, mut bad) = histogram()?;
    for part in parts {
        let (seen, failed) = part?;
        latencies.add(seen).map_err(|error| error.to_string())?;
        bad += failed;
    }
    let milliseconds = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e6;
    let rate = latencies.len() as f64 / plan.start.elapsed().as_secs_f64();
    Ok(json!({
        "requests": latencies.len(), "bad": bad, "rate": rate,
        "p50": milliseconds(0.5), "p99": milliseconds(0.99), "p99.9": milliseconds(0.999), "max": milliseconds(1.0),
    }))
}

fn histogram() -> Result<Seen, String> {
    Histogram::new(3).map(|histogram| (histogram, 0)).map_err(|error| error.to_string())
}

/// Sends its part of the requests over one connection, which is made anew after a failure.
fn connection(plan: Plan, index: u64, request: &[u8]) -> Result<Seen, String> {
    // Sleepers wake on time; otherwise the system adds up to 50 microseconds to each.
    nix::sys::prctl::set_timerslack(1).map_err(|error| error.to_string())?;
    let (mut latencies, mut bad) = histogram()?;
    let mut connection = None;
    for number in (index..plan.requests).step_by(usize::try_from(plan.connections).unwrap_or(1)) {
        let due = plan.start + Duration::from_nanos(number * 1_000_000_000 / plan.rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut open = connection.take().map_or_else(|| Connection::to(plan.address, 64 << 10), Ok);
        let answer = open.as_mut().map_err(|error| error.to_string()).and_then(|open| {
            let head = open.send(request).and_then(|()| open.head());
            head.and_then(|head| open.skip(head).map(|()| head.status)).map_err(|error| error.to_string())
        });
        let latency = due.elapsed().as_nanos();
        latencies.record(u64::try_from(latency).unwrap_or(u64::MAX)).map_err(|error| error.to_string())?;
        bad += u64::from(answer != Ok(200));
        connection = open.ok().filter(|_| answer.is_ok());
    }
    Ok((latencies, bad))
}
