//! Pings over a raw stream of the control connection: eight bytes there, the same eight back.
//!
//! They are ours and not the transport's, because the transport shows neither the variance of its round trips nor how
//! long it has been waiting.

use std::collections::VecDeque;
use std::io;

use eastway_core::view::{PathState, Transport};
use eastway_core::{Reason, Timestamp};
use eastway_resilience::liveness::PathMonitor;
use eastway_transport::{Io, Tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::PINGS;
use super::path::Path;
use crate::hub::Hub;

/// How many pings may wait for their answers; more than a path that is not down can have.
const WAITING: usize = 64;

/// Pings until the stream breaks, or the path has been down for too long.
pub(super) async fn send(path: &Path, tunnel: &dyn Tunnel, monitor: &mut PathMonitor) -> Reason {
    let io = match tunnel.open_raw().await {
        Ok(io) => io,
        Err(error) => return error.reason(),
    };
    match exchange(path, tunnel.transport(), io, monitor).await {
        Ok(reason) => reason,
        Err(_) => Reason::TunnelLost,
    }
}

async fn exchange(path: &Path, transport: Transport, io: Io, monitor: &mut PathMonitor) -> io::Result<Reason> {
    let hub = &path.hub;
    let (mut answers, mut pings) = tokio::io::split(io);
    pings.write_u8(PINGS).await?;
    let mut waiting: VecDeque<(u64, Timestamp)> = VecDeque::new();
    let mut answer = [0; 8];
    let mut filled = 0;
    let mut down_since = None;
    loop {
        let now = hub.clock.now();
        let poll = monitor.poll(now);
        path.note_way(transport, |way| way.heard(monitor));
        match poll.state {
            PathState::Down => {
                let since = *down_since.get_or_insert(now);
                if now.since(since) >= hub.options.peering.redial_after {
                    return Ok(Reason::PathDown);
                }
            }
            _ => down_since = None,
        }
        if poll.send_ping {
            // A ping that flow control holds up expires like one that is lost.
            let number = now.as_nanos();
            if waiting.len() < WAITING {
                waiting.push_back((number, now));
                pings.write_all(&number.to_be_bytes()).await?;
                pings.flush().await?;
            }
            monitor.on_ping_sent(now);
            continue;
        }
        tokio::select! {
            read = answers.read(&mut answer[filled..]) => {
                filled += match read? {
                    0 => return Ok(Reason::TunnelLost),
                    read => read,
                };
                if filled == answer.len() {
                    filled = 0;
                    let now = hub.clock.now();
                    let number = u64::from_be_bytes(answer);
                    while let Some((sent_number, sent)) = waiting.pop_front() {
                        if sent_number == number {
                            monitor.on_pong(now.since(sent), now);
                            break;
                        }
                    }
                }
            }
            () = sleep(poll.deadline.since(now)) => {}
        }
    }
}

/// Answers pings until the stream ends.
pub(super) async fn answer(hub: &Hub, io: Io) {
    let silence = hub.options.silence * 10;
    let (mut pings, mut answers) = tokio::io::split(io);
    let mut ping = [0; 8];
    while let Ok(Ok(_)) = tokio::time::timeout(silence, pings.read_exact(&mut ping)).await {
        if answers.write_all(&ping).await.is_err() || answers.flush().await.is_err() {
            return;
        }
    }
}
