//! The bodies of an envelope by their field numbers.

pub const SUBSCRIBE: u32 = 10;
pub const UNSUBSCRIBE: u32 = 11;
pub const PUBLISH: u32 = 12;
pub const PUBLICATION: u32 = 13;
pub const CONFIRMATION: u32 = 14;
pub const ERROR: u32 = 15;
pub const PING: u32 = 16;
pub const PONG: u32 = 17;
pub const AUTH: u32 = 18;
pub const QUERY: u32 = 19;
pub const RESPONSE: u32 = 20;
pub const ACK: u32 = 21;
pub const WELCOME: u32 = 22;
pub const RESTORE_SESSION: u32 = 23;
pub const SESSION_RESTORED: u32 = 24;
pub const EVENT: u32 = 26;
pub const CHAT: u32 = 27;
pub const COMMAND: u32 = 28;
pub const GAP: u32 = 29;
pub const END_SESSION: u32 = 30;
pub const PRESENCE: u32 = 31;

/// Fields from this one on are bodies.
pub const FIRST: u32 = 10;
