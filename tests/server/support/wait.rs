//! Waiting for what must happen, with a deadline; never for what may.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks every few milliseconds until `happened`. `false`: it did not within `patience`.
pub fn eventually(patience: Duration, mut happened: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if happened() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `happened`, at most [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, happened: impl FnMut() -> bool) {
    assert!(eventually(PATIENCE, happened), "{what}: not within {PATIENCE:?}");
}
