//! What the benchmarks and the count of allocations share.

pub mod cases;
pub mod null;
