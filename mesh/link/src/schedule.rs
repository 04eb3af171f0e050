//! Whose turn it is to send data.
//!
//! Streams take turns of one quantum. Turns alternate between streams that have just got something to send and streams that
//! have had a turn and are not done: a short response does not wait behind every long one, and however many short ones there
//! are, the long ones get every second turn. Those that are not done share their turns equally.

use std::collections::VecDeque;

use crate::stream::StreamId;

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    fresh: VecDeque<StreamId>,
    again: VecDeque<StreamId>,
    /// Who had the last turn.
    last_was_fresh: bool,
}

impl Schedule {
    /// A stream has something to send that had nothing.
    #[inline]
    pub(crate) fn enter(&mut self, stream: StreamId) {
        self.fresh.push_back(stream);
    }

    /// A stream had its turn and is not done.
    #[inline]
    pub(crate) fn again(&mut self, stream: StreamId) {
        self.again.push_back(stream);
    }

    /// A stream could not use the turn that it just got: it gets the next one of its kind.
    pub(crate) fn put_back(&mut self, stream: StreamId) {
        let queue = if self.last_was_fresh { &mut self.fresh } else { &mut self.again };
        queue.push_front(stream);
        self.last_was_fresh = !self.last_was_fresh;
    }

    /// Whose turn it is. Streams that were closed meanwhile may be among them.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<StreamId> {
        let fresh_first = !self.last_was_fresh;
        self.last_was_fresh = if fresh_first { !self.fresh.is_empty() } else { self.again.is_empty() };
        if self.last_was_fresh { self.fresh.pop_front() } else { self.again.pop_front() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.again.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.fresh.clear();
        self.again.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(schedule: &mut Schedule, count: usize) -> Vec<u32> {
        (0..count).filter_map(|_| schedule.next()).map(StreamId::number).collect()
    }

    #[test]
    fn new_ones_and_those_that_go_on_alternate() {
        let mut schedule = Schedule::default();
        [1, 2, 3].into_iter().for_each(|id| schedule.again(StreamId::new(id)));
        [11, 12].into_iter().for_each(|id| schedule.enter(StreamId::new(id)));
        assert_eq!(ids(&mut schedule, 9), [11, 1, 12, 2, 3]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn a_turn_that_was_given_back_is_the_next() {
        let mut schedule = Schedule::default();
        schedule.enter(StreamId::new(1));
        schedule.enter(StreamId::new(2));
        schedule.again(StreamId::new(3));
        for expected in [1, 3, 2] {
            let next = schedule.next().expect("one is left");
            schedule.put_back(next);
            assert_eq!(schedule.next(), Some(next));
            assert_eq!(next.number(), expected);
        }
    }

    #[test]
    fn many_short_ones_leave_every_second_turn() {
        let mut schedule = Schedule::default();
        schedule.again(StreamId::new(1));
        let mut turns = 0;
        for id in 100..200 {
            schedule.enter(StreamId::new(id));
            schedule.enter(StreamId::new(id + 1000));
            for _ in 0..2 {
                let next = schedule.next().expect("one is there");
                if next.number() == 1 {
                    turns += 1;
                    schedule.again(next);
                }
            }
        }
        assert_eq!(turns, 100);
    }
}
