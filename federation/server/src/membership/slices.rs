//! The slices: own ones written when they change and repaired when the store has others, those of siblings read.

use std::sync::Arc;
use std::time::Duration;

use eastway_registry::membership::{
    Answer, Failure, Life, Noted, RETRY, Request, RoundEnd, SliceName, SliceNews, SliceReader, UnreadableSlice, Writer,
};
use eastway_registry::{Registration, Slice};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::error::StartError;
use crate::hub::Hub;
use crate::local::is_local;
use crate::store::keys;
use crate::store::{Follower, SessionState, Store, StoreError};

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(20);

/// The gateway's part of the membership in the store.
#[derive(Debug)]
pub(crate) struct Slices {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    writer: Mutex<Writer>,
    /// The store may hold anything: compare all.
    doubt: Notify,
    /// The epoch of the process that took over this gateway's id.
    replaced: watch::Sender<Option<u64>>,
}

impl Slices {
    pub(crate) fn new(hub: Arc<Hub>, store: Arc<dyn Store>, life: Life) -> Arc<Self> {
        let writer = Mutex::new(Writer::new(Arc::clone(&hub.gateway), life));
        let (doubt, replaced) = (Notify::new(), watch::Sender::new(None));
        Arc::new(Self { hub, store, writer, doubt, replaced })
    }

    /// The epoch of the process that took over this gateway's id, once one did: nothing is written any more.
    pub(crate) fn replaced(&self) -> watch::Receiver<Option<u64>> {
        self.replaced.subscribe()
    }

    /// The store may have lost or changed what this gateway wrote: compares all of it.
    pub(crate) fn doubt(&self) {
        self.writer.lock().doubt();
        self.doubt.notify_one();
    }

    /// Whether the store has this gateway's life, so that it can be written.
    pub(crate) fn is_claimed(&self) -> bool {
        self.writer.lock().life().is_claimed()
    }

    /// Loads all slices: the own ones are served and probed at once, those of siblings too.
    pub(crate) async fn load(&self, from: &dyn Store) -> Result<SliceReader, StartError> {
        let mut reader = SliceReader::new(Arc::clone(&self.hub.gateway));
        let listing = loop {
            match from.list(keys::SERVICES).await {
                Ok(listing) => break listing,
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = %error, "waiting for the store");
                    sleep(RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        for entry in &listing.entries {
            self.hear(reader.load(entry).map(|news| news.into_iter().collect()));
        }
        tracing::info!(slices = listing.entries.len(), "membership loaded");
        Ok(reader)
    }

    /// Writes own slices as they change, and compares all of them whenever the session was gained or there is doubt: a store that
    /// grants a lease takes writes again, however long the next try would have waited. Runs until it is dropped, or the gateway
    /// was replaced.
    pub(crate) async fn write(self: Arc<Self>, mut session: watch::Receiver<SessionState>) {
        while self.replaced.borrow().is_none() {
            if !self.writer.lock().is_in_doubt() {
                tokio::select! {
                    () = self.hub.slices.added() => sleep(GATHER).await,
                    () = self.refused_are_due() => {}
                    () = self.doubt.notified() => {}
                    () = gained(&mut session) => self.writer.lock().doubt(),
                }
            }
            let pause = self.write_changed().await;
            if !pause.is_zero() {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = gained(&mut session) => self.writer.lock().doubt(),
                }
            }
        }
    }

    /// Waits until slices that the store refused are to be tried again.
    async fn refused_are_due(&self) {
        let next = self.writer.lock().next_retry();
        match next {
            Some(next) => sleep(next.since(self.hub.clock.now())).await,
            None => std::future::pending().await,
        }
    }

    /// Writes what changed. Returns how long to wait before it is tried again, if the store does not answer.
    pub(crate) async fn write_changed(&self) -> Duration {
        let changed = self.hub.slices.take();
        self.writer.lock().begin(changed, self.hub.clock.now());
        loop {
            let request = self.hub.read(|catalogue, _| self.writer.lock().next(catalogue));
            let Some(request) = request else { break };
            let answer = self.ask(request).await;
            let wall_clock = (self.hub.options.wall_clock)();
            let noted = self.hub.read(|catalogue, now| self.writer.lock().answered(answer, catalogue, now, wall_clock));
            if let Some(noted) = noted {
                self.note(noted);
            }
        }
        let RoundEnd { left, pause } = self.writer.lock().end();
        self.hub.slices.written(left);
        pause
    }

    async fn ask(&self, request: Request) -> Result<Answer, Failure> {
        let answer = match request {
            Request::Get(key) => self.store.get(&key).await.map(Answer::Entry),
            Request::List(prefix) => self.store.list(prefix).await.map(Answer::Listing),
            Request::Commit(txn) => self.store.txn(txn).await.map(Answer::Commit),
        };
        answer.map_err(|error| {
            tracing::warn!(error = %error, "the own slices cannot be written");
            match error {
                StoreError::Refused(_) | StoreError::Invalid(_) => Failure::Refused,
                _ => Failure::Unanswered,
            }
        })
    }

    /// Follows all slices, after those of siblings that were loaded. Runs until it is dropped.
    pub(crate) async fn follow(self: Arc<Self>, mut reader: SliceReader) {
        let mut follower = Follower::new(&*self.store, keys::SERVICES);
        while let Some(change) = follower.next().await {
            self.hear(reader.change(change, follower.known()));
        }
    }

    fn hear(&self, news: Result<Vec<SliceNews>, UnreadableSlice>) {
        let news = news.unwrap_or_else(|error| {
            let cause = std::error::Error::source(&error).map(tracing::field::display);
            tracing::warn!(error = %error, cause, "a slice is left out");
            Vec::new()
        });
        for news in news {
            match news {
                SliceNews::Own(slice, found) => {
                    if self.hub.read(|catalogue, _| self.writer.lock().suspect(&slice, found, catalogue)) {
                        self.hub.slices.add([slice]);
                    }
                }
                SliceNews::Slice { gateway, slice, content } => self.load_slice(&gateway, &slice, content),
                SliceNews::Doubt => self.doubt(),
            }
        }
    }

    fn load_slice(&self, gateway: &str, (service, index): &SliceName, mut content: Option<Slice>) {
        let own = *gateway == *self.hub.gateway;
        if let Some(slice) = &mut content {
            slice.endpoints.retain(|registration| may_be_reached(&self.hub, registration, own));
        }
        self.hub.change(|catalogue, now| catalogue.load_slice(gateway, service, *index, content, now));
        self.hub.probe.notify_one();
    }

    fn note(&self, noted: Noted) {
        match noted {
            Noted::Differing(slices) => {
                tracing::info!(slices, "the store holds other slices than this gateway has: writing them");
            }
            Noted::Restored { other_uid } => {
                if let Some(uid) = other_uid {
                    tracing::error!(found = uid, "the store now names another uid of the cluster");
                }
                tracing::warn!(
                    epoch = self.hub.epoch,
                    "the store did not have this gateway's life, which is in it now"
                );
            }
            Noted::Replaced(epoch) => {
                tracing::error!(
                    own = self.hub.epoch,
                    theirs = epoch,
                    "another process runs as this gateway and has taken over its id: this one writes nothing any more and ends"
                );
                self.replaced.send_replace(Some(epoch));
            }
            Noted::Inherited(slices) => {
                tracing::info!(
                    slices = slices.len(),
                    "the store answers: loading what this gateway's lives before had written"
                );
                for (name, slice) in slices {
                    self.load_slice(&self.hub.gateway, &name, Some(slice));
                }
            }
            Noted::Unsettled(key) => tracing::warn!(key, "the store changes all the time: it is tried again later"),
        }
    }
}

/// Whether the address in a slice may be connected to: what the store says is checked like any other input.
fn may_be_reached(hub: &Hub, registration: &Registration, own: bool) -> bool {
    match hub.admission.check_stored(registration.address, own, is_local) {
        Ok(()) => true,
        Err(error) => {
            let (service, endpoint) = (&registration.service, &registration.endpoint);
            tracing::warn!(%service, %endpoint, error = %error, "a stored endpoint is left out");
            false
        }
    }
}

/// Waits until the session holds another lease.
async fn gained(session: &mut watch::Receiver<SessionState>) {
    loop {
        if session.changed().await.is_err() {
            // It has ended, and gains nothing more.
            std::future::pending::<()>().await;
        }
        if matches!(*session.borrow_and_update(), SessionState::Held(_)) {
            return;
        }
    }
}
