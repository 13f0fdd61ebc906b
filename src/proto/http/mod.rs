//! The HTTP/1.1 side (RFC 9112): request heads in, responses out, and the upgrade to WebSocket
//! (RFC 6455, section 4.2).
//!
//! A connection begins here and either becomes a WebSocket or gets small, complete responses. A
//! request with a body is refused, so what follows a head is always the next request, or frames.

mod fields;
mod head;
mod request;
mod response;
mod target;
mod upgrade;

pub use head::{HeadLimits, check_start, find_head_end};
pub use request::{Plain, Request, parse_request};
pub use response::{Refusal, plain_response, refusal_response, upgrade_response};
pub use upgrade::{Subprotocol, Upgrade};
