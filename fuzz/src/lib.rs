//! What the fuzz targets share: how an input says in which pieces it arrives, and how much time it
//! may take. Nothing here knows a protocol.

mod cpu_time;
mod plan;

pub use cpu_time::within_cpu_time;
pub use plan::{Plan, ends};
