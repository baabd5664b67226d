//! Messages as they come off the wire: decoded within the product's limits, and handed to a machine
//! that has a session.

use mendix_agent_proto::{limits, v1};
use prost::Message;

use super::{
    end,
    invariants::{Happening, World},
};
use crate::input::Input;

/// Frames of one session, each with a choice and its length before it.
pub fn frames(bytes: &[u8]) -> bool {
    let mut input = Input::new(bytes);
    let ending = input.byte();
    let mut world = World::new(input.byte().into());
    world.live(Happening::ToTheDeadline);
    world.live(Happening::Serve(0));
    world.live(Happening::Serve(0));
    let mut heard = false;
    while !input.is_empty() {
        let choice = input.byte();
        let frame = input.framed();
        again::<v1::AgentMessage>(frame, limits::MAX_AGENT_MESSAGE);
        again::<v1::ControlMessage>(frame, limits::MAX_CONTROL_MESSAGE);
        if let Ok(message) = v1::ControlMessage::decode(frame) {
            heard |= message.body.is_some();
            let at = usize::from(choice & 1);
            world.live(Happening::Down(at, Box::new(message.body)));
        }
        world.live(Happening::Wait(u32::from(choice >> 1) * 16));
        world.live(Happening::Serve(0));
    }
    end(world, ending);
    heard
}

/// What was read is written and read as the same, and needs no more room than it came in.
fn again<M: Message + Default>(frame: &[u8], limit: usize) {
    let Ok(message) = M::decode(frame) else { return };
    assert!(message.encoded_len() <= frame.len().max(limit));
    let written = message.encode_to_vec();
    let read = M::decode(written.as_slice()).expect("what was written is read");
    assert_eq!(read.encode_to_vec(), written);
}
