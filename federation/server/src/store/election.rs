//! The election: at most one gateway leads.
//!
//! For: work that only one gateway of the cluster shall do — collecting the slices of dead gateways, writing mirrors.
//! Never for anything a request waits for. The leader holds the key [`keys::LEADER`] under its session's lease; the
//! others watch it. Leading is a belief that may be wrong for a moment (a process can be frozen between the question
//! and the deed), so writes that must not happen twice carry [`Election::fence`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{debug, info};

use super::session::{DEFAULT_TTL, Pause};
use super::{
    Commit, Event, Expect, LeaseId, Listing, Revision, SessionState, StoreError, StoreSession, Txn, Watch, chain, keys,
};

/// How long the bookkeeping of a lost election waits before it looks again without having been told of a change.
const RECHECK: Duration = Duration::from_secs(30);

/// A candidacy. Dropping it ends the candidacy; a leader should [`Election::resign`] first.
#[derive(Debug)]
pub struct Election {
    session: Arc<StoreSession>,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug)]
struct State {
    candidate: String,
    /// The lease we lead under, and the revision at which we took the key.
    mine: Mutex<Option<(LeaseId, Revision)>>,
    leader: watch::Sender<Option<String>>,
}

impl Election {
    /// Stands for election as `candidate`, for as long as the session holds a lease.
    pub fn campaign(session: Arc<StoreSession>, candidate: impl Into<String>) -> Self {
        let leader = watch::channel(None).0;
        let state = Arc::new(State { candidate: candidate.into(), mine: Mutex::new(None), leader });
        let task = tokio::spawn(run(Arc::clone(&session), Arc::clone(&state))).abort_handle();
        Self { session, state, task }
    }

    /// Whether this candidate leads, for sure at this moment: the key is held and so is its lease, by our own clock.
    pub fn is_leader(&self) -> bool {
        self.fence().is_some()
    }

    /// The condition to put into transactions that only the leader may apply: `txn.when(key, expect)`. `None` if this
    /// candidate does not lead.
    pub fn fence(&self) -> Option<(&'static str, Expect)> {
        let (lease, revision) = (*self.state.mine.lock())?;
        (self.session.lease() == Some(lease)).then_some((keys::LEADER, Expect::At(revision)))
    }

    /// Who leads, as far as known here.
    pub fn leader(&self) -> watch::Receiver<Option<String>> {
        self.state.leader.subscribe()
    }

    /// Ends the candidacy, and gives the lead to the others at once if it was ours.
    ///
    /// # Errors
    /// As [`super::Store::txn`]; the lead then ends with the lease.
    pub async fn resign(self) -> Result<(), StoreError> {
        self.task.abort();
        let mine = self.state.mine.lock().take();
        if let Some((_, revision)) = mine {
            let txn = Txn::new().when(keys::LEADER, Expect::At(revision)).delete(keys::LEADER);
            self.session.store().txn(txn).await?;
        }
        Ok(())
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(session: Arc<StoreSession>, state: Arc<State>) {
    let mut states = session.states();
    let mut key = session.store().watch(keys::LEADER, None);
    let mut pause = Pause::new(DEFAULT_TTL);
    loop {
        let held = states.wait_for(|state| matches!(state, SessionState::Held(_))).await.map(|state| *state);
        let Ok(SessionState::Held(lease)) = held else { return };
        match stand(&session, &state, lease).await {
            Ok(()) => pause.reset(),
            Err(error) => {
                debug!(error = chain(&error), "the election could not be held yet");
                pause.wait().await;
                continue;
            }
        }
        let open = tokio::select! {
            _ = states.wait_for(|now| *now != SessionState::Held(lease)) => {
                state.note(None, None);
                true
            }
            open = key_is_free(&mut key, &state) => open,
            () = tokio::time::sleep(RECHECK) => true,
        };
        if !open {
            return;
        }
    }
}

/// Tries to take the key once, and notes who has it.
async fn stand(session: &StoreSession, state: &State, lease: LeaseId) -> Result<(), StoreError> {
    let txn = Txn::new().when(keys::LEADER, Expect::Absent).put_leased(keys::LEADER, state.candidate.clone(), lease);
    match session.store().txn(txn).await? {
        Commit::Applied(revision) => {
            info!(candidate = state.candidate, "leads");
            state.note(Some((lease, revision)), Some(state.candidate.clone()));
        }
        Commit::Conflict(holders) => {
            let holder = holders.into_iter().flatten().next();
            let mine = holder.as_ref().filter(|holder| holder.lease == Some(lease)).map(|h| (lease, h.revision));
            state.note(mine, holder.map(|holder| String::from_utf8_lossy(&holder.value).into_owned()));
        }
    }
    Ok(())
}

/// Follows the key until nobody holds it. False if the store was closed.
async fn key_is_free(watch: &mut Watch, state: &State) -> bool {
    while let Some(event) = watch.next().await {
        let at = event.revision();
        let holder = match event {
            Event::Put(entry) if entry.key == keys::LEADER => Some(entry),
            Event::Delete { key, .. } if key == keys::LEADER => None,
            Event::Reset(Listing { entries, .. }) => entries.into_iter().find(|entry| entry.key == keys::LEADER),
            _ => continue,
        };
        let mine = *state.mine.lock();
        match (holder, mine) {
            // Old news: what we hold was taken after this.
            (_, Some((_, revision))) if at < revision => {}
            (Some(holder), Some((_, revision))) if holder.revision == revision => {}
            (Some(holder), _) => state.note(None, Some(String::from_utf8_lossy(&holder.value).into_owned())),
            (None, _) => {
                state.note(None, None);
                return true;
            }
        }
    }
    false
}

impl State {
    fn note(&self, mine: Option<(LeaseId, Revision)>, leader: Option<String>) {
        *self.mine.lock() = mine;
        self.leader.send_if_modified(|known| {
            let is_news = *known != leader;
            *known = leader;
            is_news
        });
    }
}
