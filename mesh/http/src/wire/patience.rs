//! How long one side of a connection may keep the other waiting.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::sweeper::{Deadline, Sweeper};

/// A limit on waiting. It costs a cell of the worker's sweeper, and that only once something was waited for.
pub(super) struct Patience {
    /// Who watches, and how long is waited; else for ever.
    limit: Option<(Sweeper, Duration)>,
    deadline: Option<Deadline>,
    /// Whether somebody waits now: the time in which nobody asked is no silence.
    waiting: bool,
}

impl Patience {
    pub(super) const fn new(limit: Option<(Sweeper, Duration)>) -> Self {
        Self { limit, deadline: None, waiting: false }
    }

    /// Ready once it was waited for the limit without a break.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((sweeper, limit)) = &self.limit else { return Poll::Pending };
        let deadline = self.deadline.get_or_insert_with(|| sweeper.after(*limit));
        if !std::mem::replace(&mut self.waiting, true) {
            deadline.restart();
        }
        deadline.poll_expired(cx)
    }

    /// What was waited for came.
    pub(super) const fn progressed(&mut self) {
        self.waiting = false;
    }

    /// Nothing is waited for any more.
    pub(super) fn stop(&mut self) {
        self.waiting = false;
        self.deadline = None;
    }
}
