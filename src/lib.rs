//! Stentor: a WebSocket messaging server with one event loop per core.
//!
//! # As a part of another program
//!
//! Messages of a type can go to a function; it answers them, refuses them, or has them acknowledged.
//!
//! ```
//! use std::net::TcpStream;
//! use std::thread;
//! use stentor::bridge::{Inbound, Refusal, Reply};
//! use stentor::config::Config;
//! use stentor::server::Server;
//!
//! async fn weather(question: Inbound) -> Result<Option<Reply>, Refusal> {
//!     if question.message.contains("Atlantis") {
//!         return Err(Refusal::new("unknown_place", "nobody knows where that is"));
//!     }
//!     Ok(Reply::new(&"sunny").ok())
//! }
//!
//! let mut config = Config::default();
//! config.server.listen.set_port(0);
//! let server = Server::builder().config(config).route("weather", weather).bind()?;
//! let (address, stopper) = (server.address(), server.stopper());
//! let running = thread::spawn(move || server.run());
//!
//! let stream = TcpStream::connect(address)?;
//! let (mut client, _) = tungstenite::client(format!("ws://{address}/"), stream)?;
//! client.send(r#"{"type":"weather","id":1,"place":"Paris"}"#.into())?;
//! let answer = client.read()?.into_text()?;
//! assert!(answer.contains(r#""requestId":1,"#) && answer.contains(r#""payload":"sunny""#));
//! client.send(r#"{"type":"weather","id":2,"place":"Atlantis"}"#.into())?;
//! assert!(client.read()?.into_text()?.contains(r#""code":"unknown_place""#));
//!
//! drop(client);
//! stopper.stop();
//! running.join().expect("it does not panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layers
//!
//! The layers, lowest first; a file imports the layers below it and its own folder, never upwards
//! or sideways (`tests/layers.rs` holds this):
//!
//! ```text
//! 7  main → cli
//! 6  server      bench
//! 5  shard       bridge      admin       log       checker
//! 4  broker      mesh
//! 3  message     client
//! 2  proto       io
//! 1  config      metrics
//! 0  ids         schema
//! ```

pub mod admin;
pub mod bench;
pub mod bridge;
pub mod broker;
pub mod checker;
pub mod cli;
pub mod client;
pub mod config;
pub mod filter;
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
