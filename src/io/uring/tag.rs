//! What a completion belongs to, in the 64 bits that the kernel hands back.

use crate::ids::Token;

/// What a request was, in the upper bits of its user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of the accept in this place.
    Accept = 1,
    Receive,
    Send,
    /// Waits for room to send.
    Room,
    Close,
    Shutdown,
    /// The event that wakes the shard.
    Wake,
    /// Nobody waits for it.
    Other,
}

/// User data: 4 bits of the kind, 28 of the slot, 32 of the generation.
pub fn tag(kind: Kind, token: Token) -> u64 {
    debug_assert!(token.slot < 1 << 28, "a shard has fewer connections");
    (kind as u64) << 60 | u64::from(token.slot) << 32 | u64::from(token.generation)
}

pub fn untag(user_data: u64) -> (Kind, Token) {
    let kind = match user_data >> 60 {
        1 => Kind::Accept,
        2 => Kind::Receive,
        3 => Kind::Send,
        4 => Kind::Room,
        5 => Kind::Close,
        6 => Kind::Shutdown,
        7 => Kind::Wake,
        _ => Kind::Other,
    };
    let slot = (user_data >> 32) as u32 & ((1 << 28) - 1);
    (kind, Token { slot, generation: user_data as u32 })
}

/// A tag without a connection.
pub fn tag_place(kind: Kind, place: u16) -> u64 {
    tag(kind, Token { slot: u32::from(place), generation: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_read_back() {
        let kinds = [
            Kind::Accept,
            Kind::Receive,
            Kind::Send,
            Kind::Room,
            Kind::Close,
            Kind::Shutdown,
            Kind::Wake,
            Kind::Other,
        ];
        let token = Token { slot: (1 << 28) - 1, generation: u32::MAX };
        for kind in kinds {
            assert_eq!(untag(tag(kind, token)), (kind, token));
            let (place, generation) = (7, 0);
            assert_eq!(untag(tag_place(kind, 7)), (kind, Token { slot: place, generation }));
        }
    }
}
