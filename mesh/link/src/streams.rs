//! The streams of a connection, in slots that are used again with their buffers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::stream::{Stream, StreamId};

#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    places: HashMap<u32, u32, BuildHasherDefault<Spread>>,
}

impl Streams {
    /// Streams that are open.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Opens a stream.
    pub(crate) fn insert(&mut self, id: StreamId) -> &mut Stream {
        let place = match self.free.pop() {
            Some(place) => place as usize,
            None => {
                self.slots.push(Stream::new());
                self.slots.len() - 1
            }
        };
        self.places.insert(id.number(), place as u32);
        let slot = &mut self.slots[place];
        slot.renew();
        slot
    }

    #[inline]
    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        let place = *self.places.get(&id.number())?;
        self.slots.get(place as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let place = *self.places.get(&id.number())?;
        self.slots.get_mut(place as usize)
    }

    /// Closes a stream.
    pub(crate) fn remove(&mut self, id: StreamId) {
        let Some(place) = self.places.remove(&id.number()) else { return };
        self.free.push(place);
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.clear();
        }
    }

    /// How many of them fit.
    pub(crate) fn count(&self, fits: impl Fn(&Stream) -> bool) -> usize {
        let slots = self.places.values().filter_map(|place| self.slots.get(*place as usize));
        slots.filter(|stream| fits(stream)).count()
    }

    /// The numbers of those that are open, ascending.
    pub(crate) fn ids(&self) -> Vec<StreamId> {
        let mut ids: Vec<StreamId> = self.places.keys().copied().map(StreamId::new).collect();
        ids.sort_unstable();
        ids
    }
}

/// Spreads numbers that follow one another. Nobody can choose numbers that collide: they ascend by one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_forget_what_was_there() {
        let mut streams = Streams::default();
        for id in 1..=1000 {
            let stream = streams.insert(StreamId::new(id));
            assert_eq!((stream.send.queued, stream.recv.data.len()), (0, 0));
            stream.send.queued = 7;
            stream.recv.data.extend(b"left over", 0);
            if id > 3 {
                streams.remove(StreamId::new(id - 3));
            }
        }
        assert_eq!((streams.len(), streams.slots.len()), (3, 4));
        assert_eq!(streams.ids().iter().map(|id| id.number()).collect::<Vec<_>>(), [998, 999, 1000]);
        assert!(streams.get(StreamId::new(997)).is_none() && streams.get(StreamId::new(998)).is_some());
    }
}
