//! What was acknowledged is there after a power loss, on a disk that fails in between.
