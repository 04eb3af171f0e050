//! Tests of the framing.

use eastway_proto::tunnel::v1::StreamOpen;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::io::Io;

/// Reads from bytes that arrive in pieces of `piece`, and also gives what is left after the message.
async fn read_pieces(bytes: &[u8], piece: usize) -> (Result<Bytes, FrameError>, Vec<u8>) {
    let (mut near, mut far) = Io::pair(piece);
    let writing = async {
        near.write_all(bytes).await.expect("written");
        near.shutdown().await.expect("ended");
    };
    let reading = async {
        let message = read(&mut far).await;
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("read");
        (message, rest)
    };
    tokio::join!(writing, reading).1
}

fn blocking<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

proptest! {
    #[test]
    fn messages_survive_any_fragmentation_and_leave_the_rest(
        authority in ".{0,40}", baggage in "[a-z]{0,2000}", rest in prop::collection::vec(any::<u8>(), 0..100), piece in 1_usize..300,
    ) {
        let message = StreamOpen { authority, baggage, ..StreamOpen::default() };
        let mut bytes = encode(&message).expect("small").to_vec();
        bytes.extend(&rest);
        let (read, left) = blocking(read_pieces(&bytes, piece));
        prop_assert_eq!(StreamOpen::decode(read.expect("read")).expect("decoded"), message);
        prop_assert_eq!(left, rest);
    }

    #[test]
    fn arbitrary_bytes_give_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (read, _) = blocking(read_pieces(&bytes, 64));
        if let Ok(message) = read {
            prop_assert_eq!(&bytes[..4], (message.len() as u32).to_be_bytes());
        }
    }
}

#[tokio::test]
async fn the_limit_is_exact() {
    let largest = [&(MAX_MESSAGE as u32).to_be_bytes()[..], &[7; MAX_MESSAGE]].concat();
    assert_eq!(read_pieces(&largest, 4096).await.0.expect("read").len(), MAX_MESSAGE);
    let announced = (MAX_MESSAGE as u32 + 1).to_be_bytes();
    assert!(matches!(read_pieces(&announced, 8).await.0, Err(FrameError::TooLarge(65_537))));
}

#[tokio::test]
async fn a_message_that_ends_early_is_an_error() {
    for bytes in [&b""[..], b"\0\0", b"\0\0\0\x05abcd"] {
        let Err(FrameError::Io(error)) = read_pieces(bytes, 8).await.0 else { panic!("{bytes:?} is no message") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn what_is_too_large_is_not_written() {
    let message = StreamOpen { baggage: "b".repeat(MAX_MESSAGE), ..StreamOpen::default() };
    assert_eq!(encode(&message), None);
}
