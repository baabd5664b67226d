//! Protobuf over gRPC with small buffers. tonic begins each direction of each call with 8 KiB, which
//! a session that says little for hours holds on to; with thousands of sessions on one server that
//! was a quarter of their memory (measured). Larger messages make their buffer grow as before.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// What a buffer begins with, bytes: most messages of an idle session fit.
const BUFFER: usize = 512;
/// Encoded messages that are joined before they are handed to HTTP/2, bytes; tonic's default.
const YIELD: usize = 32 * 1024;

/// The codec of every service.
#[derive(Clone, Debug)]
pub struct Frugal<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Frugal<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Frugal<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER, YIELD))
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut as _, Bytes, BytesMut};
    use http_body_util::Full;
    use tonic::{Code, Status, Streaming};

    use super::*;
    use crate::{limits, v1};

    /// A frame: the flag for compression, the length that is claimed, and what follows.
    fn frame(compressed: u8, claimed: usize, bytes: &[u8]) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_u8(compressed);
        frame.put_u32(u32::try_from(claimed).unwrap());
        frame.extend_from_slice(bytes);
        frame.freeze()
    }

    /// What both ends of a session make of it: the agent of an answer, the server of a request.
    async fn read(body: Bytes) -> [Result<bool, Status>; 2] {
        let answer = Frugal::<v1::AgentMessage, v1::ControlMessage>::default().decoder();
        let limit = Some(limits::MAX_CONTROL_MESSAGE);
        let status = http::StatusCode::OK;
        let mut agent =
            Streaming::new_response(answer, Full::new(body.clone()), status, None, limit);
        let request = Frugal::<v1::ControlMessage, v1::AgentMessage>::default().decoder();
        let limit = Some(limits::MAX_AGENT_MESSAGE);
        let mut server = Streaming::new_request(request, Full::new(body), None, limit);
        [
            agent.message().await.map(|it| it.is_some()),
            server.message().await.map(|it| it.is_some()),
        ]
    }

    async fn refused(body: Bytes, codes: &[Code]) {
        for side in read(body).await {
            let status = side.expect_err("refused");
            assert!(codes.contains(&status.code()), "{status:?}");
        }
    }

    #[tokio::test]
    async fn a_message_that_fits_is_read_on_both_ends() {
        // A heartbeat and its answer share their number of field and its content.
        let message = v1::AgentMessage {
            body: Some(v1::agent_message::Body::Heartbeat(v1::Heartbeat::default())),
        }
        .encode_to_vec();
        let sides = read(frame(0, message.len(), &message)).await;
        assert!(sides.into_iter().all(|side| side.expect("read")));
    }

    #[tokio::test]
    async fn a_claimed_length_over_the_limit_is_refused_before_anything_is_kept() {
        refused(frame(0, 0xFFFF_FFFF, &[]), &[Code::OutOfRange]).await;
        refused(frame(0, limits::MAX_AGENT_MESSAGE + 1, &[0; 64]), &[Code::OutOfRange]).await;
    }

    #[tokio::test]
    async fn compressed_messages_are_refused_so_there_is_nothing_to_blow_up() {
        // gzip of anything: it is never unpacked.
        let bomb = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        refused(frame(1, bomb.len(), &bomb), &[Code::Internal, Code::Unimplemented]).await;
    }

    #[tokio::test]
    async fn a_hundred_thousand_nested_groups_end_in_an_error_not_in_the_stack() {
        // Field 1000 as the beginning of a group, again and again: fields nobody knows are skipped,
        // and skipping a group means to go into it.
        let mut nested = Vec::new();
        for _ in 0..100_000 {
            prost::encoding::encode_key(1000, prost::encoding::WireType::StartGroup, &mut nested);
        }
        refused(frame(0, nested.len(), &nested), &[Code::Internal]).await;
    }
}
