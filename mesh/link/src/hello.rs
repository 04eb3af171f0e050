//! The first frame of each side: its version and its limits, stated once.
//!
//! Nothing is negotiated afterwards, so that there is no flood of settings and no moment at which the two sides count by
//! different ones. Before the peer's HELLO has arrived, the [`Base`] holds, which nobody may undercut: streams can be opened at
//! once after the TLS handshake.

use crate::error::{LinkError, Malformed};
use crate::frame::{HEADER_BYTES, Header, Kind};
use crate::varint::{self, Reader};

/// The version of this specification.
pub(crate) const VERSION: u16 = 1;

/// The greatest credit that there can be, in bytes.
pub(crate) const MAX_WINDOW: u32 = 0x7fff_ffff;

/// The greatest number of streams at a time that can be stated.
pub(crate) const MAX_STREAMS: u32 = 1 << 20;

/// What every implementation allows, and what holds until the peer has stated more.
pub(crate) struct Base;

impl Base {
    pub(crate) const MAX_STREAMS: u32 = 64;
    pub(crate) const STREAM_WINDOW: u32 = 64 * 1024;
    pub(crate) const CONNECTION_WINDOW: u32 = 256 * 1024;
    pub(crate) const MAX_HEAD_BYTES: u16 = 16 * 1024;
}

/// The limits that one side states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) max_streams: u32,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) max_head_bytes: u16,
}

impl Hello {
    /// What holds before the peer's HELLO, and for items that it leaves out.
    pub(crate) const BASE: Self = Self {
        max_streams: Base::MAX_STREAMS,
        stream_window: Base::STREAM_WINDOW,
        connection_window: Base::CONNECTION_WINDOW,
        max_head_bytes: Base::MAX_HEAD_BYTES,
    };

    /// Appends the frame.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut payload = VERSION.to_be_bytes().to_vec();
        for (item, value) in [
            (ITEM_STREAMS, self.max_streams),
            (ITEM_STREAM_WINDOW, self.stream_window),
            (ITEM_CONNECTION_WINDOW, self.connection_window),
            (ITEM_HEAD, u32::from(self.max_head_bytes)),
        ] {
            varint::put(&mut payload, item);
            varint::put(&mut payload, u64::from(value));
        }
        out.reserve(HEADER_BYTES + payload.len());
        out.extend_from_slice(&Header::new(Kind::Hello, 0, 0, payload.len() as u16).bytes());
        out.extend_from_slice(&payload);
    }

    /// Reads the payload. Items of later versions are skipped; those known are checked, and ascend.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, LinkError> {
        let mut reader = Reader::new(payload);
        let version = u16::from_be_bytes(reader.array().ok_or(Malformed::Items)?);
        if version != VERSION {
            return Err(LinkError::Version(version));
        }
        let mut hello = Self::BASE;
        let mut last = 0;
        while !reader.rest.is_empty() {
            let item = reader.number().filter(|item| *item > last).ok_or(Malformed::Items)?;
            let value = reader.number().ok_or(Malformed::Items)?;
            last = item;
            let within = |least: u32, most: u32| {
                let value = u32::try_from(value).ok();
                value.filter(|value| (least..=most).contains(value))
            };
            let known = match item {
                ITEM_STREAMS => within(Base::MAX_STREAMS, MAX_STREAMS).map(|value| hello.max_streams = value),
                ITEM_STREAM_WINDOW => within(Base::STREAM_WINDOW, MAX_WINDOW).map(|value| hello.stream_window = value),
                ITEM_CONNECTION_WINDOW => {
                    within(Base::CONNECTION_WINDOW, MAX_WINDOW).map(|value| hello.connection_window = value)
                }
                ITEM_HEAD => within(u32::from(Base::MAX_HEAD_BYTES), u32::from(u16::MAX))
                    .map(|value| hello.max_head_bytes = value as u16),
                _ => Some(()),
            };
            known.ok_or(LinkError::Limit { item, value })?;
        }
        Ok(hello)
    }
}

const ITEM_STREAMS: u64 = 1;
const ITEM_STREAM_WINDOW: u64 = 2;
const ITEM_CONNECTION_WINDOW: u64 = 3;
const ITEM_HEAD: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(items: &[u64]) -> Vec<u8> {
        let mut payload = vec![0, 1];
        items.iter().for_each(|number| varint::put(&mut payload, *number));
        payload
    }

    #[test]
    fn limits_read_back() {
        let hello = Hello { max_streams: 1000, stream_window: 1 << 20, ..Hello::BASE };
        let mut frame = Vec::new();
        hello.put(&mut frame);
        assert_eq!(Hello::read(&frame[HEADER_BYTES..]), Ok(hello));
    }

    #[test]
    fn what_is_left_out_is_the_base_and_what_is_unknown_is_skipped() {
        assert_eq!(Hello::read(&[0, 1]), Ok(Hello::BASE));
        let read = Hello::read(&payload(&[2, 70_000, 99, 5]));
        assert_eq!(read, Ok(Hello { stream_window: 70_000, ..Hello::BASE }));
    }

    #[test]
    fn limits_out_of_range_and_other_versions_are_refused() {
        assert_eq!(Hello::read(&[0, 2]), Err(LinkError::Version(2)));
        for (items, error) in [
            (&[1, 63][..], LinkError::Limit { item: 1, value: 63 }),
            (&[2, 65_535], LinkError::Limit { item: 2, value: 65_535 }),
            (&[3, 1 << 31], LinkError::Limit { item: 3, value: 1 << 31 }),
            (&[4, 65_536], LinkError::Limit { item: 4, value: 65_536 }),
            (&[1], Malformed::Items.into()),
            (&[2, 70_000, 2, 70_000], Malformed::Items.into()),
            (&[0, 1], Malformed::Items.into()),
        ] {
            assert_eq!(Hello::read(&payload(items)), Err(error), "{items:?}");
        }
    }
}
