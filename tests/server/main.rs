//! The real binary over real sockets, on the backend that `STENTOR_TEST_BACKEND` names. One program, because
//! each more would be compiled and linked with all of the server.

mod acked;
mod addressing;
mod admin;
mod channels;
mod chat;
mod checker;
mod descriptors;
mod durable;
mod durable_log;
mod durable_replay;
mod durable_reuse;
mod durable_sessions;
mod filters;
mod heartbeat;
mod history;
mod hostile;
mod http;
mod lifecycle;
mod malformed;
mod presence;
mod protobuf;
mod protocol;
mod rfc6455;
mod rooms;
mod routes;
mod sessions;
mod slow_readers;
mod support;
mod tags;
mod terminal;
mod tokio_client;
mod typed;
#[cfg(feature = "uring")]
mod uring;
mod users;
mod validation;
