//! What the tests share: the real binary as a server, peers on real sockets, and waiting for events
//! with a deadline. Nothing here knows what a test expects.

mod api;
#[rustfmt::skip]
#[allow(clippy::module_inception, reason = "generated: the parts of the message Envelope")]
pub mod envelope;
mod forbid;
mod frame;
mod hook;
mod http;
mod log;
mod peer;
mod place;
mod random;
pub mod server;
mod session;
mod stall;
mod wait;

pub use api::{Api, open_named, open_on_both_shards};
pub use forbid::forbid;
pub use frame::{Frame, OpCode, close_payload, continuation, fragment, frame, header};
pub use hook::{Call, Hook, authority};
pub use http::{ACCEPT_KEY, KEY, Response, get, upgrade_request};
pub use log::Log;
pub use peer::{Peer, fresh_client_works, subscribe};
pub use place::{Place, key_of, start_with};
pub use random::Random;
pub use server::{Launch, Server, kill, on_direct_descriptors, on_uring, run, run_with};
pub use session::{Pair, open_session};
pub use stall::StalledThread;
pub use wait::{PATIENCE, eventually, wait_until};
