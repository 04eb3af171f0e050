//! The messages of the exchange on a stream: each after its length.

use std::io;

use eastway_transport::Io;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The largest message: a bundle of many certificates fits.
const MAX: usize = 64 << 10;

/// Sends one message.
pub(super) async fn write(io: &mut Io, message: &impl Message) -> io::Result<()> {
    let length = message.encoded_len();
    if length > MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a message of {length} bytes: {MAX} are allowed"),
        ));
    }
    let mut bytes = (length as u32).to_be_bytes().to_vec();
    message.encode(&mut bytes).map_err(io::Error::other)?;
    io.write_all(&bytes).await?;
    io.flush().await
}

/// The next message.
pub(super) async fn read<M: Message + Default>(io: &mut Io) -> io::Result<M> {
    let length = io.read_u32().await? as usize;
    if length > MAX {
        let what = format!("a message of {length} bytes: {MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await?;
    M::decode(&bytes[..]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use eastway_proto::federation::v1::Joined;

    use super::*;

    #[tokio::test]
    async fn a_message_is_read_as_it_was_written_and_one_without_end_is_not() {
        let (mut near, mut far) = Io::pair(1 << 10);
        let joined = Joined { gateways: vec!["10.1.0.1:15443".to_owned()] };
        write(&mut near, &joined).await.expect("sent");
        assert_eq!(read::<Joined>(&mut far).await.expect("read"), joined);
        near.write_all(&u32::MAX.to_be_bytes()).await.expect("sent");
        let error = read::<Joined>(&mut far).await.expect_err("too large").to_string();
        assert!(error.contains("65536 are allowed"), "{error}");
        let much = Joined { gateways: vec!["a".repeat(MAX)] };
        assert!(write(&mut near, &much).await.is_err());
    }
}
