//! The parsers of this folder against models, oracles and random input.

mod frames;
mod handshakes;
mod messages;
