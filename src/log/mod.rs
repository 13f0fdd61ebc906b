//! Durable history.
pub mod cleaning;
pub mod disk;
mod files;
mod index;
mod reading;
pub mod record;
pub mod recovery;
pub mod retention;
mod segment;
pub mod store;
pub mod survey;
mod topics;
#[cfg(test)]
mod sim_disk;
#[cfg(test)]
mod tests;
