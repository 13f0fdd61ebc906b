//! What every backend makes of an accept that failed.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// How long accepting pauses when there are no descriptors left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// accept(2): errors that are pending on the new socket should be treated like EAGAIN, by trying the
/// next one.
pub fn is_peers_loss(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(
            Errno::INTR
                | Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM
        )
    )
}
