//! The loop that feeds a watch: follow, resume, relist.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::super::{Event, Revision, StoreError, chain};
use super::cluster::Client;
use super::failure::{COMPACTED, EtcdFailure};
use super::position::Position;
use super::{Inner, header_revision, range, to_i64, to_u64};

/// The first wait after a watch broke; doubles up to [`LAST_PAUSE`], and is forgotten when a watch works again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest wait between two attempts.
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// How a watch on one member ended.
enum End {
    /// Nobody reads any more.
    Unread,
    /// The position is of no use: compacted, or from another history. Everything must be listed anew.
    Lost,
    /// The member failed. Whether it had worked before.
    Broken(bool),
}

/// Feeds `sender` for as long as somebody reads.
pub(super) async fn run(inner: Arc<Inner>, prefix: String, after: Option<Revision>, sender: Sender<Event>) {
    let mut position = after.map(Position::after);
    let mut pause = FIRST_PAUSE;
    // What was just listed, or is to be followed from a revision that the caller has just seen, is this history.
    let mut resumes = false;
    loop {
        let ended = match &mut position {
            Some(position) => {
                let resumed = std::mem::replace(&mut resumes, true);
                Box::pin(follow(&inner, &prefix, position, resumed, &sender)).await
            }
            None => match inner.list(&prefix).await {
                Ok(listing) => {
                    (position, resumes) = (Some(Position::of(&listing)), false);
                    if sender.send(Event::Reset(listing)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(error) => {
                    debug!(prefix, error = chain(&error), "the watched prefix could not be listed yet");
                    End::Broken(false)
                }
            },
        };
        match ended {
            End::Unread => return,
            End::Lost => {
                info!(prefix, "the watch lost its position and lists anew");
                position = None;
                pause = FIRST_PAUSE;
            }
            End::Broken(worked) => {
                if worked {
                    pause = FIRST_PAUSE;
                }
                let jitter = 0.5 + 0.5 * inner.rng.lock().f64();
                tokio::select! {
                    () = sleep(pause.mul_f64(jitter)) => {}
                    () = sender.closed() => return,
                }
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// Follows on the first member that accepts the watch, until it ends.
async fn follow(inner: &Inner, prefix: &str, position: &mut Position, resumed: bool, sender: &Sender<Event>) -> End {
    for index in inner.cluster.order() {
        let limit = inner.cluster.options().try_timeout;
        let Ok(Ok(client)) = timeout(limit, inner.cluster.client(index)).await else { continue };
        let why = match timeout(limit, open(&client, &inner.full(prefix), position.next())).await {
            Err(_) => format!("no watch within {limit:?}"),
            Ok(Err(failure)) => failure.into_reason(),
            Ok(Ok((stream, created))) => {
                inner.cluster.succeeded(index);
                if was_turned_back(inner, prefix, position, &created).await {
                    return End::Lost;
                }
                if resumed {
                    match is_known_again(inner, position).await {
                        Ok(true) => {}
                        Ok(false) => return End::Lost,
                        Err(error) => {
                            debug!(prefix, error = chain(&error), "whether the store was restored cannot be said yet");
                            return End::Broken(false);
                        }
                    }
                }
                match pump(inner, stream, created, position, sender).await {
                    Ok(end) => return end,
                    Err(why) => {
                        inner.cluster.blame(index, &client, why).await;
                        return End::Broken(true);
                    }
                }
            }
        };
        inner.cluster.blame(index, &client, why).await;
    }
    End::Broken(false)
}

/// Opens a watch and waits for the server's confirmation.
async fn open(client: &Client, prefix: &str, next: Revision) -> Result<(WatchStream, WatchResponse), EtcdFailure> {
    let (key, end) = range(prefix);
    let options =
        WatchOptions::new().with_range(end).with_start_revision(to_i64(next)).with_progress_notify().with_fragment();
    let mut stream = client.watch().watch(key, Some(options)).await.map_err(|error| EtcdFailure::of(&error))?;
    match stream.message().await {
        Ok(Some(created)) => Ok((stream, created)),
        Ok(None) => Err(EtcdFailure::Unsure("the watch ended at once".to_owned())),
        Err(error) => Err(EtcdFailure::of(&error)),
    }
}

/// Whether the whole cluster, and not only this member, is behind our position: it was restored from a backup, or made
/// anew. Waiting for its future would mean to miss everything until then.
async fn was_turned_back(inner: &Inner, prefix: &str, position: &Position, created: &WatchResponse) -> bool {
    let is_behind = |revision: Revision| revision + 1 < position.next();
    is_behind(header_revision(created.header()))
        && matches!(inner.count(prefix).await, Ok((_, revision)) if is_behind(revision))
}

/// Whether the store has the history in which the position is: the entry that was seen last stands where it stood. A store
/// that was restored may have gone on past our position with other changes. Where that cannot be told, because nothing was seen or
/// the revision is compacted, it counts as another.
async fn is_known_again(inner: &Inner, position: &Position) -> Result<bool, StoreError> {
    let Some((key, revision)) = position.landmark() else { return Ok(false) };
    match inner.entry_at(key, revision).await {
        Ok(entry) => Ok(entry.is_some_and(|entry| entry.revision == revision)),
        Err(StoreError::Unavailable { reason, .. }) if reason == COMPACTED => Ok(false),
        // The store has not come that far: it is turned back.
        Err(StoreError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Passes events on until the watch ends.
async fn pump(
    inner: &Inner,
    mut stream: WatchStream,
    created: WatchResponse,
    position: &mut Position,
    sender: &Sender<Event>,
) -> Result<End, String> {
    let mut response = created;
    loop {
        if response.compact_revision() > 0 {
            return Ok(End::Lost);
        }
        if response.canceled() {
            return Err(format!("the server ended the watch: {}", response.cancel_reason()));
        }
        for event in events(inner, &response, position) {
            if sender.send(event).await.is_err() {
                return Ok(End::Unread);
            }
        }
        if response.events().is_empty() && !response.created() {
            position.progressed(header_revision(response.header()));
        }
        response = tokio::select! {
            message = stream.message() => match message {
                Ok(Some(response)) => response,
                Ok(None) => return Err("the server closed the watch".to_owned()),
                Err(error) => return Err(error.to_string()),
            },
            () = sender.closed() => return Ok(End::Unread),
        };
    }
}

/// The events of a message that were not delivered before.
fn events(inner: &Inner, response: &WatchResponse, position: &mut Position) -> Vec<Event> {
    let mut fresh = Vec::with_capacity(response.events().len());
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        let revision = to_u64(kv.mod_revision());
        let Some(entry) = inner.entry(kv.clone()) else { continue };
        if !position.accept(&entry.key, revision) {
            continue;
        }
        if event.event_type() == EventType::Put {
            position.saw(&entry.key, revision);
        }
        fresh.push(match event.event_type() {
            EventType::Put => Event::Put(entry),
            EventType::Delete => Event::Delete { key: entry.key, revision },
        });
    }
    fresh
}
