//! Stentor: a WebSocket messaging server with one event loop per core.
//!
//! The layers, lowest first; a file imports the layers below it and its own folder, never upwards
//! or sideways (`tests/layers.rs` holds this):
//!
//! ```text
//! 7  main → cli
//! 6  server      bench
//! 5  shard       admin       log
//! 4  broker      mesh
//! 3  message     client
//! 2  proto       io
//! 1  config      metrics
//! 0  ids         schema
//! ```

pub mod admin;
pub mod bench;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod ids;
pub mod io;
pub mod log;
pub mod mesh;
pub mod message;
pub mod metrics;
pub mod proto;
pub mod schema;
pub mod server;
pub mod shard;
