//! One thread that stands still while its process goes on: what a debugger does. There is no other
//! way from outside to make one event loop of several stop turning.

use std::ffi::{c_int, c_long};
use std::io;
use std::marker::PhantomData;
use std::ptr;

// linux/ptrace.h
const PTRACE_DETACH: c_int = 17;
const PTRACE_SEIZE: c_int = 0x4206;
const PTRACE_INTERRUPT: c_int = 0x4207;

unsafe extern "C" {
    fn ptrace(request: c_int, ...) -> c_long;
}

/// A stopped thread; dropping this lets it go on.
pub struct StalledThread {
    id: i32,
    /// Only the thread that attached may detach.
    not_send: PhantomData<*const ()>,
}

impl StalledThread {
    /// Stops a thread of a child process.
    pub fn stop(id: i32) -> io::Result<Self> {
        request(PTRACE_SEIZE, id)?;
        let stalled = Self { id, not_send: PhantomData };
        request(PTRACE_INTERRUPT, id)?;
        Ok(stalled)
    }
}

impl Drop for StalledThread {
    fn drop(&mut self) {
        // Fails only if the process is gone.
        drop(request(PTRACE_DETACH, self.id));
    }
}

fn request(request: c_int, id: i32) -> io::Result<()> {
    let nothing = ptr::null_mut::<()>();
    // SAFETY: none of these requests reads or writes memory of this process.
    let result = unsafe { ptrace(request, id, nothing, nothing) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
