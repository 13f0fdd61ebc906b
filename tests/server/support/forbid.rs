//! A system call that the kernel denies to one program, as the profiles of containers do.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Denies system call `number` to what is started: it fails with EPERM.
pub fn forbid(command: &mut Command, number: libc::c_long) {
    let deny = move || {
        // Load the number of the system call; if it is that one: EPERM, else allow.
        let filter = [
            libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: number as u32 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::EPERM as u32 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7FFF_0000 },
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
        // SAFETY: plain system calls; the program lives until they return.
        let outcome = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(deny) };
}
